"""The doors of the room: open a log, list what a store holds, delete, read along.

Knows: which log serves which storage. Must not know: what the records mean.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from dspex.engine.ports import Log
from dspex.errors import InvalidArgumentError
from dspex.storage.batches import find_study, read_batches
from dspex.storage.database import connect, damaged, opened, transaction, translated
from dspex.storage.location import store_path
from dspex.storage.memory import MemoryLog
from dspex.storage.ownership import current_owner, no_study, refuse_if_owned
from dspex.storage.sqlite_log import SqliteLog
from dspex.study.records import Record

__all__ = ["StudyInfo", "delete_study", "open_log", "read_records", "studies", "study_info"]

Storage = str | os.PathLike[str]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class StudyInfo:
    """What a store tells of a study without reading its log.

    Attributes
    ----------
    name : str
    created : float
        Unix time in seconds.
    head : mapping
        What identifies the study, as its last session left it; see `dspex.study.records.Opened`.
    records, trials : int
        How many records the log holds, and how many trials were suggested.
    stop_reason : str or None
        Why the last session ended; None where one runs, or ended without saying so.
    running : str or None
        The process that owns the study now, in words.
    """

    name: str
    created: float
    head: Mapping[str, Any]
    records: int
    trials: int
    stop_reason: str | None
    running: str | None


def open_log(storage: Storage | None, study: str | None, *, create: bool = True) -> Log:
    """Open the log of a study and own it.

    Parameters
    ----------
    storage : str, path or None
        See `resolve_storage`; None keeps the study in memory.
    study : str or None
        The study's name; None only without storage.
    create : bool
        Whether file and study are made where they are missing.

    Raises
    ------
    StudyNotFoundError
        Where the study is missing and `create` is false.
    StudyInUseError
        Where a live process owns it, this very one included.
    StorageCorruptError
        Where the file is damaged or something else.
    StorageError
        Where it cannot be opened.

    Examples
    --------
    >>> import tempfile
    >>> from dspex.study.records import Stopped
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     log = open_log(f"{folder}/studies.db", "digits")
    ...     log.append([Stopped(reason="trials", time=1.0)])
    ...     log.close()
    ...     list(read_records(f"{folder}/studies.db", "digits"))
    [Stopped(reason='trials', time=1.0)]
    """
    if storage is None:
        return MemoryLog()
    return SqliteLog(store_path(storage), _checked_name(study), create=create)


def read_records(storage: Storage, study: str) -> Iterator[Record]:
    """Read what a study holds now, without owning it: also while another process runs it.

    Raises
    ------
    StudyNotFoundError
        At once.
    StorageCorruptError
        Where the iteration reaches what is damaged.
    """
    path = store_path(storage)
    name = _checked_name(study)
    return read_batches(path, name, find_study(path, name))


def studies(storage: Storage) -> list[StudyInfo]:
    """List what a store holds, the oldest study first.

    Raises
    ------
    StorageError
        Where there is no store.
    """
    path = store_path(storage)
    with opened(path) as connection:
        rows = connection.execute(
            "SELECT id, name, created, coalesce(head, '{}'), records, trials, stop_reason "
            "FROM studies LEFT JOIN heads ON heads.study = studies.id "
            "WHERE batches > 0 ORDER BY id"
        ).fetchall()
        owners = [current_owner(connection, row[0]) for row in rows]
    return [
        StudyInfo(
            name=name,
            created=created,
            head=_decoded_head(head, path, name),
            records=records,
            trials=trials,
            stop_reason=stop_reason,
            running=None if owner is None else str(owner),
        )
        for (_, name, created, head, records, trials, stop_reason), owner in zip(
            rows, owners, strict=True
        )
    ]


def study_info(storage: Storage, study: str) -> StudyInfo:
    """What a store tells of one study.

    Raises
    ------
    StudyNotFoundError
    """
    path = store_path(storage)
    name = _checked_name(study)
    find_study(path, name)
    return next(info for info in studies(path) if info.name == name)


def delete_study(storage: Storage, study: str) -> None:
    """Delete a study and all its records.

    Raises
    ------
    StudyNotFoundError
    StudyInUseError
        Where a live process owns it.
    """
    path, name = store_path(storage), _checked_name(study)
    key = find_study(path, name)
    with closing(connect(path)) as connection, translated(path), transaction(connection):
        refuse_if_owned(connection, key, name, path)
        deleted = connection.execute("DELETE FROM studies WHERE id = ?", (key,))
        if deleted.rowcount != 1:
            raise no_study(name, path)
        connection.execute("DELETE FROM heads WHERE study = ?", (key,))
        connection.execute("DELETE FROM batches WHERE study = ?", (key,))


def _decoded_head(text: str, path: Path, study: str) -> dict[str, Any]:
    try:
        return dict(json.loads(text))
    except (TypeError, ValueError) as error:
        raise damaged(path, f"the head of study {study!r} cannot be read ({error})") from error


def _checked_name(study: Any) -> str:
    if not isinstance(study, str) or not study.strip() or not study.isprintable():
        raise InvalidArgumentError(
            f"a stored study has a name, one line of text; got study={study!r}; pass one such as "
            'study="digits"'
        )
    return study
