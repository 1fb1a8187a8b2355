"""Directions, constraints, and losses."""

import pytest

from dspex.errors import InvalidArgumentError
from dspex.study.goal import Goal


def test_losses_are_minimised() -> None:
    goal = Goal.of({"auc": "maximize", "latency": "minimize"})
    assert goal.losses({"auc": 0.9, "latency": 2.0}).tolist() == [-0.9, 2.0]


def test_violations_add_up() -> None:
    goal = Goal.of("maximize", {"latency": ("le", 1.0), "recall": ("ge", 0.5)})
    assert goal.violation({"score": 0, "latency": 1.5, "recall": 0.25}) == 0.75
    assert goal.violation({"score": 0, "latency": 1.0, "recall": 0.5}) == 0
    assert goal.missing({"latency": 1.0}) == ("score", "recall")


@pytest.mark.parametrize(
    ("direction", "constraints"),
    [
        ("up", None),
        ({}, None),
        ({"a": "max"}, None),
        ("minimize", {"a": ("lt", 1)}),
        ("minimize", {"a": 3}),
        ("minimize", {"a": ("le", "x")}),
    ],
)
def test_wrong_goals_are_refused(direction: object, constraints: object) -> None:
    with pytest.raises(InvalidArgumentError):
        Goal.of(direction, constraints)  # type: ignore[arg-type]


def test_a_description_gives_the_same_goal() -> None:
    goal = Goal.of({"a": "maximize", "b": "minimize"}, {"c": ("le", 2)})
    assert Goal.from_description(goal.describe()) == goal
