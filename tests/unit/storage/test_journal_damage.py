"""A damaged journal: noticed with the place, left as it was, repaired only where that is asked."""

from __future__ import annotations

import logging
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from dspex.errors import JournalCorruptError, JournalError
from dspex.storage.journals.sqlite import SqliteJournal
from dspex.testing.journals import read_all

CHUNKS = [b"chunk %d" % number * 50 for number in range(1, 5)]
ENTRIES = [(number, b"entry %d" % number * 30) for number in range(11, 31)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A journal with a snapshot up to 10 in 4 chunks, and entries 11 to 30."""
    path = tmp_path / "journal.db"
    journal = SqliteJournal(path)
    journal.open()
    journal.append(1, [b"entry %d" % number * 30 for number in range(1, 31)])
    journal.compact(10, CHUNKS)
    journal.close()
    return path


def execute(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def contents(path: Path) -> object:
    journal = SqliteJournal(path)
    journal.open()
    try:
        return read_all(journal)
    finally:
        journal.close()


DAMAGES = [
    ("UPDATE entries SET data = CAST(x'00' || data AS BLOB) WHERE number = 17", "entry 17 of 30"),
    ("UPDATE entries SET data = CAST(data AS TEXT) || '1' WHERE number = 17", "entry 17 of 30"),
    ("UPDATE entries SET data = 7 WHERE number = 11", "entry 11 of 30"),
    ("UPDATE entries SET checksum = 0 WHERE number = 20", "entry 20 of 30"),
    ("UPDATE entries SET checksum = 'x' WHERE number = 20", "entry 20 of 30"),
    ("DELETE FROM entries WHERE number = 11", "entry 11 of 30"),
    ("DELETE FROM entries WHERE number = 25", "entry 25 of 30"),
    ("DELETE FROM entries WHERE number = 30", "entry 30 of 30"),
    ("DELETE FROM entries", "entry 11 of 30"),
    ("INSERT INTO entries SELECT 31, checksum, data FROM entries WHERE number = 30", "entry 31"),
    (
        "UPDATE entries SET data = (SELECT data FROM entries WHERE number = 18) WHERE number = 19",
        "entry 19 of 30",
    ),
    ("UPDATE snapshot SET data = x'00' WHERE number = 3", "snapshot chunk 3 of 4"),
    ("DELETE FROM snapshot WHERE number = 1", "snapshot chunk 1 of 4"),
    ("DELETE FROM snapshot WHERE number = 4", "snapshot chunk 4 of 4"),
    ("DROP TABLE snapshot", "snapshot chunk 1 of 4"),
    ("UPDATE head SET last = 29", "its head"),
    ("UPDATE head SET term = 0", "its head"),
    ("UPDATE head SET identity = 'x'", "its head"),
    ("UPDATE head SET upto = 'ten'", "its head"),
    ("UPDATE head SET seal = 1", "its head"),
    ("DELETE FROM head", "its head"),
    ("DROP TABLE head", "no such table: head"),
]


@pytest.mark.parametrize(("damage", "place"), DAMAGES)
def test_damage_is_told_with_its_place_and_left_as_it_is(
    damage: str, place: str, path: Path
) -> None:
    execute(path, damage)
    with pytest.raises(JournalCorruptError, match=place) as caught:
        contents(path)
    assert str(path) in str(caught.value)
    assert place in caught.value.place
    assert "open it with repair=True" in str(caught.value)
    # To be damaged does not wear off, and refusing changes nothing.
    with pytest.raises(JournalCorruptError, match=place):
        contents(path)
    assert not list(path.parent.glob("*.damaged-*"))


@pytest.mark.parametrize(("damage", "place"), DAMAGES)
def test_repair_keeps_what_lies_before_the_damage_and_says_so(
    damage: str, place: str, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = SqliteJournal(path)
    term = before.open()
    identity = before.identity
    before.close()
    execute(path, damage)
    damaged = path.read_bytes()
    journal = SqliteJournal(path, repair=True)
    with caplog.at_level(logging.WARNING, "dspex.journal"):
        assert journal.open() > term
    upto, chunks, entries = read_all(journal)
    assert chunks == CHUNKS[: len(chunks)]
    assert entries == ENTRIES[: len(entries)]
    assert not entries or chunks == CHUNKS
    if place.startswith("entry "):
        kept = min(int(place.split()[1]) - 1, 30) - 10
        assert (upto, chunks, entries) == (10, CHUNKS, ENTRIES[:kept])
    assert journal.identity != identity
    assert journal.owns()
    said = "\n".join(journal.repairs)
    assert f"kept {len(chunks)} chunks of a snapshot, and {len(entries)} entries" in said
    if 0 < len(entries) < 20 and not place.startswith("its head"):
        assert f"dropped entries {11 + len(entries)} to 30" in said
    assert said.splitlines()[-1] == f"the damaged file is kept as {path}.damaged-1"
    assert all(line in caplog.text for line in journal.repairs)
    aside = Path(f"{path}.damaged-1")
    if place.startswith(("entry", "snapshot")):
        with pytest.raises(JournalCorruptError, match=place):
            contents(aside)
    else:
        assert aside.read_bytes() == damaged
    last = entries[-1][0] if entries else upto
    journal.append(last + 1, [b"after the repair"])
    journal.close()
    again = SqliteJournal(path, repair=True)
    again.open()
    assert again.repairs == []
    assert read_all(again) == (upto, chunks, [*entries, (last + 1, b"after the repair")])
    again.close()


def test_a_head_that_was_changed_cannot_take_the_term_back(path: Path) -> None:
    execute(path, "UPDATE head SET term = 0")
    journal = SqliteJournal(path, repair=True)
    assert journal.open() >= int(time.time()) - 5
    assert read_all(journal) == (10, CHUNKS, ENTRIES)
    assert any("its head was changed" in line for line in journal.repairs)
    journal.close()


def test_pages_that_are_cut_off(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(JournalCorruptError):
        contents(path)
    journal = SqliteJournal(path, repair=True)
    journal.open()
    _, chunks, entries = read_all(journal)
    assert chunks == CHUNKS[: len(chunks)]
    assert entries == ENTRIES[: len(entries)]
    assert Path(f"{path}.damaged-1").read_bytes() == whole[: len(whole) // 2]
    journal.close()


def test_a_second_repair_keeps_the_first_damaged_file(path: Path) -> None:
    for number in (28, 25):
        execute(path, f"DELETE FROM entries WHERE number = {number}")
        journal = SqliteJournal(path, repair=True)
        journal.open()
        assert journal.load().upto == 10
        journal.close()
    assert contents(path) == (10, CHUNKS, ENTRIES[:14])
    assert sorted(each.name for each in path.parent.iterdir()) == [
        "journal.db",
        "journal.db.damaged-1",
        "journal.db.damaged-2",
    ]


def test_repair_of_a_whole_journal_changes_nothing(path: Path) -> None:
    journal = SqliteJournal(path, repair=True)
    journal.open()
    assert read_all(journal) == (10, CHUNKS, ENTRIES)
    assert journal.repairs == []
    journal.close()
    assert [each.name for each in path.parent.iterdir()] == ["journal.db"]


def test_an_owner_of_the_damaged_file_is_refused_after_the_repair(path: Path) -> None:
    old = SqliteJournal(path)
    old.open()
    execute(path, "DELETE FROM entries WHERE number = 25")
    new = SqliteJournal(path, repair=True, takeover=True)
    # The old owner has the file open, so its log cannot be folded in.
    with pytest.raises(JournalError, match="while nobody else has it open"):
        new.open()
    assert not old.owns()
    old.close()
    new.open()
    assert read_all(new) == (10, CHUNKS, ENTRIES[:14])
    new.close()


@pytest.mark.parametrize(
    "content", [b"Dear diary, " * 1_000, b"x", b"SQLite format 3\0" + b"\0" * 84]
)
@pytest.mark.parametrize("repair", [False, True])
def test_what_is_not_a_journal_is_never_touched(
    content: bytes, repair: bool, tmp_path: Path
) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(JournalCorruptError, match="is damaged or is not a journal of dspex"):
        SqliteJournal(path, repair=repair).open()
    assert path.read_bytes() == content
    assert [each.name for each in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("repair", [False, True])
def test_a_database_of_others_is_never_touched(repair: bool, tmp_path: Path) -> None:
    from dspex.storage import open_log

    store = tmp_path / "studies.db"
    open_log(store, "study").close()
    theirs = tmp_path / "theirs.db"
    execute(theirs, "CREATE TABLE head (id)")
    for path in (store, theirs):
        before = path.read_bytes()
        with pytest.raises(JournalCorruptError, match="database of another program"):
            SqliteJournal(path, repair=repair).open()
        assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 2


def test_a_journal_of_a_newer_version_is_refused(path: Path) -> None:
    execute(path, "PRAGMA user_version = 2")
    for repair in (False, True):
        with pytest.raises(JournalError, match=r"journals of format 1; .* has format 2"):
            SqliteJournal(path, repair=repair).open()


def test_an_owner_that_lives_is_asked_before_anything_is_repaired(path: Path) -> None:
    owner = SqliteJournal(path)
    owner.open()
    execute(path, "DELETE FROM entries WHERE number = 25")
    with pytest.raises(JournalError, match="it belongs to process"):
        SqliteJournal(path, repair=True, patience=0.0).open()
    owner.close()
    assert [each.name for each in path.parent.iterdir()] == ["journal.db"]


def test_what_only_the_next_write_would_stumble_over_is_told_and_repaired(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(36)  # how many pages are free (sqlite.org/fileformat2.html §1.3.11)
        file.write(b"\0\0\0\7")
    with pytest.raises(JournalCorruptError, match=r"SQLite says: .*[Ff]reelist"):
        contents(path)
    journal = SqliteJournal(path, repair=True)
    journal.open()
    assert read_all(journal) == (10, CHUNKS, ENTRIES)
    assert "reelist" in journal.repairs[0]
    journal.close()
