"""Flights as they arrive: in order, held for answers, and nothing where the host is not sure."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest

from dspex.cluster.agents import arrivals as arrivals_module
from dspex.cluster.agents.arrivals import Arrivals
from dspex.errors import InvalidRequestError
from dspex.foundation.agents.cells import Letter
from dspex.foundation.agents.messages import (
    DONE,
    ELSEWHERE,
    Flight,
    Message,
    decode_answers,
    encode_flight,
)
from dspex.foundation.agents.outbound import RENEW_AFTER
from dspex.testing.ledgers import run

LONG = 5.0
"""A hold that no test waits for."""


class Desk:
    """Arrivals, and what they told."""

    def __init__(self) -> None:
        self.letters: dict[int, Letter] = {}
        self.accepted: list[int] = []
        self.flushes = 0
        self.is_sure = True
        self.answers_at_once: set[int] = set()
        self.arrivals = Arrivals(self.accept, self.flush, lambda: self.is_sure)

    def accept(self, fields: tuple[Any, ...], link: Any) -> None:
        message = Message(*fields)
        self.accepted.append(message.mid)
        self.letters[message.mid] = Letter(*message, link, None)
        if message.mid in self.answers_at_once:
            self.answer(message.mid)

    def flush(self) -> None:
        self.flushes += 1

    def answer(self, mid: int, status: int = DONE) -> None:
        self.arrivals.answer(self.letters[mid], status, None)

    def fly(
        self,
        place: int | None,
        mids: Iterable[int] = (),
        *,
        link: str = "me",
        generation: int = 1,
        is_answered: bool = False,
        hold: float = LONG,
    ) -> asyncio.Task[list[int] | None]:
        """Send a flight; gives the messages that were answered, None where it was left out."""
        messages = [Message(mid, ":x", 0, "", 0, 0, None, "m", b"") for mid in mids]
        flight = Flight(link, generation, place, is_answered, hold, messages)

        async def take() -> list[int] | None:
            blob = await self.arrivals.take(encode_flight(flight))
            return [mid for mid, _, _ in decode_answers(blob)] if blob else None

        return asyncio.ensure_future(take())


async def spin() -> None:
    """Let all go on that can."""
    for _ in range(20):
        await asyncio.sleep(0)


def test_a_sender_begins_anew_before_it_is_forgotten() -> None:
    assert 2 * RENEW_AFTER <= arrivals_module.IDLE_AFTER


# --- answers ---------------------------------------------------------------------------------


def test_a_flight_comes_back_when_all_of_it_is_answered() -> None:
    async def work() -> None:
        desk = Desk()
        flight = desk.fly(0, [1, 2])
        await spin()
        assert (desk.accepted, desk.flushes) == ([1, 2], 1)
        desk.answer(2)
        await spin()
        assert not flight.done()
        desk.answer(1)
        assert await flight == [2, 1]

    run(work())


def test_what_takes_longer_comes_with_a_later_flight_or_a_question() -> None:
    async def work() -> None:
        desk = Desk()
        assert await desk.fly(0, [1, 2], hold=0.0) == []
        desk.answer(1)
        assert await desk.fly(1, [3], hold=0.0) == [1]
        asking = desk.fly(None, is_answered=True)
        await spin()
        assert not asking.done()
        desk.answer(3)
        assert await asking == [3], "the first answer is enough"
        desk.answer(2)
        assert await desk.fly(None, is_answered=True) == [2]
        assert await desk.fly(None, is_answered=True) == [], "nothing is missing"

    run(work())


def test_a_hold_ends_by_itself() -> None:
    async def work() -> None:
        desk = Desk()
        assert await desk.fly(0, [1], hold=0.001) == []
        assert await desk.fly(None, is_answered=True, hold=0.001) == []

    run(work())


def test_a_flight_waits_for_its_own_messages_alone() -> None:
    async def work() -> None:
        desk = Desk()
        assert await desk.fly(0, [1], hold=0.0) == []
        later = desk.fly(1, [2])
        await spin()
        desk.answer(2)
        assert await later == [2]

    run(work())


def test_what_is_answered_while_a_flight_is_read_goes_back_with_it() -> None:
    async def work() -> None:
        desk = Desk()
        desk.answers_at_once = {1, 2}
        assert await desk.fly(0, [1, 2]) == [1, 2]

    run(work())


def test_links_have_answers_and_refusals_of_their_own() -> None:
    async def work() -> None:
        desk = Desk()
        one, other = desk.fly(0, [1]), desk.fly(0, [2], link="you")
        await spin()
        desk.letters[1].link.stuck[":x"] = ELSEWHERE
        assert desk.letters[2].link.stuck == {}
        desk.answer(2)
        assert await other == [2]
        assert not one.done()
        desk.answer(1)
        assert await one == [1]

    run(work())


# --- order -----------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [(2, 1, 0), (1, 2, 0), (2, 0, 1)])
def test_flights_are_read_in_the_order_in_which_they_were_sent(order: tuple[int, ...]) -> None:
    async def work() -> None:
        desk = Desk()
        desk.answers_at_once = {0, 1, 2}
        flights = []
        for place in order:
            flights.append(desk.fly(place, [place]))
            await spin()
        answered = [mid for flight in flights for mid in await flight or []]
        assert desk.accepted == [0, 1, 2]
        assert sorted(answered) == [0, 1, 2]

    run(work())


def test_a_flight_that_comes_twice_is_read_once() -> None:
    async def work() -> None:
        desk = Desk()
        early, twin = desk.fly(1, [2]), desk.fly(1, [2])
        await spin()
        first = desk.fly(0, [1])
        await spin()
        assert desk.accepted == [1, 2]
        assert await desk.fly(0, [1]) is None
        desk.answer(1)
        desk.answer(2)
        await first
        found = [await early, await twin]
        assert None in found, "its twin is left out, and takes no answers along"
        assert desk.accepted == [1, 2]

    run(work())


def test_one_before_which_another_is_missing_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrivals_module, "_ORDER_WITHIN", 0.0)

    async def work() -> None:
        desk = Desk()
        assert await desk.fly(1, [2]) is None
        assert desk.accepted == []
        desk.answers_at_once = {1}
        assert await desk.fly(0, [1]) == [1]

    run(work())


# --- generations -----------------------------------------------------------------------------


def test_an_older_generation_is_left_out() -> None:
    async def work() -> None:
        desk = Desk()
        desk.answers_at_once = {1, 2}
        old = desk.fly(0, [5])
        await spin()
        assert await desk.fly(0, [1], generation=2) == [1]
        assert await desk.fly(1, [6]) is None
        assert await desk.fly(None, is_answered=True) is None
        assert desk.accepted == [5, 1]
        desk.answer(5)
        assert await old == [5], "nobody listens, and nobody is harmed"
        assert await desk.fly(1, [2], generation=2, is_answered=True) == [2]

    run(work())


def test_a_flight_that_waits_for_a_generation_that_is_over_is_left_out() -> None:
    async def work() -> None:
        desk = Desk()
        desk.answers_at_once = {1}
        early = desk.fly(1, [6])
        await spin()
        assert await desk.fly(0, [1], generation=2) == [1]
        assert await early is None
        assert desk.accepted == [1]

    run(work())


def test_a_link_that_was_answered_by_another_host_is_left_out() -> None:
    async def work() -> None:
        desk = Desk()
        assert await desk.fly(3, [1], is_answered=True) is None
        assert await desk.fly(None, is_answered=True) is None
        assert desk.accepted == []

    run(work())


def test_an_answered_generation_is_unknown_though_an_older_one_came_late() -> None:
    """Else who asks for answers would be told for ever that there are none yet."""

    async def work() -> None:
        desk = Desk()
        desk.answers_at_once = {1}
        assert await desk.fly(0, [1], generation=3) == [1]
        assert await desk.fly(None, generation=4, is_answered=True, hold=0.0) is None
        assert await desk.fly(1, [2], generation=4, is_answered=True) is None
        assert desk.accepted == [1]

    run(work())


def test_a_link_is_forgotten_when_it_was_idle_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrivals_module, "IDLE_AFTER", -1.0)

    async def work() -> None:
        desk = Desk()
        desk.answers_at_once = {1, 3}
        assert await desk.fly(0, [1]) == [1]
        assert await desk.fly(0, [2], link="waits", hold=0.0) == []
        assert await desk.fly(0, [3], link="other") == [3]
        assert set(desk.arrivals._links) == {"waits", "other"}, "who has to get an answer stays"
        assert await desk.fly(1, [4], is_answered=True) is None

    run(work())


# --- a host that is not sure -----------------------------------------------------------------


def test_a_host_that_is_not_sure_of_its_lease_answers_nothing() -> None:
    async def work() -> None:
        desk = Desk()
        flight = desk.fly(0, [1])
        await spin()
        desk.is_sure = False
        desk.answer(1)
        assert await flight is None
        assert await desk.fly(None, is_answered=True, hold=0.0) is None

    run(work())


def test_after_a_reset_nobody_hears_of_what_was_before() -> None:
    async def work() -> None:
        desk = Desk()
        waits, asks = desk.fly(0, [1]), desk.fly(2, [3])
        await spin()
        desk.arrivals.reset()
        await asyncio.gather(waits, asks)
        desk.answer(1)  # by a turn that was under way
        assert desk.accepted == [1]
        assert await desk.fly(1, [2], is_answered=True) is None
        assert await desk.fly(None, is_answered=True) is None
        desk.answers_at_once = {4}
        assert await desk.fly(0, [4], generation=2) == [4]

    run(work())


def test_what_is_no_flight_is_refused() -> None:
    async def work() -> None:
        with pytest.raises(InvalidRequestError):
            await Desk().arrivals.take(b"")

    run(work())


def test_a_farewell_ends_when_all_have_their_answers() -> None:
    async def work() -> None:
        desk = Desk()
        await desk.fly(0, [1], hold=0.0)
        leaving = asyncio.ensure_future(desk.arrivals.quiet())
        await spin()
        assert not leaving.done()
        desk.answer(1)
        assert await desk.fly(None, is_answered=True) == [1]
        await leaving

    run(work())
