"""Flights as they arrive at a host: in order, each answered when its messages are, or soon after.

Knows: links, generations, places. Must not know: agents, what a message asks for.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, final

from dspex.foundation.agents.cells import Letter
from dspex.foundation.agents.messages import (
    Flight,
    decode_flight,
    encode_answers,
)

__all__ = ["Arrivals"]

IDLE_AFTER = 120.0
"""Seconds without a flight after which a link is forgotten."""

_ORDER_WITHIN = 10.0
"""Seconds for which a flight waits for the one before it."""

MAX_HOLD = 5.0

_QUIET_AFTER = 0.1
_QUIET_WITHIN = 1.0
"""Seconds of a farewell: without a message for the one, or when the other is over, all is said."""


@final
class _Link:
    """One generation of the way from a process."""

    __slots__ = (
        "answers",
        "generation",
        "name",
        "next_place",
        "outstanding",
        "stuck",
        "touched",
        "turn",
        "waiters",
        "wakes",
    )

    def __init__(self, name: str, generation: int) -> None:
        self.name = name
        self.generation = generation
        self.next_place = 0
        self.answers: list[Any] = []  # id, status, payload of one after the other
        self.stuck: dict[str, int] = {}
        self.outstanding = 0
        self.touched = time.monotonic()
        self.turn: dict[int, asyncio.Future[None]] = {}
        self.waiters: list[tuple[int, asyncio.Future[None]]] = []
        self.wakes = -1  # so many that are outstanding wake the first of them


@final
class Arrivals:
    """Takes flights.

    Parameters
    ----------
    accept : callable of (fields of a message, link)
        Called for each, in order.
    flush : callable
        Called after the messages of a flight.
    may_answer : callable
        Whether this host may still answer; where not, nothing is.
    """

    def __init__(
        self,
        accept: Callable[[tuple[Any, ...], Any], None],
        flush: Callable[[], None],
        may_answer: Callable[[], bool],
    ) -> None:
        self._accept = accept
        self._flush = flush
        self._may_answer = may_answer
        self._links: dict[str, _Link] = {}
        self._swept = time.monotonic()
        self._heard = -_QUIET_AFTER

    async def take(self, blob: bytes) -> bytes:
        """Take a flight, and give answers; b"" where the sender is to try elsewhere."""
        flight = decode_flight(blob)
        link = self._link(flight)
        if link is None:
            return b""
        link.touched = time.monotonic()
        if flight.place is not None and not await self._in_order(link, flight):
            return b""
        before = link.outstanding
        link.outstanding += flight.size
        if flight.size:
            self._heard = link.touched
        if flight.place is not None:
            # All of a flight at once: an answer may come while it is read.
            for fields in flight.messages:
                self._accept(fields, link)
            self._flush()
            link.next_place += 1
            ahead = link.turn.pop(link.next_place, None)
            if ahead is not None and not ahead.done():
                ahead.set_result(None)
        hold = min(flight.hold, MAX_HOLD)
        if hold > 0.0 and link.outstanding:
            if flight.size:
                # What was there before may take long; these are waited for.
                await self._wait(link, before, hold)
            elif not link.answers:
                await self._wait(link, link.outstanding - 1, hold)
        answers, link.answers = link.answers, []
        if not self._may_answer():
            # What was done may be undone, or done by another by now.
            return b""
        return encode_answers(answers)

    def _link(self, flight: Flight[tuple[Any, ...]]) -> _Link | None:
        self._sweep()
        link = self._links.get(flight.link)
        if link is None or link.generation < flight.generation:
            if flight.is_answered:
                return None  # it was known to a host that is no more
            former = link
            link = self._links[flight.link] = _Link(flight.link, flight.generation)
            for future in () if former is None else former.turn.values():
                _set(future)  # nobody is read before them any more
        return link if link.generation == flight.generation else None

    def _sweep(self) -> None:
        now = time.monotonic()
        if now - self._swept > IDLE_AFTER:
            self._swept = now
            for name, link in list(self._links.items()):
                if now - link.touched > IDLE_AFTER and not link.outstanding:
                    del self._links[name]

    async def _in_order(self, link: _Link, flight: Flight[tuple[Any, ...]]) -> bool:
        place = flight.place
        assert place is not None
        while place > link.next_place:
            if self._links.get(flight.link) is not link:
                return False  # it was forgotten meanwhile, and nobody will be ahead
            future = link.turn.get(place)
            if future is None:
                future = link.turn[place] = asyncio.get_running_loop().create_future()
            try:
                async with asyncio.timeout(_ORDER_WITHIN):
                    await asyncio.shield(future)
            except TimeoutError:
                return False
        return place == link.next_place and self._links.get(flight.link) is link

    async def _wait(self, link: _Link, outstanding: int, hold: float) -> None:
        """Wait until no more than so many are outstanding."""
        if link.outstanding <= outstanding:
            return
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        waiter = (outstanding, future)
        link.waiters.append(waiter)
        link.wakes = max(link.wakes, outstanding)
        handle = loop.call_later(hold, _set, future)
        try:
            await future
        finally:
            handle.cancel()
            link.waiters.remove(waiter)
            link.wakes = max((each for each, _ in link.waiters), default=-1)

    def answer(self, letter: Letter, status: int, payload: Any) -> None:
        """Have an answer leave with the next flight that goes back."""
        link: _Link = letter.link
        link.answers += (letter.mid, status, payload)
        link.outstanding -= 1
        if link.outstanding <= link.wakes:
            for outstanding, future in link.waiters:
                if link.outstanding <= outstanding:
                    _set(future)

    async def quiet(self) -> None:
        """Wait until those that still send have their answers, and know that nobody is here."""
        began = time.monotonic()
        while time.monotonic() - began < _QUIET_WITHIN:
            heard = time.monotonic() - self._heard
            if heard > _QUIET_AFTER and not any(
                link.outstanding or link.answers for link in self._links.values()
            ):
                return
            await asyncio.sleep(0.01)

    def reset(self) -> None:
        """Forget all links: nobody is answered any more."""
        for link in self._links.values():
            for _, future in link.waiters:
                _set(future)
            for future in link.turn.values():
                _set(future)
        self._links.clear()


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
