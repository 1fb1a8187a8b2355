"""What a program and its data are, as hashes that are the same in every process.

Knows: how to describe functions, estimators, arrays, frames and plain values by content.
Must not know: what the hashes are compared with.

Pickles differ between processes (cloudpickle of a function most of all), so functions are known
by their source, estimators by class and parameters, arrays by dtype, shape and bytes. A lambda's
source is the line it stands on, which says more than the lambda, so its code is hashed instead.
What has no stable content (an open connection) is known by its class alone.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import json
import math
import pickle
import textwrap
import types
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

import numpy as np

__all__ = ["class_name", "content_hash", "fingerprint"]

_PLAIN = (bool, int, str, type(None))


def content_hash(value: object) -> str | None:
    """A hash of a value's content; None for None.

    Examples
    --------
    >>> import numpy as np
    >>> content_hash(np.arange(3)) == content_hash(np.arange(3))
    True
    >>> content_hash([1, 2]) == content_hash([2, 1])
    False
    """
    if value is None:
        return None
    try:
        return _digest(_text(fingerprint(value)))
    except RecursionError:  # objects that hold each other are known by their class and its source
        return _digest(_text([class_name(value), _source(type(value))]))


def fingerprint(value: Any) -> Any:
    """What a value is made of, as JSON; the same in every process.

    Examples
    --------
    >>> fingerprint({"b": 1, "a": (2.5, None)})
    {'a': [2.5, None], 'b': 1}
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else repr(value)
    if isinstance(value, list | tuple):
        return [fingerprint(each) for each in value]
    if isinstance(value, Mapping):
        pairs = ((_key(key), fingerprint(each)) for key, each in value.items())
        return dict(sorted(pairs, key=lambda pair: pair[0]))
    if isinstance(value, set | frozenset):
        return sorted((fingerprint(each) for each in value), key=_text)
    if isinstance(value, np.ndarray):
        return _array(value)
    if isinstance(value, functools.partial):
        parts = [value.func, value.args, value.keywords]
        return {"partial": [fingerprint(each) for each in parts]}
    if isinstance(value, types.MethodType):
        return {"method": [fingerprint(value.__func__), fingerprint(value.__self__)]}
    if isinstance(value, types.FunctionType | type):
        return {"source": value.__qualname__, "hash": _source(value)}
    return _object(value)


def class_name(value: object) -> str:
    """The full name of a value's class."""
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _digest(data: str | bytes | memoryview) -> str:
    return blake2b(data.encode() if isinstance(data, str) else data, digest_size=16).hexdigest()


def _text(tree: Any) -> str:
    return json.dumps(tree, sort_keys=True)


def _key(key: object) -> str:
    return key if isinstance(key, str) else _text(fingerprint(key))


def _array(array: np.ndarray[Any, Any]) -> dict[str, Any]:
    if array.dtype.hasobject:
        content = _digest(_text(fingerprint(array.tolist())))
    else:
        content = _digest(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return {"array": array.dtype.str, "shape": list(array.shape), "hash": content}


def _object(value: Any) -> Any:
    root = type(value).__module__.partition(".")[0]
    if root == "pandas" and hasattr(value, "index"):
        return _frame(value)
    if root == "scipy" and hasattr(value, "tocsr"):
        rows = value.tocsr().sorted_indices()
        parts = [rows.data, rows.indices, rows.indptr]
        return {
            "sparse": [int(each) for each in value.shape],
            "parts": [fingerprint(each) for each in parts],
        }
    if hasattr(value, "get_params") and not isinstance(value, type):
        return {
            "class": class_name(value),
            "params": fingerprint(value.get_params(deep=False)),
        }
    if inspect.isbuiltin(value) or isinstance(value, np.ufunc):
        return {"source": value.__name__}
    return _other(value)


def _frame(frame: Any) -> Any:
    import pandas as pd

    columns = frame.columns if hasattr(frame, "columns") else [frame.name]
    dtypes = frame.dtypes if hasattr(frame, "columns") else [frame.dtype]
    try:
        rows = _array(pd.util.hash_pandas_object(frame).to_numpy())
    except TypeError:  # cells that pandas cannot hash, such as lists
        rows = fingerprint(frame.to_dict("list") if hasattr(frame, "columns") else frame.tolist())
    return {
        "frame": [str(each) for each in columns],
        "dtypes": [str(each) for each in dtypes],
        "rows": rows,
    }


def _other(value: Any) -> Any:
    described: dict[str, Any] = {"class": class_name(value)}
    state = getattr(value, "__dict__", None)
    if type(value).__module__ == "__main__" or callable(value):
        described["hash"] = _source(type(value))
        described["state"] = fingerprint(state)
        return described
    import joblib

    # Without content that can be compared a value is known by its class alone.
    with contextlib.suppress(pickle.PicklingError, TypeError, AttributeError, RecursionError):
        described["hash"] = joblib.hash(value)
    return described


def _source(named: Any) -> str:
    if getattr(named, "__name__", "") != "<lambda>":
        with contextlib.suppress(OSError, TypeError):  # typed into an interpreter, or compiled
            return _digest(textwrap.dedent(inspect.getsource(named)))
    code = getattr(named, "__code__", None)
    return _digest(_text(_code(code)) if code is not None else str(named.__qualname__))


def _code(code: types.CodeType) -> Any:
    constants = [
        _code(each)
        if isinstance(each, types.CodeType)
        else sorted(map(repr, each))
        if isinstance(each, frozenset)
        else repr(each)
        for each in code.co_consts
    ]
    return [code.co_code.hex(), constants, code.co_names, code.co_varnames, code.co_freevars]
