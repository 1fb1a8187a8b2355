"""The file: what is refused, and that it is left as it was."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dspex.errors import StorageCorruptError, StorageError
from dspex.storage import batches, database, filesystem, open_log, read_records, sqlite_log, studies
from dspex.storage.database import APPLICATION_ID
from dspex.study.records import Asked, Stopped
from dspex.testing.logs import example_records


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "s.db"
    log = open_log(path, "s")
    log.append(example_records(400))
    log.close()
    return path


def execute(path: Path, statement: str, *values: object) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(path)
    with connection:
        rows = connection.execute(statement, values).fetchall()
    connection.close()
    return rows


def assert_refused(path: Path, message: str) -> None:
    before = path.read_bytes()
    doors: list[Callable[[], object]] = [
        lambda: open_log(path, "s").load(),
        lambda: list(read_records(path, "s")),
        lambda: studies(path),
    ]
    for door in doors:
        with pytest.raises(StorageCorruptError, match=message) as caught:
            door()
        assert str(path) in str(caught.value)
        assert "restore it from a copy, or name another file" in str(caught.value)
    assert path.read_bytes() == before


def test_a_text_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("Dear diary, " * 1_000)
    assert_refused(path, "file is not a database")


@pytest.mark.parametrize("text", ["x", "SQLite format 3", "0" * 600])
def test_a_short_text_file_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text(text)
    assert_refused(path, "is not a store of studies")


def test_a_database_of_another_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "theirs.db"
    execute(path, "CREATE TABLE studies (name)")
    assert_refused(path, "a SQLite database of another program")
    execute(path, "PRAGMA application_id = 7")
    assert_refused(path, r"application id 0x7\b")


def test_an_empty_file_becomes_a_store(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    path.touch()
    open_log(path, "s").close()
    assert execute(path, "PRAGMA application_id") == [(APPLICATION_ID,)]


def test_a_file_of_a_newer_version_is_refused(path: Path) -> None:
    execute(path, "PRAGMA user_version = 2")
    with pytest.raises(StorageError, match="has format 2; use the version of dspex that wrote it"):
        open_log(path, "s")


def test_a_truncated_file_is_refused(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(StorageCorruptError):
        list(read_records(path, "s"))


@pytest.mark.parametrize(
    ("damage", "place"),
    [
        ("UPDATE batches SET records = replace(records, '0.1', '0.2') WHERE number = 2", "3 of 7"),
        ("UPDATE batches SET records = '[' WHERE number = 0", "1 of 7"),
        ("UPDATE batches SET records = 7 WHERE number = 0", "1 of 7"),
        ("UPDATE batches SET checksum = 0 WHERE number = 4", "5 of 7"),
        ("DELETE FROM batches WHERE number = 3", "4 of 7"),
        ("DELETE FROM batches WHERE number = 6", "7 of 7"),
        ("UPDATE batches SET number = number - 1 WHERE number > 3", "4 of 7"),
        ("UPDATE studies SET batches = 6, records = 1", "batch"),
    ],
)
def test_a_log_that_was_changed_is_refused(path: Path, damage: str, place: str) -> None:
    execute(path, "DELETE FROM batches WHERE number = 3" if "number > 3" in damage else damage)
    if "number > 3" in damage:
        execute(path, damage)
    before = path.read_bytes()
    with pytest.raises(StorageCorruptError, match=place) as caught:
        list(read_records(path, "s"))
    assert "study 's'" in str(caught.value)
    assert path.read_bytes() == before


def test_records_that_pass_the_checksum_and_are_none_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s.db"
    monkeypatch.setattr(batches, "encode", lambda records: '[{"kind":"unheard of"}]')
    log = open_log(path, "s")
    log.append(example_records())
    log.close()
    with pytest.raises(StorageCorruptError, match="batch 1 of 1"):
        list(read_records(path, "s"))


def test_what_json_cannot_say_is_an_error_not_a_hole(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    log = open_log(path, "s")
    log.append(example_records())
    log.sync()
    log.append([Asked(first=9, told=0, by=["x"], params=[{"x": float("nan")}])])
    with pytest.raises(StorageError, match="without NaN"):
        log.close()
    assert list(read_records(path, "s")) == example_records()


def test_a_full_disk_keeps_what_was_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "s.db"

    def connect_to_a_small_disk(path: Path, *, create: bool = False) -> sqlite3.Connection:
        connection = database.connect(path, create=create)
        connection.execute("PRAGMA max_page_count = 20")
        return connection

    monkeypatch.setattr(sqlite_log, "connect", connect_to_a_small_disk)
    log = open_log(path, "s")
    log.append(example_records())
    log.sync()
    log.append(example_records(2_000))
    with pytest.raises(StorageError, match="the disk is full; make room"):
        log.sync()
    with pytest.raises(StorageError, match="the disk is full"):
        log.close()
    monkeypatch.undo()
    log = open_log(path, "s")
    assert list(log.load()) == example_records()
    log.append(example_records(2_000))
    log.close()
    assert len(list(read_records(path, "s"))) == len(example_records()) + len(
        example_records(2_000)
    )


@pytest.mark.parametrize("put_back", [False, True])
def test_a_file_that_is_removed_or_replaced_under_a_running_study_is_an_error(
    tmp_path: Path, put_back: bool
) -> None:
    path = tmp_path / "s.db"
    log = open_log(path, "s")
    log.append(example_records())
    log.sync()
    path.rename(tmp_path / "moved.db")
    if put_back:
        path.touch()
    log.append([Stopped(reason="x", time=1.0)])
    with pytest.raises(StorageError, match="was removed or replaced"):
        log.close()


def test_missing_directories_are_made(tmp_path: Path) -> None:
    log = open_log(tmp_path / "a" / "b" / "s.db", "s")
    log.append(example_records())
    log.close()
    assert studies(tmp_path / "a" / "b" / "s.db")[0].name == "s"


def test_a_directory_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match="choose a path that you may write to"):
        open_log(tmp_path / "file" / "s.db", "s")


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
@pytest.mark.parametrize("existing", [False, True])
def test_a_directory_without_permission_is_an_error(tmp_path: Path, existing: bool) -> None:
    path = tmp_path / "folder" / "s.db"
    path.parent.mkdir()
    if existing:
        open_log(path, "s").close()
    for each in path.parent.glob("*"):
        each.chmod(0o444)
    path.parent.chmod(0o555)
    # Root may write anywhere; a child of another user may not.
    code = (
        "import os, pathlib, sys\n"
        "from dspex.errors import StorageError\n"
        "from dspex.storage import open_log\n"
        "if os.geteuid() == 0:\n"
        "    for parent in pathlib.Path(sys.argv[1]).parents[1:5]:\n"
        "        if parent != pathlib.Path('/'): parent.chmod(parent.stat().st_mode | 0o011)\n"
        "    os.setgid(65534); os.setuid(65534)\n"
        "try: open_log(sys.argv[1], 's')\n"
        "except StorageError as error: print(error)\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    path.parent.chmod(0o755)
    assert "choose a path that you may write to" in answer.stdout


@pytest.mark.parametrize(("kind", "journal"), [("ext4", "wal"), ("nfs4", "delete")])
def test_the_journal_fits_the_file_system(
    kind: str, journal: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filesystem, "mounts", lambda: [("/", kind)])
    path = tmp_path / "s.db"
    open_log(path, "s").close()
    assert execute(path, "PRAGMA journal_mode") == [(journal,)]


def test_a_store_that_moves_to_a_network_changes_its_journal(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filesystem, "mounts", lambda: [("/", "nfs4")])
    open_log(path, "s").close()
    assert execute(path, "PRAGMA journal_mode") == [("delete",)]
    assert list(read_records(path, "s")) == example_records(400)
