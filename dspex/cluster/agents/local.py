"""Agents in this process, without Dask: one foundation of its own, made when it is first needed.

Knows: local foundations. Must not know: who asks.
"""

from __future__ import annotations

import threading

from dspex.cluster.agents.runtime import Runtime, runtime_of
from dspex.foundation.handles.foundation import Foundation

__all__ = ["local_foundation", "local_runtime"]

_lock = threading.Lock()
_own: list[Foundation] = []


def local_foundation() -> Foundation:
    """The foundation of this process, for ``distribution="local"``."""
    from dspex.cluster.foundation.connecting import connect

    with _lock:
        if not _own or _own[-1].is_closed:
            _own[:] = [connect("local")]
        return _own[-1]


def local_runtime() -> Runtime:
    """Its runtime."""
    return runtime_of(local_foundation())
