"""The state of a study: the fold of its records.

Knows: what each record changes, and which trial is best. Must not know: why a record was written
(`engine` decides that), where records are kept, who reads the state.
Applying the same records in the same order gives the same state, to the last bit: folds are
averaged in the order of folds, not of arrival.

Notation: n trials, d columns of the space, o objectives, f folds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from dspex.space import Space
from dspex.study.goal import Goal
from dspex.study.measurement import Measurement
from dspex.study.records import Asked, Failed, Measured, Opened, Record, Stopped
from dspex.study.table import ActiveTrials, Columns, CompletedTrials
from dspex.study.trial import ErrorInfo, Trial, TrialState

__all__ = ["StudyState"]

NAN = math.nan

REPLAYED_AT_ONCE = 10_000
"""How many trials' params are kept until they become rows together."""

# Looking a member up in an enum costs as much as all the rest of a line.
_RUNNING = int(TrialState.RUNNING)
_COMPLETED = int(TrialState.COMPLETED)


@final
class StudyState:
    """All that is known of a study.

    Parameters
    ----------
    space : Space
    goal : Goal
    folds : int
        How many evaluations make a trial.
    reproducible : bool
        Whether strategies are told of trials in the order of their numbers (G2) or of their ends.

    Attributes
    ----------
    n_ended, n_failed : int
        Trials in a final state; failed and timed out ones among them.
    seconds : float
        The summed duration of all recorded evaluations.
    stop_reason : str or None
        Why the last session ended; None while one runs, or after a crash.

    Examples
    --------
    >>> from dspex.space import Float
    >>> state = StudyState(Space({"x": Float(0, 1)}), Goal.of("minimize"))
    >>> state.apply(Asked(first=0, told=0, by=["random"], params=[{"x": 0.25}]))
    >>> state.apply(
    ...     Measured(
    ...         trial=0,
    ...         fold=0,
    ...         attempt=0,
    ...         steps=(Measurement(0.5),),
    ...         worker="w",
    ...         started=0.0,
    ...         seconds=1.0,
    ...     )
    ... )
    >>> state.best().score
    0.5
    """

    def __init__(
        self, space: Space, goal: Goal, *, folds: int = 1, reproducible: bool = False
    ) -> None:
        self.space = space
        self.goal = goal
        self.folds = folds
        self.reproducible = reproducible
        self.n_ended = 0
        self.n_failed = 0
        self.seconds = 0.0
        self.head: Mapping[str, Any] = {}
        self.stop_reason: str | None = None
        self._signs = np.array([objective.sign for objective in goal.objectives])
        self._names = tuple(objective.name for objective in goal.objectives)
        width = len(self._names)
        self._columns = Columns(
            row=("f8", NAN, (len(space),)),
            state=("i1", int(TrialState.WAITING), ()),
            loss=("f8", NAN, (width,)),
            violation=("f8", 0.0, ()),
            started=("f8", NAN, ()),
            finished=("f8", NAN, ()),
            seconds=("f8", 0.0, ()),
            attempts=("i4", 0, ()),
            worker=("i4", -1, ()),
            by=("i4", 0, ()),
            **({"folds": ("f8", NAN, (folds, width))} if folds > 1 else {}),
        )
        # Ended trials in the order of the log; its first n_ended entries are valid.
        self._order = np.empty(16, dtype=np.int64)
        self._words: list[str] = []  # workers and proposers, interned
        self._index: dict[str, int] = {}
        # {trial: {fold: steps}}, only where steps say more than the objectives do
        self._steps: dict[int, dict[int, tuple[Measurement, ...]]] = {}
        self._errors: dict[int, ErrorInfo] = {}
        self._best: tuple[float, float, int] | None = None
        self._apply: dict[type, Callable[[Any], None]] = {
            Opened: self._opened,
            Asked: self._asked,
            Measured: self._measured,
            Failed: self._failed,
            Stopped: self._stopped,
        }

    def __len__(self) -> int:
        """How many trials were suggested."""
        return len(self._columns)

    def __repr__(self) -> str:
        return f"<StudyState {self.n_ended}/{len(self)} trials ended, {self.n_failed} failed>"

    # --- the fold --------------------------------------------------------------------------

    def apply(self, record: Record) -> None:
        """Take one record into account."""
        self._apply[type(record)](record)

    def replay(self, records: Iterable[Record]) -> None:
        """Take many records into account, in order."""
        # Nothing in a replay looks at rows, and many params become rows at the price of few.
        params: list[Mapping[str, Any]] = []
        first = len(self._columns)
        for record in records:
            if isinstance(record, Asked):
                self._grow(record.by)
                params.extend(record.params)
                if len(params) >= REPLAYED_AT_ONCE:
                    self._columns["row"][first:] = self.space.rows(params)
                    first += len(params)
                    params.clear()
            else:
                self._apply[type(record)](record)
        if params:
            self._columns["row"][first:] = self.space.rows(params)

    def extend(self, rows: NDArray[np.float64], by: Sequence[str]) -> None:
        """Add trials whose rows are at hand; `apply` of an `Asked` does the same from params."""
        first = len(self._columns)
        self._grow(by)
        self._columns["row"][first:] = rows

    def _grow(self, by: Sequence[str]) -> None:
        first = len(self._columns)
        self._columns.extend(len(by))
        for number, each in enumerate(by, first):
            self._columns.whole("by")[number] = self._intern(each)

    def _opened(self, record: Opened) -> None:
        self.head = record.head
        self.stop_reason = None

    def _stopped(self, record: Stopped) -> None:
        self.stop_reason = record.reason

    def _asked(self, record: Asked) -> None:
        self.extend(self.space.rows(record.params), record.by)

    def _measured(self, record: Measured) -> None:
        number, columns = record.trial, self._columns
        if self.is_final(number) or self.is_measured(number, record.fold):
            return
        outcome = record.steps[-1]
        scores = [outcome.scores.get(name, NAN) for name in self._names]
        if len(record.steps) > 1 or len(outcome.scores) > len(scores) or _says_more(outcome):
            self._steps.setdefault(number, {})[record.fold] = record.steps
        self._spend(record)
        if self.folds > 1:
            columns["folds"][number, record.fold] = scores
            values = columns["folds"][number]
            if np.isnan(values).any():
                columns["state"][number] = _RUNNING
                return
            columns["loss"][number] = self._signs * values.mean(axis=0)
        else:
            columns["loss"][number] = self._signs * scores
        if self.goal.constraints:
            columns["violation"][number] = self.goal.violation(self._means(number))
        self._end(number, _COMPLETED)
        key = (columns["violation"][number], columns["loss"][number, 0], number)
        if self._best is None or key < self._best:
            self._best = key

    def _failed(self, record: Failed) -> None:
        if self.is_final(record.trial):
            return
        self._spend(record)
        self._errors[record.trial] = record.error
        self._end(record.trial, record.state)
        self.n_failed += 1

    def _spend(self, record: Measured | Failed) -> None:
        number, whole = record.trial, self._columns.whole
        self.seconds += record.seconds
        whole("seconds")[number] += record.seconds
        # Written so that a NaN, which is less and more than nothing, is replaced.
        if not whole("started")[number] <= record.started:
            whole("started")[number] = record.started
        ended = record.started + record.seconds
        if not whole("finished")[number] >= ended:
            whole("finished")[number] = ended
        if whole("attempts")[number] <= record.attempt:
            whole("attempts")[number] = record.attempt + 1
        whole("worker")[number] = self._intern(record.worker)

    def _end(self, number: int, state: int) -> None:
        self._columns["state"][number] = state
        if self.n_ended == len(self._order):
            # A new array: views handed to strategies keep the old one.
            self._order = np.resize(self._order, 2 * len(self._order))
        self._order[self.n_ended] = number
        self.n_ended += 1

    def _intern(self, word: str) -> int:
        index = self._index.get(word)
        if index is None:
            index = self._index[word] = len(self._words)
            self._words.append(word)
        return index

    # --- for the engine --------------------------------------------------------------------

    def is_final(self, number: int) -> bool:
        """Whether a trial has its one outcome."""
        return bool(self._columns.whole("state")[number] >= _COMPLETED)

    def is_completed(self, number: int) -> bool:
        """Whether a trial has its score."""
        return bool(self._columns.whole("state")[number] == _COMPLETED)

    def unfinished(self) -> NDArray[np.int64]:
        """The numbers of trials without an outcome."""
        return np.flatnonzero(self._columns["state"] < _COMPLETED)

    def is_measured(self, number: int, fold: int) -> bool:
        """Whether a fold of a trial was measured."""
        if self.folds > 1:
            return not math.isnan(self._columns["folds"][number, fold, 0])
        return self.is_completed(number)

    def state_of(self, number: int) -> TrialState:
        """The state of one trial."""
        return TrialState(int(self._columns["state"][number]))

    def loss_of(self, number: int) -> float:
        """The first objective's loss of one trial, NaN where it has none."""
        return float(self._columns["loss"][number, 0])

    def violation_of(self, number: int) -> float:
        """The summed violation of the constraints of one trial."""
        return float(self._columns["violation"][number])

    def seconds_of(self, number: int) -> float:
        """What its evaluations took so far."""
        return float(self._columns["seconds"][number])

    def error_of(self, number: int) -> ErrorInfo | None:
        """Why a trial failed."""
        return self._errors.get(number)

    def row_of(self, number: int) -> NDArray[np.float64]:
        """The row of one trial, shape (d,)."""
        row: NDArray[np.float64] = self._columns["row"][number]
        return row

    @property
    def order(self) -> NDArray[np.int64]:
        """Ended trials in the order of the log."""
        return self._order[: self.n_ended]

    def completed(self, told: int) -> CompletedTrials:
        """The first ``told`` trials in the order in which a strategy is told of them."""
        columns = self._columns
        order = np.arange(told) if self.reproducible else self._order[:told]
        return CompletedTrials(order, columns["row"], columns["loss"], columns["violation"])

    def active(self, numbers: NDArray[np.int64]) -> ActiveTrials:
        """These trials, as a strategy sees those it was not told of."""
        return ActiveTrials(numbers, self._columns["row"])

    # --- for people ------------------------------------------------------------------------

    def trial(self, number: int) -> Trial:
        """A snapshot of one trial."""
        columns = self._columns
        state = self.state_of(number)
        completed = state == _COMPLETED
        folds = self.fold_scores(number)
        worker = int(columns["worker"][number])
        return Trial(
            number=number,
            params=self.space.params(columns["row"][number]),
            state=state,
            score=float(self._signs[0] * columns["loss"][number, 0]) if completed else None,
            scores=self._means(number) if completed else {},
            fold_scores=tuple(float(each) for each in folds[:, 0]) if self.folds > 1 else (),
            measurements=self._measurements(number),
            started=_or_none(columns["started"][number]),
            finished=_or_none(columns["finished"][number]) if state.is_final else None,
            seconds=float(columns["seconds"][number]),
            worker=self._words[worker] if worker >= 0 else None,
            attempts=int(columns["attempts"][number]),
            error=self._errors.get(number),
            proposed_by=self._words[int(columns["by"][number])],
            violation=float(columns["violation"][number]),
        )

    def fold_scores(self, number: int) -> NDArray[np.float64]:
        """Objectives of each fold with the user's sign, shape (f, o); NaN where not measured."""
        columns = self._columns
        if self.folds > 1:
            values: NDArray[np.float64] = columns["folds"][number]
            return values
        return np.asarray(self._signs * columns["loss"][number])[np.newaxis]

    def best(self) -> Trial | None:
        """The completed trial that violates least, then has the least (first) loss."""
        return None if self._best is None else self.trial(self._best[2])

    def front(self) -> list[int]:
        """The numbers of the Pareto front: feasible trials that no other one dominates."""
        columns = self._columns
        losses = columns["loss"]
        numbers = np.flatnonzero(np.isfinite(losses).all(axis=1) & (columns["violation"] == 0))
        front: list[int] = []
        # In lexicographic order nobody later dominates somebody earlier.
        for number in numbers[np.lexsort(losses[numbers].T[::-1])]:
            if not any(
                (losses[other] <= losses[number]).all() and (losses[other] < losses[number]).any()
                for other in front
            ):
                front.append(int(number))
        return sorted(front)

    @property
    def span(self) -> float:
        """Seconds from the first evaluation's start to the last one's end."""
        started, finished = self._columns["started"], self._columns["finished"]
        known = ~np.isnan(finished)
        return float(finished[known].max() - started[known].min()) if known.any() else 0.0

    @property
    def nbytes(self) -> int:
        """The memory of the columns, in bytes."""
        return self._columns.nbytes + self._order.nbytes

    def _measurements(self, number: int) -> tuple[Measurement, ...]:
        kept = self._steps.get(number, {})
        found: list[Measurement] = []
        for fold, scores in enumerate(self.fold_scores(number)):
            if fold in kept:
                found.extend(kept[fold])
            elif not math.isnan(scores[0]):
                found.append(
                    Measurement(scores=dict(zip(self._names, map(float, scores), strict=True)))
                )
        return tuple(found)

    def _means(self, number: int) -> dict[str, float]:
        """Every measured name, the mean over folds in the order of folds."""
        signed = self._signs * self._columns["loss"][number]
        means = {name: float(value) for name, value in zip(self._names, signed, strict=True)}
        kept = self._steps.get(number)
        if kept:
            last = [kept[fold][-1] for fold in sorted(kept)]
            for name in {name: None for each in last for name in _measured_names(each)}:
                if name not in means:
                    found = [_measured_names(each).get(name) for each in last]
                    means[name] = float(np.mean([each for each in found if each is not None]))
        return means


def _says_more(outcome: Measurement) -> bool:
    return bool(outcome.cost is not None or outcome.feedback is not None or outcome.constraints)


def _measured_names(outcome: Measurement) -> Mapping[str, float]:
    return {**outcome.constraints, **outcome.scores} if outcome.constraints else outcome.scores


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
