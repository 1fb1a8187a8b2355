"""Records go through JSON without loss."""

import json
import math
from typing import Any

import pytest

from dspex.errors import StorageCorruptError
from dspex.study.measurement import Measurement
from dspex.study.records import Asked, Failed, Measured, Opened, Record, Stopped, decode, encode
from dspex.study.trial import ErrorInfo, TrialState

WHERE: dict[str, Any] = {
    "trial": 3,
    "fold": 1,
    "attempt": 2,
    "worker": "tcp://w",
    "started": 1.5,
    "seconds": 0.1,
}
RECORDS: list[Record] = [
    Opened(head={"seed": 2**62, "space": {"x": [1, 2]}}, time=0.1),
    Asked(first=0, told=0, by=["tpe"], params=[{"x": 0.1 + 0.2, "kind": None, "b": True}]),
    Measured(**WHERE, steps=(Measurement(0.1), Measurement({"a": 1e-300, "b": -0.0}))),
    Measured(
        **WHERE,
        steps=(Measurement({"scores": 1}, cost=2, feedback="ß", constraints={"c": 1}),),
    ),
    Failed(**WHERE, state=TrialState.TIMED_OUT, error=ErrorInfo("E", "m", "t\n")),
    Stopped(reason="trials", time=2.0),
]


def test_records_round_trip() -> None:
    assert decode(encode(RECORDS)) == RECORDS


def test_a_log_is_plain_json() -> None:
    assert [each["kind"] for each in json.loads(encode(RECORDS))] == [
        "opened",
        "asked",
        "measured",
        "measured",
        "failed",
        "stopped",
    ]


@pytest.mark.parametrize("text", ["", "{}", "[1]", '[{"kind": "x"}]', '[{"kind": "asked"}]', "[{"])
def test_a_damaged_batch_is_refused(text: str) -> None:
    if text == "{}":
        assert decode("[]") == []
    else:
        with pytest.raises(StorageCorruptError, match="cannot be read"):
            decode(text)


def test_scores_that_are_not_finite_never_reach_a_log() -> None:
    with pytest.raises(ValueError, match="JSON"):
        encode([Measured(**WHERE, steps=(Measurement(math.nan),))])
