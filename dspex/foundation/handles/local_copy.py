"""A copy of a collection in this process, fed by the stream of its changes.

Knows: updates, how old what it knows may be. Must not know: what records mean, who may be content
with an old one.

It may be asked from any thread. What it knows at an instant is at least all that was committed
`age` seconds before.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import final

from dspex.errors import FoundationError
from dspex.foundation.ports import Bridge, RegistryBackend, Update
from dspex.foundation.record import Record

__all__ = ["LocalCopy", "close_stream"]


@final
class LocalCopy:
    """Records by key, as they were a moment ago.

    Parameters
    ----------
    backend : RegistryBackend
    bridge : Bridge
    collection : str
    now : callable
        The monotonic clock by which the backend says how fresh an update is.
    max_staleness : float
        Seconds of age beyond which the copy is not current.
    """

    def __init__(
        self,
        backend: RegistryBackend,
        bridge: Bridge,
        collection: str,
        *,
        now: Callable[[], float],
        max_staleness: float = 10.0,
    ) -> None:
        self._backend = backend
        self._bridge = bridge
        self._collection = collection
        self._now = now
        self.max_staleness = max_staleness
        self._records: dict[str, Record] = {}
        self._fresh_at: float | None = None
        self._is_fed = False
        self._is_closed = False
        self._end: Callable[[], None] | None = None

    def __repr__(self) -> str:
        if self._fresh_at is None:
            return f"<LocalCopy of {self._collection!r}, empty yet>"
        return (
            f"<LocalCopy of {self._collection!r}, {len(self._records)} records, {self.age:.1f} s>"
        )

    @property
    def is_ready(self) -> bool:
        """Whether it has ever known all there was."""
        return self._fresh_at is not None

    @property
    def is_current(self) -> bool:
        """Whether it is no older than allowed."""
        return self.age <= self.max_staleness

    @property
    def age(self) -> float:
        """Seconds before which everything that was committed is known here."""
        return float("inf") if self._fresh_at is None else max(0.0, self._now() - self._fresh_at)

    def get(self, key: str) -> Record | None:
        """The record of a key, or None where there was none."""
        return self._records.get(key)

    def get_aged(self, key: str) -> tuple[Record | None, float]:
        """The record of a key, and how old this knowledge may be."""
        # In this order: an update between the two may only make the record newer than told.
        age = self.age
        return self._records.get(key), age

    def start(self) -> None:
        """Have it fed, without waiting; may be called often."""
        if not self._is_fed and not self._is_closed:
            self._is_fed = True
            self._end = self._bridge.spawn(self._feed(None))

    async def ready(self) -> None:
        """Wait until it has known all there was.

        Raises
        ------
        UnavailableError
            Where nobody can be reached to tell.
        """
        if self.is_ready:
            self.start()
            return
        # A stream waits without end for somebody to follow; this question does not.
        await self._backend.fetch(self._collection, [])
        stream = self._backend.follow(self._collection, "*")
        try:
            first = await anext(stream)
        except BaseException:
            await close_stream(stream)
            raise
        if self._is_fed or self._is_closed:
            # Somebody else was at it; what came here may be older than what came there.
            if not self.is_ready:
                self._take(first)
            await close_stream(stream)
            return
        self._take(first)
        self._is_fed = True
        self._end = self._bridge.spawn(self._feed(stream))

    def close(self) -> None:
        """Let go of the stream; may be called twice. What is known stays, and grows old."""
        self._is_closed = True
        if self._end is not None:
            self._end()

    async def _feed(self, stream: AsyncIterator[Update] | None) -> None:
        if stream is None:
            stream = self._backend.follow(self._collection, "*")
        try:
            async for update in stream:
                if self._is_closed:
                    return
                self._take(update)
        except FoundationError:
            pass  # the copy grows old, and says so; whoever asks it next has it fed again
        finally:
            self._is_fed = False
            await close_stream(stream)

    def _take(self, update: Update) -> None:
        if update.is_snapshot:
            self._records = {
                change.key: change.record for change in update.changes if change.record is not None
            }
        else:
            for change in update.changes:
                if change.record is None:
                    self._records.pop(change.key, None)
                else:
                    self._records[change.key] = change.record
        self._fresh_at = update.fresh_at


async def close_stream(stream: AsyncIterator[Update]) -> None:
    """End a stream that nobody follows any more."""
    if isinstance(stream, AsyncGenerator):
        await stream.aclose()
