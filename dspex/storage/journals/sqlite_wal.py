"""Whether the write-ahead log that a killed owner left behind is whole.

Knows: the format of SQLite's log (sqlite.org/fileformat2.html §4). Must not know: tables.

SQLite takes a frame that does not fit its checksum for the end of the log, as a write that was cut
off leaves one, and drops what follows without a word. With ``synchronous=FULL`` a commit is on the
disk before the next transaction begins; so a bad frame that is followed by a commit and by a frame
of a later transaction was good once: the log is damaged, and acknowledged entries would be lost.
Damage in the very last transaction looks like a write that was cut off, and cannot be told from it.

This must be known before SQLite opens the file, because it folds the log in when it closes it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

# numpy is loaded after a kill alone: whoever opens a journal that was closed needs none.
if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["damage_in_log"]

_HEADER = 32
_FRAME_HEADER = 24
_PAGE = 4096  # SQLite's default, which our files have
_ORDERS = {"little": "<u4", "big": ">u4"}

_Words: TypeAlias = "NDArray[np.uint32]"


def damage_in_log(path: Path) -> str | None:
    """Find the place where a database's log is damaged, if it is."""
    log = path.with_name(f"{path.name}-wal")
    seen = None
    place = None
    while (data := _read(log)) != seen:
        place = _damage(data)
        if place is None:
            return None
        # A living owner may be writing: what counts is what stays.
        seen = data
    return f"its write-ahead log {log}: {place}, and later commits follow"


def _read(log: Path) -> bytes:
    try:
        return log.read_bytes()
    except OSError:  # none there, or none that SQLite could read either
        return b""


class _Frames(NamedTuple):
    """What was found out of each frame, in order.

    Attributes
    ----------
    is_ours : of the salts of this log, so not left over from before it was begun anew.
    is_commit : the last one of a transaction.
    fits : its checksum is that of its bytes, chained to the checksum before.
    """

    is_ours: NDArray[np.bool_]
    is_commit: NDArray[np.bool_]
    fits: NDArray[np.bool_]


def _damage(data: bytes) -> str | None:
    if len(data) < _HEADER + _FRAME_HEADER + _PAGE:
        return None
    order = _order(data)
    # A header that was changed does not say what the frames are like: they are as we make them.
    size = _FRAME_HEADER + _PAGE
    frames = _judge(data, size, order or _ORDERS[sys.byteorder], has_header=order is not None)
    is_good = frames.is_ours & frames.fits
    if order is not None and is_good.all():
        return None
    bad = int(is_good.argmin()) if order else 0
    # A frame that is chained to the commit before it was written after that commit was synced.
    follows = is_good[1:] & frames.is_commit[:-1] & frames.is_ours[:-1]
    if not follows[bad:].any():
        return None
    if order is None:
        return "its header (offset 0) was changed"
    place = f"frame {bad + 1} of {len(is_good)} (offset {_HEADER + bad * size})"
    return f"{place} was changed, its checksum does not fit"


def _order(data: bytes) -> str | None:
    """How the checksums take words; None where the header does not fit its own."""
    import numpy as np

    start = np.zeros((1, 2), np.uint32)
    stored = np.frombuffer(data, ">u4", 2, 24)
    for order in _ORDERS.values():
        words = np.frombuffer(data, order, 6).astype(np.uint32).reshape(1, 6)
        if (_checksum(words, start)[0] == stored).all():
            return order
    return None


def _judge(data: bytes, size: int, order: str, *, has_header: bool) -> _Frames:
    import numpy as np

    count = (len(data) - _HEADER) // size
    header = np.frombuffer(data, ">u4", 8).astype(np.uint32)
    frames = np.frombuffer(data, np.uint8, count * size, _HEADER).reshape(count, size)
    # Page, size of the database after a commit (else 0), two salts, two checksums.
    fields = np.ascontiguousarray(frames[:, :_FRAME_HEADER]).view(">u4").astype(np.uint32)
    before = np.vstack([header[6:8], fields[:-1, 4:6]])
    covered = np.hstack([frames[:, :8], frames[:, _FRAME_HEADER:]]).view(order)
    salts = header[4:6] if has_header else fields[:1, 2:4]
    return _Frames(
        is_ours=(fields[:, 2:4] == salts).all(axis=1),
        is_commit=fields[:, 1] != 0,
        fits=(_checksum(covered.astype(np.uint32, copy=False), before) == fields[:, 4:6]).all(
            axis=1
        ),
    )


def _checksum(words: _Words, start: _Words) -> _Words:
    """The log's checksum of each row, begun with the row's own start (same document, §4.2)."""
    import numpy as np

    columns: Any = words.T.copy()
    first, second = start[:, 0].copy(), start[:, 1].copy()
    for even, odd in zip(columns[::2], columns[1::2], strict=True):
        first += even + second
        second += odd + first
    return np.stack([first, second], axis=1)
