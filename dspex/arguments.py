"""What can be said of the plain arguments of `optimize` before anything is built from them.

Knows: kinds and bounds of numbers and sequences. Must not know: what they are for.
Each function returns the argument in plain Python's types, which go into logs as JSON.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

from dspex.cluster.admission import LeaseRequest
from dspex.errors import InvalidArgumentError

__all__ = ["finite", "lease_request", "observers", "several_params", "transient", "whole"]

_RESOURCES = ("cpu_cores", "memory_gb", "gpus", "labels")
_LONGEST = 512
_MOST = 1_000_000


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


def lease_request(resources: Any, tenant: Any, priority: Any) -> LeaseRequest | None:
    """What each evaluation needs a lease of; None where no leases are wanted.

    Examples
    --------
    >>> print(lease_request({"cpu_cores": 2, "memory_gb": 4}, None, 0))
    2 cpu_cores, 4 memory_gb
    """
    priority = whole("priority", priority, instead="")
    if abs(priority) > _MOST:
        raise InvalidArgumentError(
            f"priority is a whole number from {-_MOST:,} to {_MOST:,}; got {priority}"
        )
    if resources is None and tenant is None:
        if priority:
            raise InvalidArgumentError(
                "priority orders requests for leases, which a study makes with resources= or "
                f"tenant=; got priority={priority} and neither; pass one, or drop it"
            )
        return None
    if tenant is not None and not _is_name(tenant):
        raise InvalidArgumentError(
            f"tenant is a name of 1 to {_LONGEST} printable characters, or None; got {tenant!r}"
        )
    if resources is None:
        return LeaseRequest(tenant=tenant, priority=priority, is_sized=False)
    if not isinstance(resources, Mapping) or not 0 < len(resources.keys() & set(_RESOURCES)) == len(
        resources
    ):
        raise InvalidArgumentError(
            f"resources is a dict with some of {', '.join(_RESOURCES)}, such as "
            f'{{"cpu_cores": 2, "memory_gb": 4}}; got {resources!r}'
        )
    return LeaseRequest(
        cpu_cores=_amount("cpu_cores", resources, 1.0),
        memory_gb=_amount("memory_gb", resources, 0.0),
        gpus=_amount("gpus", resources, 0.0),
        labels=_labels(resources.get("labels", ())),
        tenant=tenant,
        priority=priority,
    )


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _LONGEST and value.isprintable()


def _amount(name: str, resources: Mapping[str, Any], default: float) -> float:
    if name not in resources:
        return default
    value: Any = resources[name]
    if not isinstance(value, bool) and isinstance(value, Real) and 0 < float(value) < _MOST:
        return float(value)
    raise InvalidArgumentError(
        f"{name} of resources is a number above 0 and below {_MOST:,}; got {value!r}; leave out "
        "what an evaluation does not need"
    )


def _labels(labels: Any) -> tuple[str, ...]:
    given = [labels] if isinstance(labels, str) else labels
    if not isinstance(given, list | tuple | set | frozenset) or not all(map(_is_name, given)):
        raise InvalidArgumentError(
            f'labels of resources is a list of names, such as ["fast-disk"]; got {labels!r}'
        )
    return tuple(sorted(given))
