"""Flights: calls that travel together, again and again until they are answered.

Knows: calls, their numbers, batches, what is done with each kind of answer. Must not know: how a
session is kept, what an op means.

Calls that are made while others are on their way travel together in the next flight. A flight that
fails is repeated, with the numbers that its calls had, so that the ledger knows them again. The
answer to one that failed is never taken: a ledger that was started anew knows nothing of calls that
changed nothing, and may answer otherwise. A reply counts as acknowledged when whoever called has it
(`forget`).

When a session has ended, a call that the ledger refused for it goes over to the new one; of one
that was sent before and never answered nobody knows whether it took effect: SessionExpiredError.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, final

from dspex.cluster.foundation.exchange import Exchange, backoff
from dspex.cluster.foundation.item import Item
from dspex.errors import DspexError, FoundationError, SessionExpiredError, UnavailableError
from dspex.foundation.ledger.wire import DONE, PENDING, Answer, rebuilt_error

__all__ = ["Flights", "done", "unreachable"]

logger = logging.getLogger("dspex.foundation")

MAX_FLIGHTS = 4
MAX_CALLS = 500
MAX_BYTES = 8 * 2**20


@final
class Flights:
    """Has the calls of one process answered.

    Parameters
    ----------
    exchange : Exchange
    reopen : coroutine function
        Called with a session that has ended; returns when there is another one.
    wait : callable
        Takes a call that is answered later.
    """

    def __init__(
        self,
        exchange: Exchange,
        *,
        reopen: Callable[[str], Awaitable[None]],
        wait: Callable[[Item], None],
    ) -> None:
        self._exchange = exchange
        self._reopen = reopen
        self._wait = wait
        self._next_number = 1
        self._unanswered: dict[int, Item] = {}  # in the order of their numbers
        self._parked: dict[int, Item] = {}
        self._outbox: list[Item] = []
        self._in_air = 0
        self._tasks: dict[asyncio.Task[None], list[Item]] = {}
        self._is_flush_due = False
        self._failures = 0
        self._closed = False

    def add(self, item: Item) -> None:
        """Have a call travel with those that are made in the same turn of the loop."""
        if self._closed:
            done(item, _closed())
            return
        self._outbox.append(item)
        if not self._is_flush_due and self._in_air < MAX_FLIGHTS:
            self._is_flush_due = True
            asyncio.get_running_loop().call_soon(self._flush)

    async def send(self, item: Item) -> None:
        """Have a call travel at once where nothing would travel with it."""
        if self._outbox or self._in_air >= MAX_FLIGHTS:
            self.add(item)
        else:
            self._in_air += 1
            await self._fly([item])

    def forget(self, item: Item) -> None:
        """Acknowledge the reply of a call."""
        for table in (self._unanswered, self._parked):
            # The number may be another call's by now, of another session.
            if item.number and table.get(item.number) is item:
                del table[item.number]

    def on_its_way(self, number: int) -> Item | None:
        """The call of this number, if no answer has come: not even that it must wait."""
        return self._unanswered.get(number)

    def park(self, item: Item) -> None:
        """Let a call wait for long, without keeping the replies to later ones for it."""
        if item.number and self._unanswered.get(item.number) is item:
            del self._unanswered[item.number]
            self._parked[item.number] = item

    def session_began(self, waiting: Iterable[Item]) -> None:
        """Take over what can be, from a session that has ended."""
        self._next_number = 1
        self._unanswered.clear()
        self._parked.clear()
        numbered = [item for item in self._outbox if item.number]
        self._outbox = [item for item in self._outbox if not item.number]
        for item in (*waiting, *numbered):
            self.go_over(item)

    def go_over(self, item: Item) -> None:
        """Make a call of a session that ended one of the new session, where that is safe."""
        is_safe = item.number is not None and not item.is_doubtful
        if item.answered is None and not item.future.done() and is_safe:
            item.number, item.session = 0, ""
            self.add(item)
            return
        done(
            item,
            SessionExpiredError(
                f"a call takes effect once as long as its session lives; {item.session} ran out "
                f"before {item.op} was answered, and whether it took effect is not known; "
                "look, and call again where it did not"
            ),
        )

    async def close(self) -> None:
        """Fail what is not answered yet."""
        self._closed = True
        tasks = list(self._tasks)
        waiting = (self._unanswered.values(), self._parked.values(), self._outbox)
        for items in (*waiting, *self._tasks.values()):
            _all_done(items, _closed())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- the journey -----------------------------------------------------------------------

    def _flush(self) -> None:
        self._is_flush_due = False
        while self._outbox and self._in_air < MAX_FLIGHTS and not self._closed:
            size = count = 0
            for item in self._outbox:
                size += len(item.body)
                if count and (size > MAX_BYTES or count >= MAX_CALLS):
                    break
                count += 1
            items, self._outbox = self._outbox[:count], self._outbox[count:]
            self._in_air += 1
            task = asyncio.get_running_loop().create_task(self._fly(items))
            self._tasks[task] = items
            task.add_done_callback(self._tasks.pop)

    async def _fly(self, items: Sequence[Item]) -> None:
        try:
            session = self._exchange.session
            ready = self._numbered(session, items)
            if ready:
                await self._travel(session, ready)
        finally:
            self._in_air -= 1
            self._flush()

    def _numbered(self, session: str, items: Iterable[Item]) -> list[Item]:
        """Those that are to travel in this session's name, each with its number."""
        ready = []
        for item in items:
            if item.is_dropped:
                continue
            if item.session not in ("", session):
                self.go_over(item)
                continue
            if item.number == 0:
                item.number, item.session = self._next_number, session
                self._next_number += 1
                self._unanswered[item.number] = item
            ready.append(item)
        return ready

    async def _travel(self, session: str, items: Sequence[Item]) -> None:
        try:
            answer = await self._answer(session, items)
            self._failures = 0
            await self._take(session, items, answer)
        except DspexError as error:  # an answer, though it may be an OSError too
            _all_done(items, error)
        except OSError as error:
            await self._again(items, error)
        except Exception as error:
            logger.exception("calls were answered with what nobody understands")
            _all_done(items, FoundationError(f"an answer was not understood: {error!r}"))

    async def _answer(self, session: str, items: Sequence[Item]) -> Answer:
        below = next(iter(self._unanswered), self._next_number)
        return await self._exchange.exchange(
            session,
            [(item.number, item.body) for item in items],
            acked_below=below,
            parked=[number for number in self._parked if number < below],
            # A transport may try for longer than anybody here wants to wait.
            within=max(item.deadline for item in items) - self._exchange.now(),
        )

    async def _take(self, session: str, items: Sequence[Item], answer: Answer) -> None:
        refused = []
        for item, (status, payload) in zip(items, answer.replies, strict=True):
            if status == DONE:
                done(item, payload)
            elif status == PENDING:
                if item.session == self._exchange.session:
                    self._wait(item)
                else:
                    self.go_over(item)
            else:
                refusal = rebuilt_error(payload)
                if _has_ended(refusal) and item.number is not None:
                    refused.append(item)
                else:
                    done(item, refusal)
        if refused:
            await self._exchange.patiently(lambda: self._reopen(session), "opening a session")
            for item in refused:
                self.go_over(item)

    async def _again(self, items: Sequence[Item], error: Exception) -> None:
        """Repeat calls of which nobody knows whether they arrived."""
        kept = []
        for item in items:
            item.is_doubtful = item.number is not None
            if self._exchange.now() >= item.deadline:
                done(item, unreachable(item, self._exchange.patience, error))
            else:
                kept.append(item)
        await backoff(self._failures)
        self._failures += 1
        same = []
        for item in kept:
            if self._closed:
                done(item, _closed())
            elif not item.number or item.session == self._exchange.session:
                same.append(item)
            else:
                self.go_over(item)
        self._outbox[:0] = same


def _has_ended(refusal: DspexError) -> bool:
    """Whether a call was refused because its session has ended.

    One that is open, but not what the call asks of it, is not opened anew: its first calls may
    have overtaken those that make it known.
    """
    return isinstance(refusal, SessionExpiredError) and not getattr(refusal, "is_open", False)


def done(item: Item, outcome: Any) -> None:
    """Answer a call."""
    if item.answered is not None:
        # Its reply stays unacknowledged until it is given back, so that the ledger has it.
        if not item.answered.done():
            item.answered.set_result(None)
    elif not item.future.done():
        if isinstance(outcome, BaseException):
            item.future.set_exception(outcome)
        else:
            item.future.set_result(outcome)


def _all_done(items: Iterable[Item], error: DspexError) -> None:
    for item in items:
        done(item, error)


def unreachable(item: Item, patience: float, error: Exception) -> UnavailableError:
    """Make the error for a call whose ledger was away for too long."""
    outcome = (
        "; whether it took effect is not known; look before you call again"
        if item.number is not None
        else ""
    )
    return UnavailableError(
        f"{item.op} needs the scheduler, which could not be reached for {patience:g} s "
        f"({type(error).__name__}: {error}){outcome}"
    )


def _closed() -> UnavailableError:
    return UnavailableError("the connection to the foundation was closed; connect again")
