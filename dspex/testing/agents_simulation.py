"""Agents in virtual time, in a hostile world.

Knows: what clients do, what must hold. Must not know: real time, Dask.
Everything is drawn from one seed, so that a failing run is repeated by its seed.

The code that runs is the real one, from the handle to the journal; what is simulated is what it
runs on. Judged is what clients were told (`agents_claims`).
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
from dspex.testing.agents_troubles import ACCOUNTS, Troubles
from dspex.testing.agents_world import (
    LEASE,
    ClientParty,
    HostParty,
    SchedulerParty,
    Surroundings,
)
from dspex.testing.virtual_time import VirtualLoop

__all__ = ["SimulatedAgents"]

_UNKNOWN = (DeadlineError, DeliveryError, SessionExpiredError, UnavailableError)
"""Errors after which nobody knows whether a call took effect."""

_REST_WITHIN = 300.0
"""Virtual seconds in which everything comes to rest once nothing is in the way."""


@final
class SimulatedAgents(Troubles):
    """Runs agents for a while.

    Parameters
    ----------
    seed : int
    seconds : float
        Virtual ones, in which things go wrong.
    loss, double : float
        Probabilities of a message.
    connects : float
        Probability that a flight must wait for a connection, or cannot leave.
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
        connects: float = 0.0,
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
        self.around = Surroundings(self.loop, self.dice, self.network, connects=connects)
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
        with _same_each_time(self.seed, self.loop.time):
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
            if (operation.method, operation.name) != ("fail", str(error)):
                raise AssertionError(f"{operation} raised {error!r}") from error
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
        parties: list[Any] = [*self.hosts, *self.clients]
        for party in parties:
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


def _unsent(party: Any) -> list[Any]:
    return list(party.runtime.messages._outbound.everything())


@contextmanager
def _same_each_time(seed: int, clock: Callable[[], float]) -> Iterator[None]:
    """Have clocks show virtual time, names be drawn from the seed, and snapshots be made often."""
    dice = random.Random(f"names of {seed}")

    def token_hex(nbytes: int = 16) -> str:
        return dice.randbytes(nbytes).hex()

    with ExitStack() as stack:
        stack.enter_context(patch("secrets.token_hex", token_hex))
        stack.enter_context(patch("time.monotonic", clock))
        stack.enter_context(patch("time.time", clock))
        stack.enter_context(patch("dspex.cluster.foundation.server.SNAPSHOT_AFTER", 20_000))
        yield
