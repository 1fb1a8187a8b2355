"""A foundation in this process, without Dask: for development, and for tests.

Knows: the same server and the same handles, with nothing between them. Must not know: Dask.
"""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import psutil

from dspex.cluster.foundation.bridge import LoopBridge, LoopThread
from dspex.cluster.foundation.calls import LedgerCaller
from dspex.cluster.foundation.dropping import close_when_dropped
from dspex.cluster.foundation.server import LedgerServer
from dspex.cluster.units import parse_seconds
from dspex.foundation.handles.backend import LedgerBackend
from dspex.foundation.handles.foundation import Foundation
from dspex.foundation.ports import RegistryBackend
from dspex.storage.journals.opening import open_journal

__all__ = ["connect_local", "open_local"]


@asynccontextmanager
async def open_local(
    *, journal: str | None = None, lease: float = 3.0
) -> AsyncIterator[LedgerCaller]:
    """Run a ledger on this loop, with this process as its one member."""
    server = LedgerServer(open_journal(journal or "memory"))
    async with AsyncExitStack() as stack:
        stack.push_async_callback(server.close)
        await server.start()
        host = socket.gethostname()

        async def join() -> None:
            await member.write(
                "members.join",
                address="local",
                name="local",
                host=host,
                capacity={
                    "cpu_cores": float(os.cpu_count() or 1),
                    "memory_gb": psutil.virtual_memory().total / 1e9,
                    "gpus": 0.0,
                    "labels": [],
                },
            )

        member = LedgerCaller(server.handle, kind="worker", name="local", lease=lease, on_open=join)
        stack.push_async_callback(member.close)
        await member.start()
        caller = LedgerCaller(
            server.handle, kind="client", name=f"{host}:{os.getpid()}", lease=lease
        )
        stack.push_async_callback(caller.close)
        await caller.start()
        yield caller


def connect_local(
    *, namespace: str, journal: str | None, lease: float, backend: str | RegistryBackend
) -> Foundation:
    """Make a foundation in this process; it ends with `Foundation.close`."""
    thread = LoopThread("dspex-local-foundation")
    bridge = LoopBridge(thread.loop, asynchronous=False)
    closing = AsyncExitStack()

    async def opened() -> LedgerCaller:
        return await closing.enter_async_context(open_local(journal=journal, lease=lease))

    try:
        caller = bridge.run(opened())
    except BaseException:
        # Ctrl-C may have come when all was done, and nobody had it yet.
        bridge.run(closing.aclose())
        thread.stop()
        raise
    own = LedgerBackend(caller, shared=False)
    foundation = Foundation(
        caller,
        bridge,
        own,
        own if isinstance(backend, str) else backend,
        namespace=namespace,
        seconds=parse_seconds,
        closing=closing,
        where="this process",
    )
    foundation.close_after(close_when_dropped(bridge, closing, thread.stop))
    return foundation
