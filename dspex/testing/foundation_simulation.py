"""A foundation in virtual time, in a hostile world.

Knows: what clients do, what befalls whom. Must not know: real time, asyncio.
Everything is drawn from one seed, so that a failing run is repeated by its seed.

Watched all the time is what *holders believe*, each by the replies that it got and by its own lease
on its own clock. What clients saw of records is a history, to be checked for linearizability.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import Any, final

from dspex.errors import VersionConflictError
from dspex.foundation.record import check, drop, put
from dspex.testing.foundation_beliefs import RECORDS, HeldName, HeldPart, check_beliefs, check_rest
from dspex.testing.foundation_parties import Process
from dspex.testing.foundation_scheduler import LEASE, Clock, Reply, Scheduler
from dspex.testing.histories import Operation
from dspex.testing.models import CONFLICT

__all__ = ["SimulatedFoundation"]

KEYS = ("x", "y", "z")
NAMES = (("a", "lock"), ("b", "lock"), ("l", "leader"))
PAIR = ("p", "q")
"""Keys that are always written together."""

_CALM = 5 * LEASE
"""Seconds in which all that is over ends, where nothing is in the way."""


@final
class SimulatedFoundation:
    """Runs a foundation for a while.

    Parameters
    ----------
    seed : int
    loss, double : float
        Probabilities of a message.
    faults : float
        How many befall somebody in a second.

    Attributes
    ----------
    history : list of Operation
        What clients did to single records, and saw.
    grants : int

    Examples
    --------
    >>> world = SimulatedFoundation(seed=1)
    >>> world.run(seconds=20.0)
    >>> len(world.history) > 10
    True
    """

    def __init__(
        self, *, seed: int, loss: float = 0.05, double: float = 0.05, faults: float = 0.4
    ) -> None:
        self.dice = random.Random(seed)
        self.clock = Clock()
        self._loss = loss
        self._double = double
        self._faults = faults
        self._is_calm = False
        self.history: list[Operation] = []
        self.grants = 0
        self._calls: dict[int, Operation] = {}
        self._started = 0
        self._checked: Any = None
        self.scheduler = Scheduler(self)
        self.workers = [Process(self, f"w{n}", "worker") for n in range(3)]
        self.clients = [Process(self, f"c{n}", "client") for n in range(4)]
        self._born = 10
        for client in self.clients:
            self._act(client)
        if faults:
            self.clock.after(self.dice.expovariate(faults), self._fault)

    def run(self, *, seconds: float) -> None:
        """Let time pass, and then what is over come to its end.

        Raises
        ------
        AssertionError
            Where a promise is broken.
        """
        self.advance(seconds)
        self._is_calm = True
        self.advance(max(0.0, self.scheduler.stalled_until - self.clock.now))
        self.advance(_CALM)
        held: object = None
        while held != (held := self._all_held()):
            self.advance(LEASE)  # word of what was granted last is on its way
        check_rest(self.scheduler.ledger, self.clients, self.workers)
        self.scheduler.check_replay()
        self.history += self._calls.values()
        # Somebody who reads what has survived.
        kept = self.scheduler.kept.ledger(self.scheduler.generation, self.clock.now)
        for key in KEYS:
            record = kept.records.get(RECORDS, key)
            seen = None if record is None else (record.value.decode(), record.version)
            self.history.append(
                Operation("end", key, "get", (), seen, self.clock.now, self.clock.now)
            )

    def _all_held(self) -> object:
        ledger = self.scheduler.ledger
        return ledger.resources.leases(), ledger.locks.held()

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        end = self.clock.now + seconds
        while self.clock.now < end:
            self.clock.step()
            # What is believed grows by grants and renewals, what is true shrinks with a revision.
            ends = [client.ends for client in self.clients]
            news = (self.scheduler.generation, self.scheduler.ledger.revision, self.grants, ends)
            if news != self._checked:
                check_beliefs(self.scheduler.ledger, self.clients)
                self._checked = news

    def deliver(self, party: Process, work: Callable[[], None]) -> None:
        """Send a message from or to a process: it may be lost, late, doubled."""
        if self._is_calm:
            self.clock.after(0.001, work)
        elif self.clock.now >= party.cut_until:
            copies = 1 + (self.dice.random() < self._double)
            for _ in range(copies):
                if self.dice.random() >= self._loss:
                    late = self.dice.expovariate(1.0) if self.dice.random() < 0.1 else 0.0
                    self.clock.after(self.dice.uniform(0.0005, 0.01) + late, work)

    # --- what clients do -------------------------------------------------------------------

    def _act(self, client: Process) -> None:
        if self._is_calm:
            return
        client.later(self.dice.expovariate(3.0), lambda: self._act(client))
        if client.now() >= client.ends:
            return
        if client.believes() and self.dice.random() < 0.4:
            self._release(client)
            return
        (act,) = self.dice.choices(
            [
                self._acquire,
                self._lock,
                self._change,
                self._put,
                self._delete,
                self._pair,
                self._read_pair,
                self._tie,
                self._drain,
                Process.end,
            ],
            [4, 4, 4, 2, 1, 1, 1, 1, 1, 0.2],
        )
        act(client)

    def _ask_for(self, client: Process, op: str, args: dict[str, Any], what: Any) -> None:
        session = client.session

        def granted(reply: Any, is_error: bool) -> None:
            if not is_error:
                self.grants += 1
                held = what._replace(worker=reply["worker"]) if "worker" in reply else what
                client.held[tuple(reply["token"])] = held

        number = client.call(op, args, granted)
        if self.dice.random() < 0.3:
            patience = self.dice.expovariate(2.0)
            client.later(patience, lambda: client.withdraw(session, number))

    def _acquire(self, client: Process) -> None:
        tenant = self.dice.choice([None, "team", "team"])
        cores = self.dice.choice([0, 1, 1, 2, 3])
        args = {
            "kind": "fit",
            "amounts": {"cpu_cores": cores},
            "placement": self.dice.choice(["least_loaded", "pack", "spread", "any_node"]),
            "priority": self.dice.randrange(2),
            "tenant": tenant,
        }
        self._ask_for(client, "resources.acquire", args, HeldPart("", cores, tenant))

    def _lock(self, client: Process) -> None:
        name, kind = self.dice.choice(NAMES)
        args = {"namespace": "", "name": name, "kind": kind}
        self._ask_for(client, "locks.acquire", args, HeldName(name))

    def _release(self, client: Process) -> None:
        token = self.dice.choice(sorted(client.held))
        what = client.held.pop(token)  # from now on it does not believe in it
        if isinstance(what, HeldName):
            args = {"namespace": "", "name": what.name, "token": token}
            client.call("locks.release", args, _nothing)
        else:
            client.call("resources.release", {"token": token}, _nothing)

    def _drain(self, client: Process) -> None:
        args = {"address": self.dice.choice(self.workers).name, "undo": self.dice.random() < 0.7}
        client.call("members.drain", args, _nothing)

    # --- records ---------------------------------------------------------------------------

    def _commit(self, client: Process, operations: list[Any], reply: Reply) -> None:
        args = {"collection": RECORDS, "operations": operations, "wait_durable": True}
        client.call("records.commit", args, reply)

    def _value(self, client: Process) -> str:
        self._started += 1
        return f"{client.name}.{self._started}"

    def _put(self, client: Process) -> None:
        key, value = self.dice.choice(KEYS), self._value(client)
        ended = self._began(client, key, "put", (value,))
        operation = put(key, value.encode(), {}, on_conflict="replace")

        def written(reply: Any, is_error: bool) -> None:
            ended(reply[0])

        self._commit(client, [operation], written)

    def _delete(self, client: Process) -> None:
        key = self.dice.choice(KEYS)
        ended = self._began(client, key, "delete", ())
        operation = drop(key, missing_ok=True)

        def dropped(reply: Any, is_error: bool) -> None:
            ended(reply[0][1] > 0)

        self._commit(client, [operation], dropped)

    def _change(self, client: Process) -> None:
        """Read a record, and put it where it is still of that version."""
        key, session = self.dice.choice(KEYS), client.session
        seen = self._began(client, key, "get", ())

        def read(reply: Any, is_error: bool) -> None:
            if session != client.session:
                return
            record = reply[0]
            if not seen(None if record is None else (record[2].decode(), record[1])):
                return
            version, value = 0 if record is None else record[1], self._value(client)
            ended = self._began(client, key, "compare_and_set", (version, value))

            def written(reply: Any, is_error: bool) -> None:
                is_conflict = isinstance(reply, VersionConflictError)
                ended(CONFLICT if is_conflict else reply[0])

            self._commit(client, [put(key, value.encode(), {}, expected_version=version)], written)

        client.ask("records.fetch", read, collection=RECORDS, keys=[key])

    def _pair(self, client: Process) -> None:
        """Write two records together, and fail together where a third is there."""
        value = self._value(client).encode()
        puts = [put(key, value, {}, on_conflict="replace") for key in PAIR]
        self._commit(client, [puts[0], check(self.dice.choice(KEYS), 0), puts[1]], _nothing)

    def _read_pair(self, client: Process) -> None:
        def read(reply: Any, is_error: bool) -> None:
            one, two = (record and (record[1], record[2]) for record in reply)
            assert one == two, f"a transaction was seen in parts: {reply}"

        client.ask("records.fetch", read, collection=RECORDS, keys=list(PAIR))

    def _tie(self, client: Process) -> None:
        """Write a record that goes with the session."""
        key = f"of {client.session}"
        self._commit(
            client, [put(key, b"", {}, owner=client.session, on_conflict="replace")], _nothing
        )

    def _began(
        self, client: Process, key: str, op: str, args: tuple[Any, ...]
    ) -> Callable[[Any], bool]:
        """Note a call; gives what notes its result, once, and tells whether this was it."""
        self._started += 1
        number, began = self._started, self.clock.now
        self._calls[number] = Operation(client.session, key, op, args, called=began)

        def ended(result: Any) -> bool:
            if self._calls.pop(number, None) is None:
                return False
            self.history.append(
                Operation(client.session, key, op, args, result, began, self.clock.now)
            )
            return True

        return ended

    # --- what befalls them -----------------------------------------------------------------

    def _fault(self) -> None:
        if self._is_calm:
            return
        self.clock.after(self.dice.expovariate(self._faults), self._fault)
        process = self.dice.choice(self.clients + self.workers)
        match self.dice.randrange(7):
            case 0 if self.scheduler.is_up:
                self.scheduler.crash()
                # Dask ends its workers with their scheduler, not at once.
                for worker in self.workers:
                    self.clock.after(self.dice.uniform(0.0, 3.0), partial(self._replace, worker))
                self.clock.after(self.dice.uniform(0.05, 4.0), self._restart)
            case 1:
                self.scheduler.stall(self.dice.choice([0.3, 1.0, 1.0, 5.0, 20.0, 60.0]))
            case 2:
                # Dask tells of a death at once, or much later.
                notice = self.dice.choice([0.01, 0.01, 30.0])
                self._replace(self.dice.choice(self.workers), notice)
            case 3 | 4:
                process.paused_until = self.clock.now + self.dice.choice([0.5, 2.0, 4.0, 9.0])
            case 5:
                process.cut_until = self.clock.now + self.dice.choice([0.5, 2.0, 4.0, 9.0])
            case 6:
                client = self.dice.choice(self.clients)
                client.is_dead = True
                self.clients.remove(client)
                self.clients.append(self._new("c", "client"))
                self._act(self.clients[-1])

    def _restart(self) -> None:
        self.scheduler.start()
        # It has much to read, or its loop has much else to do.
        self.scheduler.stall(self.dice.choice([0.0, 0.0, 0.0, 1.0, 8.0]))

    def _new(self, letter: str, kind: str) -> Process:
        self._born += 1
        return Process(self, f"{letter}{self._born}", kind)

    def _replace(self, worker: Process, notice: float = 0.01) -> None:
        """Let a worker die, or leave in order, and another one start."""
        if worker.is_dead:
            return
        worker.is_dead = True
        scheduler, is_expected = self.scheduler, self.dice.random() < 0.3
        closed = partial(scheduler.worker_closed, worker.name, is_expected=is_expected)
        self.clock.after(notice, partial(scheduler.receive, scheduler.generation, closed))
        self.workers[self.workers.index(worker)] = self._new("w", "worker")


def _nothing(reply: Any, is_error: bool) -> None:
    """Take a reply that tells nothing."""
