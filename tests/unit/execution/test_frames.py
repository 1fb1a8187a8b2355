"""Messages survive pipes that cut them anywhere; outcomes come back equal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspex.execution.frames import FrameReader, frame, pack_outcome, unpack_outcome
from dspex.study.measurement import Measurement
from dspex.study.records import Failed, Measured
from dspex.study.trial import ErrorInfo, TrialState


@given(messages=st.lists(st.binary(max_size=50)), size=st.integers(1, 60))
def test_frames_may_be_cut_anywhere(messages: list[bytes], size: int) -> None:
    stream = b"".join(map(frame, messages))
    reader = FrameReader()
    got = [
        message
        for begin in range(0, len(stream), size)
        for message in reader.feed(stream[begin : begin + size])
    ]
    assert got == messages


@pytest.mark.parametrize(
    "outcome",
    [
        Measured(
            trial=1,
            fold=2,
            attempt=3,
            steps=(
                Measurement(0.5),
                Measurement({"a": 1.0, "b": 2.0}, cost=3.0, feedback="f", constraints={"c": 4.0}),
            ),
            worker="w",
            started=5.0,
            seconds=6.0,
        ),
        Failed(
            trial=1,
            fold=2,
            attempt=3,
            state=TrialState.FAILED,
            error=ErrorInfo("kind", "message", "traceback"),
            worker="w",
            started=5.0,
            seconds=6.0,
            may_retry=True,
        ),
    ],
)
def test_outcomes_come_back_equal(outcome: Measured | Failed) -> None:
    (parts,) = FrameReader().feed(frame(pack_outcome(outcome)))
    assert unpack_outcome(parts, trial=1, fold=2, attempt=3, worker="w") == outcome
