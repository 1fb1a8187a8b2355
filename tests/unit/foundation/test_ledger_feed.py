"""The feed: what followers are told, and when they have to start again."""

from __future__ import annotations

import pytest

from dspex.foundation.ledger import feed as feed_module
from dspex.foundation.ledger.events import Event
from dspex.foundation.ledger.feed import Feed, Wanted

ALL = Wanted([("r:", "*")], ["lock", "unlock", "member"])


def put(key: str, value: bytes = b"", collection: str = "r:") -> Event:
    return ("put", collection, key, 1, value, {}, (), None, None, "me")


def drop(key: str, collection: str = "r:") -> Event:
    return ("drop", collection, key, 1, "dropped")


LOCK: Event = ("lock", "", "l", (1, 1), "me", "lock")


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (ALL, [put("a/1"), drop("a/2"), LOCK]),
        (Wanted([], []), []),
        (Wanted([], ["lock"]), [LOCK]),
        (Wanted([], ["put", "drop"]), []),
        (Wanted([("r:", "a/*")], []), [put("a/1"), drop("a/2")]),
        (Wanted([("r:", "*/1"), ("s:", "b")], []), [put("a/1"), put("b", collection="s:")]),
        (Wanted([("s:", "a/*")], ["member"]), []),
    ],
)
def test_followers_are_told_what_they_want_in_order(wanted: Wanted, found: list[Event]) -> None:
    feed = Feed(0)
    feed.publish(1, [put("a/1"), ("reply", "s", 1, True, None)])
    feed.publish(2, [drop("a/2")])
    feed.publish(3, [put("b", collection="s:"), LOCK])
    told = feed.since(0, wanted)
    assert told is not None
    assert [event for _, event in told] == found


def test_who_has_heard_all_hears_nothing_and_who_heard_less_hears_the_rest() -> None:
    feed = Feed(4)
    for revision in (5, 6, 7):
        feed.publish(revision, [put(str(revision))])
    heard = {after: feed.since(after, ALL) for after in range(3, 9)}
    assert heard[3] is None, "what came before this feed it does not know"
    assert [revision for revision, _ in heard[4] or []] == [5, 6, 7]
    assert [revision for revision, _ in heard[6] or []] == [7]
    assert heard[7] == []
    assert heard[8] is None, "of a future that a crash took back"


def test_revisions_without_news_are_heard_of_too() -> None:
    feed = Feed(0)
    feed.publish(1, [("session", "s", "client", "n", 3.0)])
    assert feed.revision == 1
    assert feed.since(1, ALL) == []


@pytest.mark.parametrize("size", [0, 100])
def test_it_is_bounded(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "LIMIT" if size == 0 else "LIMIT_BYTES"
    monkeypatch.setattr(feed_module, name, 3 if size == 0 else 3 * size)
    feed = Feed(0)
    for revision in range(1, 11):
        feed.publish(revision, [put(str(revision), b"x" * size)])
    assert feed.since(6, ALL) is None
    assert [revision for revision, _ in feed.since(7, ALL) or []] == [8, 9, 10]


def test_an_entry_of_which_a_part_was_forgotten_is_not_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(feed_module, "LIMIT", 3)
    feed = Feed(0)
    feed.publish(1, [put("a"), put("b")])
    feed.publish(2, [put("c"), put("d")])
    assert feed.since(0, ALL) is None
    assert [event[2] for _, event in feed.since(1, ALL) or []] == ["c", "d"]


def test_an_entry_that_is_larger_than_the_feed_makes_all_start_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(feed_module, "LIMIT_BYTES", 10)
    feed = Feed(0)
    feed.publish(1, [put("a", b"x" * 11)])
    assert feed.since(0, ALL) is None
    assert feed.since(1, ALL) == []
