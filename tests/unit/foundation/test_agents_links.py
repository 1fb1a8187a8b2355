"""Which agents' messages are missing on a link, counted while somebody asks."""

from __future__ import annotations

from itertools import count

import pytest

from dspex.foundation.agents import links
from dspex.foundation.agents.links import OutboundLink
from dspex.foundation.agents.messages import Message

MIDS = count(1)


def messages(*keys: str) -> list[Message]:
    return [Message(next(MIDS), key, 0, "", 0, 0, None, "m", b"") for key in keys]


def answer(link: OutboundLink[Message], message: Message) -> None:
    del link.outstanding[message.mid]
    link.uncount(message.key)


def test_an_agent_is_missing_as_long_as_one_of_its_messages_is() -> None:
    link: OutboundLink[Message] = OutboundLink(1)
    first = messages("a", "a", "b")
    assert link.depart(first) == 0
    assert link.is_missing("a")
    assert not link.is_missing("c")
    (later,) = messages("c")
    assert link.depart([later]) == 1
    assert link.is_missing("c")
    for message, is_missing in ((first[0], True), (first[1], False)):
        answer(link, message)
        assert link.is_missing("a") == is_missing
    answer(link, later)
    assert set(link.counts or ()) == {"b"}, "who is not missing is not kept"


def test_who_does_not_ask_pays_nothing() -> None:
    link: OutboundLink[Message] = OutboundLink(1)
    sent = messages("a", "b")
    link.depart(sent)
    answer(link, sent[0])
    assert link.counts is None


def test_they_are_not_counted_again_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "_COUNTED_FOR", 10)
    link: OutboundLink[Message] = OutboundLink(1)
    link.depart(messages(*["a"] * 30))
    assert link.is_missing("a")
    counted = link.counts
    for _ in range(3):
        link.depart(messages(*["b"] * 30))
        assert link.is_missing("b")
    assert link.counts is counted
    # More than are outstanding have left since somebody asked.
    link.outstanding.clear()
    link.counts = None
    assert not link.is_missing("a")
    for _ in range(2):
        (message,) = messages("c")
        link.depart([message])
        answer(link, message)
    for message in messages(*["c"] * 20):
        link.depart([message])
        answer(link, message)
    assert link.counts is None
