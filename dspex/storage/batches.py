"""How batches become rows, and rows records again.

Knows: the tables' meaning. Must not know: threads, who may own a study.

A commit is one transaction of one or more batches. A batch is one row: its number, up to
`BATCH` records as one JSON text, and the CRC-32 of that text chained to the one before. The study's
own row, written in the same transaction, says how many batches there are and the last checksum; so
a batch that is changed, missing, swapped or cut off is noticed.
"""

from __future__ import annotations

import json
import sqlite3
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import final

from dspex.errors import StorageCorruptError, StorageError
from dspex.storage.database import damaged, opened, transaction, translated
from dspex.storage.ownership import Claim, evicted, no_study
from dspex.storage.sqlite_file import file_identity
from dspex.study.records import Asked, Opened, Record, Stopped, decode, encode

__all__ = ["BatchWriter", "find_study", "read_batches"]

BATCH = 128
"""Records in a row at most: larger texts fall out of the processor's cache, and are decoded and
encoded at half the speed."""

_PAGE = 64
"""Batches that are read at once, so that no reading transaction stays open between records."""


@final
class BatchWriter:
    """Commits records to a claimed study.

    Parameters
    ----------
    connection : sqlite3.Connection
    path : Path
        Of the file that `connection` has open.
    claim : Claim
    """

    def __init__(self, connection: sqlite3.Connection, path: Path, claim: Claim) -> None:
        self._connection = connection
        self._path = path
        self._claim = claim
        self._file = file_identity(path)
        self._batches = claim.batches
        self._checksum = claim.checksum

    def __call__(self, records: list[Record]) -> None:
        """Commit records, all or none; none at all renew the claim."""
        # SQLite would go on writing into a file that nobody finds any more.
        if file_identity(self._path) != self._file:
            raise StorageError(
                f"the store {self._path} was removed or replaced while study "
                f"{self._claim.name!r} used it; put it back, then make the same call again",
                path=str(self._path),
            )
        rows = []
        number, checksum = self._batches, self._checksum
        for first in range(0, len(records), BATCH):
            text = _encoded(records[first : first + BATCH])
            checksum = zlib.crc32(text.encode("ascii"), checksum)
            rows.append((self._claim.study, number, checksum, text))
            number += 1
        with translated(self._path), transaction(self._connection):
            self._count(records, number, checksum)
            self._connection.executemany(
                "INSERT INTO batches (study, number, checksum, records) VALUES (?, ?, ?, ?)", rows
            )
        self._batches, self._checksum = number, checksum

    def _count(self, records: list[Record], batches: int, checksum: int) -> None:
        """Update the study's own row, where the epoch is checked."""
        claim = self._claim
        updated = self._connection.execute(
            "UPDATE studies SET renewed = ?, batches = ?, checksum = ?, records = records + ?, "
            "trials = trials + ? WHERE id = ? AND epoch = ?",
            (
                time.time(),
                batches,
                checksum,
                len(records),
                sum(len(each.params) for each in records if isinstance(each, Asked)),
                claim.study,
                claim.epoch,
            ),
        )
        if updated.rowcount != 1:
            raise evicted(self._connection, claim, self._path)
        for record in records:
            if isinstance(record, Opened):
                self._connection.execute(
                    "INSERT OR REPLACE INTO heads (study, head) VALUES (?, ?)",
                    (claim.study, json.dumps(dict(record.head))),
                )
            if isinstance(record, Opened | Stopped):
                self._connection.execute(
                    "UPDATE studies SET stop_reason = ? WHERE id = ?",
                    (record.reason if isinstance(record, Stopped) else None, claim.study),
                )


def find_study(path: Path, study: str) -> int:
    """Find the key of a study that holds something.

    Raises
    ------
    StudyNotFoundError
    """
    if not path.exists():
        raise no_study(study, path)
    with opened(path) as connection:
        row = connection.execute(
            "SELECT id FROM studies WHERE name = ? AND batches > 0", (study,)
        ).fetchone()
    if row is None:
        raise no_study(study, path)
    return int(row[0])


def read_batches(path: Path, study: str, key: int) -> Iterator[Record]:
    """Read the records that a study holds now, in order, as they are taken.

    Raises
    ------
    StorageCorruptError
        Where a damaged batch is reached; names it.
    """
    with opened(path) as connection:
        row = connection.execute(
            "SELECT batches, checksum FROM studies WHERE id = ?", (key,)
        ).fetchone()
        if row is None:
            raise no_study(study, path)
        count, last = row
        number = checksum = 0
        for stored_number, stored_checksum, data in _rows(connection, key, count):
            checksum = zlib.crc32(data, checksum)
            if stored_number != number or stored_checksum != checksum:
                break
            number += 1
            try:
                records = decode(data.decode("ascii"))
            except (UnicodeDecodeError, StorageCorruptError) as error:
                raise _damaged_batch(path, study, number, count, str(error)) from error
            yield from records
    if number != count or checksum != last:
        raise _damaged_batch(path, study, number + 1, count, "it is missing or was changed")


def _rows(connection: sqlite3.Connection, key: int, count: int) -> Iterator[tuple[int, int, bytes]]:
    for first in range(0, count, _PAGE):
        yield from connection.execute(
            "SELECT number, checksum, CAST(records AS BLOB) FROM batches "
            "WHERE study = ? AND number >= ? AND number < ? ORDER BY number",
            (key, first, min(first + _PAGE, count)),
        ).fetchall()


def _damaged_batch(
    path: Path, study: str, number: int, count: int, why: str
) -> StorageCorruptError:
    return damaged(path, f"study {study!r}, batch {number} of {count}: {why}")


def _encoded(records: list[Record]) -> str:
    try:
        return encode(records)
    except (TypeError, ValueError) as error:
        raise StorageError(
            f"a log holds what JSON can say, without NaN and infinities; {error}; this is an error "
            "of the strategy or program that made the value"
        ) from error
