"""The part that holds records: who may write what, what runs out, what goes with whom.

Knows: transactions, versions, conflicts, time to live, owners.
Must not know: what values mean, how queries are answered (`collection`).

A transaction is played through on an overlay; only then, with nothing left to refuse, are its
events emitted: one per key that it changed, with what became of it in the end.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from sys import intern
from typing import Any, final

from dspex.errors import (
    InvalidRequestError,
    KeyExistsError,
    KeyNotFoundError,
    VersionConflictError,
)
from dspex.foundation.ledger.collection import Collection
from dspex.foundation.ledger.events import Emit, Event
from dspex.foundation.limits import check_metadata, checked_operations
from dspex.foundation.patterns import matcher
from dspex.foundation.query import Query
from dspex.foundation.record import Json, Operation, Record

__all__ = ["Records"]

_Place = tuple[str, str]
"""(collection, key)"""


@final
class Records:
    """All collections.

    The version in a "drop" event is that of the record which it drops.

    Examples
    --------
    >>> from dspex.foundation.record import put
    >>> records = Records()
    >>> emit = lambda event: records.apply(event, now=0.0)
    >>> _ = records.commit(
    ...     "r:", [put("k", b"v", {}, ttl=5.0)], revision=1, writer="me", now=0.0, emit=emit
    ... )
    >>> records.get("r:", "k").version
    1
    >>> records.expire(5.0, emit)
    >>> records.get("r:", "k")
    """

    tags = frozenset({"put", "drop"})

    def __init__(self) -> None:
        self._collections: dict[str, Collection] = {}
        self._count = 0
        self._owned: dict[str, dict[_Place, None]] = {}
        # When each record with a time to live is due. The heap may hold earlier instants too, of
        # records that were written again since.
        self._due: dict[_Place, float] = {}
        self._heap: list[tuple[float, _Place]] = []

    # --- reading ---------------------------------------------------------------------------

    @property
    def count(self) -> int:
        """How many records there are."""
        return self._count

    def get(self, collection: str, key: str) -> Record | None:
        """The record of a key, or None."""
        if not isinstance(key, str):
            raise InvalidRequestError(f"a key is a text; got {key!r:.120}")
        found = self._collections.get(collection)
        return None if found is None else found.records.get(key)

    def select(self, collection: str, query: Query) -> list[Record]:
        """The records that a query asks for, in its order."""
        found = self._collections.get(collection)
        return [] if found is None else found.select(query)

    def all(self, collection: str, pattern: str = "*") -> list[Record]:
        """The records whose keys match a pattern."""
        found = self._collections.get(collection)
        if found is None:
            return []
        if pattern == "*":
            return list(found.records.values())
        is_match = matcher(pattern)
        return [record for key, record in found.records.items() if is_match(key)]

    def blobs(self) -> set[str]:
        """Digests of the large values that states name."""
        return {
            digest
            for name, collection in self._collections.items()
            if name.startswith("s:")
            for record in collection.records.values()
            if isinstance(digest := record.metadata.get("blob"), str)
        }

    # --- deciding --------------------------------------------------------------------------

    def commit(
        self,
        collection: str,
        operations: Any,
        *,
        revision: int,
        writer: str,
        now: float,
        emit: Emit,
    ) -> list[list[Any]]:
        """Perform all operations or none.

        Returns
        -------
        list of list
            For each operation the fields of the record after it, or before a drop. The value of
            a put that wrote is left out, as its writer has it. Version 0: there is no record.

        Raises
        ------
        InvalidRequestError, KeyExistsError, KeyNotFoundError, VersionConflictError
        """
        steps = checked_operations(operations)
        found = self._collections.get(collection)
        before: Mapping[str, Record] = {} if found is None else found.records
        overlay: dict[str, Record | None] = {}
        replies = []
        for operation in steps:
            key = operation[1]
            current = overlay[key] if key in overlay else before.get(key)
            expected = operation[-1]
            if expected is not None:
                _check_version(key, current, expected)
            written, reply = _perform(operation, current, revision, writer)
            if written is not current:
                overlay[key] = written
            replies.append(reply)
        for key, after in overlay.items():
            if after is not None:
                emit(("put", collection, *after))
            elif key in before:
                emit(("drop", collection, key, before[key].version, "dropped"))
        return replies

    def expire(self, now: float, emit: Emit) -> None:
        """Drop what has run out."""
        heap = self._heap
        while heap and heap[0][0] <= now:
            instant, place = heapq.heappop(heap)
            if self._due.get(place) == instant:
                self._emit_drop(place, "its time to live ran out", emit)

    def owner_gone(self, owner: str, reason: str, emit: Emit) -> None:
        """Drop what was tied to a session or a worker."""
        for place in list(self._owned.get(owner, ())):
            self._emit_drop(place, reason, emit)

    def _emit_drop(self, place: _Place, reason: str, emit: Emit) -> None:
        collection, key = place
        version = self._collections[collection].records[key].version
        emit(("drop", collection, key, version, reason))

    # --- the state -------------------------------------------------------------------------

    def apply(self, event: Event, now: float) -> None:
        """Take what happened."""
        if event[0] == "put":
            self._put(event, now)
        else:
            self._drop(event[1], event[2])

    def _put(self, event: Event, now: float) -> None:
        _, name, key, version, value, metadata, capabilities, ttl, owner, writer = event
        collection = self._collections.get(name)
        if collection is None:
            collection = self._collections[name] = Collection()
        before = collection.records.get(key)
        if before is None:
            self._count += 1
        else:
            self._release((name, key), before)
        # The same few names come again and again, each time as a new object from the journal.
        collection.put(
            Record(
                key,
                version,
                value,
                metadata,
                tuple([intern(each) for each in capabilities]),
                ttl,
                None if owner is None else intern(owner),
                intern(writer),
            )
        )
        if owner is not None:
            self._owned.setdefault(owner, {})[name, key] = None
        if ttl is not None:
            self._due[name, key] = now + ttl
            heapq.heappush(self._heap, (now + ttl, (name, key)))
            self._tidy()

    def _drop(self, name: str, key: str) -> None:
        collection = self._collections[name]
        self._release((name, key), collection.records[key])
        collection.drop(key)
        self._count -= 1
        if not collection.records:
            del self._collections[name]

    def _release(self, place: _Place, record: Record) -> None:
        if record.ttl is not None:
            del self._due[place]
        if record.owner is not None:
            owned = self._owned[record.owner]
            del owned[place]
            if not owned:
                del self._owned[record.owner]

    def _tidy(self) -> None:
        """Make the heap anew where most of it is of the past."""
        if len(self._heap) > 2 * len(self._due) + 64:
            self._heap = [(instant, place) for place, instant in self._due.items()]
            heapq.heapify(self._heap)

    def dump(self) -> Iterator[Event]:
        """Events that make the records as they are now."""
        copies = [
            (name, list(collection.records.values()))
            for name, collection in self._collections.items()
        ]
        return (("put", name, *record) for name, records in copies for record in records)

    def validate(self) -> None:
        """Assert the invariants."""
        count = 0
        owned: dict[str, dict[_Place, None]] = {}
        mortal = set()
        for name, collection in self._collections.items():
            assert collection.records
            collection.validate()
            for key, record in collection.records.items():
                count += 1
                if record.owner is not None:
                    owned.setdefault(record.owner, {})[name, key] = None
                if record.ttl is not None:
                    mortal.add((name, key))
        assert count == self._count
        assert owned == self._owned
        assert mortal == set(self._due)
        assert {(instant, place) for place, instant in self._due.items()} <= set(self._heap)


def _perform(
    operation: Operation, current: Record | None, revision: int, writer: str
) -> tuple[Record | None, list[Any]]:
    """The record after an operation, and the reply to it."""
    kind, key = operation[0], operation[1]
    if kind == "put":
        _, _, value, metadata, capabilities, ttl, owner, on_conflict, expected = operation
        if current is not None and expected is None:
            if on_conflict == "keep":
                return current, list(current)
            if on_conflict == "error":
                raise KeyExistsError(
                    f"the key {key!r} is taken, by version {current.version}; pass "
                    'on_conflict="replace" or "keep", or choose another',
                    key=key,
                    version=current.version,
                )
        after = Record(key, revision, value, metadata, capabilities, ttl, owner, writer)
        return after, [key, revision, b"", metadata, capabilities, ttl, owner, writer]
    if current is None:
        if kind == "check" or (kind == "drop" and operation[2]):
            return None, [key, 0, b"", {}, (), None, None, ""]
        raise KeyNotFoundError(f"there is no entry {key!r}; see keys()", key=key)
    if kind == "drop":
        return None, list(current)
    if kind == "check":
        return current, list(current)
    metadata = merged(current.metadata, operation[2])
    check_metadata(key, metadata)
    after = current._replace(version=revision, metadata=metadata, writer=writer)
    return after, list(after)


def merged(metadata: Mapping[str, Json], changes: Mapping[str, Json]) -> dict[str, Json]:
    """Metadata with changes: names are set, maps are merged, None drops the name.

    Examples
    --------
    >>> merged({"a": 1, "b": {"c": 1, "d": 2}}, {"a": None, "b": {"c": 3}})
    {'b': {'c': 3, 'd': 2}}
    """
    made = dict(metadata)
    for name, value in changes.items():
        if value is None:
            made.pop(name, None)
        elif isinstance(value, Mapping):
            under = made.get(name)
            made[name] = merged(under if isinstance(under, Mapping) else {}, value)
        else:
            made[name] = value
    return made


def _check_version(key: str, current: Record | None, expected: int) -> None:
    version = 0 if current is None else current.version
    if version != expected:
        is_there = f"is of version {version}" if version else "is absent"
        asked = f"version {expected}" if expected else "absent"
        raise VersionConflictError(
            f"{key!r} was expected to be {asked}; it {is_there}; look it up and try again",
            key=key,
            expected=expected,
            version=version,
        )
