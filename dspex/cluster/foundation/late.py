"""Late replies: those to calls that must wait, and the withdrawal of what nobody waits for.

Knows: one poll for all of them, numbers. Must not know: what is waited for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, final

from dspex.cluster.background import Background
from dspex.cluster.foundation.exchange import Exchange, backoff
from dspex.cluster.foundation.flights import Flights, done, unreachable
from dspex.cluster.foundation.following import ANSWER_WITHIN
from dspex.cluster.foundation.item import Item
from dspex.errors import DspexError, UnavailableError
from dspex.foundation.ledger.wire import rebuilt_error

__all__ = ["LateReplies"]

HOLD = 10.0
"""Seconds for which the poll waits at the ledger."""


@final
class LateReplies:
    """The calls of a session that wait.

    Parameters
    ----------
    exchange : Exchange
    flights : Flights
    cancel : coroutine function
        Tells the ledger that nobody waits for this call.
    """

    def __init__(
        self, exchange: Exchange, flights: Flights, cancel: Callable[[Item], Awaitable[Any]]
    ) -> None:
        self._exchange = exchange
        self._flights = flights
        self._cancel = cancel
        self._waiting: dict[int, Item] = {}
        self._poll: asyncio.Task[None] | None = None
        self._background = Background()
        self._is_closed = False

    def wait(self, item: Item) -> None:
        """Take a call whose answer was PENDING."""
        assert item.number
        if item.future.done() and item.answered is None:
            return  # the poll was faster
        self._flights.park(item)
        if item.answered is not None:
            done(item, None)
            return
        self._waiting[item.number] = item
        if self._poll is None or self._poll.done():
            self._poll = self._background.spawn(self._ask_for_replies())

    def session_ended(self) -> list[Item]:
        """Give up all calls, to whoever goes on with them."""
        if self._poll is not None:
            self._poll.cancel()  # at the ledger it is one of the former session
            self._poll = None
        return self._take_all()

    def ask_again(self) -> None:
        """After a restart: the ledger remembers what was granted, and not who waited."""
        for item in self._take_all():
            item.deadline = self._exchange.now() + self._exchange.patience
            self._flights.add(item)

    def withdraw(self, item: Item) -> None:
        """Take a call back that nobody waits for; a lease that it got meanwhile is given back."""
        is_answered = item.future.done()
        item.future.cancel()
        if not item.number or self._is_closed:
            return
        if self._waiting.get(item.number) is item:
            del self._waiting[item.number]
            is_answered = True
        item.answered = asyncio.get_running_loop().create_future()
        if is_answered:
            item.answered.set_result(None)
        self._background.spawn(self._give_back(item, item.answered))

    def _take_all(self) -> list[Item]:
        waiting, self._waiting = list(self._waiting.values()), {}
        return waiting

    async def close(self) -> None:
        """End the poll, and what is being withdrawn: it ends with the session."""
        self._is_closed = True
        await self._background.close()

    async def _ask_for_replies(self) -> None:
        seen: list[int] = []
        failures = 0
        reached = self._exchange.now()
        while self._waiting or seen:
            try:
                replies = await self._replies(seen)
            except (OSError, DspexError) as error:
                if self._exchange.now() - reached > self._exchange.patience:
                    self._give_up(error)
                await backoff(failures)
                failures += 1
                continue
            failures = 0
            reached = self._exchange.now()
            seen = []
            for number, is_ok, payload in replies:
                seen.append(number)
                item = self._waiting.pop(number, None) or self._flights.on_its_way(number)
                if item is not None:
                    done(item, payload if is_ok else rebuilt_error(payload))

    async def _replies(self, seen: list[int]) -> list[Any]:
        hold = HOLD if self._waiting else 0.0
        polled = await self._exchange.ask(
            "feed.poll",
            within=hold + ANSWER_WITHIN,
            after=0,
            identity="",
            topics=[],
            tags=[],
            replies=True,
            seen=seen,
            hold=hold,
        )
        replies: list[Any] = polled["replies"]
        return replies

    def _give_up(self, error: Exception) -> None:
        for item in self._take_all():
            done(item, unreachable(item, self._exchange.patience, error))

    async def _give_back(self, item: Item, answered: asyncio.Future[None]) -> None:
        # On its way, it would reach the ledger after its withdrawal.
        await answered
        failures = 0
        while item.session == self._exchange.session:
            try:
                await self._cancel(item)
                break
            except UnavailableError:
                await backoff(failures)
                failures += 1
            except DspexError:
                break
        self._flights.forget(item)
