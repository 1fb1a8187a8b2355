"""Large values: one file each, in a folder beside the journal, named by their SHA-256.

Knows: files, fsync. Must not know: SQLite, who names a value.

A value is written under another name, synced, and then renamed, and the folder is synced: under
its own name it is whole or not there. What a kill leaves behind goes with the next `keep`. A value
that is kept again is written again, so that one that was damaged is healed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import final

from dspex.errors import JournalCorruptError, JournalError

__all__ = ["BlobFolder", "sync"]

_UNFINISHED = ".unfinished"
_DIGEST = re.compile(r"[0-9a-f]{64}")


@final
class BlobFolder:
    """The large values of one journal.

    Parameters
    ----------
    folder : Path
        Made with the first value.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, digest: str, data: bytes) -> None:
        """Keep a value; on the disk when this returns."""
        path = self._path(digest)
        if path is None:
            raise JournalError(f"a large value is named by its SHA-256; got {digest!r:.100}")
        unfinished = path.with_suffix(_UNFINISHED)
        with self._translated(path):
            if not self._folder.exists():
                self._folder.mkdir()
                sync(self._folder.parent)
            try:
                # Without a buffer of Python's: the data is copied by the kernel alone.
                with unfinished.open("wb", buffering=0) as file:
                    rest = memoryview(data)
                    while rest:
                        rest = rest[file.write(rest) :]
                    os.fsync(file.fileno())
                unfinished.replace(path)
            except BaseException:
                unfinished.unlink(missing_ok=True)
                raise
            sync(self._folder)

    def get(self, digest: str) -> bytes:
        """Read a value.

        Raises
        ------
        KeyError
        JournalCorruptError
        """
        path = self._path(digest)
        if path is None:
            raise KeyError(digest)
        with self._translated(path):
            try:
                data = path.read_bytes()
            except FileNotFoundError:
                raise KeyError(digest) from None
        found = sha256(data).hexdigest()
        if found != digest:
            raise JournalCorruptError(
                f"a large value has the SHA-256 that names it; the {len(data):,} bytes of {path} "
                f"have {found}; it was not changed; restore it from a copy, or write the value "
                "again",
                path=str(path),
            )
        return data

    def keep(self, digests: Collection[str]) -> int:
        """Delete all but these; gives how many values went."""
        wanted = set(digests)
        dropped = 0
        with self._translated(self._folder):
            if not self._folder.exists():
                return 0
            for path in list(self._folder.iterdir()):
                if path.suffix == _UNFINISHED:
                    path.unlink()
                elif _DIGEST.fullmatch(path.name) and path.name not in wanted:
                    path.unlink()
                    dropped += 1
        return dropped

    def _path(self, digest: str) -> Path | None:
        # A digest comes from a client: no other text becomes a path.
        return self._folder / digest if _DIGEST.fullmatch(digest) else None

    @contextmanager
    def _translated(self, path: Path) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if isinstance(error, JournalError):
                raise
            raise JournalError(
                f"the large value {path} cannot be used ({error}); check the disk and who may "
                "write to it, then make the same call again",
                path=str(path),
            ) from error


def sync(path: Path) -> None:
    """Make a file's content, or the names in a folder, survive the machine."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
