"""What befalls a simulated world of agents: crashes, cuts, pauses, restarts, moves, a full disk.

Knows: who is there, what can be done to whom. Must not know: what clients do, what must hold.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

from dspex.testing.agents_network import Network
from dspex.testing.agents_world import (
    SCHEDULER,
    ClientParty,
    HostParty,
    SchedulerParty,
    Surroundings,
)
from dspex.testing.virtual_time import VirtualLoop

__all__ = ["ACCOUNTS", "Troubles"]

ACCOUNTS = ("a", "b", "c", "d", "e")


class Troubles:
    """Does harm, as drawn from the dice."""

    dice: random.Random
    loop: VirtualLoop
    network: Network
    around: Surroundings
    scheduler: SchedulerParty
    hosts: list[HostParty]
    clients: list[ClientParty]
    has_restarts: bool
    befell: list[str]
    errors: list[BaseException]
    _waiting: dict[asyncio.Task[None], str]
    _faults: float
    _only: str
    _is_calm: bool

    def _add_host(self) -> None:
        raise NotImplementedError

    def _add_client(self, *, reads_only: bool = False) -> None:
        raise NotImplementedError

    def _known(self) -> dict[str, Any]:
        raise NotImplementedError

    async def _befall(self) -> None:
        if not self._faults:
            return
        acts: list[Callable[[], str]] = [
            self._crash_host,
            self._cut_host_off,
            self._cut_two,
            self._cut_client_off,
            self._keep_a_reader,
            self._pause,
            self._close_connection,
            self._move,
            self._drain,
            self._break_disk,
            self._lose_client,
        ]
        weights = [2.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 3.0, 1.0, 0.5, 0.5]
        if self.has_restarts:
            acts.append(self._restart)
            weights.append(1.0)
        if self._only:
            acts, weights = [getattr(self, f"_{self._only}")], [1.0]
        while True:
            await asyncio.sleep(self.dice.expovariate(self._faults))
            (act,) = self.dice.choices(acts, weights)
            words = act()
            self.befell.append(f"{self.loop.time():.3f} {words}")

    def _later(self, seconds: float, function: Callable[..., Any], *args: Any) -> None:
        self.loop.call_later(seconds, function, *args, context=self.loop.nobody.copy())

    def _alive(self) -> list[HostParty]:
        return [host for host in self.hosts if not host.process.is_dead]

    def _remove(self, host: HostParty) -> None:
        host.crash()
        if host in self.hosts:
            self.hosts.remove(host)
            self._later(self.dice.uniform(0.1, 3.0), self._add_host_again)

    def _add_host_again(self) -> None:
        if self.scheduler.is_up:
            self._add_host()
        else:
            self._later(1.0, self._add_host_again)

    def _crash_host(self) -> str:
        host = self.dice.choice(self.hosts)
        self._remove(host)
        told = self.dice.choice([0.01, 0.5, 30.0])
        self._later(told, self.scheduler.worker_closed, host.address)
        if self.dice.random() < 0.5:
            seconds = told + self.dice.expovariate(2.0)
            self._later(seconds, self.scheduler.worker_dead, host.address)
        return f"{host.address} crashes, which is told after {told} s"

    def _seconds_cut(self) -> float:
        return self.dice.choice([0.5, 2.0, 3.0, 5.0, 9.0])

    def _cut_host_off(self) -> str:
        host, seconds = self.dice.choice(self.hosts), self._seconds_cut()
        self.network.cut(host.name, SCHEDULER, seconds)
        return f"{host.address} is cut off from the scheduler for {seconds} s"

    def _cut_two(self) -> str:
        one: Any = self.dice.choice(self.hosts)
        parties: list[Any] = [*self.hosts, *self.clients]
        other = self.dice.choice([each for each in parties if each != one])
        seconds = self._seconds_cut()
        self.network.cut(one.name, other.name, seconds)
        return f"{one.name} and {other.name} are cut apart for {seconds} s"

    def _cut_client_off(self) -> str:
        client, seconds = self.dice.choice(self.clients), self._seconds_cut()
        self.network.cut(client.name, SCHEDULER, seconds)
        return f"{client.name} is cut off from the scheduler for {seconds} s"

    def _keep_a_reader(self) -> str:
        """Cut a host off from all but one who only reads, and so sees nothing of it."""
        host, seconds = self.dice.choice(self.hosts), self.dice.choice([3.0, 5.0, 9.0])
        parties: list[Any] = [self.scheduler, *self.hosts, *self.clients]
        for party in parties:
            if party is not host and not getattr(party, "reads_only", False):
                self.network.cut(host.name, party.name, seconds)
        return f"{host.address} is cut off from all but a reader for {seconds} s"

    def _pause(self) -> str:
        party: Any = self.dice.choice([*self.hosts, *self.clients, self.scheduler])
        seconds = self._seconds_cut()
        process = party.process
        process.pause()
        self._later(seconds, process.go_on)
        return f"{process.name} is paused for {seconds} s"

    def _close_connection(self) -> str:
        """Have Dask lose a worker that lives on for a while."""
        host = self.dice.choice(self.hosts)
        if self.dice.random() < 0.7:
            self.network.cut(host.name, SCHEDULER, self._seconds_cut())
        self.scheduler.worker_closed(host.address)
        seconds = self.dice.uniform(0.0, 8.0)

        def end() -> None:
            self._remove(host)
            self.scheduler.worker_dead(host.address)

        self._later(seconds, end)
        return f"the connection to {host.address} closes, and it ends after {seconds:.1f} s"

    def _ask(self, op: str, **args: Any) -> None:
        """Make a call as some client does."""
        client = self.dice.choice(self.clients)

        async def ask() -> None:
            try:
                await client.caller.write(op, **args)
            except Exception:
                return

        if hasattr(client, "caller"):
            client.process.spawn(ask())

    def _move(self) -> str:
        keys = [f":{name}" for name in self.dice.sample(ACCOUNTS, self.dice.randrange(1, 4))]
        target = self.dice.choice(["", *[host.address for host in self.hosts]])
        self._ask("agents.move", keys=keys, target=target)
        return f"{keys} move to {target or 'any other'}"

    def _drain(self) -> str:
        host = self.dice.choice(self.hosts)
        self.scheduler.tell(lambda ledger, now: ledger.drain(host.address, now))
        if self.dice.random() < 0.5:
            seconds = self.dice.uniform(0.1, 3.0)
            self._later(seconds, self._undrain, host)
            return f"{host.address} is drained for {seconds:.1f} s"
        seconds = self.dice.uniform(0.05, 3.0)
        self._later(seconds, self._leave, host)
        return f"{host.address} is drained, and leaves after {seconds:.1f} s"

    def _undrain(self, host: HostParty) -> None:
        self._ask("members.drain", address=host.address, undo=True)

    def _leave(self, host: HostParty) -> None:
        if not host.process.is_dead:
            self.scheduler.worker_closed(host.address, is_expected=True)
            self._remove(host)

    def _break_disk(self) -> str:
        seconds = self.dice.choice([0.1, 0.5, 2.0])
        disk = self.around.disk
        disk.is_broken = True

        def mend() -> None:
            disk.is_broken = False

        self._later(seconds, mend)
        return f"the disk is broken for {seconds} s"

    def _lose_client(self) -> str:
        client = self.dice.choice(self.clients)
        self.clients.remove(client)
        client.process.die()
        for task in [task for task in self._waiting if task in client.process.tasks]:
            del self._waiting[task]
        self._add_client(reads_only=client.reads_only)
        return f"{client.name} dies"

    def _restart(self) -> str:
        if not self.scheduler.is_up:
            return "nothing: there is no scheduler"
        self.scheduler.crash()
        # Dask ends the workers of a scheduler that is gone, not at once.
        for host in self._alive():
            self._later(self.dice.uniform(0.0, 6.0), self._remove, host)
        seconds = self.dice.choice([0.1, 0.5, 2.0, 8.0])
        self._later(seconds, self._start_scheduler)
        return f"the scheduler crashes, for {seconds} s"

    def _start_scheduler(self) -> None:
        self.loop.create_task(self.scheduler.start(), context=self.loop.nobody.copy())
