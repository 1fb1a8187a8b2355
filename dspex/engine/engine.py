"""How a study proceeds: a state machine, events in, commands out.

Knows: when to ask, what to evaluate again, when to stop. Must not know: clocks, threads, Dask,
files, the strategy's mind. Everything that decides is a pure fold of the log plus the trials in
flight; nothing here depends on a measured duration, except how many trials are in flight in
arrival order, which is nobody's promise.

Reproducible order (G2), with k trials in flight and blocks of b: block j is asked for once all
trials of blocks up to j - k/b have ended, with exactly these told in order of number, and all
later ones pending, even those that ended already. Targets and failures are judged in order of
number too. So the history does not depend on who was faster.

Arrival order: whoever ends first is told first; the log keeps how many were told, so that each
suggestion can be derived again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from dspex.engine.judge import FIRST_FAILURES, Judge
from dspex.engine.messages import (
    Abort,
    Append,
    Cancel,
    Command,
    Ended,
    Evaluate,
    Event,
    Finish,
    StopRequested,
    Suggest,
    Suggested,
)
from dspex.engine.ports import CapacityChanged, Evaluation, Lost
from dspex.engine.settings import Settings
from dspex.errors import AllTrialsFailedError, WorkerLostError
from dspex.study.records import Asked, Failed, Measured
from dspex.study.state import StudyState
from dspex.study.trial import ErrorInfo, TrialState

__all__ = ["Engine"]

CHUNK_SECONDS = 0.05
"""How long a chunk of short evaluations should last; k grows so that slots have enough of them."""

MOST_PER_SLOT = 64
"""A bound on trials in flight per slot in arrival order, however short they are."""


@final
@dataclass(slots=True)
class _Flight:
    """A trial in flight: what is still to be measured."""

    params: dict[str, Any]
    attempts: dict[int, int]  # {fold: attempt under way}
    seconds: float = 0.0


@final
@dataclass(slots=True)
class _Request:
    """A `Suggest` that was not answered yet."""

    first: int  # the number of the first row that the strategy gives
    n: int
    told: int
    keep: range  # the numbers that become trials: a resumed block has part of them already


@final
class Engine:
    """The state machine of one session.

    Parameters
    ----------
    state : StudyState
        With the records of earlier sessions replayed.
    settings : Settings
    initial : array of float, shape (m, d)
        Rows tried first.
    initial_by : sequence of str
        Who proposed each of them.
    by : str
        The strategy's name.

    Examples
    --------
    See `dspex.execution.driver`, which performs its commands.
    """

    def __init__(
        self,
        state: StudyState,
        settings: Settings,
        *,
        initial: NDArray[np.float64],
        initial_by: Sequence[str],
        by: str,
    ) -> None:
        self.state = state
        self.settings = settings
        self._initial = initial
        self._initial_by = list(initial_by)
        self._by = by
        self._flights: dict[int, _Flight] = {}
        self._request: _Request | None = None
        self._told = 0  # how many ended trials the strategy has been told of
        self._frontier = 0  # trials below it have all ended
        self._limit = settings.trials
        self._reason = "trials"  # why the limit is where it is
        self._stopping = False
        self._finished = False
        self._slots = 1
        self._mean_seconds: float | None = None
        self._judge = Judge(state, settings)
        self._handlers: dict[type, Callable[[Any], list[Command]]] = {
            Suggested: self._suggested,
            Measured: self._measured,
            Failed: self._failed,
            Lost: self._lost,
            CapacityChanged: self._capacity_changed,
            StopRequested: self._stop_requested,
        }

    # --- what others may ask ---------------------------------------------------------------

    @property
    def in_flight(self) -> int:
        """Trials suggested and not ended."""
        return len(self._flights)

    @property
    def limit(self) -> int | None:
        """How many trials the study will have, as far as is known now."""
        return self._limit

    @property
    def is_suggesting(self) -> bool:
        """Whether a `Suggest` is under way."""
        return self._request is not None

    @property
    def waiting_for(self) -> str:
        """Why nothing more is suggested, in words; empty while nothing hinders."""
        if self._request is not None:
            return "the strategy"
        if self.settings.block is not None and self._flights and self._may_ask():
            return f"trial {self._frontier} (parallel_evaluations={self.settings.k})"
        return ""

    # --- events ----------------------------------------------------------------------------

    def start(self, capacity: CapacityChanged) -> list[Command]:
        """Begin or go on: evaluate what earlier sessions left, then suggest; comes first."""
        self._slots = max(1, capacity.slots)
        commands: list[Command] = []
        for number in map(int, self.state.unfinished()):
            self._flights[number] = self._flight(number)
        self._frontier = min(self._flights, default=len(self.state))
        commands += self._judge_ended(resumed=True)
        if self._finished:
            return commands
        waiting = [
            evaluation
            for number, flight in self._flights.items()
            for evaluation in self._evaluations(number, flight)
        ]
        if waiting:
            commands.append(Evaluate(waiting))
        return commands + self._proceed()

    def handle(self, event: Event) -> list[Command]:
        """Take one event, and say what is to be done."""
        if self._finished:
            return []
        return self._handlers[type(event)](event)

    def _suggested(self, event: Suggested) -> list[Command]:
        request = self._request
        assert request is not None
        self._request = None
        if self._stopping:
            return self._proceed()
        if len(event.rows) < request.n:
            self._limit = min(request.first + len(event.rows), self._limit or request.keep.stop)
            self._reason = "space_exhausted"
        start = request.keep.start - request.first
        rows = event.rows[start : request.keep.stop - request.first]
        return self._admit(rows, [self._by] * len(rows), request.told) + self._proceed()

    def _measured(self, event: Measured) -> list[Command]:
        flight = self._flights.get(event.trial)
        if flight is None or event.fold not in flight.attempts:
            return []  # cancelled, or a second copy of an outcome that we have
        outcome = event.steps[-1]
        missing = self.state.goal.missing({**outcome.constraints, **outcome.scores})
        if missing:
            message = (
                f"the study needs {', '.join(map(repr, missing))}; the program gave "
                f"{sorted(outcome.scores)}; return these names, or name others in direction= and "
                "constraints="
            )
            return self._fail(event, TrialState.FAILED, ErrorInfo("MissingScore", message))
        limit = self.settings.trial_timeout
        flight.seconds += event.seconds
        if limit is not None and flight.seconds > limit:
            message = f"evaluations took {flight.seconds:.3g} s in sum; trial_timeout={limit:g}"
            return self._fail(event, TrialState.TIMED_OUT, ErrorInfo("Timeout", message))
        del flight.attempts[event.fold]
        self.state.apply(event)
        commands: list[Command] = [Append(event)]
        if flight.attempts:
            return commands
        return commands + self._end(event.trial)

    def _failed(self, event: Failed) -> list[Command]:
        flight = self._flights.get(event.trial)
        if flight is None or event.fold not in flight.attempts:
            return []
        if event.may_retry and event.attempt < self.settings.retries:
            flight.seconds += event.seconds
            return self._again(event.trial, event.fold, flight)
        return self._fail(event, event.state, event.error)

    def _lost(self, event: Lost) -> list[Command]:
        flight = self._flights.get(event.trial)
        if flight is None or event.fold not in flight.attempts:
            return []
        settings = self.settings
        if settings.survive_losses or flight.attempts[event.fold] < settings.retries:
            return self._again(event.trial, event.fold, flight)
        losses = flight.attempts[event.fold] + 1
        message = (
            f"trial {event.trial} was lost with {losses} workers, and retries={settings.retries}; "
            f"the last was {event.worker} ({event.reason})"
        )
        if settings.blame_losses:
            return self._fail(event, TrialState.FAILED, ErrorInfo("WorkerLost", message))
        remedy = 'resume the study, or use isolation="process", where workers outlive programs'
        return self._abort(WorkerLostError(f"{message}; {remedy}", trial=event.trial))

    def _capacity_changed(self, event: CapacityChanged) -> list[Command]:
        self._slots = max(1, event.slots)
        return self._proceed()

    def _stop_requested(self, event: StopRequested) -> list[Command]:
        self._reason = event.reason
        self._stopping = True
        self._request = None
        cancel: list[Command] = [Cancel(list(self._flights))] if self._flights else []
        return cancel + self._finish()

    # --- trials in flight ------------------------------------------------------------------

    def _admit(self, rows: NDArray[np.float64], by: Sequence[str], told: int) -> list[Command]:
        """New trials: into the state, the log, and out to the executor."""
        if not len(rows):
            return []
        first = len(self.state)
        params = [self.state.space.params(row) for row in rows]
        self.state.extend(rows, by)
        evaluations = []
        for number, each in enumerate(params, first):
            flight = _Flight(each, dict.fromkeys(range(self.state.folds), 0))
            self._flights[number] = flight
            evaluations += self._evaluations(number, flight)
        record = Asked(first=first, told=told, by=by, params=params)
        return [Append(record), Evaluate(evaluations)]

    def _flight(self, number: int) -> _Flight:
        """A trial that an earlier session left unfinished."""
        state = self.state
        left = [fold for fold in range(state.folds) if not state.is_measured(number, fold)]
        params = state.space.params(state.row_of(number))
        return _Flight(params, dict.fromkeys(left, 0), state.seconds_of(number))

    def _evaluations(self, number: int, flight: _Flight) -> list[Evaluation]:
        left = self._seconds_left(flight)
        return [
            Evaluation(number, fold, attempt, flight.params, left)
            for fold, attempt in flight.attempts.items()
        ]

    def _seconds_left(self, flight: _Flight) -> float | None:
        limit = self.settings.trial_timeout
        return None if limit is None else max(0.0, limit - flight.seconds)

    def _again(self, number: int, fold: int, flight: _Flight) -> list[Command]:
        flight.attempts[fold] += 1
        again = Evaluation(
            number, fold, flight.attempts[fold], flight.params, self._seconds_left(flight)
        )
        return [Evaluate([again])]

    def _fail(
        self, event: Measured | Failed | Lost, state: TrialState, error: ErrorInfo
    ) -> list[Command]:
        """One failed evaluation ends its trial; the other folds are not waited for."""
        record = Failed(
            trial=event.trial,
            fold=event.fold,
            attempt=event.attempt,
            state=state,
            error=error,
            worker=event.worker,
            started=self._start_of(event),
            seconds=0.0 if isinstance(event, Lost) else event.seconds,
        )
        others = len(self._flights[event.trial].attempts) > 1
        self.state.apply(record)
        cancel: list[Command] = [Cancel([event.trial])] if others else []
        return [Append(record), *cancel, *self._end(event.trial)]

    def _start_of(self, event: Measured | Failed | Lost) -> float:
        # Nobody knows when a lost evaluation began; 0 would stretch the timeline to 1970.
        if isinstance(event, Lost):
            started = self.state.trial(event.trial).started
            return 0.0 if started is None else started
        return event.started

    def _end(self, number: int) -> list[Command]:
        flight = self._flights.pop(number)
        seconds = self.state.seconds_of(number) or flight.seconds
        mean = self._mean_seconds
        self._mean_seconds = seconds if mean is None else 0.9 * mean + 0.1 * seconds
        self._advance()
        return [Ended(number), *self._judge_ended(), *self._proceed()]

    def _advance(self) -> None:
        while self._frontier < len(self.state) and self.state.is_final(self._frontier):
            self._frontier += 1

    # --- judging ---------------------------------------------------------------------------

    def _judge_ended(self, *, resumed: bool = False) -> list[Command]:
        for verdict in self._judge.look(self._frontier, resumed=resumed):
            if verdict.rule == "all_failed":
                rule = f"the first {FIRST_FAILURES} trials all failed"
                return self._abort(self._judge.failure(rule, verdict.trial))
            self._lower_limit(verdict.trial, verdict.rule)
        return []

    def _lower_limit(self, number: int, reason: str) -> None:
        """Stop because of a trial: at once, or with the last block that it could not prevent."""
        k, block = self.settings.k, self.settings.block
        if block is None or k is None:
            self._stopping = True
            self._reason = reason
            return
        last = (number // block + k // block) * block
        if self._limit is None or last < self._limit:
            self._limit, self._reason = last, reason

    # --- going on --------------------------------------------------------------------------

    def _may_ask(self) -> bool:
        return not self._stopping and (self._limit is None or len(self.state) < self._limit)

    def _proceed(self) -> list[Command]:
        """Suggest more where there is room, or finish where all is done."""
        if self._finished or self._request is not None:
            return []
        if self._stopping:
            cancel: list[Command] = [Cancel(list(self._flights))] if self._flights else []
            return cancel + self._finish()
        if not self._may_ask():
            return self._finish() if not self._flights else []
        if self.settings.block is not None:
            return self._ask_block(self.settings.block)
        return self._ask_arrival()

    def _ask_block(self, block: int) -> list[Command]:
        assert self.settings.k is not None
        start = len(self.state) // block * block
        # Blocks up to this one have ended, and are told.
        told = max(0, start + block - self.settings.k)
        if self._frontier < told:
            return []
        return self._ask(start, block, told)

    def _ask_arrival(self) -> list[Command]:
        k = self.settings.k or self._adaptive_k()
        room = k - len(self._flights)
        # A strategy's fixed cost is paid per ask, so wait until a few are due.
        if room < max(1, k // 16) and self._flights:
            return []
        return self._ask(len(self.state), room, self.state.n_ended)

    def _adaptive_k(self) -> int:
        if self._mean_seconds is None:
            return 2 * self._slots
        per_slot = CHUNK_SECONDS / max(self._mean_seconds, CHUNK_SECONDS / MOST_PER_SLOT)
        return 2 * self._slots * max(1, int(per_slot))

    def _ask(self, start: int, n: int, told: int) -> list[Command]:
        """Have trials ``start .. start + n`` suggested, as far as they are not there already."""
        asked = len(self.state)
        stop = start + n if self._limit is None else min(start + n, self._limit)
        given = len(self._initial)
        if asked < given:
            upto = min(given, stop)
            return (
                self._admit(self._initial[asked:upto], self._initial_by[asked:upto], told)
                + self._proceed()
            )
        first = max(start, given)
        count = start + n - first if self.settings.reproducible else stop - first
        self._request = _Request(first, count, told, range(asked, stop))
        completed = self.state.completed(told)
        suggest = Suggest(
            n=count,
            new=completed.since(self._told),
            completed=completed,
            active=self.state.active(self._untold(told, first)),
        )
        self._told = told
        return [suggest]

    def _untold(self, told: int, first: int) -> NDArray[np.int64]:
        if self.settings.reproducible:
            return np.arange(told, first)
        return np.array(sorted(self._flights), dtype=np.int64)

    def _finish(self) -> list[Command]:
        if self._judge.nothing_completed and not self._stopping:
            last = int(self.state.order[-1])
            return self._abort(self._judge.failure("no trial was completed", last))
        self._finished = True
        return [Finish(self._reason)]

    def _abort(self, error: AllTrialsFailedError | WorkerLostError) -> list[Command]:
        self._finished = True
        cancel: list[Command] = [Cancel(list(self._flights))] if self._flights else []
        return [*cancel, Abort(error)]
