"""Whether this thread may wait, and for how long.

Knows: event loops, notebooks, timeouts as people write them. Must not know: what is waited for.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from dspex.cluster.units import parse_seconds

__all__ = ["is_on_loop", "seconds_of"]


def is_on_loop(bringing: asyncio.AbstractEventLoop | None = None) -> bool:
    """Whether an event loop runs in this thread that must not be blocked.

    That of a notebook may be, as Dask does it: all cells run on it, and it brings no answers.

    Parameters
    ----------
    bringing : asyncio loop, optional
        One that does.

    Examples
    --------
    >>> is_on_loop()
    False
    """
    try:
        running = asyncio.get_running_loop()
    except RuntimeError:
        return False
    return running is bringing or running is not _loop_of_notebook()


def _loop_of_notebook() -> asyncio.AbstractEventLoop | None:
    if "ipykernel" not in sys.modules:
        return None
    from ipykernel.kernelapp import IPKernelApp

    if not IPKernelApp.initialized():
        return None
    io_loop: Any = IPKernelApp.instance().kernel.io_loop
    loop: asyncio.AbstractEventLoop | None = getattr(io_loop, "asyncio_loop", None)
    return loop


def seconds_of(timeout: float | str | None) -> float | None:
    """Seconds from a timeout as people write it; 0 is one, too.

    Raises
    ------
    InvalidArgumentError

    Examples
    --------
    >>> seconds_of("1 minute"), seconds_of(0), seconds_of(None)
    (60.0, 0.0, None)
    """
    return 0.0 if timeout == 0 else parse_seconds("timeout", timeout)
