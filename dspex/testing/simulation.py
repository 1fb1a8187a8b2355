"""A simulated cluster for the engine: a virtual clock, slow and dying slots, a client that crashes.

Knows: the engine's events and commands. Must not know: real time, threads, processes.
Everything is drawn from one seed, so that a failing run is repeated by its seed.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np

from dspex.engine.engine import Engine
from dspex.engine.messages import (
    Abort,
    Append,
    Cancel,
    Command,
    Evaluate,
    Finish,
    Suggest,
    Suggested,
)
from dspex.engine.ports import CapacityChanged, Evaluation, Lost
from dspex.errors import DspexError
from dspex.strategies.base import Strategy
from dspex.study.measurement import as_measurement
from dspex.study.records import Failed, Measured, Record
from dspex.study.trial import ErrorInfo, TrialState

__all__ = ["SimulatedCluster"]


@final
@dataclass(slots=True, kw_only=True)
class SimulatedCluster:
    """Runs an engine to its end in virtual time.

    Parameters
    ----------
    score : callable of (params, trial, fold)
        Gives a number or a dict of numbers; what it raises is a failed evaluation.
    seconds : callable of a numpy Generator
        The virtual duration of one evaluation.
    slots : int
    seed : int
        Of durations and faults, not of the study.
    loss_rate : float
        The probability that an evaluation is lost with its slot, 0 to 1.
    double_rate : float
        The probability that an outcome is delivered twice, the second time late.

    Attributes
    ----------
    log : list of Record
        What the engine appended.
    busy : float
        After a run: the share of the slots' virtual time spent in evaluations.
    most_in_flight : int
        The largest number of trials that were in flight at once.
    """

    score: Callable[[Mapping[str, Any], int, int], Any]
    seconds: Callable[[np.random.Generator], float] = lambda rng: float(rng.exponential())
    slots: int = 4
    seed: int = 0
    loss_rate: float = 0.0
    double_rate: float = 0.0
    log: list[Record] = field(default_factory=list)
    busy: float = 0.0
    most_in_flight: int = 0
    reason: str | None = None
    error: DspexError | None = None

    def run(self, engine: Engine, strategy: Strategy, *, crash_after: int | None = None) -> None:
        """Proceed until the study ends, or until so many records were appended (a crash)."""
        rng = np.random.default_rng(self.seed)
        waiting: list[tuple[int, int, int, Evaluation]] = []
        running: list[tuple[float, int, Evaluation, bool]] = []
        cancelled: set[int] = set()
        submitted: set[tuple[int, int, int]] = set()
        now = spent = 0.0
        ticket = 0
        commands: list[Command] = engine.start(CapacityChanged(workers=1, slots=self.slots))
        while True:
            while commands:
                command = commands.pop(0)
                match command:
                    case Append(record):
                        self.log.append(record)
                        if crash_after is not None and len(self.log) >= crash_after:
                            return
                    case Evaluate(evaluations):
                        for each in evaluations:
                            attempt = (each.trial, each.fold, each.attempt)
                            assert attempt not in submitted, f"submitted twice: {each}"
                            submitted.add(attempt)
                            ticket += 1
                            cancelled.discard(each.trial)
                            heapq.heappush(waiting, (each.trial, each.fold, ticket, each))
                    case Suggest() as suggest:
                        strategy.tell(suggest.new)
                        rows = strategy.ask(suggest.n, suggest.completed, suggest.active)
                        commands += engine.handle(Suggested(rows=rows))
                    case Cancel(trials):
                        cancelled.update(trials)
                    case Finish(reason):
                        self.reason = reason
                    case Abort(error):
                        self.error = error
            self.most_in_flight = max(self.most_in_flight, engine.in_flight)
            if self.reason is not None or self.error is not None:
                break
            while waiting and sum(not late for *_, late in running) < self.slots:
                *_, evaluation = heapq.heappop(waiting)
                if evaluation.trial not in cancelled:
                    ticket += 1
                    took = self.seconds(rng)
                    spent += took
                    heapq.heappush(running, (now + took, ticket, evaluation, False))
            if not running:
                raise AssertionError("the engine waits for nothing: no work, no end")
            now, _, evaluation, late = heapq.heappop(running)
            if not late and rng.random() < self.double_rate:
                ticket += 1
                heapq.heappush(running, (now + 3 * self.seconds(rng), ticket, evaluation, True))
            commands += engine.handle(self._outcome(evaluation, now, rng))
        self.busy = spent / (self.slots * now) if now else 0.0

    def _outcome(
        self, evaluation: Evaluation, now: float, rng: np.random.Generator
    ) -> Measured | Failed | Lost:
        where: dict[str, Any] = {
            "trial": evaluation.trial,
            "fold": evaluation.fold,
            "attempt": evaluation.attempt,
            "worker": f"slot-{int(rng.integers(self.slots))}",
        }
        if rng.random() < self.loss_rate:
            return Lost(**where, reason="simulated death")
        try:
            value = self.score(evaluation.params, evaluation.trial, evaluation.fold)
        except Exception as error:
            info = ErrorInfo(type(error).__name__, str(error))
            return Failed(**where, state=TrialState.FAILED, error=info, started=now, seconds=0.0)
        return Measured(**where, steps=(as_measurement(value),), started=now, seconds=0.0)
