"""A registry's backend in memory: the smallest that keeps every promise.

Knows: the state machine of records, one asyncio loop. Must not know: sessions, journals, Dask.

For tests of what stands on a registry, and to read before writing a backend of one's own.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import final

from dspex.errors import UnavailableError
from dspex.foundation.ledger.events import Event
from dspex.foundation.ledger.records import Records
from dspex.foundation.patterns import matches
from dspex.foundation.ports import Change, Update
from dspex.foundation.query import Query
from dspex.foundation.record import Operation, Record

__all__ = ["MemoryBackend"]

TICK = 0.05
"""Seconds after which a follower hears that there is no news."""


@final
class MemoryBackend:
    """Keeps records in this process; used on one loop.

    Attributes
    ----------
    writer : str
        The session in whose name records are written.
    is_reachable : bool
        Set to False, every call fails and followers hear nothing, until it is True again.
    fetches : int
        How often it was read by key.

    Examples
    --------
    >>> from dspex.foundation.record import put
    >>> backend = MemoryBackend()
    >>> (written,) = asyncio.run(backend.commit("r:", [put("k", b"v", {})]))
    >>> written.version, written.value
    (1, b'v')
    """

    linearizable = True
    shared = False
    durable = False

    def __init__(
        self, *, writer: str = "session", clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.writer = writer
        self.is_reachable = True
        self.fetches = 0
        self._clock = clock
        self._records = Records()
        self._revision = 0
        self._followers: set[asyncio.Queue[tuple[int, Event]]] = set()

    async def commit(
        self, collection: str, operations: Sequence[Operation], *, wait_durable: bool = True
    ) -> list[Record]:
        """Perform all operations or none; gives the record after each (before, for a drop)."""
        self._begin()
        replies = self._records.commit(
            collection,
            list(operations),
            revision=self._revision,
            writer=self.writer,
            now=self._clock(),
            emit=self._emit,
        )
        return [
            # A put that wrote leaves the value out of its reply.
            record._replace(value=operation[2])
            if operation[0] == "put" and record.version == self._revision
            else record
            for operation, record in zip(operations, map(_record, replies), strict=True)
        ]

    async def fetch(self, collection: str, keys: Sequence[str]) -> list[Record | None]:
        """Read records by key; None where there is none."""
        self._begin()
        self.fetches += 1
        return [self._records.get(collection, key) for key in keys]

    async def select(self, collection: str, query: Query) -> list[Record]:
        """Find records."""
        self._begin()
        return self._records.select(collection, query)

    async def follow(self, collection: str, pattern: str) -> AsyncIterator[Update]:
        """Tell all there is, then every change."""
        events: asyncio.Queue[tuple[int, Event]] = asyncio.Queue()
        await self._reached()
        self._followers.add(events)
        try:
            changes = [
                Change(each.key, each.version, each, "put")
                for each in self._records.all(collection, pattern)
            ]
            yield Update(True, changes, self._revision, self._clock())
            while True:
                asked_at = self._clock()
                try:
                    told = [await asyncio.wait_for(events.get(), TICK)]
                except TimeoutError:
                    told = []
                while not events.empty():
                    told.append(events.get_nowait())
                await self._reached()
                self._begin()
                wanted = [
                    _change(event)
                    for _, event in told
                    if event[1] == collection and matches(event[2], pattern)
                ]
                yield Update(False, wanted, told[-1][0] if told else self._revision, asked_at)
        finally:
            self._followers.discard(events)

    async def close(self) -> None:
        """Nothing is held."""

    def drop_owned(self, owner: str) -> None:
        """End a session, or a worker, as far as its entries are concerned."""
        self._begin()
        self._records.owner_gone(owner, "its session ended", self._emit)

    async def _reached(self) -> None:
        while not self.is_reachable:
            await asyncio.sleep(TICK)

    def _begin(self) -> None:
        if not self.is_reachable:
            raise UnavailableError("the backend is not reachable, as a test wanted it")
        self._revision += 1
        self._records.expire(self._clock(), self._emit)

    def _emit(self, event: Event) -> None:
        self._records.apply(event, self._clock())
        for follower in self._followers:
            follower.put_nowait((self._revision, event))


def _record(fields: Sequence[object]) -> Record:
    return Record(*fields)  # type: ignore[arg-type]  # as they came out of a record


def _change(event: Event) -> Change:
    if event[0] == "put":
        record = Record(*event[2:])
        return Change(record.key, record.version, record, "put")
    _, _, key, version, reason = event
    return Change(key, version, None, reason)
