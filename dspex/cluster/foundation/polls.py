"""Polls: a request for news is held until there is some.

Knows: the feed, late replies, who waits for which topics. Must not know: what is made of the news.

Nothing leaves that is not committed. Who waits is woken by what concerns it, and by nothing else,
so that many followers cost nothing while others are busy.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from typing import Any, final

from dspex.cluster.foundation.commits import Commits
from dspex.errors import InvalidRequestError
from dspex.foundation.ledger.events import Event
from dspex.foundation.ledger.feed import Feed, Wanted, tag_of
from dspex.foundation.ledger.ledger import Ledger

__all__ = ["Polls"]

MAX_HOLD = 30.0
MAX_POLL = 5_000
"""Events in one answer to a follower."""

_RECORDS, _REPLIES = "records ", "replies "


@final
class Polls:
    """Holds polls.

    Parameters
    ----------
    ledger : Ledger
    commits : Commits
    identity : str
        Of the journal.
    clock : callable
        Monotonic seconds.
    """

    def __init__(
        self, ledger: Ledger, commits: Commits, identity: str, clock: Callable[[], float]
    ) -> None:
        self._ledger = ledger
        self._commits = commits
        self._identity = identity
        self._clock = clock
        self._followers: dict[asyncio.Future[None], frozenset[str]] = {}
        self._closed = False
        self.feed = Feed(ledger.revision)

    def committed(self, revision: int, events: Collection[Event]) -> None:
        """Tell what was committed to those who wait for it."""
        self.feed.publish(revision, events)
        if self._followers:
            news = set(map(_topic, events))
            for future, topics in self._followers.items():
                if not topics.isdisjoint(news):
                    _set(future)

    def close(self) -> None:
        """End all polls, and hold none any more."""
        self._closed = True
        for future in self._followers:
            _set(future)

    async def poll(self, session: str, args: Mapping[str, Any]) -> dict[str, Any]:
        """Wait for what a session wants to hear of, and tell it.

        Raises
        ------
        InvalidRequestError
        UnavailableError
            Where it cannot be said what is committed.
        """
        wanted = _wanted(args)
        seen = [each for each in args["seen"] if isinstance(each, int)]
        topics = frozenset(
            {f"{_RECORDS}{name}" for name, _ in wanted.topics}
            | set(wanted.tags)
            | ({f"{_REPLIES}{session}"} if args["replies"] else set())
        )
        arrived = self._clock()
        deadline = arrived + min(max(0.0, args["hold"]), MAX_HOLD)
        after = args["after"]
        if not (wanted.topics or wanted.tags):
            after = self.feed.revision  # only late replies are waited for
        elif args["identity"] != self._identity:
            after = -1  # of another history
        while True:
            upto = self.feed.revision
            events = self.feed.since(after, wanted)
            replies = self._ledger.settled(session, seen) if args["replies"] else []
            if replies:
                await self._commits.reach(self._ledger.revision)
            left = deadline - self._clock()
            if events is None or events or replies or left <= 0 or self._closed:
                break
            after = upto
            await self._news(topics, left)
        told = _whole_entries(events or [])
        return {
            "reset": events is None,
            "held": self._clock() - arrived,
            "revision": upto if len(told) == len(events or []) else told[-1][0],
            "events": told,
            "replies": replies,
        }

    async def _news(self, topics: frozenset[str], timeout: float) -> None:
        """Wait until something of these topics was committed."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self._followers[future] = topics
        handle = loop.call_later(timeout, _set, future)
        try:
            await future
        finally:
            handle.cancel()
            del self._followers[future]


def _topic(event: Event) -> str:
    """What a follower waits for who wants to hear of an event."""
    if event[0] in ("put", "drop"):
        return f"{_RECORDS}{event[1]}"
    return f"{_REPLIES}{event[1]}" if event[0] == "reply" else tag_of(event)


def _whole_entries(events: list[tuple[int, Event]]) -> list[tuple[int, Event]]:
    """As many as one answer holds; of no entry a part, or its revision would be taken for done."""
    if len(events) <= MAX_POLL:
        return events
    last = events[MAX_POLL][0]
    first = events[0][0]
    return [each for each in events if each[0] < last or last == first == each[0]]


def _wanted(args: Mapping[str, Any]) -> Wanted:
    topics = args["topics"]
    for each in topics:
        if not (
            isinstance(each, list)
            and len(each) == 2
            and all(isinstance(name, str) for name in each)
        ):
            raise InvalidRequestError(
                f"topics are pairs of a collection and a pattern; got {each!r:.120}"
            )
    return Wanted([(name, pattern) for name, pattern in topics], frozenset(args["tags"]))


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
