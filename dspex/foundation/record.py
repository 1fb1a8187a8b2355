"""One thing that the ledger holds under a key: an entry of the registry, or a state.

Knows: its fields, and the operations that make, change and drop it, as they travel.
Must not know: where it is kept, how its value was made.

Notation of collections: ``"r:<namespace>"`` are registries, ``"s:<namespace>"`` state stores.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

__all__ = ["Json", "Operation", "Record", "check", "drop", "patch", "put"]

Json: TypeAlias = Any
"""What JSON can say: None, bool, int, float, str, and lists and string-keyed dicts of them."""

Operation: TypeAlias = tuple[Any, ...]
"""What `put`, `patch`, `drop` and `check` make."""


class Record(NamedTuple):
    """A key with all that belongs to it; never changed, only replaced.

    Attributes
    ----------
    key : str
    version : int
        Grows with every change of any record, over restarts too, so a key that was dropped and
        made again never has an old version.
    value : bytes
        Opaque.
    metadata : mapping of str to Json
        What queries look at.
    capabilities : tuple of str
    ttl : float or None
        Seconds after the last write in which it is dropped.
    owner : str or None
        The session with which it goes, or ``"worker:<address>"``; None: it stays.
    writer : str
        The session that wrote it last.
    """

    key: str
    version: int
    value: bytes
    metadata: Mapping[str, Json]
    capabilities: tuple[str, ...]
    ttl: float | None
    owner: str | None
    writer: str


# In every operation expected_version None checks nothing, 0 says that the key must be absent.


def put(
    key: str,
    value: bytes,
    metadata: Mapping[str, Json],
    capabilities: tuple[str, ...] = (),
    *,
    ttl: float | None = None,
    owner: str | None = None,
    on_conflict: str = "error",
    expected_version: int | None = None,
) -> Operation:
    """Write a record; `on_conflict` is "error", "replace" or "keep"."""
    return ("put", key, value, metadata, capabilities, ttl, owner, on_conflict, expected_version)


def patch(
    key: str, changes: Mapping[str, Json], *, expected_version: int | None = None
) -> Operation:
    """Change metadata: each name is set, nested dicts are merged, None drops the name."""
    return ("patch", key, changes, expected_version)


def drop(key: str, *, missing_ok: bool = False, expected_version: int | None = None) -> Operation:
    """Drop a record."""
    return ("drop", key, missing_ok, expected_version)


def check(key: str, expected_version: int) -> Operation:
    """Refuse the whole transaction where the record is of another version."""
    return ("check", key, expected_version)
