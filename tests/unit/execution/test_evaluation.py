"""One evaluation becomes exactly one outcome, whatever the program does."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest

from dspex.engine.ports import Evaluation
from dspex.execution.evaluation import INVALID_SCORE, evaluate
from dspex.programs.base import RunningTrial
from dspex.space import Float, Space
from dspex.study.measurement import Measurement
from dspex.study.records import Failed, Measured, encode
from dspex.study.trial import TrialState

SPACE = Space({"x": Float(0.0, 1.0)})
Function = Callable[[Mapping[str, Any], RunningTrial], Any]


class Program:
    def __init__(self, function: Function) -> None:
        self.function = function

    def space(self) -> Space | None:
        return SPACE

    def prepare(self, data: Any) -> None:
        pass

    def evaluate(self, params: Mapping[str, Any], trial: RunningTrial) -> Any:
        return self.function(params, trial)

    def finish(self, params: Mapping[str, Any]) -> Any:
        return None


@pytest.fixture(autouse=True)
def _global_generators() -> Iterator[None]:
    python_state, numpy_state = random.getstate(), np.random.get_state()
    yield
    random.setstate(python_state)
    np.random.set_state(numpy_state)


def run(function: Function, **options: Any) -> Measured | Failed:
    evaluation = Evaluation(3, 1, 2, {"x": 0.5})
    return evaluate(Program(function), SPACE, evaluation, seed=7, worker="w", **options)


def failed(function: Function, **options: Any) -> Failed:
    outcome = run(function, **options)
    assert isinstance(outcome, Failed), outcome
    assert outcome.state is TrialState.FAILED
    encode([outcome])
    return outcome


def scores(function: Function, **options: Any) -> list[float]:
    outcome = run(function, **options)
    assert isinstance(outcome, Measured), outcome
    encode([outcome])
    return [step.score for step in outcome.steps]


def test_a_measurement_keeps_who_where_and_when() -> None:
    outcome = run(lambda params, trial: Measurement(params["x"]))
    assert isinstance(outcome, Measured)
    assert (outcome.trial, outcome.fold, outcome.attempt, outcome.worker) == (3, 1, 2, "w")
    assert outcome.started > 1e9
    assert 0 <= outcome.seconds < 60


@pytest.mark.parametrize("returned", [2, 2.0, np.float32(2), {"score": 2}, Measurement(2.0)])
def test_what_may_be_returned(returned: Any) -> None:
    assert scores(lambda params, trial: returned) == [2.0]


def test_reported_measurements_come_first() -> None:
    def reporting(params: Mapping[str, Any], trial: RunningTrial) -> float:
        trial.report(1.0)
        trial.report({"score": 2.0})
        return 3.0

    def generating(params: Mapping[str, Any], trial: RunningTrial) -> Iterator[float]:
        yield 3.0
        trial.report(1.0)
        yield 4.0

    assert scores(reporting) == [1.0, 2.0, 3.0]
    assert scores(generating) == [1.0, 3.0, 4.0]


def test_an_iterator_ends_when_nobody_waits_and_is_closed_at_once() -> None:
    closed: list[bool] = []

    def endless(params: Mapping[str, Any], trial: RunningTrial) -> Iterator[float]:
        try:
            while True:
                yield 1.0
        finally:
            closed.append(True)

    assert scores(endless, should_stop=lambda: True) == [1.0]
    assert closed == [True]


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        (None, "None"),
        ("good", "'good'"),
        (float("nan"), "nan"),
        ({"a": 1.0, "b": float("-inf")}, "'b' is -inf"),
        (Measurement(1.0, cost=float("inf")), "cost"),
        (Measurement(1.0, constraints={"latency": float("nan")}), "latency"),
        (Measurement(1.0, feedback=3), "feedback"),  # type: ignore[arg-type]
        (iter(()), "no measurement"),
        (iter([1.0, None]), "None"),
        ({}, "none"),
    ],
)
def test_what_is_no_score_is_a_failure_in_words(returned: Any, words: str) -> None:
    error = failed(lambda params, trial: returned).error
    assert error.kind == INVALID_SCORE
    assert words in error.message
    assert error.traceback == ""


def test_a_reported_nan_is_a_failure_too() -> None:
    def reporting(params: Mapping[str, Any], trial: RunningTrial) -> float:
        trial.report(float("nan"))
        return 1.0

    assert failed(reporting).error.kind == INVALID_SCORE


def test_the_traceback_is_the_programs_own() -> None:
    def program(params: Mapping[str, Any], trial: RunningTrial) -> float:
        return 1 / 0

    error = failed(program).error
    assert error.kind == "ZeroDivisionError"
    assert error.message == "division by zero"
    assert error.traceback.startswith("Traceback (most recent call last):")
    assert "execution/evaluation.py" not in error.traceback
    assert "1 / 0" in error.traceback


def test_an_error_without_foreign_frames_keeps_all_of_its_frames() -> None:
    outcome = evaluate(
        Program(lambda params, trial: 1.0),
        None,  # type: ignore[arg-type]
        Evaluation(0, 0, 0, {}),
        seed=1,
        worker="w",
    )
    assert isinstance(outcome, Failed)
    assert "execution/evaluation.py" in outcome.error.traceback


def test_an_exception_that_cannot_be_printed() -> None:
    class UnprintableError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    def program(params: Mapping[str, Any], trial: RunningTrial) -> float:
        raise UnprintableError

    assert failed(program).error.kind == "UnprintableError"


def test_long_messages_are_cut() -> None:
    def program(params: Mapping[str, Any], trial: RunningTrial) -> float:
        raise ValueError("x" * 1_000_000 + "the end")

    error = failed(program).error
    assert len(error.message) + len(error.traceback) < 50_000
    assert error.message.endswith("the end")


def test_may_retry_is_what_the_user_named() -> None:
    def program(params: Mapping[str, Any], trial: RunningTrial) -> float:
        raise FileNotFoundError("gone")

    assert failed(program, retry_on=(OSError,)).may_retry
    assert not failed(program, retry_on=(ValueError,)).may_retry
    assert not failed(program).may_retry


def test_leaving_is_a_failure_and_an_interrupt_is_the_users() -> None:
    def leaving(params: Mapping[str, Any], trial: RunningTrial) -> float:
        raise SystemExit(1)

    def interrupting(params: Mapping[str, Any], trial: RunningTrial) -> float:
        raise KeyboardInterrupt

    assert failed(leaving).error.kind == "SystemExit"
    with pytest.raises(KeyboardInterrupt):
        run(interrupting)
    assert failed(interrupting, passes=()).error.kind == "KeyboardInterrupt"


def test_global_generators_are_seeded_from_the_trial() -> None:
    def drawing(params: Mapping[str, Any], trial: RunningTrial) -> Measurement:
        return Measurement(
            {"python": random.random(), "numpy": np.random.random(), "own": trial.rng.random()}
        )

    first, second = run(drawing), run(drawing)
    assert isinstance(first, Measured)
    assert isinstance(second, Measured)
    assert first.steps == second.steps
    other = evaluate(Program(drawing), SPACE, Evaluation(3, 2, 2, {"x": 0.5}), seed=7, worker="w")
    assert isinstance(other, Measured)
    assert other.steps != first.steps
