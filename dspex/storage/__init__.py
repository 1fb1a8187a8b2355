"""What survives: the logs of studies, in memory or in a SQLite file.

Knows: the port `Log` of the engine, and how to keep its promise. Must not know: what records mean.
"""

from dspex.storage.catalogue import (
    StudyInfo,
    delete_study,
    open_log,
    read_records,
    studies,
    study_info,
)
from dspex.storage.location import default_storage, resolve_storage
from dspex.storage.memory import MemoryLog
from dspex.storage.sqlite_log import SqliteLog

__all__ = [
    "MemoryLog",
    "SqliteLog",
    "StudyInfo",
    "default_storage",
    "delete_study",
    "open_log",
    "read_records",
    "resolve_storage",
    "studies",
    "study_info",
]
