"""Snapshots of states: many of them in one piece of bytes, and back.

Knows: records, large values. Must not know: what a state means, how it is promised.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from dspex.errors import StateCorruptError, VersionConflictError
from dspex.foundation.ports import RegistryBackend
from dspex.foundation.query import Query
from dspex.foundation.record import Record, put
from dspex.foundation.state import LARGE, pack_states, unpack_states

__all__ = ["restore", "take_snapshot"]

_BATCH = 100


async def take_snapshot(
    backend: RegistryBackend,
    collection: str,
    prefix: str,
    read: Callable[[Record], Awaitable[bytes]],
) -> bytes:
    """Pack the states whose keys begin so; `read` gives the bytes of one."""
    query = Query(prefix=prefix, order_by="key")
    records = await backend.select(collection, query)
    while True:
        try:
            states = [(each.key, dict(each.metadata), await read(each)) for each in records]
            break
        except StateCorruptError:
            # The large values of states that were put anew are swept: another moment, then.
            before = records
            records = await backend.select(collection, query)
            if [each.version for each in before] == [each.version for each in records]:
                raise
    return pack_states(states)


async def restore(
    backend: RegistryBackend,
    collection: str,
    snapshot: bytes,
    on_conflict: str,
    put_blob: Callable[[bytes], Awaitable[str]],
) -> int:
    """Put the states of a snapshot back; gives how many.

    Raises
    ------
    StateCorruptError
    VersionConflictError
        Where `on_conflict` is "error" and a state is there.
    """
    states = unpack_states(snapshot)
    for first in range(0, len(states), _BATCH):
        operations = []
        for key, metadata, data in states[first : first + _BATCH]:
            metadata.pop("blob", None)
            if len(data) > LARGE:
                metadata["blob"] = await put_blob(data)
                data = b""
            expected = 0 if on_conflict == "error" else None
            operations.append(
                put(key, data, metadata, on_conflict="replace", expected_version=expected)
            )
        try:
            await backend.commit(collection, operations)
        except VersionConflictError as error:
            fields = vars(error)
            raise VersionConflictError(
                f"restore writes over no state; {fields.get('key')!r} is there, and {first:,} of "
                f"{len(states):,} states were put back before that was found; pass "
                'on_conflict="replace", or delete it',
                **fields,
            ) from None
    return len(states)
