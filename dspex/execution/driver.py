"""The thin ring around the engine: reads the clock, performs commands, feeds events back.

Knows: the order in which things are done. Must not know: why (`engine` decides), what an executor
or a log is made of. One thread runs it all; only a slow strategy thinks in a thread of its own, so
that results are taken and chunks are sent while it does.
"""

from __future__ import annotations

import signal
import threading
import time
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from dspex.engine.engine import Engine
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
from dspex.engine.ports import (
    CapacityChanged,
    Executor,
    Log,
    Notice,
    Outcome,
    Progress,
    Progressed,
    StudyEnded,
    TrialEnded,
)
from dspex.errors import DspexError
from dspex.execution.audience import Audience
from dspex.strategies.base import Strategy
from dspex.study.records import Failed, Measured, Record, Stopped

__all__ = ["Driver", "Session"]

REFRESH_SECONDS = 0.2
"""How often observers get a look, and the longest wait for an event."""

SLOW_SUGGESTION = 0.005
"""Seconds above which a strategy thinks in its own thread; below, the hand-over costs more."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """How a session of a study went.

    Attributes
    ----------
    reason : str
        Why it ended.
    wall_time : float
        Seconds.
    busy : float
        The share of the slots' time spent in evaluations, 0 to 1.
    """

    reason: str
    wall_time: float
    busy: float


@final
class Driver:
    """Runs one session of a study.

    Parameters
    ----------
    engine : Engine
    executor : Executor
        Open.
    capacity : CapacityChanged
        What `executor` said when it was opened.
    strategy : Strategy
        Begun, and told of what the log holds.
    log : Log
    audience : Audience, optional
    timeout : float, optional
        Seconds after which the session ends in order.
    """

    def __init__(
        self,
        engine: Engine,
        executor: Executor,
        capacity: CapacityChanged,
        strategy: Strategy,
        log: Log,
        *,
        audience: Audience | None = None,
        timeout: float | None = None,
    ) -> None:
        self._engine = engine
        self._executor = executor
        self._strategy = strategy
        self._log = log
        self._audience = audience or Audience()
        self._started = time.monotonic()
        self._deadline = None if timeout is None else self._started + timeout
        self._meter = _BusyMeter(self._started, capacity)
        self._unlogged: list[Record] = []
        self._suggestion: Future[NDArray[np.float64]] | None = None
        self._thinker: ThreadPoolExecutor | None = None
        self._last_suggestion = 0.0
        self._ended_before = engine.state.n_ended
        self._next_look = self._started
        self._reason: str | None = None
        self._error: DspexError | None = None

    def run(self) -> Session:
        """Proceed until the study ends.

        Raises
        ------
        AllTrialsFailedError, WorkerLostError
            What the engine gives up for.
        DspexError
            What executor and log raise. Everything recorded is kept.
        """
        interrupt = _Interrupt()
        reason = "error"
        try:
            with interrupt:
                self._perform(self._engine.start(self._meter.capacity))
                while self._reason is None:
                    self._step(interrupt)
                    if self._error is not None:
                        raise self._error
            reason = self._reason
        finally:
            # Also on the way out of an error: what was measured must reach the log, and whoever
            # draws a bar must learn that nothing more comes.
            now = time.monotonic()
            self._audience(StudyEnded(reason=reason, progress=self._progress(now)))
            if self._thinker is not None:
                self._thinker.shutdown(wait=False, cancel_futures=True)
            self._unlogged.append(Stopped(reason=reason, time=time.time()))
            self._flush()
            self._log.sync()
        return Session(reason=reason, wall_time=now - self._started, busy=self._meter.share(now))

    # --- one turn of the loop --------------------------------------------------------------

    def _step(self, interrupt: _Interrupt) -> None:
        events: list[Event] = []
        try:
            with interrupt.reaching(self._executor.runs_here):
                arrived = self._executor.poll(self._patience())
        except KeyboardInterrupt:
            if interrupt.count > 1:
                raise
            arrived = []
        for each in arrived:
            if isinstance(each, Notice):
                self._audience(each)
            else:
                events.append(self._metered(each))
        if self._suggestion is not None and self._suggestion.done():
            rows = self._suggestion.result()
            self._suggestion = None
            events.append(Suggested(rows=rows))
        now = time.monotonic()
        if interrupt.count:
            events.append(StopRequested(reason="interrupted"))
        elif self._deadline is not None and now >= self._deadline:
            events.append(StopRequested(reason="timeout"))
        for event in events:
            self._perform(self._engine.handle(event))
        self._flush()
        if now >= self._next_look:
            self._next_look = now + REFRESH_SECONDS
            if self._audience:
                self._audience(Progressed(progress=self._progress(now)))

    def _patience(self) -> float:
        if self._suggestion is not None:
            return SLOW_SUGGESTION
        if self._deadline is None:
            return REFRESH_SECONDS
        return min(REFRESH_SECONDS, max(0.0, self._deadline - time.monotonic()))

    def _metered(self, event: Outcome | CapacityChanged) -> Outcome | CapacityChanged:
        if isinstance(event, CapacityChanged):
            self._meter.change(time.monotonic(), event)
        elif isinstance(event, Measured | Failed):
            self._meter.spent += event.seconds
        return event

    # --- commands --------------------------------------------------------------------------

    def _perform(self, commands: Iterable[Command]) -> None:
        # A quick strategy answers within its command; a loop, not recursion, takes it further.
        queue = deque(commands)
        while queue:
            match queue.popleft():
                case Append(record):
                    self._unlogged.append(record)
                case Evaluate(evaluations):
                    self._executor.submit(evaluations)
                case Ended(number):
                    if self._audience:
                        state = self._engine.state
                        self._audience(
                            TrialEnded(
                                number=number, state=state.state_of(number), look=state.trial
                            )
                        )
                case Suggest() as suggest:
                    queue.extend(self._suggest(suggest))
                case Cancel(trials):
                    self._executor.cancel(trials)
                case Finish(reason):
                    self._reason = reason
                case Abort(error):
                    self._error = error

    def _suggest(self, suggest: Suggest) -> list[Command]:
        if self._last_suggestion < SLOW_SUGGESTION or self._executor.runs_here:
            return self._engine.handle(Suggested(rows=self._think(suggest)))
        if self._thinker is None:
            self._thinker = ThreadPoolExecutor(1, thread_name_prefix="dspex-strategy")
        self._suggestion = self._thinker.submit(self._think, suggest)
        return []

    def _think(self, suggest: Suggest) -> NDArray[np.float64]:
        begun = time.monotonic()
        if len(suggest.new):
            self._strategy.tell(suggest.new)
        rows = self._strategy.ask(suggest.n, suggest.completed, suggest.active)
        self._last_suggestion = time.monotonic() - begun
        return rows

    def _flush(self) -> None:
        if self._unlogged:
            records, self._unlogged = self._unlogged, []
            self._log.append(records)

    def _progress(self, now: float) -> Progress:
        engine, state = self._engine, self._engine.state
        elapsed = now - self._started
        ended = state.n_ended - self._ended_before
        left: list[float] = []
        if engine.limit is not None and ended:
            left.append((engine.limit - state.n_ended) * elapsed / ended)
        if self._deadline is not None:
            left.append(max(0.0, self._deadline - now))
        return Progress(
            trials=engine.limit,
            done=state.n_ended,
            running=engine.in_flight,
            failed=state.n_failed,
            best=state.best(),
            elapsed=elapsed,
            time_left=min(left) if left else None,
            workers=self._meter.capacity.workers,
            slots=self._meter.capacity.slots,
            busy=self._meter.share(now),
            waiting_for=engine.waiting_for,
        )


@final
class _BusyMeter:
    """Integrates how many slots there were, against what evaluations took."""

    def __init__(self, now: float, capacity: CapacityChanged) -> None:
        self.capacity = capacity
        self.spent = 0.0
        self._slot_seconds = 0.0
        self._since = now

    def change(self, now: float, capacity: CapacityChanged) -> None:
        self._slot_seconds += (now - self._since) * self.capacity.slots
        self._since = now
        self.capacity = capacity

    def share(self, now: float) -> float:
        there = self._slot_seconds + (now - self._since) * self.capacity.slots
        return min(1.0, self.spent / there) if there > 0 else 0.0


@final
class _Interrupt:
    """Counts Ctrl-C: the first asks for an end in order, the second raises.

    Python raises KeyboardInterrupt between any two bytecodes, which could tear the engine in two;
    so the signal is only counted, but where a program of the user's runs in this very thread.
    """

    def __init__(self) -> None:
        self.count = 0
        self._reaching = False
        self._previous: Any = None
        self._installed = False

    def __enter__(self) -> _Interrupt:
        # Only the main thread may have signal handlers; elsewhere nobody sends Ctrl-C.
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGINT, self._on_signal)
            self._installed = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._installed:
            signal.signal(signal.SIGINT, self._previous)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        if self.count > 1 or self._reaching:
            raise KeyboardInterrupt

    def reaching(self, reaches: bool) -> _Reach:
        """A context in which the first Ctrl-C raises too."""
        return _Reach(self, reaches)

    def set_reaching(self, reaches: bool) -> None:
        self._reaching = reaches


@final
class _Reach:
    def __init__(self, interrupt: _Interrupt, reaches: bool) -> None:
        self._interrupt = interrupt
        self._reaches = reaches

    def __enter__(self) -> None:
        self._interrupt.set_reaching(self._reaches)

    def __exit__(self, *_: object) -> None:
        self._interrupt.set_reaching(False)
