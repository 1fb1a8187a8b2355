"""Durations and sizes as people write them: "2h", "500MB".

Knows: Dask's own parsers. Must not know: what the numbers are for.
"""

from __future__ import annotations

from dspex.errors import InvalidArgumentError

__all__ = ["parse_bytes", "parse_seconds"]


def parse_seconds(name: str, value: float | str | None) -> float | None:
    """Seconds from a number or a Dask string; None stays None.

    Parameters
    ----------
    name : str
        The argument's name, for the error.
    value : float, str or None

    Raises
    ------
    InvalidArgumentError
        For what is no duration, and for one that is not more than 0.

    Examples
    --------
    >>> parse_seconds("timeout", "2h")
    7200.0
    """
    if value is None:
        return None
    try:
        seconds = float(_parsed_timedelta(value)) if isinstance(value, str) else float(value)
    except (TypeError, ValueError, KeyError):
        seconds = float("nan")
    if not seconds > 0:
        raise InvalidArgumentError(
            f'{name} is more than 0 seconds, or a string such as "90s" or "2h"; got {value!r}'
        )
    return seconds


def parse_bytes(name: str, value: float | str | None) -> int | None:
    """Bytes from a number or a Dask string; None stays None.

    Raises
    ------
    InvalidArgumentError
        For what is no size, and for one that is not more than 0.

    Examples
    --------
    >>> parse_bytes("memory_limit", "2GiB") == 2**31
    True
    """
    if value is None:
        return None
    try:
        size = _parsed_bytes(value) if isinstance(value, str) else int(value)
    except (TypeError, ValueError, KeyError):
        size = 0
    if size <= 0:
        raise InvalidArgumentError(
            f'{name} is more than 0 bytes, or a string such as "500MB" or "2GiB"; got {value!r}'
        )
    return size


# Dask is imported only where somebody writes a string: a study in this process does without.


def _parsed_timedelta(value: str) -> float:
    from dask.utils import parse_timedelta

    return float(parse_timedelta(value))


def _parsed_bytes(value: str) -> int:
    from dask.utils import parse_bytes as parse

    return int(parse(value))
