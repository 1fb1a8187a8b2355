"""A log that lives and dies with its process.

Knows: the port `Log`. Must not know: files.
Older records are kept as the JSON that a file would hold, which takes a third of the memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import final

from dspex.errors import StorageError
from dspex.study.records import Record, decode, encode

__all__ = ["MemoryLog"]

PACK = 128
"""Records that are kept as objects before they are packed."""


@final
class MemoryLog:
    """The records of one study, in memory.

    Parameters
    ----------
    records : iterable of Record, optional
        What the log holds at first.

    Examples
    --------
    >>> from dspex.study.records import Stopped
    >>> log = MemoryLog()
    >>> log.append([Stopped(reason="trials", time=1.0)])
    >>> list(log.load())
    [Stopped(reason='trials', time=1.0)]
    """

    def __init__(self, records: Iterable[Record] = ()) -> None:
        self._packed: list[str] = []
        self._recent: list[Record] = list(records)
        self._closed = False

    def load(self) -> Iterator[Record]:
        """All records, from the first."""
        self._refuse_if_closed()
        return self._records(list(self._packed), list(self._recent))

    def append(self, records: Sequence[Record]) -> None:
        """Add records behind the last."""
        self._refuse_if_closed()
        self._recent.extend(records)
        if len(self._recent) >= PACK:
            self._packed.append(encode(self._recent))
            self._recent = []

    def sync(self) -> None:
        """Do nothing: memory is as safe as it gets."""
        self._refuse_if_closed()

    def close(self) -> None:
        """Accept nothing more; may be called twice."""
        self._closed = True

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise StorageError("a closed log is not used any more; open a new one")

    @staticmethod
    def _records(packed: list[str], recent: list[Record]) -> Iterator[Record]:
        for text in packed:
            yield from decode(text)
        yield from recent
