"""How entries are changed: one, or many in parts.

Knows: a backend, how much travels at once. Must not know: what users call it by.
"""

from __future__ import annotations

from typing import final

from dspex.errors import FoundationError
from dspex.foundation.handles.entry import Entry
from dspex.foundation.handles.requests import chunks
from dspex.foundation.ports import RegistryBackend
from dspex.foundation.record import Operation, Record

__all__ = ["Writing"]


@final
class Writing:
    """Changes entries of one collection."""

    def __init__(self, backend: RegistryBackend, collection: str) -> None:
        self._backend = backend
        self._collection = collection

    async def commit(self, operations: list[Operation]) -> list[Record]:
        """Make all changes or none."""
        return await self._backend.commit(self._collection, operations)

    async def one(self, operation: Operation) -> Entry:
        """Make one change."""
        (record,) = await self.commit([operation])
        return Entry(record)

    async def many(self, operations: list[Operation]) -> list[Entry]:
        """Make changes in parts; an error says in `done` how many had been made before."""
        entries: list[Entry] = []
        for part in chunks(operations):
            try:
                entries += map(Entry, await self._backend.commit(self._collection, part))
            except FoundationError as error:
                vars(error)["done"] = len(entries)
                if len(operations) > 1:
                    error.add_note(f"{len(entries):,} of {len(operations):,} were done before it")
                raise
        return entries

    async def drop(self, operations: list[Operation]) -> None:
        """Make changes of which nothing is left to tell."""
        await self.many(operations)
