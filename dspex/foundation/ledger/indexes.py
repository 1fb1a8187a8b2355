"""Shorter ways to the records that a query asks for.

Knows: which keys have a capability, which values stand at a path, which keys begin alike.
Must not know: what else a query asks for (`collection`).

Each index gives a *superset finder*: how many keys it would give, and those keys; whoever asks
takes the shortest and looks at each record.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from itertools import chain
from typing import Any, NamedTuple, final

from sortedcontainers import SortedList

from dspex.foundation.query import MISSING, at, rank
from dspex.foundation.record import Json, Record

__all__ = ["AttributeIndex", "CapabilityIndex", "Found", "KeyIndex"]

_LAST = "\U0010ffff"
"""Greater than every key, as keys are printable."""


class Found(NamedTuple):
    """So many keys at most, and which."""

    most: int
    keys: Iterable[str]


@final
class CapabilityIndex:
    """{capability: keys of those that have it}, kept from the start."""

    def __init__(self) -> None:
        self._keys: dict[str, set[str]] = {}

    def add(self, record: Record) -> None:
        """Take a record."""
        for name in record.capabilities:
            keys = self._keys.get(name)
            if keys is None:
                self._keys[name] = {record.key}
            else:
                keys.add(record.key)

    def remove(self, record: Record) -> None:
        """Forget it."""
        for name in record.capabilities:
            keys = self._keys[name]
            keys.discard(record.key)
            if not keys:
                del self._keys[name]

    def find(self, names: Collection[str], match: str) -> Found:
        """Keys of those that may have any, or all, of the names."""
        none: set[str] = set()
        found = [self._keys.get(name, none) for name in names]
        if match == "all" or len(found) == 1:
            least = min(found, key=len)
            return Found(len(least), least)
        return Found(sum(map(len, found)), _once(found))


@final
class KeyIndex:
    """All keys in order."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._keys: Any = SortedList(keys)

    def add(self, key: str) -> None:
        """Take a key that is not there yet."""
        self._keys.add(key)

    def remove(self, key: str) -> None:
        """Forget it."""
        self._keys.remove(key)

    def find(self, prefix: str) -> Found:
        """Those that begin so."""
        first = self._keys.bisect_left(prefix)
        last = self._keys.bisect_left(prefix + _LAST)
        return Found(last - first, self._keys.islice(first, last))


@final
class AttributeIndex:
    """The values at one path of the metadata, in the order of all values.

    Parameters
    ----------
    path : str
    records : iterable of Record

    Examples
    --------
    >>> made = [Record(k, 1, b"", {"n": n}, (), None, None, "") for k, n in [("a", 1), ("b", 2)]]
    >>> index = AttributeIndex("n", made)
    >>> list(index.find("gt", 1).keys), list(index.find("in", [1, 2, 3]).keys)
    (['b'], ['a', 'b'])
    """

    def __init__(self, path: str, records: Iterable[Record]) -> None:
        self.path = path
        # of the value's rank, and the key
        self._places: Any = SortedList(
            (*rank(value), record.key)
            for record in records
            if (value := at(record.metadata, path)) is not MISSING
        )

    def replace(self, key: str, before: Record | None, after: Record | None) -> None:
        """Take what a key's record was and is."""
        old = MISSING if before is None else at(before.metadata, self.path)
        new = MISSING if after is None else at(after.metadata, self.path)
        if old is new:
            return
        if old is not MISSING:
            self._places.remove((*rank(old), key))
        if new is not MISSING:
            self._places.add((*rank(new), key))

    def find(self, operator: str, value: Json) -> Found | None:
        """Keys of those for which a condition holds; None where this cannot tell."""
        if operator == "in":
            spans = [self._span("eq", place) for place in sorted({rank(each) for each in value})]
        elif operator == "exists":
            spans = [(0, len(self._places))] if value is not False else []
            if not spans:
                return None
        elif operator in _ENDS:
            spans = [self._span(operator, rank(value))]
        else:
            return None
        return Found(sum(last - first for first, last in spans), self._keys(spans))

    def _span(self, operator: str, place: tuple[Any, ...]) -> tuple[int, int]:
        low, high = _ENDS[operator]
        # A place before and after all that have the value, and all that are of its kind.
        ends = (place[:1], place, (*place, _LAST), (place[0] + 1,))
        return self._places.bisect_left(ends[low]), self._places.bisect_left(ends[high])

    def _keys(self, spans: list[tuple[int, int]]) -> Iterator[str]:
        for first, last in spans:
            for place in self._places.islice(first, last):
                yield place[-1]


# {operator: where its span begins and ends, as places in `AttributeIndex._span`}
_ENDS = {"eq": (1, 2), "lt": (0, 1), "le": (0, 2), "gt": (2, 3), "ge": (1, 3)}


def _once(groups: Iterable[Iterable[str]]) -> Iterator[str]:
    yield from dict.fromkeys(chain.from_iterable(groups))
