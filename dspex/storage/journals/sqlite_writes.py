"""What the owner writes into a journal's tables.

Knows: the tables. Must not know: who the owner is, when a transaction begins and ends.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from dspex.errors import JournalError
from dspex.storage.journals.sqlite_tables import JOURNALS, Head, chained, write_head
from dspex.storage.sqlite_file import pragma

__all__ = ["add_entries", "fold_log", "replace_snapshot", "shrink"]

SHRINK_PAGES = 2048
"""Free pages that are given back at once at most: moving pages takes time."""


def add_entries(
    connection: sqlite3.Connection, head: Head, first: int, entries: Sequence[bytes]
) -> None:
    """Add those of the entries that are not there yet.

    Raises
    ------
    JournalError
        Where they do not follow each other, or others than these are there.
    """
    if not 0 < first <= head.last + 1:
        raise _misuse(f"entries follow each other; got number {first} after {head.last}")
    known = head.last + 1 - first
    if known:
        _check_repeated(connection, first, entries[:known])
    rows = list(chained(head.last + 1, entries[known:], head.last_checksum))
    if rows:
        number, checksum, _ = rows[-1]
        write_head(connection, head._replace(last=number, last_checksum=checksum))
        connection.executemany("INSERT INTO entries VALUES (?, ?, ?)", rows)


def replace_snapshot(
    connection: sqlite3.Connection, head: Head, upto: int, snapshot: Iterable[bytes]
) -> None:
    """Put a snapshot in place of the former one and of the entries that it covers.

    Raises
    ------
    JournalError
        Where it covers entries that are not there.
    """
    if not head.upto <= upto <= head.last:
        raise _misuse(
            f"a snapshot covers entries that are there, {head.upto} to {head.last}; got {upto}"
        )
    checksum = _checksum_of(connection, head, upto)
    connection.execute("DELETE FROM snapshot")
    connection.execute("DELETE FROM entries WHERE number <= ?", (upto,))
    end = (0, 0)

    def rows() -> Iterator[tuple[int, int, bytes]]:
        nonlocal end
        for row in chained(1, snapshot, 0):
            end = row[:2]
            yield row

    connection.executemany("INSERT INTO snapshot VALUES (?, ?, ?)", rows())
    chunks, chunks_checksum = end
    write_head(
        connection,
        head._replace(
            upto=upto, upto_checksum=checksum, chunks=chunks, chunks_checksum=chunks_checksum
        ),
    )


def shrink(connection: sqlite3.Connection, path: Path) -> None:
    """Give room back to the disk; what cannot be given back now can be later."""
    with JOURNALS.translated(path), suppress(sqlite3.OperationalError):
        patience = pragma(connection, "busy_timeout")
        try:
            # Whoever reads keeps the log from being truncated, and is not waited for.
            connection.execute("PRAGMA busy_timeout = 0")
            if pragma(connection, "freelist_count") > pragma(connection, "page_count") // 2:
                # As a script: `execute` takes one step, which frees one page.
                connection.executescript(f"PRAGMA incremental_vacuum({SHRINK_PAGES})")
            fold_log(connection)
        finally:
            connection.execute(f"PRAGMA busy_timeout = {patience}")


def fold_log(connection: sqlite3.Connection) -> bool:
    """Move all of the write-ahead log into the file; False where others use the log."""
    return not pragma(connection, "wal_checkpoint(TRUNCATE)")


def _check_repeated(connection: sqlite3.Connection, first: int, entries: Sequence[bytes]) -> None:
    for number, data in connection.execute(
        "SELECT number, data FROM entries WHERE number BETWEEN ? AND ?",
        (first, first + len(entries) - 1),
    ):
        if data != entries[number - first]:
            raise _misuse(
                f"an entry that is appended again is the same; another one has number {number}"
            )


def _checksum_of(connection: sqlite3.Connection, head: Head, number: int) -> int:
    if number == head.last:
        return head.last_checksum
    if number == head.upto:
        return head.upto_checksum
    (checksum,) = connection.execute(
        "SELECT checksum FROM entries WHERE number = ?", (number,)
    ).fetchone()
    return int(checksum)


def _misuse(rule_and_values: str) -> JournalError:
    return JournalError(f"{rule_and_values}; this is an error of the program that writes")
