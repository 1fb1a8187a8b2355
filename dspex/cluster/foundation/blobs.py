"""Large values on their way: pieces come in and go out, whole ones lie in the journal.

Knows: pieces, SHA-256, the journal's thread. Must not know: which keys name a value.

A piece is small, so that the loop is held up by none. A value is kept under its hash, so that
it may be sent twice.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from typing import Literal, final

from dspex.errors import InvalidRequestError, JournalCorruptError, StateCorruptError
from dspex.foundation.ports import Journal

__all__ = ["MAX_BLOB", "PIECE", "Blobs", "Said"]

MAX_BLOB = 100 * 2**20
"""Bytes of the largest value."""

PIECE = 2 * 2**20
"""Bytes of a piece."""

ROOM = 4 * MAX_BLOB
"""Bytes of values that come in at the same time, and of those that are kept for who reads on."""

_GIVEN_UP_AFTER = 60.0
"""Seconds without a piece after which nobody is believed to go on with a value."""

_UNNAMED_SECONDS = 600.0
"""Seconds for which a value is kept that nobody has named yet."""

Said = Literal["next", "kept", "again", "wait"]
"""Send the next piece; the value is whole and kept; begin again; there is no room now."""


@final
class _Upload:
    __slots__ = ("data", "size", "touched")

    def __init__(self, size: int, now: float) -> None:
        self.size = size
        self.data = bytearray()
        self.touched = now


@final
class _Reading:
    __slots__ = ("fetched", "touched")

    def __init__(self, fetched: asyncio.Future[bytes]) -> None:
        self.fetched = fetched
        self.touched = 0.0

    @property
    def size(self) -> int:
        return 0 if self.fetched.exception() else len(self.fetched.result())


@final
class Blobs:
    """Takes values apart and together.

    Parameters
    ----------
    journal : Journal
    thread : ThreadPoolExecutor
        Which alone uses the journal.
    """

    def __init__(self, journal: Journal, thread: ThreadPoolExecutor) -> None:
        self._journal = journal
        self._thread = thread
        self._opened = time.monotonic()
        self._uploads: dict[tuple[str, str], _Upload] = {}
        self._readings: dict[str, _Reading] = {}
        self._unnamed: dict[str, float] = {}
        self.bytes_since_sweep = 0

    def spared(self, named: Collection[str]) -> set[str] | None:
        """What a sweep must leave: these, and what may be about to be named; None: all of it."""
        now = time.monotonic()
        if now - self._opened < _UNNAMED_SECONDS:
            return None  # what came in before this start is not known
        self._unnamed = {d: at for d, at in self._unnamed.items() if now - at < _UNNAMED_SECONDS}
        spared = {*named, *self._unnamed}
        self._readings = {d: each for d, each in self._readings.items() if d in spared}
        return spared

    def tidy(self) -> None:
        """Let go of what nobody goes on with."""
        since = time.monotonic() - _GIVEN_UP_AFTER
        self._uploads = {n: each for n, each in self._uploads.items() if each.touched > since}
        self._readings = {d: each for d, each in self._readings.items() if each.touched > since}

    async def write(
        self, session: str, *, upload: str, digest: str, offset: int, size: int, data: bytes
    ) -> Said:
        """Take a piece."""
        if not 0 < size <= MAX_BLOB or len(data) > PIECE or not 0 <= offset <= size - len(data):
            raise InvalidRequestError(
                f"a value has at most {MAX_BLOB:,} bytes and comes in pieces of {PIECE:,}; got "
                f"{len(data):,} at {offset:,} of {size:,}"
            )
        name = (session, upload)
        now = time.monotonic()
        if offset == 0:
            self._uploads.pop(name, None)
            if sum(each.size for each in self._uploads.values()) + size > ROOM:
                return "wait"
            self._uploads[name] = _Upload(size, now)
        found = self._uploads.get(name)
        if found is None or found.size != size or offset > len(found.data):
            return "again"
        if offset + len(data) > len(found.data):  # a piece may come twice
            found.data += data[len(found.data) - offset :]
        found.touched = now
        if len(found.data) < size:
            return "next"
        del self._uploads[name]
        # Before it is written, so that no sweep comes between.
        self._unnamed[digest] = now
        self.bytes_since_sweep += size
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._thread, self._keep, digest, found.data)
        return "kept"

    def _keep(self, digest: str, data: bytearray) -> None:
        if sha256(data).hexdigest() != digest:
            raise InvalidRequestError(
                f"a large value is named by its SHA-256; {digest} is that of another one; send "
                "it again"
            )
        self._journal.put_blob(digest, bytes(data))

    async def read(self, *, digest: str, offset: int, size: int) -> tuple[int, bytes]:
        """Give a piece, and the size of the whole."""
        if offset < 0 or size < 1:
            raise InvalidRequestError(
                f"a piece has a size from 1, at an offset from 0; got {size:,} at {offset:,}"
            )
        reading = self._readings.pop(digest, None)
        if reading is None:
            # Many workers read the same value at the same time.
            reading = _Reading(asyncio.ensure_future(self._fetched(digest)))
        reading.touched = time.monotonic()
        self._readings[digest] = reading  # the last in line to go
        try:
            data = await asyncio.shield(reading.fetched)
        except Exception:
            self._readings.pop(digest, None)
            raise
        self._make_room()
        return len(data), data[offset : offset + min(size, PIECE)]

    def _make_room(self) -> None:
        there = {d: each.size for d, each in self._readings.items() if each.fetched.done()}
        kept = sum(there.values())
        for digest, size in there.items():
            if kept <= ROOM:
                return
            kept -= size
            del self._readings[digest]

    async def _fetched(self, digest: str) -> bytes:
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._thread, self._journal.get_blob, digest)
        except KeyError:
            raise StateCorruptError(
                f"the large value {digest} is not in the journal {self._journal.url}; restore "
                "the journal's blobs from a copy"
            ) from None
        except JournalCorruptError as error:
            raise StateCorruptError(
                f"a large value is damaged: {error}; restore it from a copy, or put it again"
            ) from error
