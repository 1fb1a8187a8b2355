"""The journal of those who want none: everything ends with the process.

Knows: the port `Journal`. Must not know: files.

Nobody could read an entry after the process, and within it the ledger is the state; so entries and
snapshots are counted and let go, and memory does not grow with them. Large values, which the ledger
names by hash alone, are kept until `keep_blobs` drops them.

There is no file in which terms could be counted. A term is the instant of `open` in whole unix
seconds, or one more than the last one of this process, so that tokens (term, n) grow over restarts
of the scheduler as long as its clock is not set back behind the former start.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Collection, Iterable, Sequence
from typing import final

from dspex.errors import JournalError
from dspex.foundation.ports import Loaded

__all__ = ["MemoryJournal"]

_terms = [0]


@final
class MemoryJournal:
    """Keeps nothing but large values, and those in memory.

    Examples
    --------
    >>> journal = MemoryJournal()
    >>> journal.open() > 1_700_000_000
    True
    >>> journal.append(1, [b"one", b"two"])
    >>> list(journal.load().entries)
    []
    """

    url = "memory"
    durable = False

    def __init__(self) -> None:
        self._last = 0
        self._identity = ""
        self._is_open = False
        self._blobs: dict[str, bytes] = {}

    def __repr__(self) -> str:
        return f"<MemoryJournal, {self._last} entries, {len(self._blobs)} large values>"

    @property
    def copies(self) -> int:
        """How many members hold what was appended: this process."""
        return 1

    @property
    def identity(self) -> str:
        """Another one each time that it is opened."""
        return self._identity

    def open(self) -> int:
        """Begin a history; gives its term."""
        self._last = 0
        self._blobs.clear()
        self._identity = uuid.uuid4().hex
        self._is_open = True
        _terms[0] = max(_terms[0] + 1, int(time.time()))
        return _terms[0]

    def load(self) -> Loaded:
        """Nothing: there is no former process to read from."""
        self._refuse_if_closed()
        return Loaded(self._last, iter(()), iter(()))

    def append(self, first: int, entries: Sequence[bytes]) -> None:
        """Count entries."""
        self._refuse_if_closed()
        if not 0 < first <= self._last + 1:
            raise JournalError(
                f"entries follow each other; got number {first} after {self._last}; this is an "
                "error of the program that appends"
            )
        self._last = max(self._last, first + len(entries) - 1)

    def compact(self, upto: int, snapshot: Iterable[bytes]) -> None:
        """Do nothing: what a snapshot would replace is gone already."""
        self._refuse_if_closed()

    def owns(self) -> bool:
        """Whether it is open: no other process can reach it."""
        return self._is_open

    def put_blob(self, digest: str, data: bytes) -> None:
        """Keep a large value under its SHA-256."""
        self._refuse_if_closed()
        self._blobs[digest] = data

    def get_blob(self, digest: str) -> bytes:
        """Read a large value; KeyError where there is none."""
        self._refuse_if_closed()
        return self._blobs[digest]

    def keep_blobs(self, digests: Collection[str]) -> int:
        """Drop all large values but these; gives how many were dropped."""
        self._refuse_if_closed()
        dropped = self._blobs.keys() - set(digests)
        for digest in dropped:
            del self._blobs[digest]
        return len(dropped)

    def close(self) -> None:
        """Let go of everything; may be called twice."""
        self._is_open = False
        self._blobs.clear()

    def _refuse_if_closed(self) -> None:
        if not self._is_open:
            raise JournalError("a journal is used while it is open; this one is closed; open one")
