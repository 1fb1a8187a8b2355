"""Who waits for capacity, and in which order.

Knows: the order, priority first and then arrival; that equal requests are in one line.
Must not know: what is free, who is granted (`resources`).

Requests that any worker and any quota treat alike (the same amounts, labels, tenant and pinned
worker) are one *line*: where its head cannot be granted, nobody behind it can. So whoever looks
for the next to be granted looks at heads alone, however many wait.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import Any, NamedTuple, TypeAlias, final

from dspex.errors import ResourceExhaustedError
from dspex.foundation.ledger.amounts import NOTHING
from dspex.foundation.ledger.placement import Wish

__all__ = ["MAX_WAITING", "Queue", "Waiter"]

MAX_WAITING = 10_000

_Order: TypeAlias = tuple[float, int]
_Line: TypeAlias = tuple[Any, ...]


class Waiter(NamedTuple):
    """A call that waits; comparing two tells who is first.

    Attributes
    ----------
    order : tuple
        (-priority, arrival); no two are the same.
    session : str
    number : int
    wish : Wish
    since : float
    """

    order: _Order
    session: str
    number: int
    wish: Wish
    since: float


@final
class Queue:
    """All calls that wait.

    Examples
    --------
    >>> from dspex.foundation.ledger.amounts import Amounts
    >>> queue = Queue()
    >>> queue.add("me", 1, Wish("k", Amounts(1)), 0.0)
    >>> queue.add("me", 2, Wish("k", Amounts(1), priority=5), 0.0)
    >>> [waiter.number for waiter in queue.in_order()]
    [2, 1]
    """

    def __init__(self) -> None:
        self._lines: dict[_Line, list[Waiter]] = {}  # each in order
        self._heads: list[tuple[_Order, _Line]] = []  # in order
        self._waiters: dict[tuple[str, int], Waiter] = {}
        self._numbers: dict[str, set[int]] = {}  # by session
        self._slots = 0
        self._arrivals = 0

    def __len__(self) -> int:
        return len(self._waiters)

    def __contains__(self, call: tuple[str, int]) -> bool:
        return call in self._waiters

    @property
    def has_slots(self) -> bool:
        """Whether a request for no amount at all waits."""
        return self._slots > 0

    def in_order(self) -> list[Waiter]:
        """All, the first one first."""
        return sorted(self._waiters.values())

    def add(self, session: str, number: int, wish: Wish, now: float) -> None:
        """Have a call wait.

        Raises
        ------
        ResourceExhaustedError
            Where too many wait.
        """
        if len(self._waiters) >= MAX_WAITING:
            raise ResourceExhaustedError(
                f"at most {MAX_WAITING:,} requests wait at once, and so many do; try again later, "
                "or add workers",
                waiting=len(self._waiters),
            )
        self._arrivals += 1
        waiter = Waiter((-wish.priority, self._arrivals), session, number, wish, now)
        self._waiters[session, number] = waiter
        self._numbers.setdefault(session, set()).add(number)
        self._slots += wish.amounts == NOTHING
        line = _line(wish)
        members = self._lines.setdefault(line, [])
        old = members[0] if members else None
        insort(members, waiter)
        self._list(line, old)

    def remove(self, session: str, number: int) -> bool:
        """Take a call out; False where it does not wait."""
        waiter = self._waiters.pop((session, number), None)
        if waiter is None:
            return False
        self._slots -= waiter.wish.amounts == NOTHING
        numbers = self._numbers[session]
        numbers.discard(number)
        if not numbers:
            del self._numbers[session]
        line = _line(waiter.wish)
        members = self._lines[line]
        old = members[0]
        del members[bisect_left(members, waiter)]
        if not members:
            del self._lines[line]
        self._list(line, old)
        return True

    def remove_session(self, session: str) -> bool:
        """Take all calls of a session out; False where none waited."""
        numbers = sorted(self._numbers.get(session, ()))
        for number in numbers:
            self.remove(session, number)
        return bool(numbers)

    def head(self, at: int) -> Waiter | None:
        """The head of the line whose head is the `at`-th; None past the last."""
        return self._lines[self._heads[at][1]][0] if at < len(self._heads) else None

    def is_behind_another(self, session: str, number: int) -> bool:
        """Whether somebody else of the same line is before it."""
        waiter = self._waiters[session, number]
        return self._lines[_line(waiter.wish)][0] != waiter

    def _list(self, line: _Line, old: Waiter | None) -> None:
        members = self._lines.get(line)
        head = members[0] if members else None
        if head == old:
            return
        if old is not None:
            del self._heads[bisect_left(self._heads, (old.order,))]
        if head is not None:
            insort(self._heads, (head.order, line))

    def validate(self) -> None:
        """Assert that the lines and their heads hold all that wait, in order."""
        members = [waiter for line in self._lines.values() for waiter in line]
        assert sorted(members) == self.in_order()
        assert len(self._waiters) <= MAX_WAITING
        assert self._slots == sum(each.wish.amounts == NOTHING for each in members)
        calls = {(session, each) for session, numbers in self._numbers.items() for each in numbers}
        assert calls == self._waiters.keys()
        assert all(line == sorted(line) for line in self._lines.values())
        assert self._heads == sorted(
            ((members[0].order, line) for line, members in self._lines.items()),
            key=lambda head: head[0],
        )


def _line(wish: Wish) -> _Line:
    return wish.amounts, wish.labels, wish.tenant, wish.worker
