"""The scheduler of a simulated foundation: it commits in groups, crashes, stalls, makes snapshots.

Knows: the ledger, how its ring commits and compacts, what a scheduler must never do. Must not
know: real time, asyncio, what clients want (`foundation_simulation`).

Watched is what only the scheduler sees: tokens grow in the journal; who has ended is not served
again; who was heard of in time is not given up, however the loop is held up; who is silent is
given up within two leases of the time for which the loop ran; a replay of the journal, from a
snapshot or without one, gives the live state.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, Protocol, final

import msgpack

from dspex.errors import DspexError
from dspex.foundation.ledger.events import Event, Token
from dspex.foundation.ledger.ledger import Ledger, Step
from dspex.foundation.ledger.sessions import TICK
from dspex.foundation.ledger.wire import Request, decode_entry, encode_entry

__all__ = ["LEASE", "QUOTA", "Clock", "Kept", "Reply", "Scheduler", "World"]

LEASE = 3.0
QUOTA = 3

_COUNTED = 0.5
"""Seconds from which a stall does not count as time for which the loop ran."""

_CHUNK = 7
_VOLATILE = ("reply", "acked")
"""Replies are forgotten as they are acknowledged, which is not journalled."""

Reply = Callable[[Any, bool], None]
"""Called with a reply, and whether it is an error."""


class World(Protocol):
    """What the parties live in."""

    clock: Clock
    dice: random.Random
    scheduler: Scheduler


@final
class Clock:
    """Virtual time, and what is due."""

    def __init__(self) -> None:
        self.now = 0.0
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def after(self, seconds: float, work: Callable[[], None]) -> None:
        """Have something done so much later."""
        self._count += 1
        heapq.heappush(self._due, (self.now + seconds, self._count, work))

    def step(self) -> None:
        """Do what is due next."""
        self.now, _, work = heapq.heappop(self._due)
        work()


@final
class Kept:
    """A journal: what survives a crash."""

    def __init__(self) -> None:
        self.upto = 0
        self.snapshot: list[bytes] = []
        self.entries: list[bytes] = []
        self._newest: Token = (0, 0)
        self.ended: set[str] = set()

    @property
    def last(self) -> int:
        """The number of the last entry."""
        return self.upto + len(self.entries)

    def append(self, entries: Sequence[bytes]) -> None:
        """Keep entries."""
        self.entries += entries
        for entry in entries:
            for event in decode_entry(entry)[1]:
                if event[0] in ("lock", "grant"):
                    term, n = event[3] if event[0] == "lock" else event[1]
                    assert (term, n) > self._newest, f"{event} is not newer than {self._newest}"
                    self._newest = (term, n)
                elif event[0] == "gone":
                    self.ended.add(event[1])

    def compact(self, upto: int, events: Iterator[Event]) -> None:
        """Keep a snapshot in place of entries."""
        chunks = iter(lambda: list(islice(events, _CHUNK)), [])
        self.snapshot = [encode_entry(0.0, chunk) for chunk in chunks]
        del self.entries[: upto - self.upto]
        self.upto = upto

    def ledger(self, term: int, now: float) -> Ledger:
        """Make a ledger of it."""
        made = Ledger(term=term)
        for chunk in self.snapshot:
            made.replay(self.upto, decode_entry(chunk)[1], now)
        for number, entry in enumerate(self.entries, start=self.upto + 1):
            made.replay(number, decode_entry(entry)[1], now)
        made.validate()
        return made


@final
class Scheduler:
    """The ledger's ring."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.kept = Kept()
        self.generation = 0
        self.is_up = False
        self.stalled_until = 0.0
        self.start()

    # --- life ------------------------------------------------------------------------------

    def start(self) -> None:
        """Recover, begin."""
        self.generation += 1
        now = self._world.clock.now
        self.ledger = self.kept.ledger(self.generation, now)
        self.unkept: list[bytes] = []
        self._writing = 0
        self._held: list[tuple[int, Callable[[], None]]] = []
        self._stood_still, self._stalls, self._counted_until = 0.0, 0, now
        self._former = {each["session"] for each in self.ledger.members.everyone()}
        # {session: (running time, stalls so far)}, when something of it arrived, was handled
        self._arrived: dict[str, tuple[float, int]] = {}
        self._handled: dict[str, float] = {}
        for event in self.ledger.sessions.dump():
            if event[0] == "session":
                self._arrived[event[1]] = (now, 0)
                self._handled[event[1]] = now
        self.is_up = True
        self._take(self.ledger.recovered(now))
        self._take(self.ledger.set_quotas({"team": {"max_concurrent": QUOTA}}, now))
        self._after(TICK, self._tick)
        self._after(self._world.dice.expovariate(0.2), self._compact)

    def crash(self) -> None:
        """Forget all that is not kept; a write that is under way may get through."""
        self.check_replay()
        if self._writing and self._world.dice.random() < 0.5:
            self.kept.append(self.unkept[: self._writing])
        self.is_up = False
        self.stalled_until = self._world.clock.now

    def stall(self, seconds: float) -> None:
        """Do nothing for a while; what arrives meanwhile is handled after."""
        now = self._world.clock.now
        if self.is_up and self.stalled_until <= now:
            self.stalled_until = now + seconds
            if seconds >= _COUNTED:
                self._counted_until = now + seconds
                self._stood_still += seconds
                self._stalls += 1

    def _running(self) -> float:
        now = self._world.clock.now
        return now - self._stood_still + max(0.0, self._counted_until - now)

    def _after(self, seconds: float, work: Callable[[], None]) -> None:
        """Do something later, if it is still this process."""
        generation = self.generation
        self._world.clock.after(seconds, lambda: self._do(generation, work))

    def _do(self, generation: int, work: Callable[[], None]) -> None:
        if not self.is_up or generation != self.generation:
            return
        left = self.stalled_until - self._world.clock.now
        if left > 0:
            # In any order: one turn of the loop reads what has arrived, others handle it.
            self._after(left + self._world.dice.uniform(1e-9, 1e-6), work)
        else:
            work()

    def _tick(self) -> None:
        self._after(TICK, self._tick)
        step = self.ledger.tick(self._world.clock.now)
        running = self._running()
        for event in step.events:
            if event[0] == "gone" and event[1] not in self._former:
                arrived, stalls = self._arrived[event[1]]
                # Of each stall the ledger takes up to a tick for time that it ran.
                least = LEASE - TICK * (self._stalls - stalls) - 1e-5
                assert running - arrived >= least, f"{event[1]} was given up, and lived"
        self._take(step)
        for session, handled in self._handled.items():
            is_late = running - handled > 2 * LEASE
            assert not (is_late and self.ledger.sessions.is_open(session)), f"{session} lives on"

    # --- what arrives ----------------------------------------------------------------------

    def receive(self, generation: int, work: Callable[[], None], session: str = "") -> None:
        """Take what was sent to a scheduler; connections end with it."""
        if self.is_up and generation == self.generation:
            if session:
                self._arrived[session] = (self._running(), self._stalls)
            self._do(generation, work)

    def handle(self, request: Request, reply: Reply, waits: Callable[[], None]) -> None:
        """Perform a call; tells where it waits."""
        session, acked_below, (call,), parked = request
        now = self._world.clock.now
        step = self.ledger.handle(session, acked_below, call, now=now, parked=parked)
        self._handled[session] = self._running()
        is_error = isinstance(step.reply, DspexError)
        if session in self.kept.ended and (call.number is not None or call.op == "session.renew"):
            assert is_error, f"{call.op} was done for {session}, which had ended"
        self._take(step)
        if step.is_pending:
            waits()
        else:
            self.hold(step.depends, lambda: reply(step.reply, is_error))

    def poll(self, session: str, seen: Sequence[int], reply: Reply) -> None:
        """Tell what was decided late."""
        settled = self.ledger.settled(session, seen)
        self.hold(self.ledger.revision, lambda: reply(settled, False))

    def worker_seen(self, address: str) -> None:
        """Hear of Dask that a worker is there."""
        self._take(self.ledger.worker_seen(address, address, "h", self._world.clock.now))

    def worker_closed(self, address: str, *, is_expected: bool) -> None:
        """Hear of Dask that a worker is not there any more."""
        now = self._world.clock.now
        self._take(self.ledger.worker_closed(address, is_expected=is_expected, now=now))

    # --- commits ---------------------------------------------------------------------------

    def hold(self, number: int, work: Callable[[], None]) -> None:
        """Do something when so much is kept."""
        if number <= self.kept.last:
            work()
        else:
            self._held.append((number, work))

    def _take(self, step: Step) -> None:
        if step.events:
            self.ledger.validate()
            for event in step.events:
                if event[0] == "grant":
                    worker = self.ledger.members.get(event[4])
                    is_ours = worker is not None and worker["incarnation"] > (self.generation, 0)
                    assert is_ours, f"{event} lies on a worker of a former scheduler"
            self.unkept.append(encode_entry(0.0, step.events))
            self._write()

    def _write(self) -> None:
        if not self._writing and self.unkept:
            self._writing = len(self.unkept)
            generation = self.generation

            # A thread writes, which goes on while the loop is stalled.
            def written() -> None:
                if self.is_up and generation == self.generation:
                    self.kept.append(self.unkept[: self._writing])
                    del self.unkept[: self._writing]
                    self._writing = 0
                    self._do(generation, self._written)

            dice = self._world.dice
            slow = dice.uniform(0.1, 1.0) if dice.random() < 0.1 else 0.0
            self._world.clock.after(slow + dice.uniform(0.0005, 0.02), written)

    def _written(self) -> None:
        ready = [work for number, work in self._held if number <= self.kept.last]
        self._held = [each for each in self._held if each[0] > self.kept.last]
        for work in ready:
            work()
        self._write()

    def _compact(self) -> None:
        dice = self._world.dice
        self._after(dice.expovariate(0.2), self._compact)
        upto, events = self.ledger.revision, self.ledger.dump()

        def compact() -> None:
            if upto >= self.kept.upto:
                self.kept.compact(upto, events)

        # The state was ahead of the journal; a snapshot must not be.
        self.hold(upto, lambda: self._after(dice.uniform(0.0, 0.3), compact))

    def check_replay(self) -> None:
        """Assert that the journal gives the live state."""
        made = self.kept.ledger(self.generation, self._world.clock.now)
        for entry in self.unkept:
            made.replay(made.revision + 1, decode_entry(entry)[1], self._world.clock.now)
        assert made.revision == self.ledger.revision
        assert _plain(made) == _plain(self.ledger)


def _plain(ledger: Ledger) -> list[str]:
    """What a ledger holds, as a journal would give it back, in an order of its own."""
    events = [event for event in ledger.dump() if event[0] not in _VOLATILE]
    return sorted(map(repr, msgpack.unpackb(msgpack.packb(events))))
