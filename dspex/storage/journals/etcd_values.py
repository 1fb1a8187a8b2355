"""Which keys a journal has in etcd, and how their values are told whole from damaged.

Knows: names, bytes, checksums. Must not know: etcd.

=============================  =================================================================
``term``                       how often the journal was opened; every write compares it
``identity``                   the name of this history
``owner``                      who has it open, as JSON; goes with the owner's lease
``tail``                       number and checksum of the last batch of entries
``head``                       the snapshot: the last entry it covers, its folder, its pieces
``log/<first>``                a batch of entries; one over `PIECE` bytes names a folder of pieces
``part/<first>-<id>/<n>``      pieces of such a batch
``snapshot/<upto>-<id>/<n>``   pieces of a snapshot
``blob/<sha256>``              a large value: its size and its pieces
``blob-part/<sha256>/<n>``     pieces of a large value
``damaged-<term>/...``         what a repair took out
=============================  =================================================================

Small values are a line of text that ends with its CRC-32. Others are a CRC-32 in four bytes and
what it is of: it is chained from piece to piece. A batch holds the checksum of the batch before;
so one that is changed, missing, swapped or cut off is noticed.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, final

import msgpack

__all__ = [
    "FORMAT",
    "PIECE",
    "Batch",
    "Head",
    "Keys",
    "Pieces",
    "Tail",
    "after",
    "cut",
    "pack_chunks",
    "pack_entries",
    "read_line",
    "sealed",
    "unpack_chunks",
    "unpack_entries",
    "unsealed",
    "write_line",
]

FORMAT = "dspex-journal-1"

PIECE = 2**20
"""Bytes of a value at most: etcd refuses requests of more than 1.5 MiB."""


def after(folder: str) -> str:
    """The end of a range of all keys that begin with a text.

    Examples
    --------
    >>> after("dspex/log/")
    'dspex/log0'
    """
    return folder[:-1] + chr(ord(folder[-1]) + 1)


@final
class Keys:
    """The keys of one journal.

    Examples
    --------
    >>> Keys("dspex").batch(7)
    'dspex/log/00000000000000000007'
    """

    def __init__(self, prefix: str) -> None:
        self.all = f"{prefix}/"
        self.term = f"{prefix}/term"
        self.identity = f"{prefix}/identity"
        self.owner = f"{prefix}/owner"
        self.tail = f"{prefix}/tail"
        self.head = f"{prefix}/head"
        self.log = f"{prefix}/log/"
        self.parts = f"{prefix}/part/"
        self.snapshots = f"{prefix}/snapshot/"
        self.blobs = f"{prefix}/blob/"
        self.blob_parts = f"{prefix}/blob-part/"

    def batch(self, first: int) -> str:
        """Where a batch lies."""
        return f"{self.log}{first:020}"

    def part(self, first: int) -> str:
        """Before all pieces of batches from this number on."""
        return f"{self.parts}{first:020}"

    def damaged(self, term: int, key: str) -> str:
        """Where a repair puts what lay under a key."""
        return f"{self.all}damaged-{term}/{key.removeprefix(self.all)}"


def write_line(*fields: object) -> bytes:
    """Make a small value.

    Examples
    --------
    >>> write_line(12, "abc")
    b'12 abc cf52a9a3'
    """
    text = " ".join(str(field) for field in fields).encode("ascii")
    return b"%b %08x" % (text, zlib.crc32(text))


def read_line(value: bytes, count: int) -> list[str]:
    """Read a small value of so many fields; raises ValueError where it was changed.

    Examples
    --------
    >>> read_line(write_line(12, "abc"), 2)
    ['12', 'abc']
    """
    text, _, checksum = value.rpartition(b" ")
    fields = text.decode("latin-1").split(" ")
    if checksum != b"%08x" % zlib.crc32(text) or len(fields) != count:
        raise ValueError(f"it was changed: {value!r:.200}")
    return fields


def sealed(body: bytes, before: int = 0) -> tuple[bytes, int]:
    """Put a checksum before some bytes; gives both, and the checksum."""
    checksum = zlib.crc32(body, before)
    return checksum.to_bytes(4, "big") + body, checksum


def unsealed(value: bytes, before: int = 0) -> tuple[bytes, int]:
    """Take a checksum off; gives the bytes and it; raises ValueError where it does not fit."""
    body = value[4:]
    checksum = zlib.crc32(body, before)
    if value[:4] != checksum.to_bytes(4, "big"):
        raise ValueError("it was changed, its checksum does not fit")
    return body, checksum


def cut(stream: Iterable[bytes]) -> Iterator[bytes]:
    """Cut a stream into pieces of `PIECE` bytes; the last one is shorter.

    Examples
    --------
    >>> [len(piece) for piece in cut([b"x" * PIECE, b"y", b""])]
    [1048576, 1]
    """
    held = bytearray()
    for data in stream:
        rest = memoryview(data)
        while len(held) + len(rest) >= PIECE:
            room = PIECE - len(held)
            yield bytes(held + rest[:room])
            held.clear()
            rest = rest[room:]
        held += rest
    if held:
        yield bytes(held)


class Pieces(NamedTuple):
    """How many pieces there are, and the checksum of the last, chained through all."""

    total: int = 0
    checksum: int = 0


class Tail(NamedTuple):
    """Where the log ends."""

    last: int = 0
    checksum: int = 0

    def encode(self) -> bytes:
        """As it is kept."""
        return write_line(self.last, self.checksum)


class Head(NamedTuple):
    """What the snapshot covers, and where it lies.

    Attributes
    ----------
    folder : str
        Below ``snapshot/``; "-" without a snapshot.
    """

    upto: int = 0
    folder: str = "-"
    pieces: Pieces = Pieces()

    def encode(self) -> bytes:
        """As it is kept."""
        return write_line(self.upto, self.folder, *self.pieces)


class Batch(NamedTuple):
    """Entries that were appended at once.

    Attributes
    ----------
    first : int
        The number of the first one.
    before : int
        The checksum of the batch before.
    entries : sequence of bytes or None
        None: they are in pieces.
    folder, pieces : str, Pieces
        Where; below ``part/``.
    """

    first: int
    before: int
    entries: Sequence[bytes] | None
    folder: str = ""
    pieces: Pieces = Pieces()

    def encode(self) -> tuple[bytes, int]:
        """As it is kept, and its checksum."""
        return sealed(msgpack.packb(self))

    @classmethod
    def decode(cls, value: bytes) -> tuple[Batch, int]:
        """Read, and give the checksum, too; raises ValueError where it was changed."""
        body, checksum = unsealed(value)
        first, before, entries, folder, pieces = msgpack.unpackb(body)
        return cls(first, before, entries, folder, Pieces(*pieces)), checksum


def pack_entries(entries: Sequence[bytes]) -> bytes:
    """Entries as bytes that can be cut into pieces."""
    packed: bytes = msgpack.packb(entries)
    return packed


def unpack_entries(packed: bytes) -> list[bytes]:
    """Entries from bytes."""
    entries: list[bytes] = msgpack.unpackb(packed)
    return entries


def pack_chunks(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Chunks of a snapshot as a stream that can be cut anywhere."""
    packer: Any = msgpack.Packer()
    for chunk in chunks:
        yield packer.pack(chunk)


def unpack_chunks(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Chunks of a snapshot, each when its last byte was reached."""
    unpacker: Any = msgpack.Unpacker(max_buffer_size=0)
    for piece in pieces:
        unpacker.feed(piece)
        yield from unpacker
