"""What is in a journal's SQLite file, and how it is told whole from damaged.

Knows: the tables, checksums. Must not know: who owns a journal, when something is written.

A row of `entries` or `snapshot` carries the CRC-32 of its bytes chained to the row before (as in
`storage.batches`); the one row of `head` says how far both chains go and where they end, and
bears a checksum of its own. So a row that is changed, missing, swapped, cut off or too many is
noticed, and so is a head that does not belong to the rows.
"""

from __future__ import annotations

import sqlite3
import uuid
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from dspex.errors import JournalCorruptError, JournalError
from dspex.storage import filesystem
from dspex.storage.sqlite_file import Format, switch_journal, tells_damage

__all__ = [
    "JOURNALS",
    "Head",
    "add_head",
    "chained",
    "check_structure",
    "connect",
    "peek_head",
    "read_chunks",
    "read_entries",
    "read_head",
    "write_head",
]

# The columns after `seal` are NULL while nobody owns the journal (storage.journals.sqlite_owner).
_TABLES = """
CREATE TABLE head (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    identity TEXT NOT NULL,
    term INTEGER NOT NULL,
    last INTEGER NOT NULL,
    last_checksum INTEGER NOT NULL,
    upto INTEGER NOT NULL,
    upto_checksum INTEGER NOT NULL,
    chunks INTEGER NOT NULL,
    chunks_checksum INTEGER NOT NULL,
    seal INTEGER NOT NULL,
    host TEXT, machine TEXT, pid INTEGER, process TEXT, token TEXT, since REAL
);
CREATE TABLE entries (
    number INTEGER PRIMARY KEY,
    checksum INTEGER NOT NULL,
    data BLOB NOT NULL
);
CREATE TABLE snapshot (
    number INTEGER PRIMARY KEY,
    checksum INTEGER NOT NULL,
    data BLOB NOT NULL
);
"""


class Head(NamedTuple):
    """What the journal says of itself.

    Attributes
    ----------
    identity : str
    term : int
        How often it was opened.
    last, last_checksum : int
        The last entry, whether it is still there or in the snapshot.
    upto, upto_checksum : int
        The last entry that the snapshot covers, with which the chain of `entries` begins.
    chunks, chunks_checksum : int
        Of the snapshot.
    """

    identity: str
    term: int = 0
    last: int = 0
    last_checksum: int = 0
    upto: int = 0
    upto_checksum: int = 0
    chunks: int = 0
    chunks_checksum: int = 0

    @property
    def seal(self) -> int:
        """The checksum of all fields."""
        return zlib.crc32(repr(tuple(self)).encode())


_COLUMNS = ", ".join(Head._fields)
_READ = f"SELECT {_COLUMNS}, seal FROM head"
_WRITE = f"UPDATE head SET {' = ?, '.join(Head._fields)} = ?, seal = ?"


JOURNALS: Format[JournalCorruptError] = Format(
    noun="journal",
    what="a journal of dspex",
    application_id=0x6473706A,  # the letters "dspj"
    version=1,
    tables=_TABLES,
    error=JournalError,
    corrupt=JournalCorruptError,
    remedy="restore it from a copy, name another file, or open it with repair=True, which keeps "
    "what lies before the damage",
    # A state that has shrunk gives its room back.
    vacuum="INCREMENTAL",
    fill=lambda connection: add_head(connection, Head(uuid.uuid4().hex)),
)


def connect(path: Path, *, create: bool = False, busy_seconds: float = 5.0) -> sqlite3.Connection:
    """Open a journal's file, made first where `create` says so; for one thread at a time.

    Raises
    ------
    JournalCorruptError
        Where it is damaged or something else.
    JournalError
        Where it cannot be opened, or lies where a write-ahead log does not work.
    """
    if filesystem.is_network(path, filesystem.mounts()):
        raise _not_local(path, "lies on a file system that several machines share")
    connection = JOURNALS.connect(path, create=create, busy_seconds=busy_seconds, same_thread=False)
    try:
        with JOURNALS.translated(path):
            answered = switch_journal(connection, "wal")
            if answered != "wal":
                raise _not_local(path, f"cannot have one (SQLite answered {answered!r})")
            connection.execute("PRAGMA synchronous = FULL")
            # macOS: without it fsync leaves the data in the drive's own memory.
            connection.execute("PRAGMA fullfsync = 1")
            connection.execute("PRAGMA checkpoint_fullfsync = 1")
    except BaseException:
        connection.close()
        raise
    return connection


def add_head(connection: sqlite3.Connection, head: Head) -> None:
    """Make the row."""
    marks = ", ".join("?" * len(head))
    connection.execute(
        f"INSERT INTO head (id, {_COLUMNS}, seal) VALUES (1, {marks}, ?)",
        (*head, head.seal),
    )


def peek_head(connection: sqlite3.Connection) -> tuple[Head, bool] | None:
    """The head as it is, and whether it is whole."""
    row = connection.execute(_READ).fetchone()
    if row is None:
        return None
    head = Head(*row[:-1])
    return head, row[-1] == head.seal


def read_head(connection: sqlite3.Connection, path: Path) -> Head:
    """The head, checked."""
    found = peek_head(connection)
    if found is None:
        raise JOURNALS.damaged(path, "its head (row 1 of table head) is missing")
    head, is_whole = found
    if not is_whole:
        raise JOURNALS.damaged(path, f"its head (row 1 of table head) was changed: {head}")
    return head


def write_head(connection: sqlite3.Connection, head: Head) -> None:
    """Replace the head, inside a transaction."""
    connection.execute(_WRITE, (*head, head.seal))


def chained(first: int, datas: Iterable[bytes], checksum: int) -> Iterator[tuple[int, int, bytes]]:
    """Rows of either table, the first one chained to `checksum`."""
    for number, data in enumerate(datas, first):
        checksum = zlib.crc32(data, checksum)
        yield number, checksum, data


def check_structure(connection: sqlite3.Connection, path: Path) -> None:
    """Refuse what can be read as it is, but would come to harm with the next write."""
    (answer,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if answer != "ok":
        raise JOURNALS.damaged(path, f"SQLite says: {' '.join(str(answer).split())}")


def read_chunks(connection: sqlite3.Connection, head: Head, path: Path) -> Iterator[bytes]:
    """The snapshot's chunks; raises JournalCorruptError at the first that is damaged."""
    end = head.chunks, head.chunks_checksum
    return (data for _, data in _verified(connection, path, "snapshot", (0, 0), end))


def read_entries(
    connection: sqlite3.Connection, head: Head, path: Path
) -> Iterator[tuple[int, bytes]]:
    """The entries after the snapshot; raises JournalCorruptError at the first that is damaged."""
    start, end = (head.upto, head.upto_checksum), (head.last, head.last_checksum)
    return _verified(connection, path, "entries", start, end)


def _verified(
    connection: sqlite3.Connection,
    path: Path,
    table: str,
    start: tuple[int, int],
    end: tuple[int, int],
) -> Iterator[tuple[int, bytes]]:
    """Rows whose chain leads from one (number, checksum) to the other."""
    number, checksum = start
    last, last_checksum = end

    def damaged(row: int, why: str) -> JournalCorruptError:
        noun = "entry" if table == "entries" else "snapshot chunk"
        return JOURNALS.damaged(path, f"{noun} {row} of {last} (row {row} of table {table}): {why}")

    try:
        # The cast: a value whose type was changed is judged by its bytes, too.
        for stored, stored_checksum, data in connection.execute(
            f"SELECT number, checksum, CAST(data AS BLOB) FROM {table} WHERE number > ? "
            "ORDER BY number",
            (number,),
        ):
            if number == last:
                raise damaged(stored, "there are more of them than the head knows of")
            number += 1
            if stored != number:
                raise damaged(number, f"it is missing; row {stored} comes next")
            data = data or b""
            checksum = zlib.crc32(data, checksum)
            if stored_checksum != checksum:
                raise damaged(number, "it was changed, its checksum does not fit")
            yield number, data
    except sqlite3.Error as error:
        if tells_damage(error):
            raise damaged(number + 1, f"SQLite says: {error}") from error
        with JOURNALS.translated(path):
            raise
    if number != last:
        raise damaged(number + 1, "it is missing")
    if checksum != last_checksum:
        raise damaged(last, "it is not the one that the head knows of")


def _not_local(path: Path, why: str) -> JournalError:
    return JournalError(
        f"a SQLite journal needs a write-ahead log, which needs a local disk; {path} {why}; choose "
        "a path on a local disk, or a journal in etcd",
        path=str(path),
    )
