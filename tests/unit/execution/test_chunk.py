"""What the parent knows of a chunk in progress, and whom it holds to account."""

from __future__ import annotations

import math
from typing import Any

import pytest

from dspex.engine.ports import Evaluation
from dspex.errors import ProgramLoadError
from dspex.execution.chunk import Chunk
from dspex.execution.frames import BEGIN, END, LOAD_FAILED, LOADED, OUTCOME
from dspex.study.records import Failed, Measured
from dspex.study.trial import ErrorInfo, TrialState

MEASURED: Any = (1000.0, 0.1, [({"score": 0.5}, None, None, {})])
ERROR = ErrorInfo("kind", "message")


@pytest.fixture
def chunk() -> Chunk:
    limits = (5.0, 7.0, None)
    return Chunk([Evaluation(n, 0, 0, {}, left) for n, left in enumerate(limits)], "w")


def test_time_runs_from_an_evaluations_own_start(chunk: Chunk) -> None:
    chunk.take(LOADED)
    assert chunk.deadline == math.inf, "loading is nobody's time"
    chunk.take(BEGIN, 100.0, 1e9)
    assert chunk.deadline == 105.0
    chunk.take(OUTCOME, MEASURED, 104.0)
    assert chunk.deadline == 111.0
    chunk.take(OUTCOME, MEASURED, 110.0)
    assert chunk.deadline == math.inf, "no limit"
    chunk.take(END)
    assert chunk.deadline == math.inf


def test_the_one_that_runs_is_charged_and_the_rest_is_unstarted(chunk: Chunk) -> None:
    chunk.take(BEGIN, 100.0, 1e9)
    chunk.take(OUTCOME, MEASURED, 104.0)
    chunk.fail_current(TrialState.FAILED, ERROR)
    result = chunk.result()
    measured, failed = result.outcomes
    assert isinstance(measured, Measured)
    assert isinstance(failed, Failed)
    assert (failed.trial, failed.started, failed.error) == (1, 1e9 + 4.0, ERROR)
    assert result.unstarted == [Evaluation(2, 0, 0, {}, None)]


def test_nobody_is_charged_before_the_beginning_and_after_the_end(chunk: Chunk) -> None:
    chunk.fail_current(TrialState.FAILED, ERROR)
    assert chunk.result().outcomes == []
    chunk.take(BEGIN, 100.0, 1e9)
    chunk.take(OUTCOME, MEASURED, 104.0)
    chunk.take(END)  # patience was over
    chunk.fail_current(TrialState.FAILED, ERROR)
    assert [outcome.trial for outcome in chunk.result().outcomes] == [0]
    assert [evaluation.trial for evaluation in chunk.result().unstarted] == [1, 2]


def test_a_failed_load_flies(chunk: Chunk) -> None:
    with pytest.raises(ProgramLoadError, match=r"on w.*\nits traceback"):
        chunk.take(LOAD_FAILED, "its traceback")
