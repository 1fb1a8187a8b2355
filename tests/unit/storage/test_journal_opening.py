"""What may stand in a journal's URL."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dspex.errors import InvalidArgumentError, JournalCorruptError, JournalError
from dspex.storage import filesystem
from dspex.storage.journals.memory import MemoryJournal
from dspex.storage.journals.opening import open_journal
from dspex.storage.journals.sqlite import SqliteJournal


def test_memory() -> None:
    assert isinstance(open_journal("memory"), MemoryJournal)


def test_absolute_relative_and_home_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for url, path in [
        (f"sqlite:///{tmp_path}/a.db", tmp_path / "a.db"),
        ("sqlite:///b.db", tmp_path / "b.db"),
        ("sqlite:///new/b.db", tmp_path / "new" / "b.db"),
        ("sqlite:///~/c.db", tmp_path / "home" / "c.db"),
    ]:
        journal = open_journal(url)
        assert isinstance(journal, SqliteJournal)
        assert journal.url == f"sqlite:///{path}"
        assert journal.open() == 1
        journal.close()
        assert path.exists()
        again = open_journal(journal.url)
        assert again.open() == 2
        again.close()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "Memory",
        "memory://",
        "journal.db",
        "/var/journal.db",
        "sqlite",
        "sqlite:",
        "sqlite:/journal.db",
        "sqlite://journal.db",
        "sqlite:///",
        "sqlite:///:memory:",
        "sqlite:///a\0b",
        "etcd://",
        "etcd",
        "postgres://host/db",
        None,
        7,
        Path("journal.db"),
    ],
)
def test_anything_else_is_refused_with_the_forms(url: Any) -> None:
    with pytest.raises(InvalidArgumentError, match='pass "memory", "sqlite:///'):
        open_journal(url)


def test_a_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="names a file"):
        open_journal(f"sqlite:///{tmp_path}")


def test_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filesystem, "mounts", lambda: [("/", "nfs4")])
    journal = open_journal(f"sqlite:///{tmp_path}/journal.db")
    with pytest.raises(JournalError, match="choose a path on a local disk, or a journal in etcd"):
        journal.open()
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    journal = open_journal(f"sqlite:///{tmp_path}/file/journal.db")
    with pytest.raises(JournalError, match="choose a path that you may write to"):
        journal.open()


def test_repair_reaches_the_journal(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal = open_journal(f"sqlite:///{path}")
    journal.open()
    journal.append(1, [b"1"])
    journal.close()
    whole = path.read_bytes()
    path.write_bytes(whole[:4096])
    with pytest.raises(JournalCorruptError, match="open it with repair=True"):
        open_journal(f"sqlite:///{path}").open()
    journal = open_journal(f"sqlite:///{path}", repair=True)
    journal.open()
    assert isinstance(journal, SqliteJournal)
    assert journal.repairs
    journal.close()
