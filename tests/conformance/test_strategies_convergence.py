"""Strategies that learn beat random search: medians over seeds, with stated tolerances."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from dspex.space import Choice, Component, Float, Int, Space
from dspex.strategies import CMAES, TPE, Random, Sobol, Strategy
from dspex.testing.strategies import Session

SEEDS = range(7)
Loss = Callable[[Mapping[str, Any]], float]


def branin(p: Mapping[str, float]) -> float:
    x, y = p["x"], p["y"]
    bowl = (y - 5.1 / (4 * math.pi**2) * x**2 + 5 / math.pi * x - 6) ** 2
    return bowl + 10 * (1 - 1 / (8 * math.pi)) * math.cos(x) + 10 - 0.3978


def valley(p: Mapping[str, Any]) -> float:
    x = np.array(list(p.values()))
    return float((100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum())


def machine(p: Mapping[str, Any]) -> float:
    """Like tuning a classifier: one good kind, whose own variables matter."""
    if p["model"] == "knn":
        return 0.3 + 0.01 * abs(float(p["model.knn.k"]) - 7)
    near = (math.log10(p["model.svc.C"]) - 1) ** 2 + (math.log10(p["model.svc.gamma"]) + 2) ** 2
    return float(0.05 * near + 0.02 * abs(p["depth"] - 4) + 0.1 * (p["scale"] != "standard"))


PROBLEMS: dict[str, tuple[Loss, Space]] = {
    "branin": (branin, Space({"x": Float(-5, 10), "y": Float(0, 15)})),
    "valley": (valley, Space({f"x{i}": Float(-5, 10) for i in range(5)})),
    "machine": (
        machine,
        Space(
            {
                "model": Component(
                    {
                        "svc": (
                            "svc",
                            {
                                "C": Float(1e-3, 1e5, log=True),
                                "gamma": Float(1e-6, 1e2, log=True),
                            },
                        ),
                        "knn": ("knn", {"k": Int(1, 50)}),
                    }
                ),
                "depth": Int(1, 20),
                "scale": Choice(["none", "standard", "range", "power"]),
            }
        ),
    ),
}


def regret(make: Callable[[], Strategy], problem: str, trials: int, *, pending: int = 0) -> float:
    """The median over seeds of the least loss."""
    loss, space = PROBLEMS[problem]
    best = []
    for seed in SEEDS:
        session = Session(make(), space, seed=seed, trials=trials)
        while len(session.rows) < trials:
            session.ask(1)
            for number in session.active.numbers[: max(0, len(session.active) - pending)]:
                session.tell([number], [loss(space.params(session.rows[number]))])
        best.append(np.nanmin(session.losses))
    return float(np.median(best))


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("pending", [0, 15])
def test_tpe_needs_a_third_of_the_trials_of_random_search(problem: str, pending: int) -> None:
    assert regret(TPE, problem, 120, pending=pending) < regret(Random, problem, 360)


@pytest.mark.parametrize("problem", ["branin", "valley"])
@pytest.mark.parametrize("pending", [0, 15])
def test_cmaes_needs_a_third_of_the_trials_of_random_search(problem: str, pending: int) -> None:
    assert regret(CMAES, problem, 300, pending=pending) < regret(Random, problem, 900)


def test_sobol_is_not_worse_than_random_search_by_more_than_a_half() -> None:
    assert regret(Sobol, "branin", 128) < 1.5 * regret(Random, "branin", 128)
