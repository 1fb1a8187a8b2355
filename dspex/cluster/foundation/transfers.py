"""Large values between a process and the journal, in pieces that hold nobody up.

Knows: pieces, SHA-256. Must not know: which keys name a value.
"""

from __future__ import annotations

import asyncio
from hashlib import sha256

from dspex.cluster.foundation.blobs import PIECE
from dspex.cluster.foundation.exchange import Exchange

__all__ = ["get_blob", "put_blob"]


async def put_blob(exchange: Exchange, data: bytes) -> str:
    """Keep a large value; gives its SHA-256."""
    digest = await asyncio.to_thread(lambda: sha256(data).hexdigest())

    async def send() -> str:
        for offset in range(0, len(data), PIECE):
            piece = data[offset : offset + PIECE]
            await exchange.ask(
                "blob.write", digest=digest, offset=offset, size=len(data), data=piece
            )
        return digest

    return await exchange.patiently(send, f"a value of {len(data):,} bytes")


async def get_blob(exchange: Exchange, digest: str) -> bytes:
    """Read a large value."""

    async def fetch() -> bytes:
        data = bytearray()
        while True:
            piece = await exchange.ask("blob.read", digest=digest, offset=len(data), size=PIECE)
            data += piece
            if len(piece) < PIECE:
                return bytes(data)

    return await exchange.patiently(fetch, "a large value")
