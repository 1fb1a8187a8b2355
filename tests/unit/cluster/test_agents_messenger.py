"""The way of calls from this process, with a ledger and a host that are played by the test."""

from __future__ import annotations

import asyncio
import pickle
from itertools import starmap
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dspex.agents.called import CallFuture
from dspex.cluster.agents.messenger import Messenger
from dspex.cluster.agents.requests import AUTO, Cast
from dspex.errors import DeadlineError, DeliveryError
from dspex.foundation.agents.messages import (
    AT_LEAST_ONCE,
    AT_MOST_ONCE,
    CANCEL,
    CAST,
    DONE,
    REFUSED,
    Message,
    decode_flight,
    encode_answers,
)
from dspex.testing.ledgers import run


class Way:
    """A messenger that knows where the agent is; its host answers all with their numbers."""

    session = "me"

    def __init__(self) -> None:
        caller: Any = self
        self.sent: list[Message] = []
        self.messages = Messenger(caller, self.send)
        self.messages.learn(":x", is_kept=False)
        self.messages._outbound.places[":x"] = "a"
        loop = asyncio.get_running_loop()
        self.runtime = cast("Any", SimpleNamespace(loop=loop, messages=self.messages))

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    async def read(self, op: str, **args: Any) -> Any:
        if op == "agents.locate":
            return [("running", "a", "", None) for _ in args["keys"]]
        raise AssertionError(op)

    async def send(self, address: str, blob: bytes) -> bytes:
        flight = decode_flight(blob)
        flat: list[Any] = []
        for each in starmap(Message, flight.messages):
            self.sent.append(each)
            flat += (each.mid, DONE, pickle.dumps(each.mid))
        return encode_answers(flat)

    def call(self) -> CallFuture:
        future = CallFuture(":x", "inc", b"", AUTO, self.runtime)
        self.messages.submit(future)
        return future


def refuse(error: object) -> None:
    raise RuntimeError("not mine")


def told() -> list[str]:
    """What the loop's exception handler hears from now on."""
    heard: list[str] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: heard.append(str(context["exception"])))
    return heard


def test_calls_are_sent_in_order_and_answered() -> None:
    async def work() -> None:
        way = Way()
        calls = [way.call() for _ in range(5)]
        assert list(await asyncio.gather(*calls)) == [1, 2, 3, 4, 5]
        assert [each.mid for each in way.sent] == [1, 2, 3, 4, 5]
        await way.messages.close()

    run(work())


def test_a_call_that_is_cancelled_before_it_is_looked_at_is_never_sent() -> None:
    async def work() -> None:
        way = Way()
        first, cancelled, last = (way.call() for _ in range(3))
        assert cancelled.cancel()
        assert list(await asyncio.gather(first, last)) == [1, 2]
        assert len(way.sent) == 2
        await way.messages.close()

    run(work())


def test_a_call_that_is_sent_again_has_no_longer_than_is_left() -> None:
    async def work() -> None:
        way = Way()
        carry, spent = way.messages._flying._send, [0.0]

        async def send(address: str, blob: bytes) -> bytes:
            flight = decode_flight(blob)
            lefts.extend(each.left for each in starmap(Message, flight.messages))
            if len(lefts) == 1:
                spent[0] = 40.0
                raise ConnectionError("lost on its way")
            return await carry(address, blob)

        lefts: list[float | None] = []
        way.messages._flying._send = send
        way.now = lambda: spent[0]  # type: ignore[method-assign]
        call = CallFuture(":x", "inc", b"", AT_LEAST_ONCE, way.runtime)
        call.timeout = 60.0
        way.messages.submit(call)
        await call
        assert lefts == [60.0, 20.0]
        await way.messages.close()

    run(work())


def test_a_call_that_is_late_and_cancelled_is_withdrawn_once() -> None:
    async def work() -> None:
        way = Way()
        may_answer = asyncio.Event()
        carry = way.messages._flying._send

        async def send(address: str, blob: bytes) -> bytes:
            await may_answer.wait()
            return await carry(address, blob)

        way.messages._flying._send = send
        call = CallFuture(":x", "inc", b"", AUTO, way.runtime)
        call.timeout = 60.0
        way.messages.submit(call)
        while not way.messages._outbound.is_current("a", 1):
            await asyncio.sleep(0)
        way.messages._expire(call)
        way.messages._cancel(call)  # the user's thread asked for it before it could know
        with pytest.raises(DeadlineError):
            await call
        may_answer.set()
        while way.messages._under_way:
            await asyncio.sleep(0)
        assert [each.flags for each in way.sent] == [AT_MOST_ONCE, CANCEL | CAST]
        assert not way.messages._outbound._abandoned
        await way.messages.close()

    run(work())


def test_what_is_cancelled_while_it_closes_starts_nothing() -> None:
    async def work() -> None:
        way = Way()

        async def never(address: str, blob: bytes) -> bytes:
            await asyncio.Event().wait()
            raise AssertionError

        way.messages._flying._send = never
        call = way.call()
        while not way.messages._under_way:
            await asyncio.sleep(0)
        call.cancel()
        await way.messages.close()
        assert not way.messages._background._tasks  # and `run` looks for tasks that are left

    run(work())


def test_one_who_cannot_take_that_it_failed_costs_the_others_nothing() -> None:
    async def work() -> None:
        heard, way = told(), Way()
        del way.messages._outbound.places[":x"]  # so that they wait for their agent
        way.messages.submit(Cast(":x", "inc", b"", AUTO, refuse))
        call = way.call()
        while way.messages._under_way < 2:
            await asyncio.sleep(0)
        way.messages.give_up(":x", DeliveryError("it is nowhere"))
        with pytest.raises(DeliveryError):
            await call
        assert heard == ["not mine"]
        assert not way.messages._under_way
        await way.messages.close()

    run(work())


def test_one_whose_answer_cannot_be_taken_costs_the_others_nothing() -> None:
    async def work() -> None:
        heard, way = told(), Way()
        way.messages.submit(Cast(":x", "inc", b"", AUTO, refuse))
        call = way.call()
        assert await call == 2
        assert heard == ["not mine"]
        assert not list(way.messages._outbound.everything())
        await way.messages.close()

    run(work())


@pytest.mark.parametrize("payload", [None, ["x"], 1])
def test_a_reason_that_cannot_be_read_ends_the_call_and_costs_the_others_nothing(
    payload: Any,
) -> None:
    async def work() -> None:
        way = Way()

        async def send(address: str, blob: bytes) -> bytes:
            one, other = starmap(Message, decode_flight(blob).messages)
            return encode_answers([one.mid, REFUSED, payload, other.mid, DONE, pickle.dumps(2)])

        way.messages._flying._send = send
        refused, answered = way.call(), way.call()
        assert await answered == 2
        with pytest.raises(DeliveryError, match="cannot be read here"):
            await refused
        await way.messages.close()

    run(work())
