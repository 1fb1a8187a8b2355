"""The store of studies: what is in the file, and how it is opened.

Knows: the tables. Must not know: who owns a study, threads, how a file bears a mark
(`storage.sqlite_file`).

Journal: a write-ahead log with ``synchronous=EXTRA``, so that a commit survives the machine;
a rollback journal where the file system is shared between machines (`storage.filesystem`).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from dspex.errors import StorageCorruptError, StorageError
from dspex.storage import filesystem
from dspex.storage.sqlite_file import Format, switch_journal, transaction

__all__ = ["connect", "damaged", "opened", "transaction", "translated"]

APPLICATION_ID = 0x64737078
"""The letters "dspx"."""

# studies.batches, .records, .trials and .checksum say what `batches` must add up to.
# host, machine, pid, process, token are NULL while nobody owns the study (storage.ownership).
_TABLES = """
CREATE TABLE studies (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    created REAL NOT NULL,
    batches INTEGER NOT NULL DEFAULT 0,
    records INTEGER NOT NULL DEFAULT 0,
    trials INTEGER NOT NULL DEFAULT 0,
    checksum INTEGER NOT NULL DEFAULT 0,
    stop_reason TEXT,
    epoch INTEGER NOT NULL DEFAULT 0,
    host TEXT, machine TEXT, pid INTEGER, process TEXT, token TEXT, since REAL, renewed REAL
);
CREATE TABLE heads (
    study INTEGER PRIMARY KEY,
    head TEXT NOT NULL
);
CREATE TABLE batches (
    study INTEGER NOT NULL,
    number INTEGER NOT NULL,
    checksum INTEGER NOT NULL,
    records TEXT NOT NULL,
    PRIMARY KEY (study, number)
);
"""

STUDIES = Format(
    noun="store",
    what="a store of studies",
    application_id=APPLICATION_ID,
    version=1,
    tables=_TABLES,
    error=StorageError,
    corrupt=StorageCorruptError,
)

damaged = STUDIES.damaged
translated = STUDIES.translated


def connect(path: Path, *, create: bool = False) -> sqlite3.Connection:
    """Open a store for writing, made first where `create` says so.

    Raises
    ------
    StorageCorruptError
        Where the file is not a store of studies, or is damaged.
    StorageError
        Where it cannot be opened, is not there, or was written by a newer version.
    """
    connection = STUDIES.connect(path, create=create)
    try:
        with translated(path):
            _choose_journal(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a store for reading; nothing in it changes."""
    with closing(STUDIES.connect(path)) as connection, translated(path):
        connection.execute("PRAGMA query_only = 1")
        yield connection


def _choose_journal(connection: sqlite3.Connection, path: Path) -> None:
    wanted = "delete" if filesystem.is_network(path, filesystem.mounts()) else "wal"
    answered = switch_journal(connection, wanted)
    if wanted == "wal" and answered != "wal":
        # This SQLite, or this file system, has no shared memory: the journal of networks serves.
        wanted, answered = "delete", switch_journal(connection, "delete")
    if answered != wanted:
        raise StorageError(
            f"the store {path} lies on a file system that several machines share, where it needs "
            f"SQLite's rollback journal; SQLite answered {answered!r}; end the processes that "
            "have it open, or choose a path on a local disk",
            path=str(path),
        )
    connection.execute("PRAGMA synchronous = EXTRA")
    # macOS: without it fsync leaves the data in the drive's own memory.
    connection.execute("PRAGMA fullfsync = 1")
