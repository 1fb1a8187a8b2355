"""A registry's backend that is a ledger, on a scheduler or in this process.

Knows: the ledger's ops on records. Must not know: where the ledger is.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, final

from dspex.foundation.ports import Caller, Update
from dspex.foundation.query import Query
from dspex.foundation.record import Operation, Record

__all__ = ["LedgerBackend"]


@final
class LedgerBackend:
    """Keeps entries in a ledger.

    Parameters
    ----------
    caller : Caller
    shared : bool
        Whether other processes reach the same ledger.
    """

    linearizable = True

    def __init__(self, caller: Caller, *, shared: bool) -> None:
        self._caller = caller
        self.shared = shared

    @property
    def durable(self) -> bool:
        """Whether entries survive the ledger's process: as its journal says."""
        return bool(self._caller.facts["durable"])

    async def commit(
        self, collection: str, operations: Sequence[Operation], *, wait_durable: bool = True
    ) -> list[Record]:
        """Perform all operations or none; gives the record after each (before, for a drop)."""
        replies = await self._caller.write(
            "records.commit",
            collection=collection,
            operations=list(operations),
            wait_durable=wait_durable,
        )
        session = self._caller.session
        return [
            _written(operation, reply, session) if isinstance(reply, int) else _record(reply)
            for operation, reply in zip(operations, replies, strict=True)
        ]

    async def fetch(self, collection: str, keys: Sequence[str]) -> list[Record | None]:
        """Read records by key; None where there is none."""
        found = await self._caller.read("records.fetch", collection=collection, keys=list(keys))
        return [None if each is None else _record(each) for each in found]

    async def select(self, collection: str, query: Query) -> list[Record]:
        """Find records."""
        found = await self._caller.read("records.select", collection=collection, query=list(query))
        return [_record(each) for each in found]

    def follow(self, collection: str, pattern: str) -> AsyncIterator[Update]:
        """Tell all there is, then every change."""
        return self._caller.follow(collection, pattern)

    async def close(self) -> None:
        """Nothing is held: the caller is closed by whoever opened it."""


def _record(fields: Sequence[Any]) -> Record:
    record = Record(*fields)
    return record._replace(capabilities=tuple(record.capabilities))


def _written(operation: Operation, version: int, writer: str) -> Record:
    """The record that a put made, of which the ledger tells only the version."""
    _, key, value, metadata, capabilities, ttl, owner, _, _ = operation
    return Record(key, version, value, metadata, tuple(capabilities), ttl, owner, writer)
