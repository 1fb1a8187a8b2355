"""The fold of the records."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

from dspex.space import Float, Space
from dspex.study.goal import Goal
from dspex.study.measurement import Measurement
from dspex.study.records import Asked, Failed, Measured, Record
from dspex.study.state import StudyState
from dspex.study.trial import ErrorInfo, TrialState

SPACE = Space({"x": Float(0, 1)})


def asked(count: int, first: int = 0) -> Asked:
    params = [{"x": (first + i) / 100} for i in range(count)]
    return Asked(first=first, told=0, by=["random"] * count, params=params)


def measured(trial: int, value: Any, *, fold: int = 0, **fields: Any) -> Measured:
    steps = value if isinstance(value, tuple) else (Measurement(value),)
    where: dict[str, Any] = {
        "attempt": 0,
        "worker": "w",
        "started": 10.0 + fold,
        "seconds": 2.0,
    } | fields
    return Measured(trial=trial, fold=fold, steps=steps, **where)


def failed(trial: int, *, fold: int = 0) -> Failed:
    error = ErrorInfo("ValueError", "no")
    return Failed(
        trial=trial,
        fold=fold,
        attempt=0,
        state=TrialState.FAILED,
        error=error,
        worker="w",
        started=1.0,
        seconds=1.0,
    )


def test_a_trial_has_one_outcome() -> None:
    state = StudyState(SPACE, Goal.of("minimize"))
    state.replay([asked(1), measured(0, 1.0), measured(0, 0.5), failed(0)])
    assert state.trial(0).score == 1.0
    assert (state.n_ended, state.n_failed) == (1, 0)


def test_folds_are_averaged_in_the_order_of_folds() -> None:
    values = [0.1, 0.7, 0.2, 1e-17, 0.3]
    outcomes = set()
    for order in itertools.islice(itertools.permutations(range(5)), 0, 120, 7):
        state = StudyState(SPACE, Goal.of("maximize"), folds=5)
        state.apply(asked(1))
        state.replay(measured(0, values[fold], fold=fold) for fold in order)
        trial = state.trial(0)
        assert trial.fold_scores == tuple(values)
        outcomes.add(trial.score)
    assert len(outcomes) == 1


def test_a_trial_is_running_between_its_folds() -> None:
    state = StudyState(SPACE, Goal.of("maximize"), folds=2)
    state.replay([asked(2), measured(0, 1.0, fold=1)])
    trial = state.trial(0)
    assert trial.state is TrialState.RUNNING
    assert trial.score is None
    assert math.isnan(trial.fold_scores[0])
    assert trial.finished is None
    assert state.trial(1).state is TrialState.WAITING
    assert state.trial(1).worker is None


def test_the_best_is_feasible_then_least() -> None:
    state = StudyState(SPACE, Goal.of("maximize", {"latency": ("le", 1.0)}))
    state.apply(asked(3))
    for trial, (score, latency) in enumerate([(9.0, 2.0), (5.0, 1.0), (7.0, 0.5)]):
        state.apply(measured(trial, {"score": score, "latency": latency}))
    best = state.best()
    assert best is not None
    assert (best.number, best.score) == (2, 7.0)
    assert state.trial(0).violation == 1.0
    assert best.scores == {"score": 7.0, "latency": 0.5}


def test_extra_names_are_recorded_and_averaged() -> None:
    state = StudyState(SPACE, Goal.of({"auc": "maximize"}), folds=2)
    state.apply(asked(1))
    state.apply(measured(0, {"auc": 1.0, "size": 10}, fold=1))
    state.apply(measured(0, {"auc": 0.5, "size": 20}, fold=0))
    assert state.trial(0).scores == {"auc": 0.75, "size": 15.0}


def test_steps_along_the_way_are_kept() -> None:
    state = StudyState(SPACE, Goal.of("minimize"))
    steps = (Measurement(3.0), Measurement(2.0), Measurement(1.0))
    state.replay([asked(1), measured(0, steps)])
    trial = state.trial(0)
    assert trial.score == 1.0
    assert trial.measurements == steps


def test_the_front_holds_who_is_not_dominated() -> None:
    state = StudyState(SPACE, Goal.of({"a": "minimize", "b": "maximize"}))
    points = [(1, 1), (2, 3), (2, 2), (3, 3), (0, 0), (1, 1)]
    state.apply(asked(len(points)))
    for trial, (a, b) in enumerate(points):
        state.apply(measured(trial, {"a": a, "b": b}))
    assert state.front() == [0, 1, 4, 5]


def test_times_span_all_evaluations() -> None:
    state = StudyState(SPACE, Goal.of("minimize"), folds=2)
    state.apply(asked(1))
    state.apply(measured(0, 1.0, fold=1, started=20.0, seconds=1.0))
    state.apply(measured(0, 1.0, fold=0, started=5.0, seconds=2.0, attempt=1))
    trial = state.trial(0)
    assert (trial.started, trial.finished, trial.seconds) == (5.0, 21.0, 3.0)
    assert trial.attempts == 2


def test_completed_trials_are_told_in_log_order_or_by_number() -> None:
    records: list[Record] = [asked(3), measured(2, 2.0), failed(0), measured(1, 1.0)]
    arrival = StudyState(SPACE, Goal.of("maximize"))
    arrival.replay(records)
    told = arrival.completed(2)
    assert told.numbers.tolist() == [2, 0]
    np.testing.assert_array_equal(told.losses, [[-2.0], [np.nan]])
    assert told.finite.tolist() == [True, False]
    assert told.since(1).numbers.tolist() == [0]
    ordered = StudyState(SPACE, Goal.of("maximize"), reproducible=True)
    ordered.replay(records)
    assert ordered.completed(2).numbers.tolist() == [0, 1]


def test_a_view_does_not_change_when_the_study_goes_on() -> None:
    state = StudyState(SPACE, Goal.of("minimize"))
    state.replay([asked(2), measured(0, 1.0)])
    view = state.completed(1)
    state.apply(asked(100, first=2))
    for number in range(1, 102):
        state.apply(measured(number, float(number)))
    assert view.numbers.tolist() == [0]
    assert view.losses.tolist() == [[1.0]]


@pytest.mark.parametrize("folds", [1, 5])
def test_memory_per_trial_is_small(folds: int) -> None:
    state = StudyState(SPACE, Goal.of("minimize"), folds=folds)
    state.apply(asked(5000))
    assert state.nbytes / 5000 < 400
