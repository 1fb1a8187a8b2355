"""What worker and evaluator child say to each other: length-prefixed pickles over pipes.

Knows: the form of every message. Must not know: processes, files, when a message is sent.

Parent to child: `Hello` once, then for each chunk ``(patience, [(trial, fold, attempt, params)])``,
and `STOP` while one runs. Child to parent: `LOADED` or ``(LOAD_FAILED, text)`` once, then for each
chunk `BEGIN` with the clocks, one outcome after another, `END`.

Outcomes travel as plain tuples: pickling frozen dataclasses with slots costs five times as much,
which tiny evaluations would feel.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, final

from dspex.study.measurement import Measurement
from dspex.study.records import Failed, Measured
from dspex.study.trial import ErrorInfo, TrialState

__all__ = [
    "BEGIN",
    "END",
    "LENGTH",
    "LOADED",
    "LOAD_FAILED",
    "OUTCOME",
    "STOP",
    "FrameReader",
    "Hello",
    "frame",
    "pack_outcome",
    "unpack_outcome",
]

LENGTH = struct.Struct("<I")

STOP = "stop"

LOADED = "loaded"
LOAD_FAILED = "load failed"
BEGIN = "begin"
OUTCOME = "outcome"
END = "end"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """What a new child is told first.

    Attributes
    ----------
    path : list of str
        The parent's ``sys.path``.
    python_path : str or None
        The parent's own ``PYTHONPATH``, for programs that start Python again.
    worker : str
        The name that outcomes carry.
    """

    path: list[str]
    python_path: str | None
    worker: str


def frame(message: object) -> bytes:
    """One message as it stands on a pipe.

    Examples
    --------
    >>> reader = FrameReader()
    >>> list(reader.feed(frame("a") + frame("b")[:-1])), list(reader.feed(frame("b")[-1:]))
    (['a'], ['b'])
    """
    body = pickle.dumps(message, protocol=5)
    return LENGTH.pack(len(body)) + body


@final
class FrameReader:
    """Cuts what arrives on a pipe into messages."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Any]:
        """Take bytes; give the messages that are now complete."""
        buffer = self._buffer
        buffer += data
        position = 0
        end = len(buffer)
        try:
            while end - position >= LENGTH.size:
                (length,) = LENGTH.unpack_from(buffer, position)
                start = position + LENGTH.size
                if end - start < length:
                    break
                position = start + length
                yield pickle.loads(bytes(buffer[start:position]))
        finally:
            del buffer[:position]


def pack_outcome(outcome: Measured | Failed) -> tuple[Any, ...]:
    """Take from an outcome what the parent does not know yet."""
    if isinstance(outcome, Measured):
        steps = [(s.scores, s.cost, s.feedback, s.constraints) for s in outcome.steps]
        return (outcome.started, outcome.seconds, steps)
    error = outcome.error
    return (
        outcome.started,
        outcome.seconds,
        (error.kind, error.message, error.traceback),
        int(outcome.state),
        outcome.may_retry,
    )


def unpack_outcome(
    parts: tuple[Any, ...], *, trial: int, fold: int, attempt: int, worker: str
) -> Measured | Failed:
    """Make the outcome again."""
    if len(parts) == 3:
        started, seconds, steps = parts
        return Measured(
            trial=trial,
            fold=fold,
            attempt=attempt,
            steps=tuple(
                Measurement(scores=scores, cost=cost, feedback=feedback, constraints=constraints)
                for scores, cost, feedback, constraints in steps
            ),
            worker=worker,
            started=started,
            seconds=seconds,
        )
    started, seconds, error, state, may_retry = parts
    return Failed(
        trial=trial,
        fold=fold,
        attempt=attempt,
        state=TrialState(state),
        error=ErrorInfo(*error),
        worker=worker,
        started=started,
        seconds=seconds,
        may_retry=may_retry,
    )
