"""A SQLite file that bears our mark: how it is opened, and how SQLite's errors are told to people.

Knows: SQLite, marks. Must not know: what is in the tables.

``application_id`` and ``user_version`` in the file's header say what the file is; whatever does not
bear the mark is refused before anything is written. The file is never opened but through SQLite:
closing any other descriptor of it would drop the locks that this process holds on it (POSIX
advisory locks; sqlite.org/howtocorrupt.html §2.2).
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar, final

from dspex.errors import DspexError

__all__ = [
    "Format",
    "file_identity",
    "pragma",
    "result_code",
    "switch_journal",
    "tells_damage",
    "transaction",
]

Corrupt = TypeVar("Corrupt", bound=DspexError)

BUSY_SECONDS = 30.0
"""How long one waits for another process that is writing."""

_CORRUPT = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT})

_LOST = ("decode to UTF-8", "no such table", "no such column", "has no column")

_REMEDIES = {
    sqlite3.SQLITE_FULL: "the disk is full; make room, then make the same call again",
    sqlite3.SQLITE_BUSY: "another process keeps it locked; look which program holds it open",
    sqlite3.SQLITE_READONLY: "it may not be written; choose a path that you may write to",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened; choose a path that you may write to",
    sqlite3.SQLITE_PERM: "it may not be opened; choose a path that you may write to",
    sqlite3.SQLITE_IOERR: "reading or writing it failed; check the disk, then make the same call "
    "again",
    sqlite3.SQLITE_PROTOCOL: "the file system's locks do not work; choose a path on a local disk",
}


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Format(Generic[Corrupt]):
    """A kind of file.

    Attributes
    ----------
    noun, what : str
        For people: "store", "a store of studies".
    application_id, version : int
        The mark, and the version of the tables.
    tables : str
        Statements that make them.
    error, corrupt : type
        What is raised where the file cannot be used, and where it is damaged or something else.
    remedy : str
        What to do about a damaged one.
    vacuum : "NONE" or "INCREMENTAL"
        SQLite's ``auto_vacuum`` of new files.
    fill : callable
        Writes the first rows, in the transaction that makes the tables.
    """

    noun: str
    what: str
    application_id: int
    version: int
    tables: str
    error: type[DspexError]
    corrupt: type[Corrupt]
    remedy: str = "restore it from a copy, or name another file"
    vacuum: str = "NONE"
    fill: Callable[[sqlite3.Connection], None] = lambda _: None

    def connect(
        self,
        path: Path,
        *,
        create: bool = False,
        busy_seconds: float = BUSY_SECONDS,
        same_thread: bool = True,
    ) -> sqlite3.Connection:
        """Connect to what bears the mark, made first where `create` says so.

        Raises
        ------
        corrupt
            Where the file is something else, or is damaged.
        error
            Where it cannot be opened, is not there, or was written by a newer version.
        """
        if create:
            self._make_directory(path)
        elif not path.exists():
            raise self.error(
                f"a {self.noun} is read from a file; there is none at {path}; check the path",
                path=str(path),
            )
        # SQLite takes a file of one byte for an empty one, to get around a bug of an old system.
        if path.exists() and path.stat().st_size == 1:
            raise self.damaged(path, "it holds one byte")
        with self.translated(path):
            connection = sqlite3.connect(
                f"{path.as_uri()}?mode={'rwc' if create else 'rw'}",
                uri=True,
                timeout=busy_seconds,
                isolation_level=None,
                check_same_thread=same_thread,
            )
            try:
                if create and _is_blank(connection):
                    connection.execute(f"PRAGMA auto_vacuum = {self.vacuum}")
                    with transaction(connection):
                        if _is_blank(connection):
                            self._make(connection)
                self._check_mark(connection, path)
            except BaseException:
                connection.close()
                raise
        return connection

    @contextmanager
    def translated(self, path: Path) -> Iterator[None]:
        """Turn SQLite's errors into ours."""
        try:
            yield
        except UnicodeDecodeError as error:
            # SQLite's own message, quoting what was damaged.
            raise self.damaged(path, "its tables are not described as SQLite would") from error
        except sqlite3.Error as error:
            if tells_damage(error):
                raise self.damaged(path, f"SQLite says: {error}") from error
            remedy = _REMEDIES.get(result_code(error), "check the path and the disk")
            raise self.error(
                f"the {self.noun} {path} cannot be used: {remedy} (SQLite: {error})",
                path=str(path),
            ) from error

    def damaged(self, path: Path, place: str) -> Corrupt:
        """Make the error for a file that is not, or not any more, of this kind."""
        return self.corrupt(
            f"the file {path} is damaged or is not {self.what}; {place}; nothing in it was "
            f"changed; {self.remedy}",
            path=str(path),
            place=place,
        )

    def _make_directory(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self.error(
                f"a {self.noun} needs a directory; {path.parent} cannot be made ({error}); choose "
                "a path that you may write to"
            ) from error

    def _make(self, connection: sqlite3.Connection) -> None:
        for statement in self.tables.split(";"):
            connection.execute(statement)
        self.fill(connection)
        connection.execute(f"PRAGMA application_id = {self.application_id}")
        connection.execute(f"PRAGMA user_version = {self.version}")

    def _check_mark(self, connection: sqlite3.Connection, path: Path) -> None:
        mark = pragma(connection, "application_id")
        if mark != self.application_id:
            raise self.damaged(
                path, f"it is a SQLite database of another program (application id {mark:#x})"
            )
        version = pragma(connection, "user_version")
        if version != self.version:
            raise self.error(
                f"this version of dspex reads {self.noun}s of format {self.version}; {path} has "
                f"format {version}; use the version of dspex that wrote it, or a newer one",
                path=str(path),
            )


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


def pragma(connection: sqlite3.Connection, name: str) -> Any:
    """Ask SQLite for a setting, or set it and give the answer."""
    return connection.execute(f"PRAGMA {name}").fetchone()[0]


def result_code(error: sqlite3.Error) -> int:
    """SQLite's code of an error: the low byte is the kind, the others are its detail."""
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF


def tells_damage(error: sqlite3.Error) -> bool:
    """Whether SQLite says that the file is damaged, or none of its own."""
    # Text that is not UTF-8 comes without a code; what bears the mark has our tables.
    return result_code(error) in _CORRUPT or any(each in str(error) for each in _LOST)


def switch_journal(connection: sqlite3.Connection, mode: str) -> str:
    """Ask for a journal mode; gives the mode that there is afterwards."""
    # The switch wants the file for itself, and SQLite does not always wait for it.
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            return str(pragma(connection, f"journal_mode = {mode}"))
        except sqlite3.OperationalError as error:
            if result_code(error) != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def file_identity(path: Path) -> tuple[int, int] | None:
    """Device and inode; None where nothing is: SQLite goes on writing into a file that is gone."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _is_blank(connection: sqlite3.Connection) -> bool:
    marks = (pragma(connection, "application_id"), pragma(connection, "user_version"))
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    return marks == (0, 0) and tables == 0
