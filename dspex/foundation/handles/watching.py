"""Watching keys: what there is, then every change, told once.

Knows: snapshots and changes, and how the one follows from two of the other.
Must not know: how a backend tells them.

A stream that was cut off begins again with a snapshot; what differs from what was told is told
then, so whoever watches sees no break, only that several changes of one key became one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import NamedTuple, final

from dspex.foundation.handles.entry import Entry
from dspex.foundation.handles.local_copy import close_stream
from dspex.foundation.ports import Change, RegistryBackend, Update

__all__ = ["WatchEvent", "watched"]

UNSEEN = "it went while nobody could be asked"


class WatchEvent(NamedTuple):
    """What a watcher is told.

    Attributes
    ----------
    kind : "snapshot", "synced", "put" or "drop"
        First comes one "snapshot" for each entry that is there already, then "synced" once, so
        that one knows that these were all; then "put" and "drop" for ever.
    key : str
        Empty for "synced".
    entry : Entry or None
        As it is now; None for "drop" and "synced".
    version : int
        Of the entry; for "drop" of the one that was dropped.
    reason : str
        Of a "drop": "dropped", or why it went by itself.
    """

    kind: str
    key: str
    entry: Entry | None
    version: int
    reason: str


async def watched(
    backend: RegistryBackend, collection: str, pattern: str
) -> AsyncIterator[WatchEvent]:
    """Tell what there is, then every change."""
    known = _Known()
    stream = backend.follow(collection, pattern)
    try:
        async for update in stream:
            for event in known.told(update):
                yield event
    finally:
        await close_stream(stream)


@final
class _Known:
    """What a watcher has been told of."""

    def __init__(self) -> None:
        # {key: (version, writer)}: a registry that begins anew may give a version twice.
        self._told: dict[str, tuple[int, str]] = {}
        self._is_synced = False

    def told(self, update: Update) -> Iterator[WatchEvent]:
        """What to tell of an update."""
        if not update.is_snapshot:
            for change in update.changes:
                yield from self._change(change, "put")
            return
        there = {change.key for change in update.changes}
        for key in [key for key in self._told if key not in there]:
            version, _ = self._told[key]
            yield from self._change(Change(key, version, None, UNSEEN), "drop")
        for change in update.changes:
            yield from self._change(change, "put" if self._is_synced else "snapshot")
        if not self._is_synced:
            self._is_synced = True
            yield WatchEvent("synced", "", None, update.revision, "")

    def _change(self, change: Change, kind: str) -> Iterator[WatchEvent]:
        record = change.record
        if record is None:
            if self._told.pop(change.key, None) is not None:
                yield WatchEvent("drop", change.key, None, change.version, change.reason)
        elif self._told.get(change.key) != (record.version, record.writer):
            self._told[change.key] = (record.version, record.writer)
            yield WatchEvent(kind, change.key, Entry(record), record.version, "")
