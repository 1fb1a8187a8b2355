"""Large values between a process and the journal, in pieces that hold nobody up.

Knows: pieces, SHA-256. Must not know: which keys name a value.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from dspex.cluster.foundation.blobs import PIECE
from dspex.cluster.foundation.exchange import Exchange, backoff
from dspex.errors import UnavailableError

__all__ = ["get_blob", "put_blob"]


async def put_blob(exchange: Exchange, data: bytes) -> str:
    """Keep a large value; gives its SHA-256."""
    digest = await asyncio.to_thread(lambda: sha256(data).hexdigest())
    upload = secrets.token_hex(8)
    size = len(data)
    offset = waits = 0
    deadline = exchange.now() + exchange.patience
    while True:
        piece = data[offset : offset + PIECE]

        async def send(piece: bytes = piece, offset: int = offset) -> str:
            said: str = await exchange.ask(
                "blob.write", upload=upload, digest=digest, offset=offset, size=size, data=piece
            )
            return said

        said = await exchange.patiently(send, f"a value of {size:,} bytes")
        if said == "kept":
            return digest
        if said == "next":
            offset += len(piece)
        elif said == "again":  # the scheduler has started anew, or took this one for given up
            offset = 0
        elif exchange.now() < deadline:
            await backoff(waits)
            waits += 1
        else:
            raise UnavailableError(
                f"a value of {size:,} bytes waits until the scheduler has room for its pieces; it "
                f"had none for {exchange.patience:g} s; put fewer large values at once"
            )


async def get_blob(exchange: Exchange, digest: str) -> bytes:
    """Read a large value."""
    data = bytearray()
    size = 1
    while len(data) < size:
        asked = {"digest": digest, "offset": len(data), "size": PIECE}

        async def fetch(asked: Mapping[str, Any] = asked) -> tuple[int, bytes]:
            whole, piece = await exchange.ask("blob.read", **asked)
            return whole, piece

        size, piece = await exchange.patiently(fetch, "a large value")
        data += piece
    return bytes(data)
