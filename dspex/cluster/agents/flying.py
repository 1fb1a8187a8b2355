"""Flights between this process and the hosts: sent, waited for, asked after, given up.

Knows: what is on its way, how a flight is sent, the ledger's way. Must not know: requests, what an
answer says.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Protocol, final

from dspex.cluster.agents.requests import NotSentError, Request
from dspex.foundation.agents.messages import Flight, decode_answers, encode_flight
from dspex.foundation.agents.outbound import Outbound, Posted
from dspex.foundation.ports import Caller

__all__ = ["Flying", "Told"]

HOLD = 0.02
POLL_HOLD = 2.0
ANSWER_WITHIN = 30.0

DOUBT_AFTER = 0.5
"""Seconds after which an answer is late, and the ledger is asked whether the host is one still."""


class Told(Protocol):
    """Who hears what became of messages."""

    def answered(self, finals: Iterable[tuple[Request, int, Any]]) -> None:
        """Take what became of calls: (request, status, payload) of each."""

    def cut_off(self, request: Request, address: str, error: BaseException | None) -> None:
        """Take that nobody knows what became of a call."""

    def may_send(self, address: str) -> None:
        """Take that there may be room for another flight."""


@final
class Flying:
    """Has flights answered.

    Parameters
    ----------
    caller : Caller
    outbound : Outbound
    send : coroutine function of (address, flight) -> answers
        OSError where a host cannot be reached.
    told : Told
    spawn : callable
        Starts work that ends with the process's connection.
    """

    def __init__(
        self,
        caller: Caller,
        outbound: Outbound[Request],
        send: Callable[[str, bytes], Awaitable[bytes]],
        told: Told,
        spawn: Callable[[Any], object],
    ) -> None:
        self._caller = caller
        self._outbound = outbound
        self._send = send
        self._told = told
        self._spawn = spawn
        self._loop = asyncio.get_running_loop()
        self._link = secrets.token_hex(8)
        self._polling: set[tuple[str, int]] = set()
        self._sending: dict[tuple[str, int], dict[asyncio.Task[bytes], int | None]] = {}
        self._giving_up: set[tuple[str, int]] = set()

    async def fly(self, posted: Posted) -> None:
        """Send a flight, and take its answers."""
        flight = Flight(
            self._link,
            posted.generation,
            posted.place,
            posted.is_answered,
            HOLD,
            posted.messages,
        )
        await self._exchange(posted.address, posted.generation, posted.place, flight)

    async def _exchange(
        self, address: str, generation: int, place: int | None, flight: Flight[Any]
    ) -> None:
        error: Exception | None = None
        answers = None
        try:
            blob = await self._sent(address, flight)
            answers = decode_answers(blob) if blob else None
        except Exception as failure:  # as Dask tells what failed there
            error = failure
        if answers is None:
            await self._lost(address, generation, place, error)
            return
        finals = self._outbound.answered(address, generation, place, answers, self._caller.now())
        self._told.answered(finals)
        self._told.may_send(address)
        self._poll(address)

    async def _sent(self, address: str, flight: Flight[Any]) -> bytes:
        """Send a flight; TimeoutError where its host is another by now, or silent for long."""
        while True:
            try:
                return await self._sent_once(address, flight)
            except NotSentError:
                if self._is_given_up(address, flight.generation):
                    raise
                if await self._caller.read("agents.host", address=address) is None:
                    raise

    async def _sent_once(self, address: str, flight: Flight[Any]) -> bytes:
        if self._is_given_up(address, flight.generation):
            raise NotSentError(f"{address} was given up")
        sending = self._loop.create_task(self._transfer(address, flight))
        under_way = self._sending.setdefault((address, flight.generation), {})
        under_way[sending] = flight.place
        incarnation: Any = ...
        deadline = self._loop.time() + ANSWER_WITHIN
        try:
            while True:
                done, _ = await asyncio.wait([sending], timeout=flight.hold + DOUBT_AFTER)
                if done:
                    return sending.result()
                now = await self._caller.read("agents.host", address=address)
                if now is None or self._loop.time() > deadline or incarnation not in (..., now):
                    sending.cancel()
                    await asyncio.wait([sending])
                    if not sending.cancelled():
                        return sending.result()  # as it came meanwhile, or that it never left
                    raise TimeoutError(f"{address} does not answer, and is a host no more")
                incarnation = now
        finally:
            sending.add_done_callback(_looked_at)
            sending.cancel()
            del under_way[sending]
            if not under_way:
                self._sending.pop((address, flight.generation), None)

    async def _transfer(self, address: str, flight: Flight[Any]) -> bytes:
        return await self._send(address, encode_flight(flight))

    def _poll(self, address: str) -> None:
        """Ask for answers that did not come with a flight."""
        generation = self._outbound.is_waiting(address)
        if generation is None or (address, generation) in self._polling:
            return
        self._polling.add((address, generation))
        self._spawn(self._ask(address, generation))

    async def _ask(self, address: str, generation: int) -> None:
        flight: Flight[Any] = Flight(self._link, generation, None, True, POLL_HOLD, ())
        try:
            await self._exchange(address, generation, None, flight)
        finally:
            self._polling.discard((address, generation))
        self._poll(address)

    def _is_given_up(self, address: str, generation: int) -> bool:
        return (address, generation) in self._giving_up or not self._outbound.is_current(
            address, generation
        )

    async def _lost(
        self, address: str, generation: int, place: int | None, error: Exception | None
    ) -> None:
        """Give a link up; its other flights are stopped first, as one may not have left either."""
        if self._is_given_up(address, generation):
            return  # for another flight, which sees to all
        link = (address, generation)
        others = dict(self._sending.get(link, {}))
        self._giving_up.add(link)
        try:
            for sending in others:
                sending.cancel()
            if others:
                await asyncio.wait(others)
        finally:
            self._giving_up.discard(link)
        left = {each for sending, each in others.items() if _may_have_left(sending)}
        if not isinstance(error, NotSentError):
            left.add(place)
        lost = self._outbound.lost(address, generation, self._caller.now(), left)
        for request in lost:
            self._told.cut_off(request, address, error)
        self._told.may_send(address)


def _may_have_left(sending: asyncio.Task[bytes]) -> bool:
    return sending.cancelled() or not isinstance(sending.exception(), NotSentError)


def _looked_at(task: asyncio.Task[Any]) -> None:
    """Take note of an error that nobody waits for any more."""
    if not task.cancelled():
        task.exception()
