"""The journal's file: what is repeated, what a full disk does, that its size has a bound."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from dspex.errors import JournalError
from dspex.storage.journals.sqlite import SqliteJournal
from dspex.testing.journals import example_entries, read_all


def opened(path: Path) -> SqliteJournal:
    journal = SqliteJournal(path, patience=0.0)
    journal.open()
    return journal


def test_another_entry_under_a_number_that_is_taken_is_refused(tmp_path: Path) -> None:
    journal = opened(tmp_path / "journal.db")
    journal.append(1, [b"1", b"2"])
    with pytest.raises(JournalError, match="another one has number 2"):
        journal.append(2, [b"another"])
    with pytest.raises(JournalError, match="another one has number 1"):
        journal.append(1, [b"another", b"2", b"3"])
    assert read_all(journal)[2] == [(1, b"1"), (2, b"2")]
    journal.close()


def test_what_a_snapshot_covers_may_be_appended_again(tmp_path: Path) -> None:
    journal = opened(tmp_path / "journal.db")
    journal.append(1, [b"1", b"2"])
    journal.compact(1, [b"one"])
    journal.append(1, [b"1", b"2", b"3"])
    assert read_all(journal) == (1, [b"one"], [(2, b"2"), (3, b"3")])
    journal.close()


def test_the_settings_are_those_that_keep_what_was_acknowledged(tmp_path: Path) -> None:
    journal = opened(tmp_path / "journal.db")
    connection = journal._writing()
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
    journal.close()


def test_a_full_disk_keeps_what_was_kept_and_writing_goes_on_when_there_is_room(
    tmp_path: Path,
) -> None:
    journal = opened(tmp_path / "journal.db")
    entries = example_entries(1_000)
    journal.append(1, entries[:10])
    connection = journal._writing()
    connection.execute("PRAGMA max_page_count = 20")
    for _ in range(2):
        with pytest.raises(JournalError, match="the disk is full; make room"):
            journal.append(11, entries[10:])
        with pytest.raises(JournalError, match="the disk is full"):
            journal.compact(10, [bytes(1_000_000)])
    assert journal.owns()
    assert read_all(journal) == (0, [], list(enumerate(entries[:10], 1)))
    connection.execute("PRAGMA max_page_count = 1000000")
    journal.append(11, entries[10:])
    assert read_all(journal)[2] == list(enumerate(entries, 1))
    journal.close()


def test_the_file_does_not_grow_with_what_was_compacted(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal = opened(path)
    number = 0
    sizes = []
    for _ in range(8):
        for _ in range(5):
            journal.append(number + 1, [bytes(1_000)] * 200)
            number += 200
        journal.compact(number, [bytes(100_000)] * 3)
        sizes.append(path.stat().st_size)
    assert max(sizes) <= 1.2 * sizes[1]
    assert path.with_name("journal.db-wal").stat().st_size == 0
    for _ in range(5):
        journal.compact(number, [b"little is left"])
    assert path.stat().st_size < sizes[-1] / 4
    assert read_all(journal) == (number, [b"little is left"], [])
    journal.close()


def test_who_reads_keeps_no_snapshot_from_being_made(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal = opened(path)
    journal.append(1, [b"1", b"2", b"3"])
    loaded = journal.load()
    assert next(loaded.entries) == (1, b"1")
    journal.compact(3, [b"three"])
    assert list(loaded.entries) == [(2, b"2"), (3, b"3")]
    with closing(sqlite3.connect(path)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM head").fetchone()
        journal.append(4, [b"4"])
        journal.compact(4, [b"four"])
    assert read_all(journal) == (4, [b"four"], [])
    journal.close()


def test_a_reading_that_was_not_begun_ends_with_the_journal(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal = opened(path)
    journal.append(1, [b"1", b"2"])
    loaded = journal.load()
    journal.close()
    with pytest.raises(JournalError):
        next(loaded.entries)
    assert [each.name for each in tmp_path.iterdir()] == ["journal.db"]


def test_large_values_lie_beside_the_file(tmp_path: Path) -> None:
    journal = opened(tmp_path / "journal.db")
    journal.put_blob("0" * 64, b"x")
    assert (tmp_path / "journal.db-blobs" / ("0" * 64)).read_bytes() == b"x"
    journal.close()


def test_it_tells_its_state(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path / "journal.db")
    assert repr(journal) == f"<SqliteJournal {tmp_path}/journal.db, closed>"
    journal.open()
    assert repr(journal) == f"<SqliteJournal {tmp_path}/journal.db, term 1>"
    journal.close()
