"""One session's way to the ledger: calls go out in batches, and take effect once.

Knows: calls, their numbers, flights, an asyncio loop. Must not know: Dask, what an op means.

Calls that are made while others are on their way travel together in the next flight. A flight
that fails is repeated, with the numbers that its calls had, so that the ledger knows them again. A
call that must wait (for a lease) is answered PENDING; one poll then waits for all such replies.

The session lives on a lease that is renewed three times in its length, and measured from when the
renewal was asked for. When it ran out the ledger has ended the session: what it held is gone, and
a new session begins. A call that the ledger refused for it goes over to the new one; of one that
was sent before and never answered nobody knows whether it took effect: SessionExpiredError.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any, final

from dspex.cluster.foundation.exchange import Exchange, Send, backoff
from dspex.cluster.foundation.following import follow, follow_events
from dspex.cluster.foundation.item import Item
from dspex.cluster.foundation.transfers import get_blob, put_blob
from dspex.errors import DspexError, SessionExpiredError, UnavailableError
from dspex.foundation.ledger.sessions import HOLDER_SHARE
from dspex.foundation.ledger.wire import DONE, PENDING, Call, Request, rebuilt_error
from dspex.foundation.ports import Update

__all__ = ["LedgerCaller"]

PATIENCE = 30.0
"""Seconds for which a call is repeated while the ledger cannot be reached."""

MAX_FLIGHTS = 4
MAX_CALLS = 500
MAX_BYTES = 8 * 2**20

REPLY_HOLD = 10.0


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
        Called after each opening of a session, the first included.
    patience : float
        Seconds for which a call is repeated while the ledger cannot be reached.
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
        self._exchange.on_restart = self._ask_again_who_waits
        self._kind = kind
        self._name = name
        self._lease = lease
        self._on_open = on_open
        self._ends = float("-inf")
        self._next_number = 1
        self._unanswered: dict[int, Item] = {}  # in the order of their numbers
        self._waiting: dict[int, Item] = {}
        self._outbox: list[Item] = []
        self._flights: set[asyncio.Task[Any]] = set()
        self._inline = 0
        self._is_flush_due = False
        self._failures = 0
        self._opening = asyncio.Lock()
        self._keeper: asyncio.Task[None] | None = None
        self._reply_poll: asyncio.Task[None] | None = None
        self._aside: set[asyncio.Task[Any]] = set()
        self._closed = False
        self.facts: Mapping[str, Any] = {}

    @property
    def session(self) -> str:
        """The session's id."""
        return self._exchange.session

    # --- the session -----------------------------------------------------------------------

    async def start(self) -> None:
        """Open a session, and keep it."""
        await self._open("")
        status = await self.read("status")
        self.facts = {**status["journal"], "term": status["term"]}
        self._keeper = asyncio.create_task(self._keep(), name="dspex-session")

    async def close(self, reason: str = "closed") -> None:
        """End the session and all that it holds; may be called twice."""
        if self._closed:
            return
        self._closed = True
        tasks = [*self._flights, *self._aside]
        tasks += [task for task in (self._keeper, self._reply_poll) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._fail_all(UnavailableError("the connection to the foundation was closed"))
        with suppress(OSError, DspexError, TimeoutError):
            async with asyncio.timeout(self._lease):
                await self._exchange.ask("session.close", reason=reason)
        self._exchange.close()

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
            await self._exchange.ask(
                "session.open",
                session=session,
                kind=self._kind,
                name=self._name,
                lease=self._lease,
            )
            self._exchange.session = session
            self._ends = sent + HOLDER_SHARE * self._lease
            self._next_number = 1
            self._unanswered.clear()
            waiting, self._waiting = list(self._waiting.values()), {}
            for item in waiting:
                self._go_over(item, former)  # it waited, and so had no effect
            doubtful = [item for item in self._outbox if item.number]
            self._outbox = [item for item in self._outbox if not item.number]
            for item in doubtful:
                self._go_over(item, former)
        if self._on_open is not None:
            await self._on_open()

    def _go_over(self, item: Item, former: str) -> None:
        """Make a call of a session that ended one of the new session, where that is safe."""
        if item.is_doubtful:
            self._done(
                item,
                SessionExpiredError(
                    f"a call takes effect once as long as its session lives; {former} ran out "
                    f"before {item.op} was answered, and whether it took effect is not known; "
                    "look, and call again where it did not"
                ),
            )
        elif not item.future.done():
            item.number = 0
            self._enqueue(item)

    async def _keep(self) -> None:
        while True:
            sent = self.now()
            session = self.session
            try:
                # `asyncio.wait_for` of Python 3.11 swallows a cancellation that comes with a result.
                async with asyncio.timeout(max(1.0, self._lease)):
                    await self._exchange.ask("session.renew")
                if session == self.session:
                    self._ends = sent + HOLDER_SHARE * self._lease
            except SessionExpiredError:
                with suppress(OSError, DspexError, TimeoutError):
                    await self._open(session)
            except (OSError, DspexError, TimeoutError):
                pass  # it is asked again; meanwhile the lease runs out by itself
            await asyncio.sleep(max(0.0, sent + self._lease / 3 - self.now()))

    # --- calls -----------------------------------------------------------------------------

    async def read(self, op: str, **args: Any) -> Any:
        """Ask; UnavailableError where nobody answers for long."""
        item = self._item(op, args, None)
        if self._outbox or self._in_air >= MAX_FLIGHTS:
            self._enqueue(item)
        else:
            # Nothing travels with it, so it need not wait for a turn of the loop.
            self._inline += 1
            try:
                await self._fly([item])
            finally:
                self._inline -= 1
                self._landed()
        return await item.future

    async def write(self, op: str, *, timeout: float | None = None, **args: Any) -> Any:
        """Change, once; TimeoutError where the answer must wait for longer than `timeout`."""
        item = self._item(op, args, 0)
        self._enqueue(item)
        try:
            async with asyncio.timeout(timeout):
                return await asyncio.shield(item.future)
        except (TimeoutError, asyncio.CancelledError):
            if item.future.done():
                return item.future.result()
            self._withdraw(item)
            raise

    def _item(self, op: str, args: Mapping[str, Any], number: int | None) -> Item:
        if self._closed:
            raise UnavailableError("this connection to the foundation is closed; connect again")
        future = asyncio.get_running_loop().create_future()
        return Item(op, args, number, future, self.now() + self._exchange.patience)

    def _enqueue(self, item: Item) -> None:
        self._outbox.append(item)
        if not self._is_flush_due and self._in_air < MAX_FLIGHTS:
            self._is_flush_due = True
            # After what else this turn of the loop has to say.
            asyncio.get_running_loop().call_soon(self._flush)

    @property
    def _in_air(self) -> int:
        return len(self._flights) + self._inline

    def _flush(self) -> None:
        self._is_flush_due = False
        while self._outbox and self._in_air < MAX_FLIGHTS and not self._closed:
            size = count = 0
            for item in self._outbox:
                size += item.size
                if count and (size > MAX_BYTES or count >= MAX_CALLS):
                    break
                count += 1
            items, self._outbox = self._outbox[:count], self._outbox[count:]
            task = asyncio.get_running_loop().create_task(self._fly(items))
            self._flights.add(task)
            task.add_done_callback(self._flown)

    def _flown(self, task: asyncio.Task[None]) -> None:
        self._flights.discard(task)
        if not task.cancelled():
            error = task.exception()
            if isinstance(error, OSError | DspexError | TimeoutError):
                # A session could not be opened; whoever called must hear of it.
                self._fail_all(UnavailableError(f"no session could be opened: {error}"))
            elif error is not None:
                raise error
        self._landed()

    def _landed(self) -> None:
        if self._outbox and not self._closed:
            self._flush()

    async def _fly(self, items: Sequence[Item]) -> None:
        session = self.session
        calls = []
        for item in items:
            if item.number == 0:
                item.number = self._next_number
                self._next_number += 1
                self._unanswered[item.number] = item
            calls.append(Call(item.number, item.op, item.args))
        acked_below = next(iter(self._unanswered), self._next_number)
        try:
            # A transport may try for longer than anybody here wants to wait.
            async with asyncio.timeout(max(item.deadline for item in items) - self.now()):
                answer = await self._exchange.exchange(Request(session, acked_below, calls))
        except DspexError as error:  # an answer, though it may be an OSError too
            for item in items:
                self._done(item, error)
            return
        except (OSError, TimeoutError) as error:
            await self._again(items, error, session)
            return
        self._failures = 0
        refused = []
        for item, (status, payload) in zip(items, answer.replies, strict=True):
            if status == DONE:
                self._done(item, payload)
            elif status == PENDING:
                self._wait(item)
            else:
                refusal = rebuilt_error(payload)
                if isinstance(refusal, SessionExpiredError) and item.number is not None:
                    refused.append(item)
                else:
                    self._done(item, refusal)
        if refused:
            await self._exchange.patiently(lambda: self._open(session), "opening a session")
            for item in refused:
                self._go_over(item, session)

    def _done(self, item: Item, outcome: Any) -> None:
        if item.answered is not None:
            # Its reply stays unacknowledged until it is withdrawn, so that the ledger has it.
            if not item.answered.done():
                item.answered.set_result(None)
            return
        self._forget(item)
        if item.future.done():
            return
        if isinstance(outcome, BaseException):
            item.future.set_exception(outcome)
        else:
            item.future.set_result(outcome)

    def _forget(self, item: Item) -> None:
        # The number may be another call's by now, of another session.
        for table in (self._unanswered, self._waiting):
            if item.number and table.get(item.number) is item:
                del table[item.number]

    async def _again(self, items: Sequence[Item], error: Exception, session: str) -> None:
        """Repeat calls of which nobody knows whether they arrived."""
        kept = []
        for item in items:
            item.is_doubtful = item.number is not None
            if self.now() >= item.deadline:
                self._done(item, _unreachable(item, self._exchange.patience, error))
            else:
                kept.append(item)
        await backoff(self._failures)
        self._failures += 1
        if session == self.session:
            self._outbox[:0] = kept
            return
        self._outbox[:0] = [item for item in kept if item.number is None]
        for item in kept:
            if item.number is not None:
                self._go_over(item, session)

    def _fail_all(self, error: DspexError) -> None:
        items = [*self._unanswered.values(), *self._outbox]
        self._outbox = []
        for item in items:
            self._done(item, error)

    # --- calls that wait -------------------------------------------------------------------

    def _wait(self, item: Item) -> None:
        assert item.number is not None
        if item.answered is not None:
            item.answered.set_result(None)
            return
        self._waiting[item.number] = item
        if self._reply_poll is None or self._reply_poll.done():
            self._reply_poll = asyncio.create_task(self._poll_replies(), name="dspex-replies")

    async def _poll_replies(self) -> None:
        seen: list[int] = []
        failures = 0
        while self._waiting or seen:
            session = self.session
            hold = REPLY_HOLD if self._waiting else 0.0
            try:
                polled = await self._exchange.poll(
                    0, "", (), (), replies=True, seen=seen, hold=hold
                )
            except (OSError, DspexError, TimeoutError):
                await backoff(failures)
                failures += 1
                continue
            failures = 0
            seen = []
            if session != self.session:
                continue  # numbers of another session
            for number, is_ok, payload in polled["replies"]:
                seen.append(number)
                item = self._waiting.get(number)
                if item is not None:
                    self._done(item, payload if is_ok else rebuilt_error(payload))

    def _ask_again_who_waits(self) -> None:
        """After a restart: the ledger remembers what was granted, and not who waited."""
        waiting, self._waiting = list(self._waiting.values()), {}
        for item in waiting:
            item.deadline = self.now() + self._exchange.patience
            self._enqueue(item)

    def _withdraw(self, item: Item) -> None:
        """Take a call back that nobody waits for; a lease that it got meanwhile is given back."""
        item.future.cancel()
        if item.number == 0:
            self._outbox = [each for each in self._outbox if each is not item]
            return
        item.answered = asyncio.get_running_loop().create_future()
        if self._waiting.get(item.number or 0) is item:
            del self._waiting[item.number or 0]
            item.answered.set_result(None)
        task = asyncio.get_running_loop().create_task(self._give_back(item, self.session))
        self._aside.add(task)
        task.add_done_callback(self._aside.discard)

    async def _give_back(self, item: Item, session: str) -> None:
        assert item.answered is not None
        # On its way, it would reach the ledger after its withdrawal.
        await item.answered
        if session == self.session:
            with suppress(DspexError):
                await self.read("call.cancel", number=item.number)
        self._forget(item)

    # --- followers, large values -----------------------------------------------------------

    def follow(self, collection: str, pattern: str) -> AsyncIterator[Update]:
        """Tell all the records there are, then every change."""
        return follow(self._exchange, collection, pattern)

    def follow_events(self, tags: Collection[str]) -> AsyncIterator[tuple[Any, ...]]:
        """Tell ``("reset",)``, then every event of these tags."""
        return follow_events(self._exchange, tags)

    async def put_blob(self, data: bytes) -> str:
        """Keep a large value; gives its SHA-256."""
        return await put_blob(self._exchange, data)

    async def get_blob(self, digest: str) -> bytes:
        """Read a large value."""
        return await get_blob(self._exchange, digest)


def _unreachable(item: Item, patience: float, error: Exception) -> UnavailableError:
    outcome = (
        "; whether it took effect is not known; look before you call again"
        if item.number is not None
        else ""
    )
    return UnavailableError(
        f"{item.op} needs the scheduler, which could not be reached for {patience:g} s "
        f"({type(error).__name__}: {error}){outcome}"
    )
