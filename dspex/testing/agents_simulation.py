"""Agents in virtual time, in a hostile world.

Knows: what clients do, what befalls whom, what must hold. Must not know: real time, Dask.
Everything is drawn from one seed, so that a failing run is repeated by its seed.

The code that runs is the real one, from the handle to the journal; what is simulated is what it runs
on. Judged is what clients were told (`agents_claims`).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, final
from unittest.mock import patch

import cloudpickle

from dspex.agents.handle import AgentHandle
from dspex.agents.options import Options
from dspex.errors import DeadlineError, DeliveryError, SessionExpiredError, UnavailableError
from dspex.testing.agents_accounts import Account
from dspex.testing.agents_claims import FIRST, Claims, Operation
from dspex.testing.agents_network import Network
from dspex.testing.agents_world import (
    LEASE,
    SCHEDULER,
    ClientParty,
    HostParty,
    SchedulerParty,
    Surroundings,
)
from dspex.testing.virtual_time import VirtualLoop

__all__ = ["SimulatedAgents"]

ACCOUNTS = ("a", "b", "c", "d", "e")

_UNKNOWN = (DeadlineError, DeliveryError, SessionExpiredError, UnavailableError)
"""Errors after which nobody knows whether a call took effect."""

_REST_WITHIN = 300.0
"""Virtual seconds in which everything comes to rest once nothing is in the way."""


@final
class SimulatedAgents:
    """Runs agents for a while.

    Parameters
    ----------
    seed : int
    seconds : float
        Virtual ones, in which things go wrong.
    loss, double : float
        Probabilities of a message.
    faults : float
        How many befall somebody in a second.
    has_restarts : bool
        Whether the scheduler may be started anew; else some accounts are kept in memory alone.
    only : str
        The one thing that befalls them, as "crash_host"; all of them where it is empty.

    Examples
    --------
    >>> world = SimulatedAgents(seed=1, seconds=5.0)
    >>> world.run()
    >>> len(world.claims.acknowledged) > 10
    True
    """

    def __init__(
        self,
        *,
        seed: int,
        seconds: float = 15.0,
        loss: float = 0.03,
        double: float = 0.03,
        faults: float = 0.5,
        has_restarts: bool | None = None,
        only: str = "",
    ) -> None:
        self.seed = seed
        self._seconds = seconds
        self._faults = faults
        self._only = only
        self.dice = random.Random(seed)
        self.loop = VirtualLoop()
        self.loop.work_takes = self._disk_takes
        self.network = Network(self.loop, self.dice, loss=loss, double=double)
        self.around = Surroundings(self.loop, self.dice, self.network)
        self.scheduler = SchedulerParty(self.around)
        self.hosts: list[HostParty] = []
        self.clients: list[ClientParty] = []
        self.claims = Claims(ACCOUNTS)
        self.has_restarts = self.dice.random() < 0.5 if has_restarts is None else has_restarts
        self.befell: list[str] = []
        self.errors: list[BaseException] = []
        self._is_calm = False
        self._born = 0
        self._waiting: dict[asyncio.Task[None], str] = {}

    def _disk_takes(self) -> float:
        if self._is_calm:
            return 0.001
        return self.dice.uniform(0.5, 2.0) if self.dice.random() < 0.005 else 0.002

    def run(self) -> None:
        """Let time pass, and then come everything to rest.

        Raises
        ------
        AssertionError
            Where a promise is broken.
        """
        self.loop.set_exception_handler(self._failed)
        with _same_each_time(self.seed):
            try:
                self.loop.run_until_complete(self._run())
            finally:
                self.loop.end()

    def _failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if error is not None and not isinstance(error, (OSError, *_UNKNOWN)):
            self.errors.append(error)

    async def _run(self) -> None:
        self.network.is_calm = True
        await self.scheduler.start()
        for _ in range(self.dice.randrange(2, 5)):
            self._add_host()
        while len(self.scheduler.server.ledger.members.everyone()) < len(self.hosts):
            await asyncio.sleep(0.1)
        await self._create()
        self.network.is_calm = False
        for _ in range(self.dice.randrange(2, 4)):
            self._add_client()
        self._add_client(reads_only=True)
        befalling = self.loop.create_task(self._befall())
        await asyncio.sleep(self._seconds)
        befalling.cancel()
        await self._heal()
        await self._rest()
        await self._judge()

    # --- who there is ----------------------------------------------------------------------------

    def _name(self, letter: str) -> str:
        self._born += 1
        return f"{letter}{self._born}"

    def _add_host(self) -> None:
        host = HostParty(self.around, self._name("w"), self.scheduler.generation)
        self.hosts.append(host)
        self.scheduler.worker_added(host.address)

    def _add_client(self, *, reads_only: bool = False) -> None:
        client = ClientParty(self.around, self._name("c"), reads_only=reads_only)
        self.clients.append(client)
        client.process.spawn(self._act(client))

    async def _create(self) -> None:
        creator = ClientParty(self.around, "creator")
        await creator.process.spawn(creator.start())
        code = cloudpickle.dumps(Account)
        for name in ACCOUNTS:
            is_durable = self.has_restarts or self.dice.random() < 0.5
            kept = "durable" if is_durable else "cluster_replicated"
            placement = self.dice.choice(["any_node", "least_loaded", "spread"])
            fields = Options(persistence=kept, placement=placement).fields("0" * 64, Account)
            await creator.process.spawn(
                creator.caller.write(
                    "agents.create",
                    spec=fields,
                    code=code,
                    agents=[(f":{name}", cloudpickle.dumps(((FIRST,), {})))],
                    on_conflict="existing",
                )
            )
        creator.process.die()

    # --- what clients do -------------------------------------------------------------------------

    async def _act(self, client: ClientParty) -> None:
        await client.start()
        number = 0
        while not self._is_calm:
            for _ in range(self.dice.choice([1, 1, 1, 2, 5])):
                number += 1
                self._call(client, f"{client.name}.{number}")
            await asyncio.sleep(self.dice.expovariate(6.0))

    def _handle(self, client: ClientParty, account: str) -> AgentHandle:
        return AgentHandle(f":{account}", "Account", client.runtime)

    def _call(self, client: ClientParty, name: str) -> None:
        dice = self.dice
        (method,) = dice.choices(
            ["deposit", "deposit_slowly", "transfer", "fail", "cast", "read"], [6, 1, 6, 1, 4, 4]
        )
        if client.reads_only:
            method = "read"
        account, *others = dice.sample(ACCOUNTS, 3)
        delivery = dice.choice(["auto", "exactly_once", "auto", "at_least_once", "at_most_once"])
        amount = dice.randrange(1, 10)
        if method == "read":
            self._read(client, name, account)
            return
        if method in ("transfer", "fail"):
            delivery = "exactly_once"
            others = others[: 1 if method == "fail" else dice.randrange(1, 3)]
        else:
            others = []
        args: tuple[Any, ...] = (name, amount, *others)
        if method == "deposit_slowly":
            args = (name, amount, dice.expovariate(4.0))
        operation = Operation(name, account, method, delivery, tuple(others))
        self.claims.called(operation)
        handle = self._handle(client, account)
        if method == "cast":
            handle.cast("deposit", args, delivery=delivery)
            return
        timeout = dice.uniform(0.1, 4.0) if dice.random() < 0.15 else None
        future = handle.call(method, args, timeout=timeout, delivery=delivery)
        if dice.random() < 0.05:
            self.loop.call_later(dice.expovariate(3.0), future.cancel)
        self._wait(client, name, self._answer(operation, future))

    async def _answer(self, operation: Operation, future: Any) -> None:
        try:
            answer = await future
        except _UNKNOWN as error:
            self.claims.refused(operation, error)
        except asyncio.CancelledError as error:
            self.claims.refused(operation, error)
            if not future.cancelled():
                raise
        except ValueError as error:
            assert operation.method == "fail", f"{operation} raised {error!r}"
            assert str(error) == operation.name, f"{operation} raised {error!r}"
        else:
            self.claims.answered(operation, answer)

    def _read(self, client: ClientParty, name: str, account: str) -> None:
        expected = self.claims.expected(account)
        delivery = self.dice.choice(["auto", "at_least_once", "at_most_once"])
        future = self._handle(client, account).call("read", (name,), delivery=delivery)

        async def judge() -> None:
            try:
                op, balance, log = await future
            except _UNKNOWN:
                return
            assert op == name, f"the read {name} was answered with that of {op}"
            self.claims.read(account, expected, (balance, log))

        self._wait(client, f"{name} (read of {account})", judge())

    def _wait(self, client: ClientParty, what: str, work: Any) -> None:
        task = client.process.spawn(work)
        self._waiting[task] = f"{what}, {self.claims.operations.get(what, '')}"

        def done(task: asyncio.Task[None]) -> None:
            self._waiting.pop(task, None)
            if not task.cancelled() and task.exception() is not None:
                error = task.exception()
                assert error is not None
                self.errors.append(error)

        task.add_done_callback(done)

    # --- what befalls them -----------------------------------------------------------------------

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
        one = self.dice.choice(self.hosts)
        other = self.dice.choice([each for each in [*self.hosts, *self.clients] if each != one])
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
        for party in [self.scheduler, *self.hosts, *self.clients]:
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

    # --- the end ---------------------------------------------------------------------------------

    async def _heal(self) -> None:
        self._is_calm = True
        self.network.heal()
        self.around.disk.is_broken = False
        for process in self.loop.processes:
            process.go_on()
        # What was planned still befalls.
        await asyncio.sleep(3 * LEASE + 10.0)
        for host in self.hosts:
            self._undrain(host)

    async def _rest(self) -> None:
        """Wait until nobody waits."""
        ends = self.loop.time() + _REST_WITHIN
        while (busy := self._busy()) and not self.errors:
            assert self.loop.time() < ends, f"this hangs: {busy[:5]}, {self._where()}"
            await asyncio.sleep(1.0)

    def _busy(self) -> list[str]:
        if not self.scheduler.is_up:
            return ["there is no scheduler"]
        busy = list(self._waiting.values())
        for key, agent in self._known().items():
            if agent.status != "running":
                busy.append(f"{key} is {agent.status} {agent.reason}")
            if agent.outbox:
                busy.append(f"{key} has sent {[each[:2] for each in agent.outbox.values()]}")
        for party in [*self.hosts, *self.clients]:
            if hasattr(party, "runtime"):
                busy += [f"{party.name} sends {each.method}" for each in _unsent(party)]
        return busy

    def _known(self) -> dict[str, Any]:
        known: dict[str, Any] = self.scheduler.server.ledger.agents._known.agents
        return known

    def _where(self) -> dict[str, str]:
        return {key: f"{each.host} {each.status}" for key, each in self._known().items()}

    async def _judge(self) -> None:
        for error in self.errors:
            raise AssertionError(f"something failed: {error!r}") from error
        self.scheduler.server.ledger.validate()
        reader = ClientParty(self.around, "reader")
        await reader.process.spawn(reader.start())
        logs = {}
        for account in ACCOUNTS:
            expected = self.claims.expected(account)

            async def read(account: str = account) -> Any:
                return await self._handle(reader, account).call("read", ("end",))

            async with asyncio.timeout(60.0):
                _, balance, log = await reader.process.spawn(read())
            self.claims.read(account, expected, (balance, log))
            logs[account] = log
        self.claims.judge(logs)
        whole = len(ACCOUNTS) * FIRST
        given = sum(amount for log in logs.values() for _, amount in log)
        assert whole + given == whole + sum(
            amount for log in logs.values() for op, amount in log if ">" not in op
        ), "money was made, or lost, in transfers"


def _unsent(party: ClientParty) -> list[Any]:
    return list(party.runtime.messages._outbound.everything())


@contextmanager
def _same_each_time(seed: int) -> Iterator[None]:
    """Have names that are drawn be drawn from the seed, and snapshots be made often."""
    dice = random.Random(f"names of {seed}")

    def token_hex(nbytes: int = 16) -> str:
        return dice.randbytes(nbytes).hex()

    with ExitStack() as stack:
        stack.enter_context(patch("secrets.token_hex", token_hex))
        stack.enter_context(patch("dspex.cluster.foundation.server.SNAPSHOT_AFTER", 20_000))
        yield
