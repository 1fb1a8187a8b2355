"""What a damaged journal still gives: all that lies before the first damage.

Knows: the tables, files and their names. Must not know: who owns the journal, what entries mean.

The order is that of `load`: the snapshot's chunks, then the entries. Where a chunk is damaged, all
entries go too, because they speak of a state that is not there any more. What is kept is copied
into a new file, which takes the damaged one's place in one step; the damaged one stays beside it.

A repaired journal is another history: numbers after the damage are given out again. So it gets
another identity. A head that was changed may name a term too small; then the term becomes the
unix time in seconds, which no count of openings reaches.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
import uuid
from contextlib import closing
from itertools import count
from pathlib import Path

from dspex.errors import JournalCorruptError, JournalError
from dspex.storage.journals.blobs import sync
from dspex.storage.journals.sqlite_tables import (
    JOURNALS,
    Head,
    chained,
    connect,
    peek_head,
    read_chunks,
    read_entries,
    write_head,
)
from dspex.storage.sqlite_file import transaction

__all__ = ["bears_mark", "copy_aside", "in_use", "rebuild", "remove"]


def bears_mark(path: Path) -> bool:
    """Whether a file that SQLite cannot read was a journal; it may be open nowhere in here."""
    # Closing this descriptor drops locks that this process holds on the file: it holds none.
    with path.open("rb") as file:
        header = file.read(100)
    mark = JOURNALS.application_id.to_bytes(4, "big")
    return header[:16] == b"SQLite format 3\0" and header[68:72] == mark


def rebuild(path: Path) -> list[str]:
    """Put what can be read in place of a damaged journal; says what was kept and dropped.

    Raises
    ------
    JournalError
        Where the file cannot be replaced now.
    """
    fresh = path.with_name(f"{path.name}.repairing")
    remove(fresh)
    with (
        JOURNALS.translated(path),
        closing(sqlite3.connect(path, isolation_level=None)) as damaged,
        closing(connect(fresh, create=True)) as repaired,
        transaction(repaired),
    ):
        said = _salvage(damaged, repaired, path)
    aside = _put_aside(path)
    fresh.replace(path)
    sync(path.parent)
    return [*said, f"the damaged file is kept as {aside}"]


def _salvage(damaged: sqlite3.Connection, repaired: sqlite3.Connection, path: Path) -> list[str]:
    said = []
    head, is_whole = _readable_head(damaged, path)
    if head is None:
        said.append("its head cannot be read: the snapshot and all entries were dropped")
        head = Head("")
    elif not is_whole:
        said.append(f"its head was changed: {head}")
    kept = Head(uuid.uuid4().hex, term=head.term if is_whole else int(time.time()))
    try:
        kept = kept._replace(
            upto=head.upto,
            upto_checksum=head.upto_checksum,
            last=head.upto,
            last_checksum=head.upto_checksum,
        )
        for row in chained(1, read_chunks(damaged, head, path), 0):
            repaired.execute("INSERT INTO snapshot VALUES (?, ?, ?)", row)
            kept = kept._replace(chunks=row[0], chunks_checksum=row[1])
        datas = (data for _, data in read_entries(damaged, head, path))
        for row in chained(head.upto + 1, datas, head.upto_checksum):
            repaired.execute("INSERT INTO entries VALUES (?, ?, ?)", row)
            kept = kept._replace(last=row[0], last_checksum=row[1])
    except JournalCorruptError as error:
        said.append(error.place)
    write_head(repaired, kept)
    if kept.chunks < head.chunks:
        said.append(f"dropped chunks {kept.chunks + 1} to {head.chunks} of the snapshot")
    if kept.last < head.last:
        said.append(f"dropped entries {kept.last + 1} to {head.last}")
    said.append(f"kept {kept.chunks} chunks of a snapshot, and {kept.last - kept.upto} entries")
    return said


def _readable_head(damaged: sqlite3.Connection, path: Path) -> tuple[Head | None, bool]:
    try:
        with JOURNALS.translated(path):
            found = peek_head(damaged)
    except JournalCorruptError:
        return None, False
    if found is None or not all(isinstance(field, int) for field in found[0][1:]):
        return None, False
    return found


def _put_aside(path: Path) -> Path:
    """Give a damaged file a second name; its first one stays until another file takes it."""
    log, index = _with_companions(path)[1:]
    # SQLite folds the log into the file when the last process closes it.
    if log.exists() and log.stat().st_size:
        raise in_use(path)
    aside = _name_aside(path)
    try:
        os.link(path, aside)
    except OSError:
        shutil.copy2(path, aside)  # a file system without hard links
    sync(path.parent)
    log.unlink(missing_ok=True)
    index.unlink(missing_ok=True)
    return aside


def copy_aside(path: Path) -> Path:
    """Copy a file whose write-ahead log is damaged, with its log; nobody here may have it open."""
    aside = _name_aside(path)
    for source, copy in zip(_with_companions(path)[:2], _with_companions(aside)[:2], strict=True):
        shutil.copy2(source, copy)
        sync(copy)
    sync(path.parent)
    return aside


def remove(path: Path) -> None:
    """Remove a file of SQLite's with its companions."""
    for each in _with_companions(path):
        each.unlink(missing_ok=True)


def in_use(path: Path) -> JournalError:
    """Make the error for a file that others have open."""
    return JournalError(
        f"a journal is repaired while nobody else has it open; {path} is in use; end the processes "
        "that have it open, then try again",
        path=str(path),
    )


def _name_aside(path: Path) -> Path:
    names = (path.with_name(f"{path.name}.damaged-{number}") for number in count(1))
    return next(each for each in names if not each.exists())


def _with_companions(path: Path) -> list[Path]:
    """A file of SQLite's, and those that lie beside it while it is in use."""
    return [path, *(path.with_name(path.name + suffix) for suffix in ("-wal", "-shm"))]
