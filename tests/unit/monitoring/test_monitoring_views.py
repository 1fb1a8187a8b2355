from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspex.errors import InvalidArgumentError
from dspex.monitoring.views import (
    best_trial,
    improvements,
    in_order,
    objective_named,
    params_text,
    pareto_mask,
    scores_of,
)
from dspex.study.goal import Goal
from dspex.study.trial import Trial, TrialState

MakeTrial = Callable[..., Trial]


def test_the_best_violates_least_then_scores_best_then_came_first(make_trial: MakeTrial) -> None:
    trials = [
        make_trial(0, 9.0, violation=1.0),
        make_trial(1, 5.0),
        make_trial(2, 7.0),
        make_trial(3, 7.0),
        make_trial(4),
    ]
    assert [t.number for t in in_order(trials, Goal.of("maximize"))] == [2, 3, 1, 0]
    best = best_trial(trials, Goal.of("minimize"))
    assert best is not None
    assert best.number == 1
    assert best_trial(trials[4:], Goal.of("minimize")) is None


def test_scores_of_other_objectives_and_of_unfinished_trials(make_trial: MakeTrial) -> None:
    goal = Goal.of({"auc": "maximize", "latency": "minimize"})
    trials = [
        make_trial(0, 0.5, scores={"auc": 0.5, "latency": 2.0}),
        make_trial(1, None, state=TrialState.RUNNING, scores={}),
        make_trial(2, 0.7, scores={"auc": 0.7}),
    ]
    np.testing.assert_array_equal(
        scores_of(trials, goal, goal.objectives[1]), [2.0, np.nan, np.nan]
    )
    np.testing.assert_array_equal(scores_of(trials, goal, goal.objectives[0]), [0.5, np.nan, 0.7])


@given(st.lists(st.floats(-5, 5) | st.just(float("nan")), max_size=30), st.sampled_from([-1, 1]))
def test_improvements_are_the_records(scores: list[float], sign: int) -> None:
    values = np.array(scores, dtype=np.float64)
    found = list(improvements(values, np.ones(len(values), dtype=bool), float(sign)))
    best = np.inf
    expected = []
    for i, value in enumerate(values):
        if sign * value < best:
            best = sign * value
            expected.append(i)
    assert found == expected


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=25))
def test_the_front_is_what_nothing_dominates(points: list[tuple[int, int]]) -> None:
    losses = np.array(points, dtype=np.float64).reshape(-1, 2)
    expected = [
        not any((other <= row).all() and (other < row).any() for other in losses) for row in losses
    ]
    assert pareto_mask(losses).tolist() == expected


def test_a_row_without_all_losses_is_not_on_the_front() -> None:
    assert pareto_mask(np.array([[0.0, np.nan], [5.0, 5.0]])).tolist() == [False, True]


def test_an_unknown_objective_is_refused_by_name() -> None:
    with pytest.raises(InvalidArgumentError, match=r"'auc'.*got 'f1'"):
        objective_named(Goal.of({"auc": "maximize"}), "f1")


def test_long_params_are_cut() -> None:
    text = params_text({"name": "x" * 500})
    assert len(text) == 160
    assert text.endswith("…")
