"""The last events that were committed, for those who follow.

Knows: revisions, events, who wants which. Must not know: who asks, how long anyone waits.

Bounded: a follower that was away for longer than the feed reaches back is told so, and starts
again from a snapshot.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple, final

from dspex.foundation.ledger.events import Event
from dspex.foundation.patterns import matches

__all__ = ["Feed", "Wanted", "tag_of"]

LIMIT = 20_000
"""Events that are remembered."""

LIMIT_BYTES = 64 * 2**20

PUBLISHED = frozenset({"put", "drop", "member", "lock", "unlock", "placed", "moving", "ended"})

_OF_A_HOST = frozenset({"placed", "moving", "ended"})


def tag_of(event: Event) -> str:
    """What a follower names who wants an event: its tag, of events about agents with their host.

    Examples
    --------
    >>> tag_of(("ended", "tcp://a:1", "stopped", ["x"]))
    'host tcp://a:1'
    """
    return f"host {event[1]}" if event[0] in _OF_A_HOST else str(event[0])


class Wanted(NamedTuple):
    """What a follower wants.

    Attributes
    ----------
    topics : sequence of (collection, pattern)
        Records of these collections whose keys match.
    tags : collection of str
        Other events.
    """

    topics: Sequence[tuple[str, str]]
    tags: Collection[str]

    def __contains__(self, event: object) -> bool:
        """Whether it is one of them."""
        assert isinstance(event, tuple)
        tag = event[0]
        if tag not in ("put", "drop"):
            return tag_of(event) in self.tags
        return any(event[1] == name and matches(event[2], pattern) for name, pattern in self.topics)


@final
class Feed:
    """Remembers events in the order of their revisions.

    Parameters
    ----------
    revision : int
        The last revision of which nothing is remembered.

    Examples
    --------
    >>> feed = Feed(0)
    >>> feed.publish(1, [("lock", "", "a", (1, 1), "me", "lock")])
    >>> feed.since(0, Wanted([], {"lock"}))
    [(1, ('lock', '', 'a', (1, 1), 'me', 'lock'))]
    >>> Feed(7).since(0, Wanted([], {"lock"})) is None
    True
    """

    def __init__(self, revision: int) -> None:
        self.revision = revision
        self._floor = revision
        self._events: deque[tuple[int, Event, int]] = deque()
        self._bytes = 0

    def publish(self, revision: int, events: Collection[Event]) -> None:
        """Take what was committed."""
        self.revision = revision
        for event in events:
            if event[0] in PUBLISHED:
                size = len(event[4]) if event[0] == "put" else 0
                self._events.append((revision, event, size))
                self._bytes += size
        while self._bytes > LIMIT_BYTES or len(self._events) > LIMIT:
            self._floor, _, size = self._events.popleft()
            self._bytes -= size

    def since(self, after: int, wanted: Wanted) -> list[tuple[int, Event]] | None:
        """Events of later revisions; None where not all of them are remembered."""
        if not self._floor <= after <= self.revision:
            return None
        found = [(number, event) for number, event in self._newest(after) if event in wanted]
        found.reverse()
        return found

    def _newest(self, after: int) -> Iterator[tuple[int, Event]]:
        for number, event, _ in reversed(self._events):
            if number <= after:
                return
            yield number, event
