"""One state: its bytes, what is known of them, and how they become an object again.

Knows: pickles, checksums. Must not know: where states are kept.

A state's record carries in its metadata ``{"mode": "strong" | "eventual", "tolerant": bool,
"size": bytes, "sum": CRC-32, "kind": "module.Class"}`` and, where the value is large,
``"blob"``, the SHA-256 under which the journal keeps it.
"""

from __future__ import annotations

import pickle
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import cloudpickle
import msgpack

from dspex.errors import NotPicklableError, StateCorruptError, StateIncompatibleError
from dspex.foundation.record import Record

__all__ = [
    "LARGE",
    "State",
    "Version",
    "decode",
    "encode",
    "metadata_of",
    "pack_states",
    "unpack_states",
]

LARGE = 256 * 1024
"""Bytes from which a value lies beside the journal, under its hash."""

_FORMAT = "dspex-states-1"


@final
@dataclass(frozen=True, slots=True, order=True)
class Version:
    """Which writing of a state this is, and what was promised of it.

    Attributes
    ----------
    number : int
        Grows with every writing of any key; compare numbers of one key only.
    copies : int
        How many copies acknowledged it: the scheduler's, or the members of an etcd journal.
    durable : bool
        Whether it survives the scheduler.
    consistency : str
        "strong" or "eventual".
    """

    number: int
    copies: int = 1
    durable: bool = False
    consistency: str = "strong"

    def __int__(self) -> int:
        return self.number

    __index__ = __int__


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """A state that was looked up.

    Attributes
    ----------
    key : str
    value : object
    version : Version
    age : float
        Seconds by which it may be behind; 0.0 where it was read from the scheduler.
    """

    key: str
    value: Any
    version: Version
    age: float = 0.0


def encode(key: str, value: Any) -> bytes:
    """Make bytes of a value.

    Raises
    ------
    NotPicklableError
    """
    try:
        data: bytes = cloudpickle.dumps(value)
    except Exception as error:
        raise NotPicklableError(
            f"a state is kept as a pickle; the value of {key!r}, a {type(value).__name__}, cannot "
            f"be pickled ({type(error).__name__}: {error}); store what it is made of"
        ) from error
    return data


def metadata_of(value: Any, data: bytes, *, consistency: str, tolerant: bool) -> dict[str, Any]:
    """Say of a value what its record says of it."""
    kind = type(value)
    return {
        "mode": consistency,
        "tolerant": tolerant,
        "size": len(data),
        "sum": zlib.crc32(data),
        "kind": f"{kind.__module__}.{kind.__qualname__}",
    }


def decode(record: Record, data: bytes) -> Any:
    """Make the value again.

    Raises
    ------
    StateCorruptError
        Where the bytes are not those that were written.
    StateIncompatibleError
        Where they are, and this program cannot read them.
    """
    metadata = record.metadata
    if len(data) != metadata["size"] or zlib.crc32(data) != metadata["sum"]:
        raise StateCorruptError(
            f"the state {record.key!r}, version {record.version}, is damaged: it has "
            f"{len(data):,} bytes with another checksum than the {metadata['size']:,} that were "
            "written; restore a snapshot, or put it again",
            key=record.key,
            version=record.version,
        )
    try:
        return pickle.loads(data)
    except Exception as error:
        raise StateIncompatibleError(
            f"the state {record.key!r}, version {record.version}, a {metadata['kind']}, is whole, "
            f"and this program cannot read it ({type(error).__name__}: {error}); use the code that "
            "wrote it, or put it again",
            key=record.key,
            version=record.version,
        ) from error


def pack_states(states: Sequence[tuple[str, Mapping[str, Any], bytes]]) -> bytes:
    """Make one snapshot of states: key, metadata, bytes of each.

    Examples
    --------
    >>> unpack_states(pack_states([("k", {"size": 1}, b"x")]))
    [['k', {'size': 1}, b'x']]
    """
    packed: bytes = msgpack.packb([_FORMAT, states])
    return zlib.crc32(packed).to_bytes(4, "big") + packed


def unpack_states(snapshot: bytes) -> list[Any]:
    """Take a snapshot apart.

    Raises
    ------
    StateCorruptError
    """
    checksum, packed = snapshot[:4], snapshot[4:]
    if zlib.crc32(packed).to_bytes(4, "big") == checksum:
        form, states = msgpack.unpackb(packed)
        if form == _FORMAT:
            return list(states)
    raise StateCorruptError(
        f"a snapshot is what StateStore.snapshot gave; these {len(snapshot):,} bytes are damaged "
        "or something else; nothing was changed"
    )
