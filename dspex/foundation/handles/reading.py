"""How entries are read: from the registry, or from this process's copy of it.

Knows: a backend, a copy, how old it may be. Must not know: what users call it by.
"""

from __future__ import annotations

from typing import Any, final

from dspex.errors import KeyNotFoundError, UnavailableError
from dspex.foundation.handles.entry import Entry
from dspex.foundation.handles.local_copy import LocalCopy
from dspex.foundation.handles.requests import CHUNK_OPERATIONS
from dspex.foundation.ports import RegistryBackend
from dspex.foundation.query import Query

__all__ = ["Reading"]


@final
class Reading:
    """Reads entries of one collection.

    In all methods `eventual` means the copy, and `tolerant` that it may be of any age.
    """

    def __init__(self, backend: RegistryBackend, collection: str, copy: LocalCopy) -> None:
        self._backend = backend
        self._collection = collection
        self._copy = copy

    async def lookup(self, key: str, eventual: bool, tolerant: bool) -> Entry:
        """Find an entry."""
        if eventual:
            await self._copy.ready()
            return self.in_copy(key, tolerant)
        (record,) = await self._backend.fetch(self._collection, [key])
        if record is None:
            raise _not_found([key])
        return Entry(record)

    async def lookup_many(
        self, keys: list[str], eventual: bool, tolerant: bool
    ) -> dict[str, Entry]:
        """Find entries, all of them."""
        found: dict[str, Entry | None] = {}
        if eventual:
            await self._copy.ready()
            found = {key: self.copied(key, tolerant) for key in keys}
        else:
            for first in range(0, len(keys), CHUNK_OPERATIONS):
                part = keys[first : first + CHUNK_OPERATIONS]
                records = await self._backend.fetch(self._collection, part)
                for key, record in zip(part, records, strict=True):
                    found[key] = None if record is None else Entry(record)
        missing = [key for key, entry in found.items() if entry is None]
        if missing:
            raise _not_found(missing)
        return {key: entry for key, entry in found.items() if entry is not None}

    async def get(self, key: str, default: Any, eventual: bool, tolerant: bool) -> Any:
        """Find an entry, or give `default`."""
        try:
            return await self.lookup(key, eventual, tolerant)
        except KeyNotFoundError:
            return default

    async def select(self, query: Query) -> list[Entry]:
        """Find the entries that a query asks for."""
        return [Entry(each) for each in await self._backend.select(self._collection, query)]

    async def keys(self, query: Query) -> list[str]:
        """Find their keys."""
        return [each.key for each in await self._backend.select(self._collection, query)]

    def in_copy(self, key: str, tolerant: bool) -> Entry:
        """Find an entry in a copy that is ready, at once."""
        entry = self.copied(key, tolerant)
        if entry is None:
            raise _not_found([key])
        return entry

    def copied(self, key: str, tolerant: bool) -> Entry | None:
        """What the copy says of a key, where it may be asked."""
        copy = self._copy
        copy.start()
        record, age = copy.get_aged(key)
        if age > copy.max_staleness and not tolerant:
            raise UnavailableError(
                f"the registry cannot be reached, and this process's copy is {age:.1f} s old, more "
                f"than {copy.max_staleness:g} s; try again later, or pass partition_tolerance=True"
            )
        return None if record is None else Entry(record, age)


def _not_found(keys: list[str]) -> KeyNotFoundError:
    more = f" and {len(keys) - 5} more" if len(keys) > 5 else ""
    return KeyNotFoundError(
        f"there is no entry {', '.join(map(repr, keys[:5]))}{more}; see list_keys()", key=keys[0]
    )
