"""From what a user writes to one absolute path."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from dspex.errors import InvalidArgumentError, StorageError
from dspex.storage import default_storage, resolve_storage


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("DSPEX_STORAGE", raising=False)
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.chdir(tmp_path)


def test_neither_storage_nor_study_means_memory() -> None:
    assert resolve_storage(None, None) is None


@pytest.mark.parametrize(
    ("storage", "expected"),
    [
        ("studies.db", "{here}/studies.db"),
        ("a/b.db", "{here}/a/b.db"),
        (Path("b.db"), "{here}/b.db"),
        (Path("sqlite:/x"), "{here}/sqlite:/x"),
        ("/abs/x.db", "/abs/x.db"),
        ("~/x.db", "{here}/home/x.db"),
        ("sqlite:///x.db", "{here}/x.db"),
        ("SQLite:///x.db", "{here}/x.db"),
        ("sqlite:///~/x.db", "{here}/home/x.db"),
        ("sqlite:////abs/x.db", "/abs/x.db"),
        ("what?is#this.db", "{here}/what?is#this.db"),
    ],
)
def test_paths_and_urls(storage: str | Path, expected: str, tmp_path: Path) -> None:
    assert resolve_storage(storage, "s") == expected.format(here=tmp_path)
    assert resolve_storage(storage, None) == expected.format(here=tmp_path)


@pytest.mark.parametrize(
    "storage",
    [
        *("redis://h", "postgresql://h/x", "file:///x.db", "sqlite:/x.db", "sqlite://h/x.db"),
        *("", "sqlite:///", ":memory:", "sqlite:///:memory:", "a\0b", b"x.db", 7, Path),
    ],
)
def test_anything_else_is_refused_with_the_remedy(storage: object) -> None:
    with pytest.raises(InvalidArgumentError, match=r"sqlite:///"):
        resolve_storage(storage, "s")  # type: ignore[arg-type]


def test_a_directory_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"name a file in it, such as .*studies\.db"):
        resolve_storage(tmp_path, "s")


def test_the_default_is_the_configured_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DSPEX_STORAGE", "sqlite:///mine.db")
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert resolve_storage(None, "s") == str(tmp_path / "mine.db")
    assert resolve_storage("other.db", "s") == str(tmp_path / "other.db")


def test_else_it_lies_in_the_users_data_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert default_storage() == Path("/data/dspex/studies.db")


@pytest.mark.parametrize(
    ("platform", "expected"),
    [
        ("linux", ".local/share/dspex/studies.db"),
        ("darwin", "Library/Application Support/dspex/studies.db"),
        ("win32", "AppData/Local/dspex/studies.db"),
    ],
)
def test_each_platform_has_its_own(
    platform: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.delenv("LOCALAPPDATA", raising=False)
    # The XDG specification has relative paths ignored.
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    assert default_storage() == tmp_path / "home" / expected
