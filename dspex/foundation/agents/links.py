"""What a sender knows of its way to one host, and of an agent whose messages wait.

Knows: messages, flights by their places. Must not know: when what leaves, what an answer says.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from operator import attrgetter
from typing import Generic, TypeVar, final

from dspex.foundation.agents.messages import MessageLike

__all__ = ["MID", "Held", "OutboundLink"]

M = TypeVar("M", bound=MessageLike)

MID = attrgetter("mid")

_COUNTED_FOR = 10_000
"""Messages that leave, at the least, before it is forgotten how many of which agent are missing."""


@final
class OutboundLink(Generic[M]):
    """One generation of the way to a host.

    Attributes
    ----------
    used : float
        When a flight left last.
    queue : deque
        Messages that leave next.
    resumed : set of int
        The numbers of those in the queue that are the first of their agents'.
    put, taken : int
        Messages that ever went into the queue, and out of it.
    flights : dict of place to messages
        On their way.
    outstanding : dict of number to message
        Not answered.
    counts : Counter or None
        Of those by key. Most senders never ask; who asks does so again and again.
    """

    __slots__ = (
        "_unasked",
        "counts",
        "flights",
        "generation",
        "is_answered",
        "next_place",
        "outstanding",
        "put",
        "queue",
        "resumed",
        "taken",
        "used",
    )

    def __init__(self, generation: int) -> None:
        self.generation = generation
        self.used = float("inf")
        self.next_place = 0
        self.is_answered = False
        self.queue: deque[M] = deque()
        self.resumed: set[int] = set()
        self.put = self.taken = 0
        self.flights: dict[int, Sequence[M]] = {}
        self.outstanding: dict[int, M] = {}
        self.counts: Counter[str] | None = None
        self._unasked = 0

    def depart(self, messages: Sequence[M]) -> int:
        """Take note of a flight that leaves; gives its place."""
        place = self.next_place
        self.next_place += 1
        self.flights[place] = messages
        self.outstanding.update(zip(map(MID, messages), messages, strict=True))
        if self.counts is not None:
            self._unasked += len(messages)
            # So that to count again costs no more than one step for each message.
            if self._unasked > max(_COUNTED_FOR, len(self.outstanding)):
                self.counts = None
            else:
                self.counts.update(message.key for message in messages)
        return place

    def uncount(self, key: str) -> None:
        """Take note that one of an agent is not outstanding any more; where they are counted."""
        if self.counts is not None:
            self.counts[key] -= 1
            if not self.counts[key]:
                del self.counts[key]

    def is_missing(self, key: str) -> bool:
        """Whether something of an agent is outstanding."""
        if self.counts is None:
            self.counts = Counter(message.key for message in self.outstanding.values())
        self._unasked = 0
        return key in self.counts


@final
class Held(Generic[M]):
    """An agent whose messages wait.

    Attributes
    ----------
    upto : int
        The place of the last flight that may carry one of its messages.
    queued : int
        How far the queue must be taken, for the same reason.
    """

    __slots__ = ("address", "attempts", "due", "is_asked", "queued", "status", "upto", "waiting")

    def __init__(self, status: int) -> None:
        self.status = status
        self.address = ""
        self.upto = -1
        self.queued = 0
        self.waiting: list[M] = []
        self.attempts = 0
        self.due = 0.0
        self.is_asked = False
