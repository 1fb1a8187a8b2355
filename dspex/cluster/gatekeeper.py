"""The leases of a study, asked for and given back: the ring around `admission`.

Knows: the foundation's session, the client's event loop. Must not know: how many leases are
wanted, and where (`admission`); what is done with them (`executor`).

All of it runs on the client's loop, so that neither the study's thread nor the ledger waits for
the other. What the study should know it is told as events, tuples whose first item is the kind:
``("leases", slots, held, able)``, {worker: how many} twice, and how many workers could give one if
they were idle; ``("said", message)``; ``("refused", error)``.

A lease is lost with its worker, which a change of its member tells (the ledger is asked, as events
may be late), and with the session. Whether the session lives is not known while its renewals are
late; until they are through the study has no slots. A foundation that is gone, because its
scheduler was started anew without it, is installed again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping
from contextlib import suppress
from typing import Any, final

from dask import config
from distributed import Client

from dspex.cluster.admission import Admission, Ask, GiveBack, LeaseRequest, Withdraw, explain
from dspex.cluster.foundation.calls import LedgerCaller
from dspex.cluster.foundation.connecting import session_of
from dspex.cluster.foundation.install import install
from dspex.errors import (
    DspexError,
    QuotaExceededError,
    ResourceExhaustedError,
    SessionExpiredError,
    UnavailableError,
    UnsatisfiableRequestError,
)
from dspex.foundation.ledger.events import Token

__all__ = ["KIND", "Gatekeeper"]

KIND = "evaluation"
"""What the leases are for, as `usage` counts them."""

SESSION_LEASE = 10.0
"""Seconds for which leases outlive a client that was killed.

A client that pickles much, or computes without a pause, is not heard of meanwhile; losing its
leases would cost it what runs on them.
"""

WORKER_LEASE = 3.0
"""Of the workers' sessions, where this study installs the foundation."""

_TICK = 0.25
_SAY_AFTER = 1.0
_FIRST_WITHIN = 1.0
_AGAIN_AFTER = 1.0


@final
class Gatekeeper:
    """Holds leases for a study.

    Parameters
    ----------
    client : distributed.Client
        On whose loop everything but `see` is to be called.
    request : LeaseRequest
    tell : callable
        Takes events; returns at once.
    most : int, optional
        How many evaluations the study can run at once.
    """

    def __init__(
        self,
        client: Client,
        request: LeaseRequest,
        tell: Callable[[tuple[Any, ...]], object],
        most: int | None = None,
    ) -> None:
        self._client: Any = client
        self._request = request
        self._tell = tell
        self._admission = Admission(request, most)
        self._caller: LedgerCaller | None = None
        self._session = ""
        self._asks: dict[int, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._life: asyncio.Task[None] | None = None
        self._error: BaseException | None = None
        self._has_first = asyncio.Event()
        self._told: tuple[Any, ...] = ("leases", {}, {}, 0)
        self._empty_since: float | None = None
        self._has_said = False
        self._not_before = 0.0

    async def open(self) -> None:
        """Connect, ask, and wait a moment for what can be given at once.

        Raises
        ------
        VersionMismatchError, UnavailableError
            Where the foundation cannot be installed.
        """
        await self._connect()
        self._life = asyncio.create_task(self._live(), name="dspex-gatekeeper")
        with suppress(TimeoutError):
            await asyncio.wait_for(self._has_first.wait(), _FIRST_WITHIN)

    def see(
        self, usable: Mapping[str, int], others: Collection[str], in_hand: Mapping[str, int]
    ) -> None:
        """Take what the study sees of its workers; from any thread."""

        def take() -> None:
            self._admission.workers(usable, others=others, in_hand=in_hand)
            self._step()

        self._client.loop.asyncio_loop.call_soon_threadsafe(take)

    async def close(self) -> None:
        """Give everything back, and ask for nothing more; may be called twice."""
        life, self._life = self._life, None
        if life is not None:
            life.cancel()
            await asyncio.gather(life, return_exceptions=True)
        await self._let_go()

    # --- the session -----------------------------------------------------------------------

    async def _connect(self) -> None:
        await install(self._client, journal=config.get("dspex.journal", None), lease=WORKER_LEASE)
        caller = session_of(self._client, lease=SESSION_LEASE, on_open=self._session_opened)
        self._caller = caller
        await caller.start()

    async def _session_opened(self) -> None:
        """What the former session held is gone; what it waited for goes over by itself."""
        if self._caller is not None and self._session != self._caller.session:
            self._session = self._caller.session
            self._admission.lost_all()
            self._step()

    async def _let_go(self) -> None:
        caller, self._caller = self._caller, None
        tasks = [*self._asks.values(), *self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for number in list(self._asks):
            self._admission.refused(number)
        self._asks.clear()
        self._admission.lost_all()
        self._admission.forget_members()
        if caller is not None:
            await caller.close("the study is over")

    async def _live(self) -> None:
        try:
            while True:
                try:
                    await self._serve()
                except (OSError, TimeoutError) as error:
                    if isinstance(error, ResourceExhaustedError):
                        raise
                    await self._begin_again()
        except Exception as error:  # for the study's thread
            self._tell(("refused", error))
            self._has_first.set()

    async def _serve(self) -> None:
        """Go on until something fails."""
        self._error = None
        self._spawn(self._follow())
        while self._error is None:
            self._step()
            self._say_what_is_waited_for()
            refusal = self._admission.refusal
            if refusal is not None and not self._admission.was_granted:
                raise UnsatisfiableRequestError(refusal)
            await asyncio.sleep(_TICK)
        raise self._error

    async def _begin_again(self) -> None:
        while True:
            await self._let_go()
            self._publish()
            await asyncio.sleep(_AGAIN_AFTER)
            with suppress(OSError, TimeoutError):
                await self._connect()
                return

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Do work whose failure is the end of this connection."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            self._error = self._error or task.exception()

    # --- members ---------------------------------------------------------------------------

    async def _follow(self) -> None:
        caller, admission = self._caller, self._admission
        assert caller is not None
        async for tag, *fields in caller.follow_events({"member"}):
            if tag == "reset":
                everyone = await caller.read("members.list")
                admission.forget_members()
                for each in everyone:
                    admission.member(each["address"], each["state"], each["capacity"])
                await self._verify(admission.leases)
            else:
                address, _, _, _, _, state, capacity = fields
                admission.member(address, state, capacity)
                at = [token for token, worker in admission.leases.items() if worker == address]
                await self._verify(at)
            self._step()

    async def _verify(self, tokens: Iterable[Token]) -> None:
        caller = self._caller
        assert caller is not None
        asked = list(tokens)
        held = await asyncio.gather(
            *(caller.read("resources.verify", token=list(token)) for token in asked)
        )
        self._admission.lost(
            token for token, is_held in zip(asked, held, strict=True) if not is_held
        )

    # --- leases ----------------------------------------------------------------------------

    def _step(self) -> None:
        """Do what the admission decides, and tell what came of it."""
        caller = self._caller
        if caller is None or time.monotonic() < self._not_before:
            self._publish()
            return
        for command in self._admission.decide():
            match command:
                case Ask(number, worker):
                    self._asks[number] = self._spawn(self._ask(caller, number, worker))
                case Withdraw(number):
                    self._asks.pop(number).cancel()
                case GiveBack(token):
                    self._spawn(_give_back(caller, token))
        self._publish()
        if not self._admission.waiting and (self._admission.slots or not self._admission.able):
            self._has_first.set()

    async def _ask(self, caller: LedgerCaller, number: int, worker: str | None) -> None:
        request = self._request
        try:
            granted = await caller.write(
                "resources.acquire",
                kind=KIND,
                amounts=request.amounts,
                labels=list(request.labels),
                placement="spread",
                tenant=request.tenant,
                priority=request.priority,
                worker=worker,
            )
        except asyncio.CancelledError:
            self._admission.refused(number)
            raise
        except (SessionExpiredError, ResourceExhaustedError):
            # It ended with its session; or the worker has just left, or too many wait.
            self._refused(number)
        except QuotaExceededError:
            self._refused(number)
            if not self._admission.leases:
                raise
        else:
            term, n = granted["token"]
            self._asks.pop(number, None)
            self._admission.granted(number, (term, n), granted["worker"])
            self._step()

    def _refused(self, number: int) -> None:
        self._asks.pop(number, None)
        self._admission.refused(number)
        self._not_before = time.monotonic() + _AGAIN_AFTER

    def _publish(self) -> None:
        caller = self._caller
        is_sure = caller is not None and caller.now() < caller.lease_ends()
        slots = self._admission.slots if is_sure else {}
        held = self._admission.held if is_sure else {}
        told = ("leases", slots, held, self._admission.able)
        if told != self._told:
            self._told = told
            self._tell(told)
        if slots:
            self._empty_since = None
            self._has_said = False
        elif self._empty_since is None:
            self._empty_since = time.monotonic()

    # --- what people hear ------------------------------------------------------------------

    def _say_what_is_waited_for(self) -> None:
        is_long = (
            self._empty_since is not None and time.monotonic() - self._empty_since > _SAY_AFTER
        )
        if is_long and not self._has_said and self._admission.able and self._caller is not None:
            self._has_said = True
            self._spawn(self._say(self._caller))

    async def _say(self, caller: LedgerCaller) -> None:
        tenants = await caller.read("resources.usage", by="tenant")
        workers = await caller.read("resources.usage", by="worker")
        self._tell(("said", explain(self._request, tenants, workers)))


async def _give_back(caller: LedgerCaller, token: Token) -> None:
    try:
        await caller.write("resources.release", token=list(token))
    except UnavailableError:
        raise
    except DspexError:
        pass  # it ended with its session
