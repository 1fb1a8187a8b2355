"""The parties of a simulated foundation: its scheduler, and processes with a session.

The scheduler crashes, stalls, and forgets what was not committed; processes repeat their calls,
pause and die.

Knows: the ledger, how its ring commits, how its callers number, repeat and renew. Must not know:
real time, asyncio, what clients want (`foundation_simulation`).
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable, Sequence
from typing import Any, Protocol, final

from dspex.errors import DspexError, SessionExpiredError
from dspex.foundation.ledger.ledger import Ledger, Step
from dspex.foundation.ledger.sessions import HOLDER_SHARE, TICK
from dspex.foundation.ledger.wire import Call, decode_entry, encode_entry, rebuilt_error

__all__ = ["CORES", "LEASE", "QUOTA", "Clock", "Process", "Reply", "Scheduler", "World"]

LEASE = 3.0
CORES = 4.0
QUOTA = 5
CAPACITY = {"cpu_cores": CORES, "memory_gb": 8.0, "gpus": 0.0, "labels": []}

Reply = Callable[[Any, bool], None]
"""Called with a reply, and whether it is an error."""


class World(Protocol):
    """What the parties live in."""

    clock: Clock
    dice: random.Random
    scheduler: Scheduler

    def deliver(self, work: Callable[[], None]) -> None:
        """Send a message: it may be lost, late, doubled."""


@final
class Clock:
    """Virtual time, and what is due."""

    def __init__(self) -> None:
        self.now = 0.0
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def after(self, seconds: float, work: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._due, (self.now + seconds, self._count, work))

    def step(self) -> None:
        self.now, _, work = heapq.heappop(self._due)
        work()


@final
class Scheduler:
    """The ledger's ring: commits in groups, replies when committed, crashes."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.kept: list[bytes] = []  # what survives a crash
        self.generation = 0
        self.is_up = False
        self.stalled_until = 0.0
        self.start()

    def start(self) -> None:
        self.generation += 1
        self.ledger = Ledger(term=self.generation)
        self.unkept: list[bytes] = []
        self._held: list[tuple[int, Callable[[], None]]] = []
        self._is_writing = False
        self.is_up = True
        now = self._world.clock.now
        for number, entry in enumerate(self.kept, start=1):
            _, events = decode_entry(entry)
            self.ledger.replay(number, events, now)
        self.ledger.validate()
        self._take(self.ledger.recovered(now))
        if not self.kept and self.generation == 1:
            self._take(self.ledger.set_quotas({"team": {"max_concurrent": QUOTA}}, now))
        self._tick(self.generation)

    def crash(self) -> None:
        self.is_up = False

    def _tick(self, generation: int) -> None:
        if not self.is_up or generation != self.generation:
            return
        now = self._world.clock.now
        if now < self.stalled_until:
            # What arrived meanwhile was asked to be done at the same instant, and before.
            self._world.clock.after(self.stalled_until - now, lambda: self._tick(generation))
            return
        self._take(self.ledger.tick(now))
        self._world.clock.after(TICK, lambda: self._tick(generation))

    def receive(self, work: Callable[[], None]) -> None:
        """Have something done by the loop, when it is not stalled."""
        generation = self.generation

        def later() -> None:
            if self.is_up and generation == self.generation:
                self.receive(work)

        if not self.is_up:
            return
        if self._world.clock.now < self.stalled_until:
            self._world.clock.after(self.stalled_until - self._world.clock.now, later)
        else:
            work()

    def handle(self, session: str, acked_below: int, call: Call, reply: Reply) -> None:
        step = self.ledger.handle(session, acked_below, call, now=self._world.clock.now)
        self._take(step)
        if not step.is_pending:
            self.hold(step.depends, lambda: reply(step.reply, isinstance(step.reply, DspexError)))

    def poll(self, session: str, seen: Sequence[int], reply: Reply) -> None:
        settled = self.ledger.settled(session, seen)
        self.hold(self.ledger.revision, lambda: reply(settled, False))

    def worker_closed(self, address: str) -> None:
        now = self._world.clock.now
        self._take(self.ledger.worker_closed(address, is_expected=False, now=now))

    def hold(self, number: int, work: Callable[[], None]) -> None:
        if number <= len(self.kept):
            work()
        else:
            self._held.append((number, work))

    def _take(self, step: Step) -> None:
        if step.events:
            self.ledger.validate()
            self.unkept.append(encode_entry(0.0, step.events))
            self._write()

    def _write(self) -> None:
        if self._is_writing or not self.unkept:
            return
        self._is_writing = True
        generation, count = self.generation, len(self.unkept)

        def written() -> None:
            # A write that was under way at the crash may have got through.
            if generation != self.generation or not self.is_up:
                return
            self.kept += self.unkept[:count]
            del self.unkept[:count]
            self._is_writing = False
            ready = [work for number, work in self._held if number <= len(self.kept)]
            self._held = [each for each in self._held if each[0] > len(self.kept)]
            for work in ready:
                work()
            self._write()

        self._world.clock.after(self._world.dice.uniform(0.0005, 0.02), written)


@final
class Process:
    """A client or a worker: one session, calls that are repeated until they are answered."""

    def __init__(self, world: World, name: str, kind: str) -> None:
        self.world = world
        self.name = name
        self.kind = kind
        self.is_dead = False
        self.paused_until = 0.0
        self.sessions = 0
        self.session = ""
        self.ends = -math.inf
        self.held: dict[Any, tuple[str, Any]] = {}  # {token: (kind, what)} of this session
        self._next = 1
        self._open: dict[int, tuple[Call, Reply]] = {}
        self._waiting: set[int] = set()
        self._seen: list[int] = []
        self._begin()

    def believes(self) -> dict[Any, tuple[str, Any]]:
        """What it holds, as far as it knows."""
        is_alive = not self.is_dead and self.world.clock.now < self.ends
        return self.held if is_alive else {}

    # --- the session -----------------------------------------------------------------------

    def _begin(self) -> None:
        self.sessions += 1
        self.session = f"{self.name}.{self.sessions}"
        self.held = {}
        self._next, self._open, self._waiting, self._seen = 1, {}, set(), []
        self.ends = -math.inf
        opened = {"kind": self.kind, "name": self.name, "lease": LEASE}
        self._renew(self.session, Call(None, "session.open", opened))

    def _renew(self, session: str, call: Call) -> None:
        if self.is_dead or session != self.session:
            return
        sent = self.world.clock.now

        def answered(reply: Any, is_error: bool) -> None:
            if session != self.session:
                return
            if isinstance(reply, SessionExpiredError):
                self._begin()
            elif not is_error:
                is_first, self.ends = self.ends == -math.inf, sent + HOLDER_SHARE * LEASE
                if is_first and self.kind == "worker":
                    self._join()

        self.send(call, 0, answered)
        again = Call(None, "session.renew", {}) if self.ends > -math.inf else call
        self.world.clock.after(LEASE / 3, lambda: self._renew(session, again))

    def _join(self) -> None:
        joined = {"address": self.name, "name": self.name, "host": "h", "capacity": CAPACITY}
        self.call("members.join", joined, lambda reply, is_error: None)

    # --- calls -----------------------------------------------------------------------------

    def call(self, op: str, args: dict[str, Any], reply: Reply) -> None:
        """Make a call that takes effect once."""
        number, self._next = self._next, self._next + 1
        self._open[number] = (Call(number, op, args), reply)
        self._repeat(self.session, number)

    def _repeat(self, session: str, number: int) -> None:
        if self.is_dead or session != self.session or number not in self._open:
            return
        call, reply = self._open[number]
        sent_in = session

        def answered(payload: Any, is_error: bool) -> None:
            if sent_in != self.session or number not in self._open:
                return
            if isinstance(payload, SessionExpiredError):
                self._begin()
                return
            del self._open[number]
            reply(payload, is_error)

        acked_below = min(self._open, default=self._next)
        self.send(call, acked_below, answered)
        wait = self.world.dice.uniform(0.3, 0.9)
        self.world.clock.after(wait, lambda: self._repeat(session, number))

    def poll(self) -> None:
        """Ask for replies that came late, again and again."""
        if self.is_dead:
            return
        session, seen = self.session, list(self._seen)

        def answered(settled: Any, is_error: bool) -> None:
            if session != self.session:
                return
            self._seen = [number for number, _, _ in settled]
            for number, is_ok, payload in settled:
                if number in self._open:
                    _, reply = self._open.pop(number)
                    reply(payload if is_ok else rebuilt_error(payload), not is_ok)

        scheduler = self.world.scheduler
        self.world.deliver(
            lambda: scheduler.receive(
                lambda: scheduler.poll(session, seen, lambda *r: self._receive(answered, *r))
            )
        )
        self.world.clock.after(0.25, self.poll)

    def send(self, call: Call, acked_below: int, answered: Reply) -> None:
        session, scheduler = self.session, self.world.scheduler
        left = self.paused_until - self.world.clock.now
        if left > 0:
            # What a paused process wanted to say it says when it wakes, in the same session.
            def later() -> None:
                if session == self.session:
                    self.send(call, acked_below, answered)

            self.world.clock.after(left, later)
            return
        self.world.deliver(
            lambda: scheduler.receive(
                lambda: scheduler.handle(
                    session, acked_below, call, lambda *reply: self._receive(answered, *reply)
                )
            )
        )

    def _receive(self, answered: Reply, payload: Any, is_error: bool) -> None:
        def arrive() -> None:
            left = self.paused_until - self.world.clock.now
            if self.is_dead:
                return
            if left > 0:
                self.world.clock.after(left, arrive)
            else:
                answered(payload, is_error)

        self.world.deliver(arrive)
