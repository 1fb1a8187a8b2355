"""One trial as people see it, and the states that it may be in.

Knows: the field's names and meanings. Must not know: how trials are stored (`study.table`).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

from dspex.study.measurement import Measurement

__all__ = ["ErrorInfo", "Trial", "TrialState"]


@final
class TrialState(enum.IntEnum):
    """Where a trial stands. Four states are final: COMPLETED, PRUNED, FAILED, TIMED_OUT."""

    WAITING = 0
    RUNNING = 1
    PAUSED = 2
    COMPLETED = 3
    PRUNED = 4
    FAILED = 5
    TIMED_OUT = 6

    @property
    def is_final(self) -> bool:
        """Whether no event can change this state any more (G1)."""
        return self >= TrialState.COMPLETED


@final
@dataclass(frozen=True, slots=True)
class ErrorInfo:
    """Why a trial failed, as text, so that a log is read without unpickling anything.

    Attributes
    ----------
    kind : str
        The name of the exception's class, or a word of dspex (``"child died"``).
    message : str
    traceback : str
        The program's own traceback; empty where there is none.
    """

    kind: str
    message: str
    traceback: str = ""

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}" if self.message else self.kind


@final
@dataclass(frozen=True, slots=True)
class Trial:
    """A snapshot of one trial.

    Attributes
    ----------
    number : int
        From 0, in the order of suggestion.
    params : mapping
        Labels and plain numbers of the active variables.
    state : TrialState
    score : float or None
        The (first) objective, with the user's sign; None unless completed.
    scores : mapping of str to float
        Everything measured, by name, the mean over folds.
    fold_scores : tuple of float
        The (first) objective of each fold, NaN where it was not measured; empty without folds.
    measurements : tuple of Measurement
        All that was measured along the way, in order of fold and step.
    started, finished : float or None
        Unix time in seconds of the first evaluation's start and of the trial's end.
    seconds : float
        The sum of its evaluations' durations.
    worker : str or None
        Where the last of its evaluations ran.
    attempts : int
        How often an evaluation of it was started again, plus one; 0 before the first outcome.
    error : ErrorInfo or None
    proposed_by : str
        ``"default"``, ``"initial"`` or the strategy's name.
    violation : float
        The summed violation of the study's constraints; 0 where all are met.
    """

    number: int
    params: Mapping[str, Any]
    state: TrialState
    score: float | None
    scores: Mapping[str, float]
    fold_scores: tuple[float, ...]
    measurements: tuple[Measurement, ...]
    started: float | None
    finished: float | None
    seconds: float
    worker: str | None
    attempts: int
    error: ErrorInfo | None
    proposed_by: str
    violation: float = 0.0
