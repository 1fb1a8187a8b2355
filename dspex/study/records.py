"""The records of a study's log: what happened, in order.

Knows: the record types, and their form as JSON (no pickle is needed to read a log).
Must not know: where records are kept, what they add up to (`study.state`).

A batch of records is one JSON array; each record is an object whose ``"kind"`` names its type.
Infinities and NaN never stand in a log: a score that is not finite makes a failed evaluation.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, final

from dspex.errors import StorageCorruptError
from dspex.study.measurement import Measurement
from dspex.study.trial import ErrorInfo, TrialState

__all__ = [
    "Asked",
    "Failed",
    "Measured",
    "Opened",
    "Record",
    "Stopped",
    "decode",
    "encode",
]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A session of the study began: first the study itself, later each resume.

    Attributes
    ----------
    head : mapping
        What identifies the study, as JSON: ``space``, ``goal``, ``strategy``, ``seed``, ``k``,
        ``block``, ``reproducible``, ``folds``, ``data``, ``program``, ``versions`` ...
    time : float
        Unix time in seconds.
    """

    head: Mapping[str, Any]
    time: float


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Trials were suggested.

    Attributes
    ----------
    first : int
        The number of the first of them; the others follow without a gap.
    told : int
        How many ended trials, in the order of the log (or of their numbers, where the study is
        reproducible), the strategy had been told. With it every suggestion can be derived again.
    by : sequence of str
        Who proposed each.
    params : sequence of mapping
        The params of each, labels and plain numbers.
    """

    first: int
    told: int
    by: Sequence[str]
    params: Sequence[Mapping[str, Any]]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One evaluation (of one fold) was measured.

    Attributes
    ----------
    trial, fold, attempt : int
        From 0; a second attempt is 1.
    steps : tuple of Measurement
        All measurements in order; the last is the outcome.
    worker : str
    started : float
        Unix time in seconds on the worker.
    seconds : float
        The evaluation's duration.
    """

    trial: int
    fold: int
    attempt: int
    steps: tuple[Measurement, ...]
    worker: str
    started: float
    seconds: float


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """One evaluation failed, and its trial with it.

    Attributes
    ----------
    state : TrialState
        FAILED or TIMED_OUT.
    error : ErrorInfo
    may_retry : bool
        Whether the error is one of ``retry_on``; not kept in the log.
    """

    trial: int
    fold: int
    attempt: int
    state: TrialState
    error: ErrorInfo
    worker: str
    started: float
    seconds: float
    may_retry: bool = False


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped:
    """A session of the study ended in order."""

    reason: str
    time: float


Record: TypeAlias = Opened | Asked | Measured | Failed | Stopped


def _measurement_to_json(step: Measurement) -> Any:
    # The common case, bare scores, is an object without a marker of its own.
    if step.cost is None and step.feedback is None and not step.constraints:
        return dict(step.scores)
    return {
        "scores": dict(step.scores),
        "cost": step.cost,
        "feedback": step.feedback,
        "constraints": dict(step.constraints),
    }


def _measurement_from_json(value: dict[str, Any]) -> Measurement:
    if type(value.get("scores")) is dict:
        return Measurement(**value)
    # JSON keeps 1.0 a float, but a log that a person wrote may say 1.
    return Measurement.of_checked({name: float(score) for name, score in value.items()})


def _measured_to_json(record: Measured) -> dict[str, Any]:
    return {
        "kind": "measured",
        "trial": record.trial,
        "fold": record.fold,
        "attempt": record.attempt,
        "steps": [_measurement_to_json(step) for step in record.steps],
        "worker": record.worker,
        "started": record.started,
        "seconds": record.seconds,
    }


def _measured_from_json(fields: dict[str, Any]) -> Measured:
    fields["steps"] = tuple(map(_measurement_from_json, fields["steps"]))
    return Measured(**fields)


def _failed_to_json(record: Failed) -> dict[str, Any]:
    return {
        "kind": "failed",
        "trial": record.trial,
        "fold": record.fold,
        "attempt": record.attempt,
        "state": record.state.name,
        "error": [record.error.kind, record.error.message, record.error.traceback],
        "worker": record.worker,
        "started": record.started,
        "seconds": record.seconds,
    }


def _failed_from_json(fields: dict[str, Any]) -> Failed:
    fields["state"] = TrialState[fields["state"]]
    fields["error"] = ErrorInfo(*fields["error"])
    return Failed(**fields)


_TO_JSON: dict[type, Callable[[Any], dict[str, Any]]] = {
    Opened: lambda r: {"kind": "opened", "head": dict(r.head), "time": r.time},
    Asked: lambda r: {
        "kind": "asked",
        "first": r.first,
        "told": r.told,
        "by": list(r.by),
        "params": [dict(each) for each in r.params],
    },
    Measured: _measured_to_json,
    Failed: _failed_to_json,
    Stopped: lambda r: {"kind": "stopped", "reason": r.reason, "time": r.time},
}

_FROM_JSON: dict[str, Callable[[dict[str, Any]], Record]] = {
    "opened": lambda f: Opened(**f),
    "asked": lambda f: Asked(**f),
    "measured": _measured_from_json,
    "failed": _failed_from_json,
    "stopped": lambda f: Stopped(**f),
}


def encode(records: Sequence[Record]) -> str:
    """Records as one line of JSON.

    Examples
    --------
    >>> text = encode([Stopped(reason="trials", time=1.0)])
    >>> text
    '[{"kind":"stopped","reason":"trials","time":1.0}]'
    >>> decode(text)
    [Stopped(reason='trials', time=1.0)]
    """
    return json.dumps(
        [_TO_JSON[type(record)](record) for record in records],
        separators=(",", ":"),
        allow_nan=False,
    )


def decode(text: str) -> list[Record]:
    """The inverse of `encode`.

    Raises
    ------
    StorageCorruptError
        Where the text is not a batch of records.
    """
    try:
        return [_FROM_JSON[fields.pop("kind")](fields) for fields in json.loads(text)]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StorageCorruptError(
            f"a batch of a study's log is a JSON array of records; this one begins {text[:80]!r} "
            f"and cannot be read ({error}); restore the store from a copy"
        ) from error
