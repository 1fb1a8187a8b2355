"""Flights to a host that cannot be reached: what never left fails for nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from dspex.cluster.agents.flying import Flying
from dspex.cluster.agents.requests import NotSentError
from dspex.foundation.agents.messages import AT_MOST_ONCE, Message, MessageLike, decode_flight
from dspex.foundation.agents.outbound import Outbound, Posted
from dspex.testing.ledgers import run


class Ledger:
    """A ledger that knows no host."""

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    async def read(self, op: str, **args: Any) -> None:
        assert op == "agents.host"


class Sender:
    """One process, its link to the host "a", and flights that end when a test says so."""

    def __init__(self) -> None:
        self.outbound: Outbound[Any] = Outbound()
        self.outbound.places = {"x": "a", "y": "a"}
        self.failed: list[int] = []
        self.connecting: dict[int, asyncio.Future[None]] = {}
        self.left: list[int] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.flying = Flying(cast("Any", Ledger()), self.outbound, self.send, self, self.spawn)

    def spawn(self, work: Any) -> None:
        self.tasks.append(asyncio.ensure_future(work))

    async def send(self, address: str, blob: bytes) -> bytes:
        """Be connected when a test says so, and then wait for ever."""
        place = decode_flight(blob).place
        assert place is not None
        self.connecting[place] = asyncio.get_running_loop().create_future()
        try:
            await self.connecting[place]
        except asyncio.CancelledError:
            raise NotSentError("cancelled while connecting") from None
        self.left.append(place)
        await asyncio.get_running_loop().create_future()
        raise AssertionError("nobody answers")

    def fly(self, mid: int, key: str) -> None:
        self.outbound.send(Message(mid, key, AT_MOST_ONCE, "", 0, 0, None, "add", b""))
        posted = self.outbound.post("a", 0.0)
        assert posted is not None
        self.spawn(self.flying.fly(posted))

    async def settle(self, is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(10.0):
            while not is_so():
                await asyncio.sleep(0)

    async def settle_all(self) -> None:
        async with asyncio.timeout(10.0):
            await asyncio.gather(*self.tasks, return_exceptions=True)

    # --- what it is told ---------------------------------------------------------------------

    def answered(self, finals: Any) -> None:
        raise AssertionError("nobody answers")

    def cut_off(self, message: MessageLike, address: str, error: BaseException | None) -> None:
        self.failed.append(message.mid)

    def may_send(self, address: str) -> None:
        pass


def test_two_flights_that_were_connecting_are_both_sent_again() -> None:
    async def main() -> None:
        sender = Sender()
        sender.fly(1, "x")
        sender.fly(2, "y")
        await sender.settle(lambda: len(sender.connecting) == 2)
        sender.connecting[0].set_exception(NotSentError("nobody listens"))
        await sender.settle_all()
        assert sender.failed == []
        assert sorted(sender.outbound.to_locate(1e9)) == ["x", "y"]

    run(main())


def test_one_that_has_left_fails_and_the_other_does_not() -> None:
    async def main() -> None:
        sender = Sender()
        sender.fly(1, "x")
        sender.fly(2, "y")
        await sender.settle(lambda: len(sender.connecting) == 2)
        sender.connecting[0].set_result(None)
        await sender.settle(lambda: sender.left == [0])
        sender.connecting[1].set_exception(NotSentError("nobody listens"))
        await sender.settle_all()
        assert sender.failed == [1]
        assert sender.outbound.to_locate(1e9) == ["y"]

    run(main())


def test_one_that_leaves_no_more_is_not_sent_to_the_host_that_was_given_up() -> None:
    async def main() -> None:
        sender = Sender()
        sender.fly(1, "x")
        await sender.settle(lambda: len(sender.connecting) == 1)
        sender.connecting[0].set_exception(NotSentError("nobody listens"))
        await asyncio.wait(sender.tasks[:1])
        # Posted before, and begun only now.
        late = sender.flying.fly(
            Posted("a", 1, 1, False, (Message(2, "y", 0, "", 0, 0, None, "m", b""),))
        )
        await asyncio.wait_for(late, 10.0)
        assert list(sender.connecting) == [0]
        assert sender.failed == []

    run(main())
