"""A scheduler, hosts and clients of agents in virtual time: the real ones, each a process.

Knows: how a foundation and a host are put together. Must not know: what clients do, what befalls
whom.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from functools import partial
from typing import Any, final

from dspex.cluster.agents.host import Host
from dspex.cluster.agents.messenger import Messenger
from dspex.cluster.agents.requests import NotSentError
from dspex.cluster.agents.runtime import Runtime
from dspex.cluster.foundation.calls import LedgerCaller
from dspex.cluster.foundation.server import LedgerServer
from dspex.errors import DspexError, InvalidRequestError
from dspex.foundation.agents.messages import decode_flight
from dspex.testing.agents_network import Disk, DiskJournal, Network
from dspex.testing.virtual_time import Process, VirtualLoop

__all__ = [
    "LEASE",
    "SCHEDULER",
    "ClientParty",
    "HostParty",
    "InPlace",
    "SchedulerParty",
    "Surroundings",
]

LEASE = 3.0
SCHEDULER = "scheduler"


@final
class Surroundings:
    """What all parties share.

    Parameters
    ----------
    loop, dice, network
    connects : float
        Probability that a flight finds no connection, and must wait for one, or cannot leave.
    """

    def __init__(
        self, loop: VirtualLoop, dice: random.Random, network: Network, *, connects: float = 0.0
    ) -> None:
        self.loop = loop
        self.dice = dice
        self.network = network
        self.disk = Disk()
        self.not_sent = 0
        self._connects = connects

    async def ask_scheduler(self, name: str, blob: bytes) -> bytes:
        """Send a request to whichever scheduler there is."""
        return await self.network.send(name, SCHEDULER, blob, may_double=True)

    async def ask_host(self, name: str, address: str, blob: bytes, *, is_poll: bool) -> bytes:
        """Send a flight; a question for answers is not doubled, because it takes them along."""
        if self._connects and self.dice.random() < self._connects:
            await self._connect(name, address)
        return await self.network.send(name, address, blob, may_double=not is_poll)

    async def _connect(self, name: str, address: str) -> None:
        try:
            can_leave = await self.network.connect(name, address)
        except asyncio.CancelledError:
            can_leave = False
        if not can_leave:
            self.not_sent += 1
            raise NotSentError(f"{address} cannot be connected to from {name}")


@final
class InPlace:
    """A `Pool` without threads: jobs take their time one after the other.

    Parameters
    ----------
    loop : VirtualLoop
    takes : callable
        Gives the seconds of a job.
    """

    def __init__(self, loop: VirtualLoop, takes: Callable[[], float]) -> None:
        self._loop = loop
        self._takes = takes
        self._free_at = 0.0

    def submit(self, job: Callable[..., None], *arguments: Any) -> None:
        """Have a job done."""
        self._free_at = max(self._loop.time(), self._free_at) + self._takes()
        self._loop.call_at(self._free_at, job, *arguments)

    def watch(self) -> bool:
        """Nothing ever waits for a thread."""
        return False

    def close(self) -> None:
        """Do nothing."""


@final
class SchedulerParty:
    """One scheduler after the other, on the same disk.

    Attributes
    ----------
    server : LedgerServer
        The one there is, or was last.
    workers : set of str
        Addresses of which Dask knows.
    """

    name = SCHEDULER

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self.generation = 0
        self.workers: dict[str, None] = {}
        self.server: LedgerServer
        self.process: Process

    @property
    def is_up(self) -> bool:
        """Whether there is one that serves."""
        return self._around.network.is_there(SCHEDULER)

    async def start(self) -> None:
        """Start one."""
        self.generation += 1
        self.workers = {}
        loop = self._around.loop
        self.process = Process(loop, f"{SCHEDULER}-{self.generation}")
        self.server = LedgerServer(
            DiskJournal(self._around.disk), clock=loop.time, guard=self._guard
        )
        await self.process.spawn(self.server.start())
        self._around.network.listen(SCHEDULER, self.process, self.server.handle)

    def crash(self) -> None:
        """Let it die, with what was not written yet."""
        self.process.die()
        self._around.network.died(SCHEDULER)

    def _guard(self, op: str, args: Any) -> None:
        if op == "members.join" and args.get("address") not in self.workers:
            raise InvalidRequestError(f"{args.get('address')} is no worker of this scheduler")

    def tell(self, decide: Callable[[Any, float], Any]) -> None:
        """Have Dask tell the ledger something."""
        if self.is_up:
            server = self.server
            self.process.run(server.take, partial(decide, server.ledger))

    def worker_added(self, address: str) -> None:
        """Have Dask hear of a worker."""
        self.workers[address] = None
        self.tell(lambda ledger, now: ledger.worker_seen(address, address, "machine", now))

    def worker_closed(self, address: str, *, is_expected: bool = False) -> None:
        """Have Dask lose a worker."""
        if self.workers.pop(address, ...) is None:
            self.tell(
                lambda ledger, now: ledger.worker_closed(address, is_expected=is_expected, now=now)
            )

    def worker_dead(self, address: str) -> None:
        """Have Dask hear of the end of a worker's process."""
        self.tell(lambda ledger, now: ledger.worker_dead(address, now))


@final
class HostParty:
    """A worker, its part in the foundation, and its host of agents.

    Attributes
    ----------
    generation : int
        Of the scheduler whose worker it is.
    """

    def __init__(self, around: Surroundings, address: str, generation: int) -> None:
        self._around = around
        self.name = self.address = address
        self.generation = generation
        self.process = Process(around.loop, address)
        self.process.spawn(self._live())
        self.host: Host
        self.caller: LedgerCaller

    async def _live(self) -> None:
        around, loop = self._around, self._around.loop
        self.caller = LedgerCaller(
            partial(around.ask_scheduler, self.name),
            kind="worker",
            name=self.name,
            lease=LEASE,
            on_open=self._join,
            clock=loop.time,
        )
        pool: Any = InPlace(loop, lambda: around.dice.uniform(0.0001, 0.01))
        self.host = Host(self.caller, self.address, pool=pool)
        messages = Messenger(self.caller, self._send)
        around.network.listen(self.address, self.process, self.host.arrivals.take)
        while True:
            try:
                await self.caller.start()
                break
            except (OSError, DspexError):
                await asyncio.sleep(1.0)
        self.host.start(Runtime(self.caller, messages, namespace="", host=self.host))

    async def _send(self, address: str, blob: bytes) -> bytes:
        if address == self.address:
            return await self.host.arrivals.take(blob)
        return await send_flight(self._around, self.name, address, blob)

    async def _join(self) -> None:
        await self.caller.write(
            "members.join",
            address=self.address,
            name=self.name,
            host="machine",
            capacity={"cpu_cores": 4.0, "memory_gb": 1.0, "gpus": 0.0, "labels": []},
        )
        self.host.joined()

    def crash(self) -> None:
        """Let it vanish."""
        self.process.die()
        self._around.network.died(self.address)


@final
class ClientParty:
    """A client's process."""

    def __init__(self, around: Surroundings, name: str, *, reads_only: bool = False) -> None:
        self._around = around
        self.name = name
        self.reads_only = reads_only
        self.process = Process(around.loop, name)
        self.runtime: Runtime
        self.caller: LedgerCaller

    async def start(self) -> None:
        """Connect; in its own process."""
        around = self._around
        self.caller = LedgerCaller(
            partial(around.ask_scheduler, self.name),
            kind="client",
            name=self.name,
            lease=LEASE,
            clock=around.loop.time,
        )
        while True:
            try:
                await self.caller.start()
                break
            except (OSError, DspexError):
                await asyncio.sleep(1.0)
        messages = Messenger(self.caller, partial(send_flight, around, self.name))
        self.runtime = Runtime(self.caller, messages, namespace="")


async def send_flight(around: Surroundings, name: str, address: str, blob: bytes) -> bytes:
    """Send a flight to a host."""
    is_poll = decode_flight(blob).place is None
    return await around.ask_host(name, address, blob, is_poll=is_poll)
