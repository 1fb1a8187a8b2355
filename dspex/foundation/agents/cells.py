"""An agent at its host, and the letters that it is sent.

Knows: what is kept of each. Must not know: when one is accepted, or runs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Protocol, final

from dspex.foundation.agents.dedup import Dedup
from dspex.foundation.agents.messages import CAST, DELIVERY, EXACTLY_ONCE

__all__ = ["LEAVING", "LOADING", "READY", "Cell", "Letter", "Link", "Verdict", "letter_of"]

LOADING, READY, LEAVING = 0, 1, 2

Verdict = tuple[int, Any]
"""(status, payload)"""


class Link(Protocol):
    """What brings messages of one process, and takes the answers.

    Attributes
    ----------
    stuck : dict of key to status
        Agents whose messages are refused until one is resumed.
    """

    @property
    def stuck(self) -> dict[str, int]:
        """As above."""


class Letter(NamedTuple):
    """A message that arrived, as one object: there may be very many.

    Attributes
    ----------
    mid, key, flags, sender, number, below, left, method, args
        Of the message.
    link : Link
        Where its answer goes.
    deadline : float or None
        Instant of the host's clock.
    """

    mid: int
    key: str
    flags: int
    sender: str
    number: int
    below: int
    left: float | None
    method: str
    args: bytes
    link: Any
    deadline: float | None

    @property
    def is_sent_until_done(self) -> bool:
        """Whether nobody waits for an answer who could call again."""
        return bool(self.flags & CAST) and self.flags & DELIVERY == EXACTLY_ONCE


letter_of: Callable[[tuple[Any, ...]], Letter] = partial(tuple.__new__, Letter)
"""What `Letter._make` does, without a call in between: (*message, link, deadline)."""


@final
class Cell:
    """One agent at a host.

    Attributes
    ----------
    key : str
    token : tuple of (term, n)
        Its incarnation.
    limit : int
        Messages that may wait.
    refuses : bool
        Whether one more is refused for good.
    phase : int
        `LOADING` until it is made, `LEAVING` once it is to go elsewhere.
    is_busy : bool
    is_durable : bool
        Whether its turns wait for the journal.
    taken : int
        Messages that were taken to run in a row, and have not run yet.
    uncommitted : int
        Turns whose commit is under way.
    joined : dict or None
        {(sender, number): the letter, or a list of letters} of messages exactly once that wait,
        run, or are to be committed.
    accepted : dict or None
        {sender: the largest number} of those.
    resident : Any
        What the host has made of it.
    """

    __slots__ = (
        "accepted",
        "dedup",
        "is_busy",
        "is_durable",
        "joined",
        "key",
        "limit",
        "mailbox",
        "phase",
        "refuses",
        "resident",
        "taken",
        "token",
        "uncommitted",
    )

    def __init__(self, key: str, token: tuple[int, int], limit: int) -> None:
        self.key = key
        self.token = token
        self.limit = limit
        self.phase = LOADING
        self.refuses = False
        self.is_busy = False
        self.is_durable = False
        self.taken = 0
        self.uncommitted = 0
        self.mailbox: list[Letter] | None = None  # a ninth of a deque
        self.dedup: Dedup | None = None
        self.joined: dict[tuple[str, int], Any] | None = None
        self.accepted: dict[str, int] | None = None
        self.resident: Any = None

    @property
    def waiting(self) -> int:
        """How many messages wait."""
        return len(self.mailbox or ()) + max(0, self.taken - 1)
