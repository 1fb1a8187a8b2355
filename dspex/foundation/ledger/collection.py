"""The records of one collection, and the shortest way to those that a query asks for.

Knows: records by key, the indexes, and when each is worth its while.
Must not know: who may write what, time, events (`records`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import final

from dspex.foundation.ledger.indexes import AttributeIndex, CapabilityIndex, Found, KeyIndex
from dspex.foundation.query import Query, ordered, predicate
from dspex.foundation.record import Record

__all__ = ["Collection"]

SMALL = 256
"""Records that are looked through sooner than an index is made, or asked."""

MAX_INDEXES = 16
"""Paths that have an index; the one that was of use the longest ago gives way."""


@final
class Collection:
    """Records by key.

    Indexes of paths and of prefixes are made when a query first needs them, and kept up after.

    Examples
    --------
    >>> workers = Collection()
    >>> workers.put(Record("w/1", 1, b"", {"cores": 8}, ("gpu",), None, None, "me"))
    >>> [each.key for each in workers.select(Query.made([("cores", "gt", 4)], "gpu"))]
    ['w/1']
    """

    def __init__(self) -> None:
        self.records: dict[str, Record] = {}
        self._capabilities = CapabilityIndex()
        self._attributes: dict[str, AttributeIndex] = {}
        self._keys: KeyIndex | None = None

    def put(self, record: Record) -> None:
        """Take a record in place of that of the same key."""
        key = record.key
        before = self.records.get(key)
        self.records[key] = record
        if before is None:
            self._capabilities.add(record)
            if self._keys is not None:
                self._keys.add(key)
        elif before.capabilities != record.capabilities:
            self._capabilities.remove(before)
            self._capabilities.add(record)
        for index in self._attributes.values():
            index.replace(key, before, record)

    def drop(self, key: str) -> None:
        """Forget a record."""
        before = self.records.pop(key)
        self._capabilities.remove(before)
        if self._keys is not None:
            self._keys.remove(key)
        for index in self._attributes.values():
            index.replace(key, before, None)

    def select(self, query: Query) -> list[Record]:
        """Those that a query asks for."""
        if query.limit == 0:
            return []
        if not (query.where or query.capabilities or query.prefix):
            return ordered(self.records.values(), query)
        return ordered(filter(predicate(query), self._candidates(query)), query)

    def _candidates(self, query: Query) -> Iterable[Record]:
        """As few as can be found, with all that the query asks for among them."""
        if len(self.records) <= SMALL:
            return self.records.values()
        best = Found(len(self.records), self.records)
        if query.capabilities:
            best = min(best, self._capabilities.find(query.capabilities, query.match), key=_most)
        if query.prefix and best.most > SMALL:
            best = min(best, self._prefixed(query.prefix), key=_most)
        for path, operator, value in query.where:
            if best.most <= SMALL:
                break
            if operator not in ("ne", "contains") and (operator, value) != ("exists", False):
                found = self._attribute(path).find(operator, value)
                if found is not None:
                    best = min(best, found, key=_most)
        return (self.records[key] for key in best.keys)

    def _prefixed(self, prefix: str) -> Found:
        if self._keys is None:
            self._keys = KeyIndex(self.records)
        return self._keys.find(prefix)

    def _attribute(self, path: str) -> AttributeIndex:
        index = self._attributes.pop(path, None)
        if index is None:
            index = AttributeIndex(path, self.records.values())
            if len(self._attributes) >= MAX_INDEXES:
                del self._attributes[next(iter(self._attributes))]
        self._attributes[path] = index
        return index

    def validate(self) -> None:
        """Assert that every index says what the records say."""
        capabilities = CapabilityIndex()
        for key, record in self.records.items():
            assert record.key == key
            capabilities.add(record)
        assert vars(capabilities) == vars(self._capabilities)
        if self._keys is not None:
            assert vars(self._keys) == vars(KeyIndex(self.records))
        for path, index in self._attributes.items():
            assert vars(index) == vars(AttributeIndex(path, self.records.values()))


def _most(found: Found) -> int:
    return found.most
