"""Processes of a simulated foundation: one session each, calls that are repeated until answered.

They pause, are cut off, die, and their clocks go fast or slowly.

Knows: how callers number, repeat, withdraw, renew, and what they believe to hold meanwhile. Must
not know: real time, asyncio, what clients want (`foundation_simulation`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol, final

from dspex.errors import SessionExpiredError
from dspex.foundation.ledger.events import Token
from dspex.foundation.ledger.sessions import HOLDER_SHARE
from dspex.foundation.ledger.wire import Call, Request, rebuilt_error
from dspex.testing.foundation_scheduler import LEASE, Reply, World

__all__ = ["CORES", "Network", "Process"]

CORES = 4.0
CAPACITY = {"cpu_cores": CORES, "memory_gb": 8.0, "gpus": 0.0, "labels": []}

_SKEW = 0.05
"""How much faster or slower than the scheduler's a clock may go."""


class Network(World, Protocol):
    """A world with a way for messages."""

    def deliver(self, party: Process, work: Callable[[], None]) -> None:
        """Send a message from or to a process: it may be lost, late, doubled."""


@final
class Process:
    """A client or a worker.

    Attributes
    ----------
    ends : float
        The instant of its own clock until which it believes in its session.
    held : dict of token to Any
        What it was given in this session and has not given back.
    """

    def __init__(self, world: Network, name: str, kind: str) -> None:
        self.world = world
        self.name = name
        self.kind = kind
        self.is_dead = False
        self.paused_until = 0.0
        self.cut_until = 0.0
        self._rate = world.dice.uniform(1 - _SKEW, 1 + _SKEW)
        self.sessions = 0
        self.session = ""
        self.ends = -math.inf
        self.held: dict[Token, Any] = {}
        self._next = 1
        self._open: dict[int, tuple[Call, Reply]] = {}
        self._waiting: set[int] = set()
        self._withdrawn: set[int] = set()
        self._attempts: dict[int, int] = {}
        self._seen: list[int] = []
        self._begin()
        self._poll()

    def now(self) -> float:
        """Read its own clock."""
        return self.world.clock.now * self._rate

    def believes(self) -> dict[Token, Any]:
        """What it holds, as far as it knows."""
        return self.held if not self.is_dead and self.now() < self.ends else {}

    # --- the session -----------------------------------------------------------------------

    def _begin(self) -> None:
        self.sessions += 1
        self.session = f"{self.name}.{self.sessions}"
        self.held = {}
        self._next, self._open, self._seen = 1, {}, []
        self._waiting, self._withdrawn = set(), set()
        self._attempts = {}
        self.ends = -math.inf
        opened = {"kind": self.kind, "name": self.name, "lease": LEASE}
        self._renew(self.session, Call(None, "session.open", opened))

    def end(self) -> None:
        """End the session in order, and begin another."""
        self.ask("session.close")
        self._begin()

    def _renew(self, session: str, call: Call) -> None:
        if session != self.session:
            return
        again = Call(None, "session.renew", {}) if self.ends > -math.inf else call
        self.later(LEASE / 3, lambda: self._renew(session, again))
        sent = self.now()

        def answered(reply: Any, is_error: bool) -> None:
            if session != self.session:
                return
            if isinstance(reply, SessionExpiredError):
                self._begin()
            elif not is_error:
                is_first = self.ends == -math.inf
                self.ends = max(self.ends, sent + HOLDER_SHARE * LEASE)
                if is_first and self.kind == "worker":
                    self._join()

        self._send(call, answered)

    def _join(self) -> None:
        scheduler = self.world.scheduler
        scheduler.receive(scheduler.generation, lambda: scheduler.worker_seen(self.name))
        joined = {"address": self.name, "name": self.name, "host": "h", "capacity": CAPACITY}
        self.call("members.join", joined, lambda reply, is_error: None)

    # --- calls -----------------------------------------------------------------------------

    def call(self, op: str, args: dict[str, Any], reply: Reply) -> int:
        """Make a call that takes effect once; gives its number."""
        number, self._next = self._next, self._next + 1
        self._open[number] = (Call(number, op, args), reply)
        self._repeat(self.session, number)
        return number

    def ask(self, op: str, reply: Reply = lambda reply, is_error: None, **args: Any) -> None:
        """Make a call that changes nothing of its own, once."""
        self._send(Call(None, op, args), reply)

    def withdraw(self, session: str, number: int) -> None:
        """Take a call back that nobody waits for any more."""
        if session != self.session or number not in self._open:
            return
        self._withdrawn.add(number)

        def withdrawn(reply: Any, is_error: bool) -> None:
            if session == self.session:
                self._open.pop(number, None)

        self.ask("call.cancel", withdrawn, number=number)
        self.later(0.7, lambda: self.withdraw(session, number))

    def _repeat(self, session: str, number: int) -> None:
        """Try again; whoever does has given up the attempt before, and takes no answer to it.

        What was withdrawn is not tried again. Both keep what was sent to one scheduler from being
        done by the next, which knows nothing of calls that changed nothing.
        """
        if session != self.session or number not in self._open or number in self._withdrawn:
            return
        self.later(self.world.dice.uniform(0.3, 0.9), lambda: self._repeat(session, number))
        call, _ = self._open[number]
        attempt = self._attempts[number] = self._attempts.get(number, 0) + 1

        def answered(payload: Any, is_error: bool) -> None:
            if session != self.session or number not in self._open:
                return
            if attempt != self._attempts[number]:
                return
            if isinstance(payload, SessionExpiredError):
                self._begin()
                return
            self._answer(number, payload, is_error)

        def waits() -> None:
            if session == self.session and number in self._open:
                self._waiting.add(number)

        self._send(call, answered, waits)

    def _answer(self, number: int, payload: Any, is_error: bool) -> None:
        if number not in self._withdrawn:
            _, reply = self._open.pop(number)
            reply(payload, is_error)
        # A reply to one that is to be withdrawn is not acknowledged, so that the ledger has it.

    def _poll(self) -> None:
        """Ask for replies that came late, again and again."""
        self.later(0.25, self._poll)
        session, seen = self.session, list(self._seen)

        def answered(settled: Any, is_error: bool) -> None:
            if session != self.session:
                return
            self._seen = [number for number, _, _ in settled]
            for number, is_ok, payload in settled:
                if number in self._open:
                    self._answer(number, payload if is_ok else rebuilt_error(payload), not is_ok)

        scheduler, generation = self.world.scheduler, self.world.scheduler.generation

        def work() -> None:
            scheduler.poll(session, seen, lambda *reply: self._receive(answered, *reply))

        self.world.deliver(self, lambda: scheduler.receive(generation, work))

    # --- messages --------------------------------------------------------------------------

    def later(self, seconds: float, work: Callable[[], None]) -> None:
        """Do something by its own clock; what is due during a pause is done when it wakes."""

        def due() -> None:
            left = self.paused_until - self.world.clock.now
            if left > 0:
                self.world.clock.after(left, due)
            elif not self.is_dead:
                work()

        self.world.clock.after(seconds / self._rate, due)

    def _send(self, call: Call, answered: Reply, waits: Callable[[], None] = lambda: None) -> None:
        parked = sorted(self._waiting & self._open.keys())
        acked_below = min(self._open.keys() - parked, default=self._next)
        parked = [number for number in parked if number < acked_below]
        request = Request(self.session, acked_below, [call], parked)
        scheduler, generation = self.world.scheduler, self.world.scheduler.generation

        def work() -> None:
            scheduler.handle(
                request, lambda *reply: self._receive(answered, *reply), lambda: self._hear(waits)
            )

        self.world.deliver(self, lambda: scheduler.receive(generation, work, request.session))

    def _receive(self, answered: Reply, payload: Any, is_error: bool) -> None:
        self._hear(lambda: answered(payload, is_error))

    def _hear(self, work: Callable[[], None]) -> None:
        self.world.deliver(self, lambda: self.later(0.0, work))
