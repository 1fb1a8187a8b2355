"""Damage in the log that a killed owner left behind, which SQLite itself drops in silence."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dspex.errors import JournalCorruptError, JournalError
from dspex.storage.journals.sqlite import SqliteJournal
from dspex.storage.journals.sqlite_wal import damage_in_log
from dspex.testing.journals import read_all

FRAME = 24 + 4096
ENTRIES = [(number, b"entry %d" % number * 200) for number in range(1, 41)]

# Leaves the log as a kill does: closing the journal would fold it into the file.
KILLED = """
import os, sys
from pathlib import Path
from dspex.storage.journals.sqlite import SqliteJournal
journal = SqliteJournal(Path(sys.argv[1]))
journal.open()
for number in range(1, 41):
    journal.append(number, [b"entry %d" % number * 200])
os._exit(0)
"""


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("killed") / "journal.db"
    subprocess.run([sys.executable, "-c", KILLED, str(path)], check=True)
    return path


@pytest.fixture
def path(killed: Path, tmp_path: Path) -> Path:
    shutil.copytree(killed.parent, tmp_path, dirs_exist_ok=True)
    (tmp_path / "journal.db-shm").unlink()
    return tmp_path / "journal.db"


def log_of(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def flip(path: Path, offset: int) -> None:
    with log_of(path).open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 0x10]))


def test_a_whole_log_is_whole(path: Path) -> None:
    assert log_of(path).stat().st_size > 40 * FRAME
    assert damage_in_log(path) is None
    journal = SqliteJournal(path, repair=True)
    journal.open()
    assert read_all(journal) == (0, [], ENTRIES)
    assert journal.repairs == []
    journal.close()


def test_no_log_is_no_damage(tmp_path: Path) -> None:
    assert damage_in_log(tmp_path / "journal.db") is None
    log_of(tmp_path / "journal.db").touch()
    assert damage_in_log(tmp_path / "journal.db") is None


@pytest.mark.parametrize("kept", [0.0, 0.001, 0.1, 0.5, 0.77, 0.999])
def test_a_log_that_was_cut_off_ends_there(kept: float, path: Path) -> None:
    os.truncate(log_of(path), int(log_of(path).stat().st_size * kept))
    assert damage_in_log(path) is None


# Offsets within a frame: page number, size after the commit, salt, checksum, content.
@pytest.mark.parametrize("within", [3, 7, 8, 15, 17, 23, 24, 2_000, FRAME - 1])
def test_a_changed_frame_before_later_commits_is_told_and_left(path: Path, within: int) -> None:
    offset = 32 + 20 * FRAME + within
    flip(path, offset)
    before = log_of(path).read_bytes()
    for _ in range(2):
        with pytest.raises(JournalCorruptError, match="later commits follow") as caught:
            SqliteJournal(path).open()
        assert f"frame 21 of {len(before) // FRAME} (offset {32 + 20 * FRAME})" in str(caught.value)
        assert str(log_of(path)) in caught.value.place
    assert log_of(path).read_bytes() == before


@pytest.mark.parametrize("offset", [0, 3, 9, 17, 21, 25, 31])
def test_a_changed_header_is_told(path: Path, offset: int) -> None:
    flip(path, offset)
    with pytest.raises(JournalCorruptError, match=r"its header \(offset 0\) was changed"):
        SqliteJournal(path).open()


def test_a_changed_last_frame_looks_like_a_write_that_was_cut_off(path: Path) -> None:
    flip(path, log_of(path).stat().st_size - 1)
    assert damage_in_log(path) is None
    journal = SqliteJournal(path)
    journal.open()
    assert read_all(journal) == (0, [], ENTRIES[:-1])
    journal.close()


@pytest.mark.parametrize("offset", [0, 32 + 20 * FRAME + 100, 32 + 50 * FRAME + 16])
def test_repair_keeps_what_was_committed_before(path: Path, offset: int) -> None:
    flip(path, offset)
    before = path.read_bytes(), log_of(path).read_bytes()
    journal = SqliteJournal(path, repair=True)
    journal.open()
    identity = journal.identity
    upto, chunks, entries = read_all(journal)
    assert (upto, chunks) == (0, [])
    assert entries == ENTRIES[: len(entries)]
    assert 0 < len(entries) < 40 or offset == 0
    said = "\n".join(journal.repairs)
    assert "later commits follow" in said
    assert f"the last entry is {len(entries)}" in said or offset == 0
    aside = path.with_name("journal.db.damaged-1")
    assert str(aside) in said
    if offset:
        assert (aside.read_bytes(), log_of(aside).read_bytes()) == before
    journal.append(len(entries) + 1, [b"after the repair"])
    journal.close()
    again = SqliteJournal(path)
    again.open()
    assert again.identity == identity
    assert read_all(again)[2] == [*entries, (len(entries) + 1, b"after the repair")]
    again.close()


def test_a_living_owner_keeps_its_log(path: Path) -> None:
    owner = SqliteJournal(path)
    owner.open()
    owner.append(41, [b"x" * 2_000])
    owner.append(42, [b"x" * 2_000])
    flip(path, 32 + FRAME + 100)
    with pytest.raises(JournalError, match="it belongs to process"):
        SqliteJournal(path, repair=True, patience=0.0).open()
    assert not list(path.parent.glob("*.damaged-*"))
    owner.close()
