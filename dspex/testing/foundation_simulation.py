"""A foundation in virtual time, in a hostile world.

Knows: what clients do, what befalls whom, what must never be. Must not know: real time, asyncio.
Everything is drawn from one seed, so that a failing run is repeated by its seed.

Watched after every event is what *holders believe*, each by the replies that it got and by its own
lease: no two clients may believe that they hold one lock; no worker may be leased beyond its
capacity, no tenant beyond its quota.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from functools import partial
from typing import Any, final

from dspex.errors import VersionConflictError
from dspex.foundation.ledger.events import Event
from dspex.foundation.ledger.ledger import Ledger
from dspex.foundation.ledger.wire import Call, decode_entry
from dspex.foundation.record import put
from dspex.testing.foundation_parties import CORES, QUOTA, Clock, Process, Reply, Scheduler
from dspex.testing.histories import Operation
from dspex.testing.models import CONFLICT

__all__ = ["SimulatedFoundation"]

COLLECTION = "r:"
LOCKS = ("a", "b")
KEYS = ("x", "y")

_VOLATILE = ("reply", "acked")


@final
class SimulatedFoundation:
    """Runs a foundation for a while.

    Parameters
    ----------
    seed : int
    loss, double : float
        Probabilities of a message.
    faults : bool
        Whether anybody crashes, stalls or pauses.

    Examples
    --------
    >>> world = SimulatedFoundation(seed=1)
    >>> world.run(seconds=20.0)
    >>> len(world.history) > 10
    True
    """

    def __init__(
        self, *, seed: int, loss: float = 0.05, double: float = 0.05, faults: bool = True
    ) -> None:
        self.dice = random.Random(seed)
        self.clock = Clock()
        self._loss = loss
        self._double = double
        self.history: list[Operation] = []
        self.grants = 0
        self._calls: dict[int, Operation] = {}
        self.scheduler = Scheduler(self)
        self.workers = [Process(self, f"w{n}", "worker") for n in range(3)]
        self.clients = [Process(self, f"c{n}", "client") for n in range(4)]
        self._incarnations = len(self.workers)
        for client in self.clients:
            client.poll()
            self._act(client)
        if faults:
            self.clock.after(self.dice.expovariate(0.4), self._fault)

    def run(self, *, seconds: float) -> None:
        """Let time pass; AssertionError where an invariant breaks."""
        end = self.clock.now + seconds
        while self.clock.now < end:
            self.clock.step()
            self._check_beliefs()
        self.history += self._calls.values()
        self._calls.clear()

    def deliver(self, work: Callable[[], None]) -> None:
        """Send a message: it may be lost, late, doubled."""
        copies = 1 + (self.dice.random() < self._double)
        for _ in range(copies):
            if self.dice.random() >= self._loss:
                late = self.dice.expovariate(2.0) if self.dice.random() < 0.05 else 0.0
                self.clock.after(self.dice.uniform(0.0005, 0.01) + late, work)

    # --- what clients do -------------------------------------------------------------------

    def _act(self, client: Process) -> None:
        if client.is_dead:
            return
        self.clock.after(self.dice.expovariate(3.0), lambda: self._act(client))
        if self.clock.now < client.paused_until or client.ends == -math.inf:
            return
        choice = self.dice.randrange(4)
        if client.believes() and choice == 0:
            self._release(client)
        elif choice == 1:
            self._acquire(client)
        elif choice == 2:
            self._lock(client)
        else:
            self._write(client)

    def _granted(self, client: Process, session: str, kind: str, what: Any) -> Reply:
        def granted(reply: Any, is_error: bool) -> None:
            if not is_error and session == client.session:
                self.grants += 1
                place = (what, reply["worker"]) if kind == "lease" else what
                client.held[tuple(reply["token"])] = (kind, place)

        return granted

    def _acquire(self, client: Process) -> None:
        tenant = self.dice.choice([None, "team"])
        cores = self.dice.choice([1, 1, 2, 3])
        args = {
            "kind": "fit",
            "amounts": {"cpu_cores": cores},
            "placement": self.dice.choice(["least_loaded", "pack", "spread", "any_node"]),
            "priority": self.dice.randrange(2),
            "tenant": tenant,
        }
        reply = self._granted(client, client.session, "lease", (cores, tenant))
        client.call("resources.acquire", args, reply)

    def _lock(self, client: Process) -> None:
        name = self.dice.choice(LOCKS)
        args = {"namespace": "", "name": name, "kind": "lock"}
        client.call("locks.acquire", args, self._granted(client, client.session, "lock", name))

    def _release(self, client: Process) -> None:
        token = self.dice.choice(sorted(client.held))
        kind, what = client.held.pop(token)  # from now on it does not believe in it
        if kind == "lock":
            args = {"namespace": "", "name": what, "token": token}
            client.call("locks.release", args, lambda reply, is_error: None)
        else:
            client.call("resources.release", {"token": token}, lambda reply, is_error: None)

    def _write(self, client: Process) -> None:
        """Read a record, and put it where it is still of that version."""
        key, session = self.dice.choice(KEYS), client.session
        reading = self._began(client, key, "get", ())

        def read(reply: Any, is_error: bool) -> None:
            if is_error or session != client.session or reading not in self._calls:
                return
            record = reply[0]
            seen = None if record is None else (record[2].decode(), record[1])
            self._ended(reading, seen)
            version = 0 if record is None else record[1]
            value = f"{client.name}.{self.clock.now:.6f}"
            writing = self._began(client, key, "compare_and_set", (version, value))

            def written(reply: Any, is_error: bool) -> None:
                if isinstance(reply, VersionConflictError):
                    self._ended(writing, CONFLICT)
                elif not is_error:
                    self._ended(writing, reply[0])

            operation = put(
                key, value.encode(), {}, on_conflict="replace", expected_version=version
            )
            args = {"collection": COLLECTION, "operations": [operation], "wait_durable": True}
            client.call("records.commit", args, written)

        client.send(Call(None, "records.fetch", {"collection": COLLECTION, "keys": [key]}), 0, read)

    def _began(self, client: Process, key: str, op: str, args: tuple[Any, ...]) -> int:
        number = len(self._calls) + len(self.history)
        while number in self._calls:
            number += 1
        self._calls[number] = Operation(client.session, key, op, args, called=self.clock.now)
        return number

    def _ended(self, number: int, result: Any) -> None:
        begun = self._calls.pop(number)
        self.history.append(
            Operation(
                begun.process, begun.key, begun.op, begun.args, result, begun.called, self.clock.now
            )
        )

    # --- what befalls them -----------------------------------------------------------------

    def _fault(self) -> None:
        self.clock.after(self.dice.expovariate(0.4), self._fault)
        kind = self.dice.randrange(6)
        if kind == 0 and self.scheduler.is_up:
            self.scheduler.crash()
            # Dask ends its workers with their scheduler, not at once.
            for worker in self.workers:
                self.clock.after(self.dice.uniform(0.0, 3.0), partial(self._replace, worker))
            self.clock.after(self.dice.uniform(0.05, 4.0), self.scheduler.start)
        elif kind == 1:
            self.scheduler.stalled_until = self.clock.now + self.dice.choice([0.3, 1.0, 5.0, 20.0])
        elif kind == 2:
            self._replace(self.dice.choice(self.workers))
        elif kind in (3, 4):
            process = self.dice.choice(self.clients + self.workers)
            process.paused_until = self.clock.now + self.dice.choice([0.5, 2.0, 4.0, 9.0])
        elif kind == 5:
            client = self.dice.choice(self.clients)
            client.is_dead = True
            self._incarnations += 1
            born = Process(self, f"c{self._incarnations}", "client")
            self.clients[self.clients.index(client)] = born
            born.poll()
            self._act(born)

    def _replace(self, worker: Process) -> None:
        """Let a worker die, and another one start."""
        if worker.is_dead:
            return
        worker.is_dead = True
        scheduler = self.scheduler
        self.clock.after(
            0.01, lambda: scheduler.receive(lambda: scheduler.worker_closed(worker.name))
        )
        self._incarnations += 1
        self.workers[self.workers.index(worker)] = Process(self, f"w{self._incarnations}", "worker")

    # --- the invariants --------------------------------------------------------------------

    def _check_beliefs(self) -> None:
        locks: dict[str, str] = {}
        cores: dict[str, float] = {}
        team = 0
        # A lease dies with the incarnation of its worker, of which its holder need not have heard:
        # tokens and incarnations are of one count, so what is older lies on a former one.
        incarnations = {
            member["address"]: member["incarnation"]
            for member in self.scheduler.ledger.members.everyone()
        }
        for client in self.clients:
            for token, (kind, what) in client.believes().items():
                if kind == "lock":
                    assert what not in locks, f"{client.name} and {locks[what]} hold {what}"
                    locks[what] = client.name
                    continue
                (amount, tenant), worker = what
                if worker in incarnations and token > incarnations[worker]:
                    cores[worker] = cores.get(worker, 0.0) + amount
                    team += tenant is not None
        assert all(amount <= CORES for amount in cores.values()), cores
        assert team <= QUOTA, f"{team} leases of a tenant that may have {QUOTA}"

    def replayed(self) -> tuple[list[Event], list[Event]]:
        """What a ledger holds that was made from the journal, and what the live one holds."""
        live = self.scheduler.ledger
        made = Ledger(term=live.term)
        for number, entry in enumerate(self.scheduler.kept, start=1):
            made.replay(number, decode_entry(entry)[1], self.clock.now)
        for entry in self.scheduler.unkept:
            made.replay(made.revision + 1, decode_entry(entry)[1], self.clock.now)
        made.validate()
        # Replies are forgotten as they are acknowledged, which is not journalled.
        return (
            [event for event in made.dump() if event[0] not in _VOLATILE],
            [event for event in live.dump() if event[0] not in _VOLATILE],
        )
