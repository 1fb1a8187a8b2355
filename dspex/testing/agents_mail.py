"""One side of the mail of agents at a time, driven message by message.

Knows: an inbox, an outbound. Must not know: loops, networks, what a test is for.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from itertools import count
from typing import Any, final

from dspex.foundation.agents.cells import Letter
from dspex.foundation.agents.dedup import Answered
from dspex.foundation.agents.inbox import Inbox
from dspex.foundation.agents.messages import (
    AT_LEAST_ONCE,
    DONE,
    EXACTLY_ONCE,
    REFUSED,
    Message,
    MessageLike,
    fingerprint_of,
)
from dspex.foundation.agents.outbound import Outbound, Posted
from dspex.foundation.ledger.wire import rebuilt_error

__all__ = ["KEY", "Desk", "Link", "Sender"]

KEY = ":x"


@final
class Link:
    """One process's way to the host."""

    def __init__(self) -> None:
        self.stuck: dict[str, int] = {}


@final
class Desk:
    """An inbox with one agent, and all answers by letter: more than one is an error."""

    def __init__(self, *, limit: int = 100, is_ready: bool = True) -> None:
        self.inbox = Inbox(self.answer)
        self.answers: dict[Any, tuple[int, Any]] = {}
        self.letters: list[Letter] = []
        self.cell = self.inbox.add(KEY, (1, 1), limit)
        self.link = Link()
        self.mids = count(1)
        if is_ready:
            self.inbox.ready(self.cell, None)

    def answer(self, letter: Letter, status: int, payload: Any) -> None:
        assert letter not in self.answers, "a letter is answered once"
        self.answers[letter] = status, payload

    def send(
        self,
        number: int = 0,
        flags: int = AT_LEAST_ONCE,
        *,
        link: Link | None = None,
        key: str = KEY,
        sender: str = "me",
        below: int = 0,
        left: float | None = None,
        method: str = "m",
        now: float = 0.0,
    ) -> Letter:
        """Send a message; with a number exactly once, unless flags say otherwise."""
        mid = next(self.mids)
        if number and flags & 3 == AT_LEAST_ONCE:
            flags = flags & ~3 | EXACTLY_ONCE
        args = b"%d" % (number or mid)
        deadline = None if left is None else now + left
        letter = Letter(
            mid, key, flags, sender, number, below, left, method, args, link or self.link, deadline
        )
        self.letters.append(letter)
        self.inbox.accept(letter)
        return letter

    def take(self, now: float = 0.0, alone: str = "") -> list[Letter]:
        return self.inbox.take(self.cell, now, lambda cell, letter: letter.method == alone)

    def run(self, now: float = 0.0) -> list[int]:
        """Run and answer one row; gives the messages' numbers, or mids where they have none."""
        ran = []
        for letter in self.take(now):
            ran.append(letter.number or letter.mid)
            if letter.number:
                answered = Answered(True, b"r%d" % letter.number, fingerprint_of(letter))
                self.inbox.record(self.cell, letter, answered)
            self.inbox.answer(self.cell, letter, DONE, b"r%d" % letter.number)
        self.cell.is_busy = False
        self.cell.taken = 0
        return ran

    def status(self, letter: Letter) -> int | None:
        found = self.answers.get(letter)
        return None if found is None else found[0]

    def error(self, letter: Letter) -> Exception:
        status, payload = self.answers[letter]
        assert status == REFUSED
        return rebuilt_error(payload)

    def assert_quiet(self) -> None:
        """All have heard, and nothing is left over."""
        assert self.answers.keys() == set(self.letters)
        for cell in (self.cell, *self.inbox.cells.values()):
            assert not cell.mailbox
            assert not cell.joined


@final
class Sender:
    """An outbound, and what it says of each message in the end."""

    def __init__(self, **places: str) -> None:
        self.outbound: Outbound[Message] = Outbound()
        self.outbound.places.update({f":{key}": address for key, address in places.items()})
        self.mids = count(1)
        self.finals: dict[int, tuple[int, Any]] = {}
        self.now = 0.0

    def message(self, key: str = KEY, flags: int = EXACTLY_ONCE, size: int = 0) -> Message:
        mid = next(self.mids)
        return Message(mid, key, flags, "me", mid, 0, None, "m", b"x" * size)

    def send(self, key: str = KEY, flags: int = EXACTLY_ONCE) -> Message:
        message = self.message(key, flags)
        self.outbound.send(message)
        return message

    def post(self, address: str = "a") -> Posted:
        posted = self.outbound.post(address, self.now)
        assert posted is not None
        return posted

    def back(
        self, posted: Posted, answers: Iterable[tuple[MessageLike, int]] = (), *, poll: bool = False
    ) -> None:
        """Have a flight come back with answers."""
        found = self.outbound.answered(
            posted.address,
            posted.generation,
            None if poll else posted.place,
            [(message.mid, status, b"") for message, status in answers],
            self.now,
        )
        for message, status, payload in found:
            assert message.mid not in self.finals, "it was answered before"
            self.finals[message.mid] = status, payload

    def lost(self, posted: Posted, *, unsent: Collection[int] = ()) -> list[int]:
        left = [place for place in range(posted.place + 1) if place not in unsent]
        found = self.outbound.lost(posted.address, posted.generation, self.now, left)
        return [message.mid for message in found]

    def locate(self, address: str | None, key: str = KEY) -> str | None:
        """Look for an agent that is due, and find it."""
        assert key in self.outbound.to_locate(self.now)
        return self.outbound.located(key, address, self.now)

    def assert_quiet(self) -> None:
        assert list(self.outbound.everything()) == []
        assert not self.outbound._held
        for address in self.outbound.addresses():
            assert self.outbound.post(address, self.now) is None
            assert self.outbound.is_waiting(address) is None
            assert not self.outbound._links[address].resumed
