"""Whether the caller runs inside a Dask task.

Knows: where Dask keeps its current worker. Must not know: anything that loads Dask, because a
process in which Dask was never loaded can run no task of it.
"""

from __future__ import annotations

import sys

__all__ = ["is_inside_task"]


def is_inside_task() -> bool:
    """Whether the caller runs inside a Dask task (then a study runs in its process).

    Examples
    --------
    >>> is_inside_task()
    False
    """
    module = sys.modules.get("distributed.worker")
    if module is None:
        return False
    try:
        module.get_worker()
    except ValueError:
        return False
    return True
