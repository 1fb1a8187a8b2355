"""Whether the caller runs inside a Dask task, or inside an evaluation, which a task waits for.

Knows: where Dask keeps its current worker, what an evaluator child looks like from within.
Must not know: anything that loads Dask, because a process in which Dask was never loaded can run
no task of it.
"""

from __future__ import annotations

import sys

__all__ = ["is_inside_task"]


def is_inside_task() -> bool:
    """Whether the caller runs inside a Dask task, or in an evaluator child.

    A study runs in the process there: a cluster of its own would fight for the same cores.

    Examples
    --------
    >>> is_inside_task()
    False
    """
    # Not in the environment: that would be inherited by processes which are no evaluators.
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    if spec is not None and spec.name == "dspex.execution.child":
        return True
    module = sys.modules.get("distributed.worker")
    if module is None:
        return False
    try:
        module.get_worker()
    except ValueError:
        return False
    return True
