"""Large values on their way: pieces come in and go out, whole ones lie in the journal.

Knows: pieces, SHA-256, the journal's thread. Must not know: which keys name a value.

A piece is small, so that the loop is held up by none. A value is kept under its hash, so that
any piece may be sent twice.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from typing import final

from dspex.errors import InvalidRequestError, JournalCorruptError, StateCorruptError
from dspex.foundation.ports import Journal

__all__ = ["MAX_BLOB", "PIECE", "Blobs"]

MAX_BLOB = 100 * 2**20
"""Bytes of the largest value."""

PIECE = 2 * 2**20
"""Bytes of a piece."""

_UPLOADS = 16
_KEPT = 2
_UNNAMED_SECONDS = 600.0


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
        self._uploads: OrderedDict[tuple[str, str], bytearray] = OrderedDict()
        self._read: OrderedDict[str, bytes] = OrderedDict()
        self._unnamed: dict[str, float] = {}
        self.bytes_since_sweep = 0

    def named(self, digests: Collection[str]) -> set[str]:
        """Add to these what came in lately and may be about to be named."""
        now = time.monotonic()
        self._unnamed = {d: at for d, at in self._unnamed.items() if now - at < _UNNAMED_SECONDS}
        return {*digests, *self._unnamed}

    async def write(
        self, session: str, *, digest: str, offset: int, size: int, data: bytes
    ) -> bool:
        """Take a piece; True when the value is whole and kept."""
        if not 0 < size <= MAX_BLOB or len(data) > PIECE or not 0 <= offset <= size - len(data):
            raise InvalidRequestError(
                f"a value has at most {MAX_BLOB:,} bytes and comes in pieces of {PIECE:,}; got "
                f"{len(data):,} at {offset:,} of {size:,}"
            )
        upload = self._uploads.setdefault((session, digest), bytearray())
        while len(self._uploads) > _UPLOADS:
            self._uploads.popitem(last=False)
        if offset == 0:
            upload.clear()
        elif offset != len(upload):
            raise InvalidRequestError(
                f"pieces follow each other; got {offset:,} after {len(upload):,}; begin again at 0"
            )
        upload += data
        if len(upload) < size:
            return False
        whole = bytes(self._uploads.pop((session, digest)))
        await asyncio.get_running_loop().run_in_executor(self._thread, self._keep, digest, whole)
        self._unnamed[digest] = time.monotonic()
        self.bytes_since_sweep += size
        return True

    def _keep(self, digest: str, data: bytes) -> None:
        if sha256(data).hexdigest() != digest:
            raise InvalidRequestError(
                f"a large value is named by its SHA-256; {digest} is that of another one; send "
                "it again"
            )
        self._journal.put_blob(digest, data)

    async def read(self, *, digest: str, offset: int, size: int) -> bytes:
        """Give a piece."""
        data = self._read.get(digest)
        if data is None:
            loop = asyncio.get_running_loop()
            try:
                data = await loop.run_in_executor(self._thread, self._journal.get_blob, digest)
            except KeyError:
                raise StateCorruptError(
                    f"the large value {digest} is not in the journal {self._journal.url}; restore "
                    "the journal's blobs from a copy"
                ) from None
            except JournalCorruptError as error:
                raise StateCorruptError(
                    f"a large value is damaged: {error}; restore it from a copy, or put it again"
                ) from error
            self._read[digest] = data
            while len(self._read) > _KEPT:
                self._read.popitem(last=False)
        piece = data[offset : offset + min(size, PIECE)]
        if offset + len(piece) >= len(data):
            self._read.pop(digest, None)  # whoever reads a value reads all of it
        return piece
