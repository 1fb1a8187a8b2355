"""Connections that nobody holds any more are closed, as files are.

Knows: who holds the bridge holds the connection. Must not know: what a connection consists of.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import weakref
from collections.abc import Callable
from contextlib import AsyncExitStack

from dspex.cluster.foundation.bridge import LoopBridge

__all__ = ["close_when_dropped"]

_WITHIN = 10.0

logger = logging.getLogger("dspex.foundation")


def close_when_dropped(
    bridge: LoopBridge, closing: AsyncExitStack, then: Callable[[], object]
) -> Callable[[], None]:
    """Have a connection closed when nothing that came of it is held any more.

    Parameters
    ----------
    bridge : LoopBridge
        Which all that came of it holds.
    closing : AsyncExitStack
        Closed first, on the bridge's loop.
    then : callable
        Called after it.

    Returns
    -------
    callable
        To be called instead where it is closed in order; calls `then` once.
    """
    finalizer = weakref.finalize(bridge, _close, bridge.loop, os.getpid(), closing, then)
    finalizer.atexit = False  # Dask, and the lease, see to that

    def in_order() -> None:
        if finalizer.detach() is not None and not bridge.is_forked:
            then()

    return in_order


def _close(
    loop: asyncio.AbstractEventLoop,
    process: int,
    closing: AsyncExitStack,
    then: Callable[[], object],
) -> None:
    if os.getpid() != process:
        return  # it is the parent's
    logger.info("a connection to the foundation was dropped without close(); it is closed now")

    def close() -> None:
        try:
            if loop.is_running():
                asyncio.run_coroutine_threadsafe(closing.aclose(), loop).result(_WITHIN)
        finally:
            then()

    # The collector runs in any thread, that of the loop too.
    threading.Thread(target=close, name="dspex-dropped-connection", daemon=True).start()
