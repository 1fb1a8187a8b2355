"""A foundation in this process, without Dask: for development, and for tests.

Knows: the same server and the same handles, with nothing between them. Must not know: Dask.
"""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import psutil

from dspex.cluster.agents.host import Host
from dspex.cluster.agents.messenger import Messenger
from dspex.cluster.agents.pool import Pool
from dspex.cluster.agents.runtime import Runtime, remember
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

_MEMBER_LEASE = 3600.0
"""Seconds. Its ledger stands still when this process does: there is nobody to think it dead."""


@asynccontextmanager
async def open_local(
    *, journal: str | None = None, lease: float = 3.0, namespace: str = ""
) -> AsyncIterator[tuple[LedgerCaller, Runtime]]:
    """Run a ledger on this loop, with this process as its one member, and the host of agents."""
    server = LedgerServer(open_journal(journal or "memory"))
    async with AsyncExitStack() as stack:
        stack.push_async_callback(server.close)
        await server.start()
        machine = socket.gethostname()

        async def join() -> None:
            host.joined()
            await member.write(
                "members.join",
                address="local",
                name="local",
                host=machine,
                capacity={
                    "cpu_cores": float(os.cpu_count() or 1),
                    "memory_gb": psutil.virtual_memory().total / 1e9,
                    "gpus": 0.0,
                    "labels": [],
                },
            )

        async def send(address: str, blob: bytes) -> bytes:
            return await host.arrivals.take(blob)

        member = LedgerCaller(
            server.handle, kind="worker", name="local", lease=_MEMBER_LEASE, on_open=join
        )
        stack.push_async_callback(member.close)
        host = Host(member, "local", pool=Pool(32))
        await member.start()
        inner = Messenger(member, send)
        stack.push_async_callback(inner.close)
        host.start(Runtime(member, inner, namespace=namespace, host=host))
        stack.push_async_callback(host.close)
        caller = LedgerCaller(
            server.handle, kind="client", name=f"{machine}:{os.getpid()}", lease=lease
        )
        stack.push_async_callback(caller.close)
        await caller.start()
        outer = Messenger(caller, send)
        stack.push_async_callback(outer.close)
        yield caller, Runtime(caller, outer, namespace=namespace, host=host)


def connect_local(
    *, namespace: str, journal: str | None, lease: float, backend: str | RegistryBackend
) -> Foundation:
    """Make a foundation in this process; it ends with `Foundation.close`."""
    thread = LoopThread("dspex-local-foundation")
    bridge = LoopBridge(thread.loop, asynchronous=False)
    closing = AsyncExitStack()

    async def opened() -> tuple[LedgerCaller, Runtime]:
        return await closing.enter_async_context(
            open_local(journal=journal, lease=lease, namespace=namespace)
        )

    try:
        caller, runtime = bridge.run(opened())
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
    remember(foundation, runtime)
    foundation.close_after(close_when_dropped(bridge, closing, thread.stop))
    return foundation
