from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from dspex.errors import InvalidArgumentError
from dspex.monitoring.importance import MINIMUM_TRIALS, importances
from dspex.space import Bool, Choice, Float, Int, Space
from dspex.study.goal import Goal
from dspex.study.trial import Trial

MakeTrial = Callable[..., Trial]


def sampled(
    make_trial: MakeTrial,
    space: Space,
    score: Callable[[Mapping[str, Any]], float],
    n: int = 300,
    seed: int = 1,
) -> list[Trial]:
    found = space.sample(n, seed=seed)
    assert isinstance(found, list)
    return [make_trial(i, score(params), params=params) for i, params in enumerate(found)]


def test_known_weights_are_ranked_and_noise_gets_next_to_nothing(make_trial: MakeTrial) -> None:
    space = Space({name: Float(0, 1) for name in "abcd"})
    trials = sampled(make_trial, space, lambda p: 10 * p["a"] + 3 * p["b"] + p["c"])
    found = importances(trials, space, Goal.of("maximize"))
    assert list(found)[:2] == ["a", "b"]
    assert found["a"] > 2 * found["b"]
    assert found["d"] < 0.05
    assert sum(found.values()) == pytest.approx(1.0)


def test_the_direction_is_the_goals(make_trial: MakeTrial) -> None:
    # Only where y is low does x matter, so that the answer depends on which end is the good one.
    space = Space({"x": Float(0, 1), "y": Float(0, 1)})
    trials = sampled(make_trial, space, lambda p: p["x"] if p["y"] > 0.5 else -1.0, n=400)
    upwards = importances(trials, space, Goal.of("maximize"))
    downwards = importances(trials, space, Goal.of("minimize"))
    assert upwards["x"] > upwards["y"]
    assert downwards["y"] > downwards["x"]


@pytest.mark.parametrize(
    ("important", "score"),
    [
        ("choice", lambda p: float(p["choice"] == "b")),
        ("log", lambda p: -abs(np.log10(p["log"]) + 3)),
        ("int", lambda p: -abs(p["int"] - 9)),
        ("flag", lambda p: float(p["flag"])),
    ],
)
def test_every_kind_of_variable(
    make_trial: MakeTrial, important: str, score: Callable[[Mapping[str, Any]], float]
) -> None:
    space = Space(
        {
            "choice": Choice(["a", "b", "c", "d"]),
            "log": Float(1e-6, 1.0, log=True),
            "int": Int(0, 9),
            "flag": Bool(),
        }
    )
    rng = np.random.default_rng(3)
    trials = sampled(make_trial, space, lambda p: score(p) + 0.05 * float(rng.normal()))
    found = importances(trials, space, Goal.of("maximize"))
    assert next(iter(found)) == important
    assert found[important] > 0.6


def test_a_conditional_variable_is_judged_where_it_is_active(make_trial: MakeTrial) -> None:
    space = Space(
        {
            "kind": Choice(["plain", "tuned"]),
            "knob": Float(0, 1).when("kind", equals="tuned"),
            "idle": Float(0, 1).when("kind", equals="tuned"),
        }
    )
    trials = sampled(make_trial, space, lambda p: p.get("knob", 0.3), n=400)
    found = importances(trials, space, Goal.of("maximize"))
    assert next(iter(found)) == "knob"
    assert found["idle"] < 0.1


def test_a_variable_with_one_value_has_none(make_trial: MakeTrial) -> None:
    space = Space({"x": Float(0, 1), "only": Choice(["a"])})
    trials = sampled(make_trial, space, lambda p: p["x"])
    assert importances(trials, space, Goal.of("maximize")) == {"x": 1.0, "only": 0.0}


def test_another_objective_may_be_asked_for(make_trial: MakeTrial) -> None:
    space = Space({"x": Float(0, 1), "y": Float(0, 1)})
    goal = Goal.of({"auc": "maximize", "latency": "minimize"})
    found = space.sample(200, seed=2)
    assert isinstance(found, list)
    trials = [
        make_trial(i, p["x"], params=p, scores={"auc": p["x"], "latency": p["y"]})
        for i, p in enumerate(found)
    ]
    assert next(iter(importances(trials, space, goal))) == "x"
    assert next(iter(importances(trials, space, goal, objective="latency"))) == "y"
    with pytest.raises(InvalidArgumentError):
        importances(trials, space, goal, objective="f1")


def test_trials_that_break_a_constraint_are_the_bad_ones(make_trial: MakeTrial) -> None:
    space = Space({"x": Float(0, 1), "y": Float(0, 1)})
    found: Any = space.sample(300, seed=4)
    # y alone decides whether a trial is allowed; the score says nothing.
    trials = [
        make_trial(i, 0.0, params=p, violation=max(0.0, p["y"] - 0.1)) for i, p in enumerate(found)
    ]
    assert importances(trials, space, Goal.of("maximize"))["y"] > 0.9


def test_nothing_is_claimed_where_nothing_can_be_said(make_trial: MakeTrial) -> None:
    space = Space({"x": Float(0, 1), "y": Float(0, 1)})
    goal = Goal.of("maximize")
    nothing = {"x": 0.0, "y": 0.0}
    few = sampled(make_trial, space, lambda p: p["x"], n=MINIMUM_TRIALS - 1)
    assert importances([], space, goal) == nothing
    assert importances(few, space, goal) == nothing
    flat = sampled(make_trial, space, lambda p: 1.0, n=50)
    assert importances(flat, space, goal) == nothing


def test_the_same_trials_have_the_same_importances(make_trial: MakeTrial) -> None:
    space = Space({"x": Float(0, 1), "y": Float(0, 1)})
    trials = sampled(make_trial, space, lambda p: p["x"] * p["y"], n=40)
    goal = Goal.of("maximize")
    assert importances(trials, space, goal) == importances(trials, space, goal)
