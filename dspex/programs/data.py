"""Training data as users pass it.

Knows: that a 2-tuple is ``(X, y)``, which data cannot be used, and how to keep data as it is.
Must not know: estimators.
Dask collections are known by their protocol and package name; Dask is not imported.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dspex.errors import InvalidDataError

__all__ = ["pair", "refuse_dask", "sealed"]


def pair(data: Any) -> tuple[Any, Any]:
    """``(X, y)`` of a 2-tuple; ``(data, None)`` of anything else.

    Examples
    --------
    >>> pair(([[1]], [0])), pair([[1], [2]])
    (([[1]], [0]), ([[1], [2]], None))
    """
    if isinstance(data, tuple) and len(data) == 2:
        return data
    return data, None


def sealed(value: Any) -> Any:
    """Arrays and sparse matrices as read-only views; anything else as it is.

    Evaluations in one process share their data, and an estimator that writes into its input
    (``copy=False``) would change it for the next: so it must fail, and be given a copy.
    Strided arrays become contiguous, as pickling makes them, because sums over another memory
    layout differ in the last bit, and a trial's score is the same in every process.

    Examples
    --------
    >>> import numpy as np
    >>> sealed(np.zeros(3)).flags.writeable
    False
    """
    if isinstance(value, np.ndarray):
        contiguous = value.flags.c_contiguous or value.flags.f_contiguous
        view = value.view() if contiguous else np.ascontiguousarray(value)
        view.flags.writeable = False
        return view
    if type(value).__module__.startswith("scipy.sparse") and hasattr(value, "indptr"):
        parts = tuple(map(sealed, (value.data, value.indices, value.indptr)))
        return type(value)(parts, shape=value.shape, copy=False)
    return value


def refuse_dask(**arguments: Any) -> None:
    """Raise for Dask collections, in tuples and dicts too.

    Raises
    ------
    InvalidDataError
        Naming the argument and the remedy.
    """
    for name, value in arguments.items():
        inside = value.values() if isinstance(value, dict) else value
        for part in inside if isinstance(value, dict | tuple) else [value]:
            if _is_dask(part):
                raise InvalidDataError(
                    f"every evaluation needs its data in memory; {name} holds a "
                    f"{type(part).__module__}.{type(part).__name__}; pass its .compute(), or a "
                    "sample of it that fits"
                )


def _is_dask(value: Any) -> bool:
    if isinstance(value, type):
        return False
    root = type(value).__module__.partition(".")[0]
    return root in ("dask", "dask_expr", "dask_array") or hasattr(type(value), "__dask_graph__")
