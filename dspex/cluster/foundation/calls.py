"""One session's way to the ledger: it is kept alive, and its calls take effect once.

Knows: a session, its lease, an asyncio loop. Must not know: Dask, what an op means.

The session lives on a lease that is renewed three times in its length, and measured from when the
renewal was asked for. When it ran out the ledger has ended the session: what it held is gone, and
a new session begins, to which calls go over where that is safe (`flights`).
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from typing import Any, NoReturn, final

from dspex.cluster.foundation.exchange import Exchange, Send, backoff
from dspex.cluster.foundation.flights import Flights
from dspex.cluster.foundation.following import ANSWER_WITHIN, HOLD, follow, follow_events
from dspex.cluster.foundation.item import Item
from dspex.cluster.foundation.late import LateReplies
from dspex.cluster.foundation.transfers import get_blob, put_blob
from dspex.errors import DspexError, NotPicklableError, SessionExpiredError, UnavailableError
from dspex.foundation.ledger.sessions import HOLDER_SHARE
from dspex.foundation.ledger.wire import encode_body
from dspex.foundation.ports import Update

__all__ = ["LedgerCaller"]

logger = logging.getLogger("dspex.foundation")

PATIENCE = 30.0
"""Seconds for which a call is repeated while the ledger cannot be reached."""

_LEAVE_WITHIN = 1.0
"""Seconds in which a farewell is said; without one the session ends with its lease."""


@final
class LedgerCaller:
    """Calls the ledger for one session; used on one loop.

    Parameters
    ----------
    send : callable
    kind : "client" or "worker"
    name : str
        For people.
    lease : float
        Seconds for which the ledger believes in this session without a sign of it.
    on_open : coroutine function, optional
        Called after each opening of a session, the first included, until it succeeds.
    patience : float
        Seconds for which a call is repeated while the ledger cannot be reached.

    Attributes
    ----------
    facts : mapping
        Of the ledger that opened the session: its term, and url, durable, copies and identity of
        its journal.
    """

    def __init__(
        self,
        send: Send,
        *,
        kind: str,
        name: str,
        lease: float,
        on_open: Callable[[], Awaitable[None]] | None = None,
        clock: Callable[[], float] = time.monotonic,
        patience: float = PATIENCE,
    ) -> None:
        self._exchange = Exchange(send, clock=clock, patience=patience)
        self._flights = Flights(self._exchange, reopen=self._open, wait=self._wait)
        self._late = LateReplies(self._exchange, self._flights, self._cancel)
        self._exchange.on_restart = self._late.ask_again
        self._kind = kind
        self._name = name
        self._lease = lease
        self._on_open = on_open
        self._ends = float("-inf")
        self._opening = asyncio.Lock()
        self._introduced = asyncio.Event()
        self._introducing: asyncio.Task[None] | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._closed = False
        self.facts: Mapping[str, Any] = {}

    def __reduce__(self) -> NoReturn:
        raise NotPicklableError(
            "what dspex.connect gives stays in its process, as its session does; call "
            "dspex.connect in the other process"
        )

    # --- the session -----------------------------------------------------------------------

    @property
    def session(self) -> str:
        """The session's id."""
        return self._exchange.session

    async def start(self) -> None:
        """Open a session, and keep it; after an error it may be tried again.

        Raises
        ------
        UnavailableError
        """
        await self._exchange.patiently(lambda: self._open(""), "opening a session")
        if self._keeper is None:
            self._keeper = asyncio.create_task(self._keep(), name="dspex-session")
        await self._introduced.wait()

    async def close(self, reason: str = "closed") -> None:
        """End the session and all that it holds; may be called twice."""
        if self._closed:
            return
        self._closed = True
        self._ends = float("-inf")  # what it held is held no more
        self._exchange.close()
        own = [task for task in (self._keeper, self._introducing) if task is not None]
        for task in own:
            task.cancel()
        await asyncio.gather(
            self._flights.close(), self._late.close(), *own, return_exceptions=True
        )
        if self.session:
            await self._exchange.take_leave(self.session, reason, within=_LEAVE_WITHIN)

    def now(self) -> float:
        """Monotonic seconds."""
        return self._exchange.now()

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)

    def lease_ends(self) -> float:
        """The instant at which this session may have run out."""
        return self._ends

    async def _open(self, former: str) -> None:
        async with self._opening:
            if self.session != former:
                return  # somebody else has opened it by now
            session = secrets.token_hex(8)
            sent = self.now()
            opened = await self._exchange.ask(
                "session.open",
                session=session,
                within=ANSWER_WITHIN,
                kind=self._kind,
                name=self._name,
                lease=self._lease,
            )
            self.facts = {**opened["journal"], "term": opened["term"]}
            self._exchange.session = session
            self._ends = sent + HOLDER_SHARE * self._lease
            self._flights.session_began(self._late.session_ended())
            if self._introducing is not None:
                self._introducing.cancel()
            self._introducing = asyncio.create_task(self._introduce(), name="dspex-introduction")

    async def _introduce(self) -> None:
        """Have the session made known, by a task of its own: it makes calls, which may wait."""
        failures = 0
        while self._on_open is not None:
            try:
                await self._on_open()
                break
            except Exception as error:
                if not failures:
                    logger.warning("session %s is not made known yet: %r", self.session, error)
                await backoff(failures)
                failures += 1
        self._introduced.set()

    async def _keep(self) -> None:
        while True:
            sent = self.now()
            session = self.session
            with suppress(OSError, DspexError):  # asked again; the lease runs out by itself
                try:
                    await self._exchange.ask("session.renew", within=max(1.0, self._lease))
                    if session == self.session:
                        self._ends = sent + HOLDER_SHARE * self._lease
                except SessionExpiredError:
                    await self._open(session)
            await asyncio.sleep(max(0.0, sent + self._lease / 3 - self.now()))

    # --- calls -----------------------------------------------------------------------------

    async def read(self, op: str, **args: Any) -> Any:
        """Ask; UnavailableError where nobody answers for long."""
        item = self._item(op, args, None)
        await self._flights.send(item)
        return await item.future

    async def write(self, op: str, *, timeout: float | None = None, **args: Any) -> Any:
        """Change, once; TimeoutError where the answer must wait for longer than `timeout`."""
        item = self._item(op, args, 0)
        self._flights.add(item)
        try:
            async with asyncio.timeout(timeout):
                return await asyncio.shield(item.future)
        except (asyncio.CancelledError, UnavailableError):
            # Of the latter nobody knows whether it took effect; what it got would be nobody's.
            self._late.withdraw(item)
            raise
        except TimeoutError:
            if item.future.done():  # at the same moment, or it is its own
                return item.future.result()
            self._late.withdraw(item)
            raise
        finally:
            if item.answered is None:
                self._flights.forget(item)

    def _item(
        self, op: str, args: Mapping[str, Any], number: int | None, session: str = ""
    ) -> Item:
        if self._closed:
            raise UnavailableError("this connection to the foundation is closed; connect again")
        future = asyncio.get_running_loop().create_future()
        deadline = self.now() + self._exchange.patience
        return Item(op, encode_body(op, args), number, session, future, deadline)

    def _wait(self, item: Item) -> None:
        self._late.wait(item)

    async def _cancel(self, item: Item) -> None:
        cancelling = self._item("call.cancel", {"number": item.number}, None, item.session)
        await self._flights.send(cancelling)
        await cancelling.future

    # --- followers, large values -----------------------------------------------------------

    def follow(self, collection: str, pattern: str) -> AsyncIterator[Update]:
        """Tell all the records there are, then every change."""
        return follow(self._exchange, collection, pattern)

    def follow_events(
        self, tags: Collection[str], *, hold: float = HOLD
    ) -> AsyncIterator[tuple[Any, ...]]:
        """Tell ``("reset",)``, then every event of these tags."""
        return follow_events(self._exchange, tags, hold=hold)

    async def put_blob(self, data: bytes) -> str:
        """Keep a large value; gives its SHA-256."""
        return await put_blob(self._exchange, data)

    async def get_blob(self, digest: str) -> bytes:
        """Read a large value."""
        return await get_blob(self._exchange, digest)
