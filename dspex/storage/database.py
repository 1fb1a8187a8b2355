"""The file: what is in it, how it is opened, and how SQLite's errors are told to people.

Knows: SQLite, the tables. Must not know: who owns a study, threads.

``application_id`` and ``user_version`` in the file's header mark it as a store of studies; whatever
does not bear the mark is refused before anything is written. The file is never opened but through
SQLite: closing any other descriptor of it would drop the locks that this process holds on it
(POSIX advisory locks; sqlite.org/howtocorrupt.html §2.2).

Journal: a write-ahead log with ``synchronous=EXTRA``, so that a commit survives the machine;
a rollback journal where the file system is shared between machines (`storage.filesystem`).
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from dspex.errors import StorageCorruptError, StorageError
from dspex.storage import filesystem

__all__ = ["connect", "opened", "transaction", "translated"]

APPLICATION_ID = 0x64737078
"""The letters "dspx"."""

FORMAT = 1
"""The version of the tables below."""

BUSY_SECONDS = 30.0
"""How long one waits for another process that is writing."""

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

_CORRUPT = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT})

_REMEDIES = {
    sqlite3.SQLITE_FULL: "the disk is full; make room, then make the same call again",
    sqlite3.SQLITE_BUSY: f"another process has kept it locked for {BUSY_SECONDS:.0f} s; look "
    "which program holds it open",
    sqlite3.SQLITE_READONLY: "it may not be written; choose a path that you may write to",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened; choose a path that you may write to",
    sqlite3.SQLITE_PERM: "it may not be opened; choose a path that you may write to",
    sqlite3.SQLITE_IOERR: "reading or writing it failed; check the disk, then make the same call "
    "again",
    sqlite3.SQLITE_PROTOCOL: "the file system's locks do not work; choose a path on a local disk",
}


def connect(path: Path, *, create: bool = False) -> sqlite3.Connection:
    """Open a store for writing, made first where `create` says so.

    Raises
    ------
    StorageCorruptError
        Where the file is not a store of studies, or is damaged.
    StorageError
        Where it cannot be opened, is not there, or was written by a newer version.
    """
    if create:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(
                f"a store needs a directory; {path.parent} cannot be made ({error}); choose a "
                "path that you may write to"
            ) from error
    connection = _checked(path, "rwc" if create else "rw", create=create)
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
    with closing(_checked(path, "rw", create=False)) as connection, translated(path):
        connection.execute("PRAGMA query_only = 1")
        yield connection


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All or nothing; one writer at a time."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # SQLite has rolled back by itself after some errors, a full disk among them.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into ours."""
    try:
        yield
    except UnicodeDecodeError as error:
        # SQLite's own message, quoting what was damaged.
        raise damaged(path, "its tables are not described as SQLite would") from error
    except sqlite3.Error as error:
        # The low byte is the kind, the others its detail.
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        # Text that is not UTF-8 comes without a code of SQLite's.
        if code in _CORRUPT or "decode to UTF-8" in str(error):
            raise damaged(path, f"SQLite says: {error}") from error
        remedy = _REMEDIES.get(code, "check the path and the disk")
        raise StorageError(
            f"the store {path} cannot be used: {remedy} (SQLite: {error})", path=str(path)
        ) from error


def damaged(path: Path, place: str) -> StorageCorruptError:
    """Make the error for a file that is not, or not any more, a store."""
    return StorageCorruptError(
        f"the file {path} is damaged or is not a store of studies; {place}; nothing in it was "
        "changed; restore it from a copy, or name another file",
        path=str(path),
    )


def _checked(path: Path, mode: str, *, create: bool) -> sqlite3.Connection:
    """Connect to what bears our mark."""
    if not create and not path.exists():
        raise StorageError(
            f"a store is read from a file; there is none at {path}; check the path",
            path=str(path),
        )
    # SQLite takes a file of one byte for an empty one, to get around a bug of an old system.
    if path.exists() and path.stat().st_size == 1:
        raise damaged(path, "it holds one byte")
    with translated(path):
        connection = sqlite3.connect(
            f"{path.as_uri()}?mode={mode}", uri=True, timeout=BUSY_SECONDS, isolation_level=None
        )
        try:
            if create and _is_blank(connection):
                with transaction(connection):
                    if _is_blank(connection):
                        _make(connection)
            _check_mark(connection, path)
        except BaseException:
            connection.close()
            raise
    return connection


def _pragma(connection: sqlite3.Connection, name: str) -> Any:
    return connection.execute(f"PRAGMA {name}").fetchone()[0]


def _is_blank(connection: sqlite3.Connection) -> bool:
    marks = (_pragma(connection, "application_id"), _pragma(connection, "user_version"))
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    return marks == (0, 0) and tables == 0


def _make(connection: sqlite3.Connection) -> None:
    for statement in _TABLES.split(";"):
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {FORMAT}")


def _check_mark(connection: sqlite3.Connection, path: Path) -> None:
    mark = _pragma(connection, "application_id")
    if mark != APPLICATION_ID:
        raise damaged(
            path, f"it is a SQLite database of another program (application id {mark:#x})"
        )
    version = _pragma(connection, "user_version")
    if version != FORMAT:
        raise StorageError(
            f"this version of dspex reads stores of format {FORMAT}; {path} has format {version}; "
            "use the version of dspex that wrote it, or a newer one",
            path=str(path),
        )


def _choose_journal(connection: sqlite3.Connection, path: Path) -> None:
    wanted = "delete" if filesystem.is_network(path, filesystem.mounts()) else "wal"
    answered = _switch_journal(connection, wanted)
    if wanted == "wal" and answered != "wal":
        # This SQLite, or this file system, has no shared memory: the journal of networks serves.
        wanted, answered = "delete", _switch_journal(connection, "delete")
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


def _switch_journal(connection: sqlite3.Connection, mode: str) -> str:
    # The switch wants the file for itself, and SQLite does not always wait for it.
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            return str(_pragma(connection, f"journal_mode = {mode}"))
        except sqlite3.OperationalError as error:
            busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
            if not busy or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
