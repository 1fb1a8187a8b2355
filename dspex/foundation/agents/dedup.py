"""Which messages had their effect: each once, however often it comes.

Knows: senders, numbers, what was answered. Must not know: messages, time, who delivers.

A sender numbers its messages, growing, with gaps; to one receiver they arrive in the order of
their numbers. With each it says below which number it has all answers, so that those need not be
kept (RIFL, Lee et al., "Implementing linearizability at large scale and low latency", SOSP 2015,
section 3). The table is part of the receiver's state: it is committed, moved and recovered with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, final

__all__ = ["BY_KEY", "KEYS", "LOST", "NEW", "Answered", "Dedup", "Fields", "Row"]


class Answered(NamedTuple):
    """What became of a message.

    Attributes
    ----------
    is_ok : bool
        False where the turn raised; then `payload` is its error.
    payload : bytes or None
        None where the answer is not kept any more, or nobody wanted one.
    fingerprint : int
        Of what was asked.
    """

    is_ok: bool
    payload: bytes | None
    fingerprint: int


Fields = tuple[bool, bytes | None, int]
"""Those of `Answered`."""

BY_KEY = "key:"
"""How the sender of a message begins that its user has given a key of its own."""

KEYS = 1_000
"""Keys of users that one receiver remembers; the oldest is forgotten for the next."""

NEW = None
"""A message that has had no effect yet."""

LOST = Answered(True, None, -1)
"""A message that came before one that had an effect, with an answer that was neither kept nor
acknowledged: where its sender wants one, it changed nothing, as what changes something is kept."""

Row = tuple[str, int, int, list[tuple[int, bool, bytes | None, int]]]
"""(sender, the largest number, all below is acknowledged, (number, *`Answered`) of each kept)"""


@final
class Dedup:
    """The answers of one receiver.

    Examples
    --------
    >>> table = Dedup()
    >>> _ = table.record("me", 3, Answered(True, b"three", 7))
    >>> table.look_up("me", 3).payload
    b'three'
    >>> table.look_up("me", 4) is NEW
    True
    >>> table.acknowledge("me", 4)
    >>> table.look_up("me", 3)
    Answered(is_ok=True, payload=None, fingerprint=0)
    """

    __slots__ = ("_answers", "_below", "_last")

    def __init__(self) -> None:
        self._last: dict[str, int] = {}
        self._below: dict[str, int] = {}
        self._answers: dict[str, dict[int, Fields]] = {}

    def look_up(self, sender: str, number: int) -> Answered | None:
        """What became of a message; `NEW` where it has had no effect, `LOST` where it may be."""
        if number > self._last.get(sender, 0):
            return NEW
        kept = self._answers.get(sender, {}).get(number)
        if kept is not None:
            return Answered(*kept)
        return Answered(True, None, 0) if number < self._below.get(sender, 0) else LOST

    def record(self, sender: str, number: int, answered: Fields) -> bool:
        """Take note of a message's effect; gives whether the sender was unknown before."""
        last = self._last.get(sender)
        if last is None and sender.startswith(BY_KEY):
            self._forget_oldest_key()
        if last is None or number > last:
            self._last[sender] = number
        if answered[1] is not None and number >= self._below.get(sender, 0):
            answers = self._answers.get(sender)
            if answers is None:
                answers = self._answers[sender] = {}
            is_ok, payload, fingerprint = answered
            # A plain tuple, which the garbage collector need not look at.
            answers[number] = (is_ok, payload, fingerprint)
        return last is None

    def _forget_oldest_key(self) -> None:
        keys = [each for each in self._last if each.startswith(BY_KEY)]
        if len(keys) >= KEYS:
            self.forget(keys[0])

    def acknowledge(self, sender: str, below: int) -> None:
        """Let go of the answers that the sender has."""
        if below <= self._below.get(sender, 0):
            return
        self._below[sender] = below
        answers = self._answers.get(sender)
        if answers is None:
            return
        # They came in about this order; what is behind a later one goes with it.
        while answers and (first := next(iter(answers))) < below:
            del answers[first]
        if not answers:
            del self._answers[sender]

    def forget(self, sender: str) -> None:
        """Let go of a sender that is no more."""
        self._last.pop(sender, None)
        self._below.pop(sender, None)
        self._answers.pop(sender, None)

    def senders(self) -> Iterator[str]:
        """Those that have sent something."""
        return iter(tuple(self._last))

    def rows(self) -> list[Row]:
        """All of it, as plain data."""
        return [
            (
                sender,
                last,
                self._below.get(sender, 0),
                [(number, *each) for number, each in self._answers.get(sender, {}).items()],
            )
            for sender, last in self._last.items()
        ]

    @classmethod
    def from_rows(cls, rows: Any) -> Dedup:
        """Make it again."""
        made = cls()
        for sender, last, below, answers in rows:
            made._last[sender] = last
            if below:
                made._below[sender] = below
            if answers:
                made._answers[sender] = {
                    n: (is_ok, payload, print_) for n, is_ok, payload, print_ in answers
                }
        return made
