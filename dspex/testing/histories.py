"""What clients did and saw: calls, their results, and when they began and ended.

Knows: operations, a file to which several processes write, a picture of them as text.
Must not know: which results are right (`linearizability`), what was called.

A call is written down before it is made and a result after it has come, both with
``time.monotonic()``, which is one clock for all processes of a machine. So an operation took
effect between its two instants, and a process that is killed leaves an operation of unknown
outcome and at most one torn line.
"""

from __future__ import annotations

import json
import math
import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, final

__all__ = ["UNKNOWN", "Call", "History", "Operation", "read_histories", "timeline"]


@final
class _Unknown:
    """The class of `UNKNOWN`."""

    def __repr__(self) -> str:
        return "UNKNOWN"

    def __reduce__(self) -> str:
        return "UNKNOWN"


UNKNOWN: Final = _Unknown()
"""The result of an operation of which nobody knows whether it took effect."""


@final
@dataclass(frozen=True, slots=True)
class Operation:
    """One call of one client.

    Attributes
    ----------
    process : str
        Who called.
    key : str
    op : str
        What was called, in the words of a model.
    args : tuple
        Hashable.
    result : Any
        `UNKNOWN` where it took effect at any instant after `called`, or never.
    called, returned : float
        Seconds of one monotonic clock; `returned` is infinite where the result is not known.

    Examples
    --------
    >>> print(Operation("a", "x", "put", (5,), 1, called=0.0, returned=0.5))
    a: put(5) -> 1
    """

    process: str
    key: str
    op: str
    args: tuple[Any, ...]
    result: Any = UNKNOWN
    called: float = 0.0
    returned: float = math.inf

    def __post_init__(self) -> None:
        if not (-math.inf < self.called <= self.returned):
            raise ValueError(
                f"an operation returns after it was called; got {self.called!r} to "
                f"{self.returned!r} for {self}"
            )
        if (self.result is UNKNOWN) is not (self.returned == math.inf):
            raise ValueError(
                "an operation returns at infinity exactly where its result is UNKNOWN; got "
                f"{self.returned!r} for {self}"
            )

    def __str__(self) -> str:
        args = ", ".join(map(repr, self.args))
        return f"{self.process}: {self.op}({args}) -> {self.result!r}"


@final
class Call:
    """A call that is being made; see `History.calling`."""

    def __init__(self, write: Callable[[dict[str, Any]], None], number: str) -> None:
        self._write = write
        self._number = number

    def returned(self, result: Any) -> None:
        """Write down what it gave, right after it came."""
        self._write({"returned": self._number, "result": result})

    def had_no_effect(self) -> None:
        """Take the call back: it certainly did nothing, and never will."""
        self._write({"had_no_effect": self._number})


@final
class History:
    """Writes down what one process does; several may write to one file.

    What is written is plain JSON; lists are read as tuples.

    Parameters
    ----------
    path : path-like
        Of a file on this machine; appended to.
    process : str
    clock : callable
        Gives monotonic seconds, of a clock that all writers share.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with History(f"{folder}/calls", "a", clock=iter(range(9)).__next__) as history:
    ...         with history.calling("x", "put", 5) as call:
    ...             call.returned(1)
    ...     read_histories(f"{folder}/calls")
    [Operation(process='a', key='x', op='put', args=(5,), result=1, called=0, returned=1)]
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        process: str,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._process = process
        self._clock = clock
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self._calls = 0
        self._id = secrets.token_hex(6)

    def __enter__(self) -> History:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; may be called twice."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    @contextmanager
    def calling(self, key: str, op: str, *args: Any) -> Iterator[Call]:
        """Make a call in the block, and tell the `Call` what it gave.

        Its outcome is unknown where the block ends, by an error too, without a word.
        """
        self._calls += 1
        number = f"{self._id}-{self._calls}"
        self._write(
            {"called": number, "process": self._process, "key": key, "op": op, "args": args}
        )
        yield Call(self._write, number)

    def _write(self, event: dict[str, Any]) -> None:
        # One write per line, so that lines of several processes do not mix. It begins with a new
        # line because another process may have been killed within its own.
        line = f"\n{json.dumps({'at': self._clock(), **event})}\n".encode()
        written = os.write(self._file, line)
        if written != len(line):
            raise OSError(f"a history is kept whole; {written} of {len(line)} bytes were written")


def read_histories(*paths: str | os.PathLike[str]) -> list[Operation]:
    """Read all operations of these files, in the order in which they were called.

    A torn line is the last word of a process that was killed: it says nothing.

    Raises
    ------
    ValueError
        Where something returned that was not called.
    """
    calls: dict[str, dict[str, Any]] = {}
    for path in paths:
        with open(path, "rb") as file:
            for line in file:
                event = _parsed(line)
                if event is not None:
                    _take(calls, event)
    operations = [
        Operation(
            call["process"],
            call["key"],
            call["op"],
            _frozen(call["args"]),
            _frozen(call["result"]) if "returned" in call else UNKNOWN,
            call["at"],
            call.get("returned", math.inf),
        )
        for call in calls.values()
    ]
    return sorted(operations, key=lambda operation: operation.called)


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
    except ValueError:  # empty, or torn
        return None
    return event if isinstance(event, dict) else None


def _take(calls: dict[str, dict[str, Any]], event: dict[str, Any]) -> None:
    if "called" in event:
        calls[event["called"]] = event
        return
    number = event.get("returned", event.get("had_no_effect"))
    if number not in calls:
        raise ValueError(f"what returns was called before; this was not: {event}")
    if "returned" in event:
        calls[number].update(returned=event["at"], result=event["result"])
    else:
        del calls[number]


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def timeline(
    operations: Iterable[Operation], *, marked: Sequence[Operation] = (), last: int = 20
) -> str:
    """Draw operations one below the other, each from its call to its return.

    The scale is the order of calls and returns, not seconds. What never returned ends open.

    Parameters
    ----------
    operations : iterable of Operation
    marked : sequence of Operation
        Pointed at.
    last : int
        How many are drawn, those called last.

    Examples
    --------
    >>> put = Operation("a", "x", "put", (5,), 1, called=0.0, returned=2.0)
    >>> get = Operation("b", "x", "get", (), None, called=1.0, returned=3.0)
    >>> cut_off = Operation("c", "x", "delete", (), called=2.5)
    >>> print(timeline([put, get, cut_off], marked=[get]))
    [===]       a: put(5) -> 1
      [=====]   b: get() -> None  <--
          [===? c: delete() -> UNKNOWN
    """
    ordered = sorted(operations, key=lambda operation: operation.called)
    shown = ordered[max(0, len(ordered) - last) :]
    instants = {each.called for each in shown}
    instants |= {each.returned for each in shown if each.returned < math.inf}
    place = {instant: 2 * n for n, instant in enumerate(sorted(instants))}
    bars = []
    for each in shown:
        begin = place[each.called]
        end = place.get(each.returned, 2 * len(place))
        last_sign = "]" if each.returned < math.inf else "?"
        bars.append(" " * begin + "[" + "=" * (end - begin - 1) + last_sign)
    width = max(map(len, bars), default=0)
    lines = []
    if len(shown) < len(ordered):
        lines.append(f"... {len(ordered) - len(shown)} earlier operations")
    for bar, each in zip(bars, shown, strict=True):
        lines.append(f"{bar:{width}} {each}{'  <--' if each in marked else ''}")
    return "\n".join(lines)
