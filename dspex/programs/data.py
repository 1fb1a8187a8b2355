"""Training data as users pass it.

Knows: that a 2-tuple is ``(X, y)``, and which data cannot be used. Must not know: estimators.
Dask collections are known by their protocol and package name; Dask is not imported.
"""

from __future__ import annotations

from typing import Any

from dspex.errors import InvalidDataError

__all__ = ["pair", "refuse_dask"]


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
