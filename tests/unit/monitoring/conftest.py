"""Studies without an engine: trials as plain values, and the events that a driver would send."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import pytest

from dspex.engine.ports import Progress, StudyStarted
from dspex.monitoring.summary import StudySummary
from dspex.space import Choice, Float, Int, Space
from dspex.study.goal import Goal
from dspex.study.trial import ErrorInfo, Trial, TrialState


@dataclass(frozen=True)
class ExampleStudy:
    trials: list[Trial]
    space: Space
    goal: Goal
    summary: StudySummary


class MakeTrial(Protocol):
    def __call__(self, number: int, score: float | None = None, **fields: Any) -> Trial: ...


def _trial(number: int, score: float | None = None, **fields: Any) -> Trial:
    state = TrialState.FAILED if "error" in fields else TrialState.COMPLETED
    defaults: dict[str, Any] = {
        "number": number,
        "params": {},
        "state": state,
        "score": score,
        "scores": {} if score is None else {"score": score},
        "fold_scores": (),
        "measurements": (),
        "started": 1000.0 + number,
        "finished": 1001.0 + number,
        "seconds": 1.0,
        "worker": "tcp://10.0.0.1:1234",
        "attempts": 1,
        "error": None,
        "proposed_by": "random",
    }
    return Trial(**{**defaults, **fields})


@pytest.fixture
def make_trial() -> MakeTrial:
    return _trial


def _study(n: int = 40, *, objectives: int = 1, failures: bool = True) -> ExampleStudy:
    space = Space(
        {
            "kernel": Choice(["rbf", "poly", "linear"]),
            "C": Float(1e-3, 1e3, log=True),
            "degree": Int(2, 5).when("kernel", equals="poly"),
            "tol": Float(0.0, 1.0),
        }
    )
    words = {"auc": "maximize", "latency": "minimize"}
    goal = Goal.of(dict(list(words.items())[:objectives]))
    rng = np.random.default_rng(1)
    trials = []
    for number in range(n):
        params: Any = space.sample(seed=number)
        if failures and number % 10 == 7:
            error = ErrorInfo("ValueError", "no convergence\nafter 10 steps", "Traceback: here")
            trials.append(_trial(number, params=params, error=error))
            continue
        score = 0.9 - 0.05 * abs(np.log10(params["C"])) + 0.01 * float(rng.normal())
        scores = {"auc": score, "latency": 1 + params["tol"]}
        trials.append(
            _trial(
                number,
                score,
                params=params,
                scores=dict(list(scores.items())[:objectives]),
                worker=f"tcp://10.0.0.{number % 2}:1234",
                proposed_by="default" if number == 0 else "tpe",
            )
        )
    summary = StudySummary(
        name="example",
        storage="studies.db",
        strategy="tpe",
        reason="some variables are conditional",
        stop_reason="trials",
        wall_time=61.0,
        busy=0.93,
        baseline_score=trials[0].score if trials else None,
        versions={"python": "3.11.0", "dspex": "0.1.0"},
    )
    return ExampleStudy(trials, space, goal, summary)


@pytest.fixture(scope="session")
def make_study() -> Callable[..., ExampleStudy]:
    return _study


_STARTED = StudyStarted(
    study="digits",
    storage=None,
    goal=Goal.of({"auc": "maximize"}),
    space=Space({"x": Float(0, 1)}),
    strategy="tpe",
    reason="eight variables",
    trials=100,
    resumed=0,
)

_PROGRESS = Progress(
    trials=100,
    done=40,
    running=4,
    failed=0,
    best=_trial(31, 0.875),
    elapsed=20.0,
    time_left=30.0,
    workers=2,
    slots=4,
    busy=0.97,
)


@pytest.fixture
def started() -> Callable[..., StudyStarted]:
    return lambda **changes: replace(_STARTED, **changes)


@pytest.fixture
def progress() -> Callable[..., Progress]:
    return lambda **changes: replace(_PROGRESS, **changes)
