"""What can be said of the plain arguments of `optimize` before anything is built from them.

Knows: kinds and bounds of numbers and sequences. Must not know: what they are for.
Each function returns the argument in plain Python's types, which go into logs as JSON.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

from dspex.errors import InvalidArgumentError

__all__ = ["finite", "observers", "several_params", "transient", "whole"]


def whole(name: str, value: Any, *, least: int | None = None, instead: str = "None") -> int:
    """A whole number, at least `least`.

    Parameters
    ----------
    name : str
        The argument's.
    value : object
    least : int, optional
    instead : str
        What else the argument may be, for the message; empty for nothing.

    Examples
    --------
    >>> whole("trials", 100, least=1)
    100
    """
    bounds = "" if least is None else f" from {least}"
    if not isinstance(value, bool):
        try:
            number = operator.index(value)
        except TypeError:
            pass
        else:
            if least is None or number >= least:
                return number
    other = f", or {instead}" if instead else ""
    near = f"; pass {int(value)}" if isinstance(value, float) and value == value // 1 else ""
    raise InvalidArgumentError(f"{name} is a whole number{bounds}{other}; got {value!r}{near}")


def finite(name: str, value: Any) -> float:
    """A finite number."""
    if isinstance(value, Real) and abs(float(value)) < float("inf"):
        return float(value)
    raise InvalidArgumentError(f"{name} is a finite number, or None; got {value!r}")


def several_params(initial: Any) -> Sequence[Mapping[str, Any]]:
    """Params to be tried first."""
    if isinstance(initial, Mapping):
        raise InvalidArgumentError(
            f"initial is a list of params; got one dict, {initial!r}; pass [params]"
        )
    return list(initial)


def observers(callbacks: Any) -> Sequence[Any]:
    """What is called with every event."""
    if callable(callbacks):
        raise InvalidArgumentError(f"callbacks is a list; got {callbacks!r}; pass [callback]")
    given = list(callbacks)
    for each in given:
        if not callable(each):
            raise InvalidArgumentError(
                f"a callback is called with every event of the study; got {each!r}, which cannot "
                "be; pass a function of one argument"
            )
    return given


def transient(retry_on: Any) -> tuple[type[BaseException], ...]:
    """The classes of errors worth another try."""
    if isinstance(retry_on, type):
        raise InvalidArgumentError(
            f"retry_on is a list of exception classes; got {retry_on!r} alone; "
            f"pass [{retry_on.__name__}]"
        )
    given = tuple(retry_on)
    for each in given:
        if not (isinstance(each, type) and issubclass(each, BaseException)):
            raise InvalidArgumentError(
                f"retry_on is a list of exception classes, such as [ConnectionError]; got {each!r}"
            )
    return given
