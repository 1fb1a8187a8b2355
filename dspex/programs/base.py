"""What every program is: something with tunable parts that can be evaluated.

Knows: the protocol and the running trial that a program may talk to.
Must not know: strategies, studies as a whole, where it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol, final, runtime_checkable

import numpy as np

from dspex.space import Space
from dspex.study.measurement import Measurement, as_measurement
from dspex.study.seeds import derive_seed

__all__ = ["FoldedProgram", "Program", "RunningTrial"]


@final
class RunningTrial:
    """The trial as a running program sees it.

    Attributes
    ----------
    number : int
        The trial's number in the study.
    fold : int
        Which part of the trial this evaluation is; 0 where a program has no folds.
    params : mapping
        What the program was called with.
    seed : int
        A 32-bit seed of this evaluation's own, the same wherever and however often it runs.

    Examples
    --------
    >>> trial = RunningTrial(number=3, fold=0, params={"x": 1}, root_seed=7)
    >>> bool(trial.rng.integers(100) == RunningTrial(3, 0, {"x": 1}, 7).rng.integers(100))
    True
    >>> trial.report(0.5)
    >>> trial.reported[0].score
    0.5
    """

    __slots__ = ("_rng", "_should_stop", "fold", "number", "params", "reported", "seed")

    def __init__(
        self,
        number: int,
        fold: int,
        params: Mapping[str, Any],
        root_seed: int,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.number = number
        self.fold = fold
        self.params = params
        self.seed = derive_seed(root_seed, "evaluate", number, fold) & 0xFFFF_FFFF
        self.reported: list[Measurement] = []
        self._should_stop = should_stop
        self._rng: np.random.Generator | None = None

    @property
    def rng(self) -> np.random.Generator:
        """A numpy generator seeded by `seed`."""
        if self._rng is None:
            self._rng = np.random.default_rng(self.seed)
        return self._rng

    def report(self, measurement: Measurement | float | Mapping[str, float]) -> None:
        """Keep a measurement made along the way; it ends up in ``Trial.measurements``."""
        self.reported.append(as_measurement(measurement))

    def should_stop(self) -> bool:
        """Whether nobody waits for this evaluation any more, so that it may return early."""
        return self._should_stop()


@runtime_checkable
class Program(Protocol):
    """Anything with tunable parts.

    A program is pickled once, sent to every worker, told its data by `prepare`, and then asked
    for many evaluations in the same process.
    """

    def space(self) -> Space | None:
        """What may vary; None where the user has to say it."""

    def prepare(self, data: Any) -> None:
        """Take the data, which may lie in read-only shared memory.

        Called in each process before its first `evaluate`, and in the user's before `finish`.
        """

    def evaluate(
        self, params: Mapping[str, Any], trial: RunningTrial
    ) -> Measurement | Iterator[Measurement]:
        """Measure one (fold of one) trial. What it raises is the trial's failure."""

    def finish(self, params: Mapping[str, Any]) -> Any:
        """Build what the user gets as ``best_program``."""


@runtime_checkable
class FoldedProgram(Program, Protocol):
    """A program one trial of which is several independent evaluations, as in cross-validation."""

    def folds(self) -> int:
        """How many evaluations make one trial, at least 1."""
