"""The log of one study in a SQLite file.

Knows: which part does what. Must not know: where the file lies, how a row looks
(`storage.batches`), who may own a study (`storage.ownership`), when a batch is due
(`storage.writer`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import final

from dspex.errors import StorageError
from dspex.storage.batches import BatchWriter, read_batches
from dspex.storage.database import connect, translated
from dspex.storage.ownership import RENEW_SECONDS, Claim, claim, forget, no_study, release
from dspex.storage.writer import Write, Writer
from dspex.study.records import Record

__all__ = ["SqliteLog"]


@final
class SqliteLog:
    """A study in a file, owned by this process until it is closed.

    Parameters
    ----------
    path : Path
        Absolute.
    study : str
    create : bool
        Whether file and study are made where they are missing.

    Raises
    ------
    StudyNotFoundError, StudyInUseError, StorageError
    """

    def __init__(self, path: Path, study: str, *, create: bool) -> None:
        if not create and not path.exists():
            raise no_study(study, path)
        with closing(connect(path, create=create)) as connection, translated(path):
            self._claim = claim(connection, study, path, create=create)
        self._path = path
        self._writer = Writer(lambda: _session(path, self._claim), idle_seconds=RENEW_SECONDS)

    def __repr__(self) -> str:
        return f"<SqliteLog {self._claim.name!r} in {self._path}, epoch {self._claim.epoch}>"

    def load(self) -> Iterator[Record]:
        """All records, from the first, read as they are taken."""
        self._writer.sync()
        return read_batches(self._path, self._claim.name, self._claim.study)

    def append(self, records: Sequence[Record]) -> None:
        """Queue records behind the last; returns before they are safe."""
        self._writer.append(records)

    def sync(self) -> None:
        """Wait until all that was appended survives the death of this process and machine."""
        self._writer.sync()

    def close(self) -> None:
        """Sync, and give the study up; may be called twice."""
        self._writer.close()


@contextmanager
def _session(path: Path, held: Claim) -> Iterator[Write]:
    """Hold the connection in the writer's thread alone, so that no fork of us touches it."""
    try:
        with closing(connect(path)) as connection:
            try:
                yield BatchWriter(connection, path, held)
            finally:
                # A claim that could not be given up is known to be dead by its token or process.
                with suppress(StorageError), translated(path):
                    release(connection, held)
    finally:
        forget(held.token)
