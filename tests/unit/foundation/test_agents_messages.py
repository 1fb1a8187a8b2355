"""Messages as bytes."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest

from dspex.errors import InvalidRequestError
from dspex.foundation.agents.messages import (
    AT_LEAST_ONCE,
    AT_MOST_ONCE,
    CANCEL,
    CAST,
    CONTROL,
    DELIVERY,
    DONE,
    ELSEWHERE,
    EXACTLY_ONCE,
    FULL,
    RESUMED,
    Flight,
    Message,
    decode_answers,
    decode_flight,
    encode_answers,
    encode_flight,
)

MESSAGES = [
    Message(1, ":a", EXACTLY_ONCE | CAST | RESUMED, "me", 2, 1, 0.25, "add", b"\x00\xff"),
    Message(2**40, "ns:ä", AT_MOST_ONCE, "", 0, 0, None, "get", b""),
]


@pytest.mark.parametrize("place", [0, 7, None])
@pytest.mark.parametrize("messages", [MESSAGES, []])
def test_a_flight_arrives_as_it_was_sent(place: int | None, messages: list[Message]) -> None:
    flight = Flight("me", 3, place, True, 0.02, messages)
    found = decode_flight(encode_flight(flight))
    assert found._replace(messages=messages, size=-1) == flight
    assert found.size == len(messages)
    assert list(found.messages) == messages


def test_answers_arrive_as_they_were_sent() -> None:
    answers: list[tuple[int, int, Any]] = [(1, DONE, b"x"), (2, ELSEWHERE, None), (3, FULL, [1])]
    flat = [field for answer in answers for field in answer]
    assert list(decode_answers(encode_answers(flat))) == answers
    assert list(decode_answers(encode_answers([]))) == []


def test_how_often_a_message_may_arrive_is_apart_from_all_else() -> None:
    flags = (CAST, RESUMED, CONTROL, CANCEL)
    assert len({*flags, DELIVERY}) == 5
    for delivery in (AT_MOST_ONCE, AT_LEAST_ONCE, EXACTLY_ONCE):
        assert (delivery | sum(flags)) & DELIVERY == delivery


@pytest.mark.parametrize(
    "blob",
    [
        b"",
        b"\xc1",
        msgpack.packb(7),
        msgpack.packb([2, "me", 1]),
        msgpack.packb([2, "me", 1, 0, False, 0.0, [1, ":a"]]),
        msgpack.packb([2, "me", 1, 0, False, 0.0, 7]),
        encode_flight(Flight("me", 1, 0, False, 0.0, MESSAGES))[:-3],
    ],
)
def test_what_is_no_flight_is_refused(blob: bytes) -> None:
    with pytest.raises(InvalidRequestError, match="messages travel in flights"):
        decode_flight(blob)


def test_another_protocol_is_refused() -> None:
    blob = msgpack.packb([1, "me", 1, 0, False, 0.0, []])
    with pytest.raises(InvalidRequestError, match="protocol 2 of messages; got 1"):
        decode_flight(blob)


@pytest.mark.parametrize(
    "blob",
    [b"\xc1", msgpack.packb(7), msgpack.packb([2, [1, DONE]]), msgpack.packb([2, 7])],
)
def test_what_is_no_answer_is_refused_as_a_whole(blob: bytes) -> None:
    with pytest.raises(InvalidRequestError, match="a host answers in lists"):
        decode_answers(blob)


def test_answers_of_another_protocol_are_refused() -> None:
    with pytest.raises(InvalidRequestError, match="speaks protocol 2 of messages; its host"):
        decode_answers(msgpack.packb([1, []]))
