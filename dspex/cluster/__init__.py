"""The only room that knows Dask: connecting, the embedded cluster, the Dask executor."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dspex.cluster.connect import Connection, connect_cluster
    from dspex.cluster.executor import DaskExecutor
    from dspex.cluster.inside import is_inside_task

__all__ = ["Connection", "DaskExecutor", "connect_cluster", "is_inside_task"]

_HOMES = {
    "Connection": "connect",
    "DaskExecutor": "executor",
    "connect_cluster": "connect",
    "is_inside_task": "inside",
}


def __getattr__(name: str) -> Any:
    # Lazy: importing distributed takes half a second that a study in this process does not need.
    if name in _HOMES:
        return getattr(importlib.import_module(f"dspex.cluster.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
