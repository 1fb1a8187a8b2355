"""The result of a study: the best program, and everything that was found on the way.

Knows: how to read a study's state for people. Must not know: how the study proceeded, or how a
picture is drawn (`monitoring`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, final, overload

from dspex.errors import StudyError
from dspex.monitoring.importance import importances
from dspex.monitoring.plots import Plots
from dspex.monitoring.report import write_report
from dspex.monitoring.summary import StudySummary
from dspex.monitoring.tables import result_html, result_text, trials_dataframe
from dspex.results.opening import restore
from dspex.space import Space
from dspex.storage import read_records, study_info
from dspex.study.goal import Goal
from dspex.study.state import StudyState
from dspex.study.trial import Trial

if TYPE_CHECKING:
    import optuna
    import pandas as pd

__all__ = ["OptimizationResult", "TrialSequence", "load"]


@final
class TrialSequence(Sequence[Trial]):
    """The trials of a study by number, made when they are looked at.

    Parameters
    ----------
    state : StudyState
    """

    def __init__(self, state: StudyState) -> None:
        self._state = state

    def __len__(self) -> int:
        return len(self._state)

    @overload
    def __getitem__(self, index: int) -> Trial: ...
    @overload
    def __getitem__(self, index: slice) -> list[Trial]: ...
    def __getitem__(self, index: int | slice) -> Trial | list[Trial]:
        if isinstance(index, slice):
            return [self._state.trial(number) for number in range(len(self))[index]]
        return self._state.trial(range(len(self))[index])

    def __iter__(self) -> Iterator[Trial]:
        return map(self._state.trial, range(len(self)))

    def __repr__(self) -> str:
        return f"<{len(self)} trials, {self._state.n_ended} ended>"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """What is known of a session besides its trials.

    Attributes
    ----------
    stop_reason : str
    wall_time : float
        Seconds of the session.
    busy : float
        The share of the slots' time spent in evaluations, 0 to 1.
    """

    stop_reason: str
    wall_time: float
    busy: float


@final
class OptimizationResult:
    """What `dspex.optimize` gives back.

    Attributes
    ----------
    best_program : object
        The program with the best params, fitted on all the data where ``refit`` applies.
    best_params : dict
        The best trial's params, objects in place of labels.
    best_score : float
        The first objective of `best_trial`, with the user's sign.
    best_trial : Trial
    baseline_score : float or None
        The score of the program's own defaults, where it has them.
    pareto_front : list of Trial
        Feasible trials that no other one dominates; one or more with several objectives.
    trials : sequence of Trial
        By number.
    n_failed : int
        Failed and timed out trials.
    busy : float
        The share of the slots' time that was spent in evaluations, 0 to 1.
    wall_time : float
        Seconds of this session.
    stop_reason : str
        ``"trials"``, ``"timeout"``, ``"target_score"``, ``"interrupted"``, ``"max_failures"`` or
        ``"space_exhausted"``.
    study, storage : str or None
        Where the log is.

    Examples
    --------
    >>> import dspex
    >>> result = dspex.optimize(
    ...     lambda params: (params["x"] - 2) ** 2,
    ...     space={"x": dspex.Float(0, 4)},
    ...     direction="minimize",
    ...     trials=80,
    ...     seed=1,
    ...     distributed=False,
    ...     progress=False,
    ... )
    >>> result.best_score < 0.1
    True
    >>> len(result.trials)
    80
    """

    def __init__(
        self,
        state: StudyState,
        ending: Ending,
        *,
        best_program: Any,
        study: str | None = None,
        storage: str | None = None,
    ) -> None:
        best = state.best()
        if best is None:
            raise StudyError("a result needs a completed trial; the study has none yet")
        self._state = state
        self._best_program = best_program
        self.best_trial: Trial = best
        self.stop_reason = ending.stop_reason
        self.wall_time = ending.wall_time
        self.busy = ending.busy
        self.study = study
        self.storage = storage

    @property
    def best_program(self) -> Any:
        """The program with the best params."""
        if self._best_program is _NOT_LOADED:
            raise StudyError(
                "a log holds params and scores, not programs; call dspex.optimize with the same "
                "study and storage to get best_program without evaluating anything again"
            )
        return self._best_program

    @cached_property
    def best_params(self) -> dict[str, Any]:
        """The best trial's params, objects in place of labels."""
        return dict(self.space.resolve(self.best_trial.params))

    @property
    def best_score(self) -> float:
        """The first objective of the best trial, with the user's sign."""
        assert self.best_trial.score is not None
        return self.best_trial.score

    @property
    def baseline_score(self) -> float | None:
        """The score of the program's own defaults."""
        if not len(self._state):
            return None
        first = self._state.trial(0)
        return first.score if first.proposed_by == "default" else None

    @property
    def pareto_front(self) -> list[Trial]:
        """Feasible trials that no other one dominates."""
        return [self._state.trial(number) for number in self._state.front()]

    @property
    def trials(self) -> TrialSequence:
        """All trials, by number."""
        return TrialSequence(self._state)

    @property
    def n_failed(self) -> int:
        """How many trials failed or timed out."""
        return self._state.n_failed

    @property
    def space(self) -> Space:
        """What could vary."""
        return self._state.space

    @property
    def goal(self) -> Goal:
        """What the study wanted."""
        return self._state.goal

    def trials_dataframe(self) -> pd.DataFrame:
        """All trials as a pandas frame, one row per trial.

        Raises
        ------
        MissingDependencyError
            Where pandas is not installed.
        """
        return trials_dataframe(self.trials)

    def importances(self) -> dict[str, float]:
        """How much the score depends on each variable.

        The sum is 1; all are 0 where nothing can be said, as with fewer than ten completed trials.
        """
        return importances(self.trials, self.space, self.goal)

    @cached_property
    def plot(self) -> Plots:
        """Pictures: ``plot.history()``, ``plot.slice()``, ``plot.timeline()`` ..."""
        return Plots(self.trials, self.space, self.goal)

    def report(self, path: str) -> str:
        """Write one self-contained HTML file, which opens without a network; returns its path."""
        return str(write_report(path, self.trials, self.space, self.goal, self._summary()))

    def to_optuna(self) -> optuna.Study:
        """An Optuna study in memory with the same trials, for its tools.

        Raises
        ------
        MissingDependencyError
            Where optuna is not installed (``pip install 'dspex[optuna]'``).
        """
        from dspex.strategies.optuna_adapter import to_optuna

        return to_optuna(self.trials, self.space, self.goal)

    def _summary(self) -> StudySummary:
        head: Mapping[str, Any] = self._state.head
        strategy = head.get("strategy", {})
        return StudySummary(
            name=self.study,
            storage=self.storage,
            strategy=strategy.get("name", ""),
            reason=head.get("reason", ""),
            stop_reason=self.stop_reason,
            wall_time=self.wall_time,
            busy=self.busy,
            baseline_score=self.baseline_score,
            versions=head.get("versions", {}),
        )

    def __repr__(self) -> str:
        return result_text(self.trials, self.space, self.goal, self._summary())

    def _repr_html_(self) -> str:
        return result_html(self.trials, self.space, self.goal, self._summary())


_NOT_LOADED = object()


def load(storage: str, study: str) -> OptimizationResult:
    """Read a study's result from its log, without its program and without owning it.

    Parameters
    ----------
    storage : str
        A path or URL, as given to `optimize`.
    study : str

    Returns
    -------
    OptimizationResult
        Its ``best_program`` raises: a log holds no program. ``best_params`` holds labels.

    Raises
    ------
    StudyNotFoundError
    StorageCorruptError
    StudyError
        Where no trial was completed yet.

    Examples
    --------
    >>> import dspex, tempfile, pathlib
    >>> store = str(pathlib.Path(tempfile.mkdtemp()) / "store.db")
    >>> options = dict(space={"x": [1, 2]}, direction="maximize", distributed=False, progress=False)
    >>> _ = dspex.optimize(lambda p: p["x"], storage=store, study="tiny", trials=2, **options)
    >>> dspex.load(store, "tiny").best_params
    {'x': 2}
    """
    state = restore(study_info(storage, study).head, read_records(storage, study))
    ending = Ending(
        stop_reason=state.stop_reason or "running, or ended without a word",
        wall_time=state.span,
        busy=float("nan"),
    )
    return OptimizationResult(state, ending, best_program=_NOT_LOADED, study=study, storage=storage)
