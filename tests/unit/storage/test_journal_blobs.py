"""The folder of large values."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest

from dspex.errors import JournalCorruptError, JournalError
from dspex.storage.journals.blobs import BlobFolder

DATA = b"large" * 1_000
DIGEST = sha256(DATA).hexdigest()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    BlobFolder(tmp_path / "blobs").put(DIGEST, DATA)
    return tmp_path / "blobs"


def test_a_value_is_one_file_under_its_hash(folder: Path) -> None:
    assert [path.name for path in folder.iterdir()] == [DIGEST]
    assert (folder / DIGEST).read_bytes() == DATA


@pytest.mark.parametrize("damaged", [DATA[:-1], DATA + b"x", b"", b"L" + DATA[1:]])
def test_a_damaged_value_is_told_with_its_place_and_healed_by_writing_it(
    folder: Path, damaged: bytes
) -> None:
    blobs = BlobFolder(folder)
    (folder / DIGEST).write_bytes(damaged)
    with pytest.raises(JournalCorruptError, match=f"the {len(damaged):,} bytes of .*{DIGEST}"):
        blobs.get(DIGEST)
    assert (folder / DIGEST).read_bytes() == damaged
    blobs.put(DIGEST, DATA)
    assert blobs.get(DIGEST) == DATA


def test_what_a_kill_left_behind_goes_and_what_is_not_ours_stays(folder: Path) -> None:
    (folder / f"{'0' * 64}.unfinished").write_bytes(b"half")
    (folder / "README").write_text("of a person")
    assert BlobFolder(folder).keep({DIGEST}) == 0
    assert {path.name for path in folder.iterdir()} == {DIGEST, "README"}


def test_a_name_that_is_no_hash_is_never_a_path(folder: Path) -> None:
    blobs = BlobFolder(folder)
    (folder.parent / "secret").write_text("secret")
    for name in ("../secret", "", ".", DIGEST.upper(), DIGEST + "0"):
        with pytest.raises(KeyError):
            blobs.get(name)
        with pytest.raises(JournalError, match="named by its SHA-256"):
            blobs.put(name, b"x")


def test_a_failed_write_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    other = sha256(b"other").hexdigest()
    with monkeypatch.context() as patch:
        patch.setattr("dspex.storage.journals.blobs.os.fsync", full)
        with pytest.raises(JournalError, match="No space left on device"):
            BlobFolder(folder).put(other, b"other")
    assert [path.name for path in folder.iterdir()] == [DIGEST]


def test_an_empty_place_has_nothing_to_drop(tmp_path: Path) -> None:
    blobs = BlobFolder(tmp_path / "blobs")
    assert blobs.keep(set()) == 0
    with pytest.raises(KeyError):
        blobs.get(DIGEST)
    assert not (tmp_path / "blobs").exists()
