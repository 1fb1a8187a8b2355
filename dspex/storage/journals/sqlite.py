"""The journal in a SQLite file on a local disk, large values in a folder beside it.

Knows: which part does what, transactions. Must not know: how a row is told whole
(`sqlite_tables`) and written (`sqlite_writes`), who may own the file (`sqlite_owner`), how damage
is found in the log (`sqlite_wal`) and repaired (`sqlite_repair`), how large values are kept
(`blobs`).

A write-ahead log with ``synchronous=FULL``: what a transaction wrote survives the machine. `append`
is one transaction; whoever calls it gathers. `compact` is one, too, so that a kill at any point
leaves the old snapshot with all entries, or the new one; afterwards the log is folded into the file
and truncated, and pages that stay free are given back, some at a time.
"""

from __future__ import annotations

import logging
import math
import sqlite3
import threading
import time
import uuid
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import final

from dspex.errors import JournalCorruptError, JournalError, JournalFencedError
from dspex.foundation.ports import Loaded
from dspex.storage.journals.blobs import BlobFolder
from dspex.storage.journals.sqlite_owner import BELIEF, claim, read_owner, release
from dspex.storage.journals.sqlite_repair import bears_mark, copy_aside, in_use, rebuild, remove
from dspex.storage.journals.sqlite_tables import (
    JOURNALS,
    Head,
    check_structure,
    connect,
    read_chunks,
    read_entries,
    read_head,
    write_head,
)
from dspex.storage.journals.sqlite_wal import damage_in_log
from dspex.storage.journals.sqlite_writes import (
    add_entries,
    fold_log,
    replace_snapshot,
    shrink,
)
from dspex.storage.ownership import forget
from dspex.storage.sqlite_file import file_identity, transaction

__all__ = ["SqliteJournal"]

logger = logging.getLogger("dspex.journal")

BUSY_SECONDS = 1.0
"""How long a write waits for another process, which can only be one that takes over."""


@final
class SqliteJournal:
    """A journal in a file, owned by one process at a time.

    Parameters
    ----------
    path : Path
        Absolute; made where there is none. Large values lie in ``<path>-blobs/``.
    patience : float
        Seconds for which `open` waits for a living owner to let go.
    takeover : bool
        Whether `open` takes the journal from a living owner, one that was stopped (SIGSTOP) for
        example. It is safe, because the old one's writes are refused from then on. An owner that
        was stopped inside a transaction keeps SQLite's lock all the same.
    repair : bool
        Whether `open` drops what is damaged, and all after it, in place of an error. The damaged
        file is kept as ``<path>.damaged-<n>``.

    Attributes
    ----------
    repairs : list of str
        What `open` found damaged, kept and dropped.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     journal = SqliteJournal(Path(folder, "journal.db"))
    ...     term = journal.open()
    ...     journal.append(1, [b"one", b"two"])
    ...     entries = list(journal.load().entries)
    ...     journal.close()
    >>> term, entries
    (1, [(1, b'one'), (2, b'two')])
    """

    durable = True

    def __init__(
        self,
        path: Path,
        *,
        patience: float = 30.0,
        takeover: bool = False,
        repair: bool = False,
    ) -> None:
        self.url = f"sqlite:///{path}"
        self.repairs: list[str] = []
        self._path = path
        self._patience = patience
        self._takeover = takeover
        self._repair = repair
        self._blobs = BlobFolder(path.with_name(f"{path.name}-blobs"))
        self._identity = ""
        self._term = 0
        self._token = ""
        self._file: tuple[int, int] | None = None
        self._connection: sqlite3.Connection | None = None
        self._readers: set[sqlite3.Connection] = set()
        self._believed_until = -math.inf
        # `owns` comes from any thread, and has a connection of its own.
        self._watching = threading.Lock()
        self._watcher: sqlite3.Connection | None = None

    def __repr__(self) -> str:
        state = f"term {self._term}" if self._connection is not None else "closed"
        return f"<SqliteJournal {self._path}, {state}>"

    @property
    def copies(self) -> int:
        """How many members hold what was appended: this disk."""
        return 1

    @property
    def identity(self) -> str:
        """Made with the file, and anew when it is repaired."""
        return self._identity

    def open(self) -> int:
        """Become the owner; gives the new term.

        Raises
        ------
        JournalError
            Where the file cannot be opened, or its owner does not let go (says who).
        JournalCorruptError
            Where it is something else, or its head is damaged; with `repair` only for the former.
        """
        if self._connection is not None:
            raise JournalError(f"a journal is opened once; {self._path} is open; close it first")
        self.repairs = []
        try:
            self._begin_past_damage_in_log()
            if self._repair:
                for _ in (each for part in self.load()[1:] for each in part):
                    pass
        except JournalCorruptError as error:
            self.close()
            if not (self._repair and bears_mark(self._path)):
                raise
            self._report(*dict.fromkeys([error.place, *rebuild(self._path)]))
            self._begin()
        except BaseException:
            self.close()
            raise
        return self._term

    def load(self) -> Loaded:
        """Read all of it, as it is now; `append` and `compact` meanwhile change nothing in that.

        Raises
        ------
        JournalCorruptError
            At once, or when the damaged place is reached.
        """
        self._writing()
        reader = connect(self._path)
        self._readers.add(reader)
        with JOURNALS.translated(self._path):
            reader.execute("BEGIN")
            head = read_head(reader, self._path)
            check_structure(reader, self._path)
        return Loaded(
            head.upto, read_chunks(reader, head, self._path), self._read_entries(reader, head)
        )

    def append(self, first: int, entries: Sequence[bytes]) -> None:
        """Keep entries, all or none; on the disk when this returns."""
        with self._transaction() as (connection, head):
            add_entries(connection, head, first, entries)

    def compact(self, upto: int, snapshot: Iterable[bytes]) -> None:
        """Keep a snapshot in place of all entries up to `upto`; on the disk when this returns."""
        with self._transaction() as (connection, head):
            replace_snapshot(connection, head, upto, snapshot)
        shrink(connection, self._path)

    def owns(self) -> bool:
        """Whether this process may still answer strong reads; some microseconds, any thread."""
        looked = time.monotonic()
        if looked < self._believed_until:
            return True
        with self._watching:
            if self._watcher is None:
                return False
            try:
                row = self._watcher.execute("SELECT term FROM head").fetchone()
            except sqlite3.Error:
                # Who cannot ask does not know.
                return False
            if row != (self._term,) or file_identity(self._path) != self._file:
                return False
            self._believed_until = looked + BELIEF
        return True

    def put_blob(self, digest: str, data: bytes) -> None:
        """Keep a large value under its SHA-256; on the disk when this returns."""
        self._writing()
        self._blobs.put(digest, data)

    def get_blob(self, digest: str) -> bytes:
        """Read a large value; KeyError where there is none, JournalCorruptError where damaged."""
        self._writing()
        return self._blobs.get(digest)

    def keep_blobs(self, digests: Collection[str]) -> int:
        """Drop all large values but these; gives how many were dropped.

        Age does not count: who calls this names those that were put and are about to be used, too.
        """
        # Inside the transaction nobody takes the journal over, and none of theirs is dropped.
        with self._transaction():
            return self._blobs.keep(digests)

    def close(self) -> None:
        """Let go; may be called twice."""
        connection, self._connection = self._connection, None
        with self._watching:
            watcher, self._watcher = self._watcher, None
            self._believed_until = -math.inf
        for each in (watcher, *self._readers):
            if each is not None:
                each.close()
        self._readers.clear()
        if connection is not None:
            # An owner that could not say that it goes is known to be gone by its token or process.
            with suppress(sqlite3.Error):
                release(connection, self._token)
            connection.close()
        forget(self._token)

    # --- parts -----------------------------------------------------------------------------

    def _begin_past_damage_in_log(self) -> None:
        """Begin; where SQLite would drop commits in silence, as another history or not at all."""
        place = damage_in_log(self._path)
        if place is None:
            self._begin()
            return
        if not self._repair:
            raise JOURNALS.damaged(self._path, place)
        aside = copy_aside(self._path)
        try:
            self._begin()
        except JournalCorruptError:
            raise
        except BaseException:
            remove(aside)
            raise
        with self._transaction() as (connection, head):
            self._identity = uuid.uuid4().hex
            write_head(connection, head._replace(identity=self._identity))
        # What stays of a damaged log would be taken for damage again.
        if not fold_log(connection):
            raise in_use(self._path)
        self._report(
            place,
            f"dropped what was committed after that; the last entry is {head.last}",
            f"the damaged file and its log are kept as {aside}",
        )

    def _report(self, *lines: str) -> None:
        for line in lines:
            logger.warning("repair of the journal %s: %s", self._path, line)
        self.repairs += lines

    def _begin(self) -> None:
        self._connection = connection = connect(self._path, create=True, busy_seconds=BUSY_SECONDS)
        try:
            self._file = file_identity(self._path)
            with JOURNALS.translated(self._path):
                connection.execute("PRAGMA busy_timeout = 0")
                head, self._token = claim(
                    connection, self._path, patience=self._patience, takeover=self._takeover
                )
                connection.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000:.0f}")
            self._watcher = connect(self._path, busy_seconds=0.0)
        except BaseException:
            self.close()
            raise
        self._term, self._identity = head.term, head.identity

    def _writing(self) -> sqlite3.Connection:
        if self._connection is None:
            raise JournalError(
                f"a journal is used while it is open; {self._path} is closed; open it"
            )
        return self._connection

    @contextmanager
    def _transaction(self) -> Iterator[tuple[sqlite3.Connection, Head]]:
        """Write as the owner, all or nothing."""
        connection = self._writing()
        # SQLite would go on writing into a file that nobody finds any more.
        file = file_identity(self._path)
        if file is None:
            raise JournalError(
                f"the journal {self._path} was removed while it was in use; put it back",
                path=str(self._path),
            )
        if file != self._file:
            raise self._fenced("another file lies there now")
        with JOURNALS.translated(self._path), transaction(connection):
            head = read_head(connection, self._path)
            if head.term != self._term:
                raise self._fenced(f"{read_owner(connection) or 'nobody'} has term {head.term}")
            yield connection, head

    def _fenced(self, why: str) -> JournalFencedError:
        return JournalFencedError(
            f"one process owns a journal at a time; {self._path} was taken over from this one, "
            f"which had term {self._term}: {why}; nothing was written; go on there",
            path=str(self._path),
        )

    def _read_entries(self, reader: sqlite3.Connection, head: Head) -> Iterator[tuple[int, bytes]]:
        try:
            yield from read_entries(reader, head, self._path)
        finally:
            self._readers.discard(reader)
            reader.close()
