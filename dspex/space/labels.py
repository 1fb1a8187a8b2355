"""How the options of a choice are called in params and in logs.

Knows: labels (plain values that JSON keeps) and the objects that they stand for.
Must not know: rows, units, spaces.

A label is the same in every process: nothing with an address or an id in it is let through.
1, 1.0 and True are three labels: labels are compared by type and value.
"""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any, TypeAlias

import numpy as np

from dspex.errors import InvalidSpaceError

__all__ = ["Scalar", "find", "is_label", "key", "label_of", "plain", "same"]

Scalar: TypeAlias = str | int | float | bool | None
"""What params hold: labels and plain numbers."""

_PLAIN = (str, int, float, bool, type(None))
_ADDRESS = re.compile(r"\b0x[0-9a-fA-F]{4,}")
_LONGEST = 80
_REMEDY = "name it yourself, with a dict of label -> object"


def plain(value: Any) -> Any:
    """A numpy scalar as the Python value that it holds; anything else as it is."""
    return value.item() if isinstance(value, np.generic) else value


def is_label(value: Any) -> bool:
    """Whether ``value`` can stand in params and in JSON as it is."""
    return type(value) in _PLAIN and not (type(value) is float and not math.isfinite(value))


def key(label: Scalar) -> tuple[type, Scalar]:
    """What tells labels apart: type and value."""
    return type(label), label


def label_of(option: Any) -> Scalar:
    """The label of an option that was given none.

    Raises
    ------
    InvalidSpaceError
        Where it has no name that is the same in every process.

    Examples
    --------
    >>> label_of("rbf"), label_of(None), label_of(np.tanh), label_of((100, 50))
    ('rbf', None, 'tanh', '(100, 50)')
    """
    option = plain(option)
    if is_label(option):
        return option  # type: ignore[no-any-return]
    if type(option) is float:
        if math.isnan(option):
            raise InvalidSpaceError(f"NaN equals nothing, so it is no label; {_REMEDY}")
        return repr(option)
    if isinstance(option, enum.Enum):
        return f"{type(option).__name__}.{option.name}"
    name = getattr(option, "__name__", None)
    if callable(option) and isinstance(name, str):
        if name == "<lambda>":
            raise InvalidSpaceError(f"a lambda has no name to serve as a label; {_REMEDY}")
        return name
    if isinstance(option, Sequence | Mapping):
        return _shortened(repr(_plain_inside(option)))
    if _prints_address(option):
        raise InvalidSpaceError(
            f"an option has a name that is the same in every process; "
            f"{type(option).__name__} objects print as an address; {_REMEDY}"
        )
    return _shortened(repr(option))


def _plain_inside(value: Any) -> Any:
    if isinstance(value, list | tuple) and type(value) in (list, tuple):
        return type(value)(_plain_inside(each) for each in value)
    return plain(value)


def _prints_address(option: Any) -> bool:
    printer: Any = type(option).__repr__
    return printer is object.__repr__


def _shortened(text: str) -> str:
    text = " ".join(text.split())
    if _ADDRESS.search(text):
        raise InvalidSpaceError(
            f"an option has a name that is the same in every process; {text[:_LONGEST]} has an "
            f"address in it; {_REMEDY}"
        )
    if len(text) <= _LONGEST:
        return text
    # The hash keeps long names that begin alike apart.
    return f"{text[: _LONGEST - 10]}~{blake2b(text.encode(), digest_size=4).hexdigest()}"


def same(one: Any, other: Any) -> bool:
    """Whether two objects are the same option, whatever their ``==`` does.

    Identity, else equality, else (for objects that came from another process, as estimators do,
    whose ``==`` is identity) the same type and the same repr without an address.
    """
    if one is other:
        return True
    if is_label(one) or is_label(other):
        return type(one) is type(other) and bool(one == other)
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        return type(one) is type(other) and bool(np.array_equal(one, other))
    if type(one) is not type(other):
        return False
    try:
        if (one == other) is True:
            return True
    except Exception:  # a user's == may raise anything; it does not say that they are the same
        return False
    if _prints_address(one) or isinstance(one, type):
        return False
    text = repr(one)
    return text == repr(other) and not _ADDRESS.search(text) and "..." not in text


def find(labels: Sequence[Scalar], objects: Sequence[Any], value: Any) -> list[int]:
    """The positions of the options that ``value`` names, by label first, else by object.

    An int and a float that are equal name each other where nothing fits better, because tables
    and JSON writers turn one into the other.
    """
    value = plain(value)
    if is_label(value):
        hits = [i for i, label in enumerate(labels) if key(label) == key(value)]
        if hits:
            return hits
    hits = [i for i, each in enumerate(objects) if same(each, value)]
    if not hits and type(value) in (int, float):
        hits = [i for i, each in enumerate(labels) if type(each) in (int, float) and each == value]
    return hits
