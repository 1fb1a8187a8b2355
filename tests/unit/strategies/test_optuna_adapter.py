"""Optuna's samplers: what they are told, and trials as an Optuna study."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
import optuna
import pytest

from dspex.errors import MissingDependencyError
from dspex.space import Choice, Component, Float, Int, Space
from dspex.strategies import Optuna
from dspex.strategies.optuna_adapter import to_optuna
from dspex.study.goal import Goal
from dspex.study.trial import ErrorInfo, Trial, TrialState
from dspex.testing.strategies import SPACES, Session

State = optuna.trial.TrialState


def trial_of(number: int, params: dict[str, object], **fields: object) -> Trial:
    known: dict[str, object] = {
        "number": number,
        "params": params,
        "state": TrialState.COMPLETED,
        "score": 0.5,
        "scores": {"score": 0.5},
        "fold_scores": (),
        "measurements": (),
        "started": None,
        "finished": None,
        "seconds": 0.0,
        "worker": None,
        "attempts": 1,
        "error": None,
        "proposed_by": "tpe",
    }
    return Trial(**{**known, **fields})  # type: ignore[arg-type]


def told(session: Session) -> list[optuna.trial.FrozenTrial]:
    strategy = session.strategy
    assert isinstance(strategy, Optuna)
    return strategy._study.trials


def test_the_sampler_is_told_of_running_ended_and_failed_trials() -> None:
    session = Session(Optuna(optuna.samplers.RandomSampler(seed=1)), SPACES["mixed"]())
    numbers = session.ask(3)
    session.tell(numbers[:1], [0.25], [0.5])
    session.tell(numbers[2:], [float("nan")])
    trials = told(session)
    assert [trial.state for trial in trials] == [State.COMPLETE, State.RUNNING, State.FAIL]
    assert trials[0].value == 0.25
    assert trials[0].user_attrs == {"violation": 0.5}
    assert [dict(trial.params) for trial in trials] == [
        session.space.params(row) for row in session.rows
    ]


def test_the_sampler_is_told_of_trials_that_it_did_not_suggest() -> None:
    space = SPACES["conditional"]()
    session = Session(Optuna(optuna.samplers.TPESampler(seed=1)), space)
    rows = space.sample_rows(np.random.default_rng(0), 5)
    session.tell(session.add(rows), np.arange(5.0))
    session.ask(1)
    assert [dict(trial.params) for trial in told(session)[:5]] == list(map(space.params, rows))


def test_conditional_variables_are_asked_for_only_where_they_are_active() -> None:
    session = Session(Optuna(optuna.samplers.RandomSampler(seed=1)), SPACES["conditional"]())
    session.ask(30)
    assert {len(trial.params) for trial in told(session)} > {4}
    for trial, row in zip(told(session), session.rows, strict=True):
        assert dict(trial.params) == session.space.params(row)


def test_a_sampler_learns_through_it() -> None:
    session = Session(Optuna(optuna.samplers.CmaEsSampler(seed=1)), SPACES["numbers"]())
    for _ in range(150):
        for number in session.ask(1):
            session.tell([number], [abs(session.rows[number][0] - 3)])
    assert np.median(np.abs(session.rows[100:, 0] - 3)) < 1.5


def test_labels_that_are_equal_are_told_apart_by_type() -> None:
    space = Space({"c": Choice([0, False, "0", None, 1.0, True])})
    session = Session(Optuna(optuna.samplers.RandomSampler(seed=1)), space)
    session.ask(60)
    assert set(session.rows[:, 0]) == set(range(6))


def test_grids_and_logarithmic_steps_come_back_as_points_of_the_space() -> None:
    space = Space(
        {"a": Float(0, 1, step=0.1), "b": Int(1, 1000, log=True, step=3), "c": Int(2, 9, step=2)}
    )
    session = Session(Optuna(optuna.samplers.RandomSampler(seed=1)), space)
    session.ask(100)
    for row in session.rows:
        space.validate(space.params(row))


def test_trials_become_a_study() -> None:
    space = Space({"model": Component({"a": ("a", {"x": Float(0, 1)}), "b": "b"})})
    trials: Sequence[Trial] = [
        trial_of(0, {"model": "a", "model.a.x": 0.5}),
        trial_of(1, {"model": "b"}, score=0.75, scores={"score": 0.75, "seconds": 2.0}),
        trial_of(
            2,
            {"model": "b"},
            state=TrialState.FAILED,
            score=None,
            scores={},
            error=ErrorInfo("ValueError", "no"),
        ),
        trial_of(3, {"model": "b"}, state=TrialState.RUNNING, score=None, scores={}),
    ]
    study = to_optuna(trials, space, Goal.of("maximize"))
    assert [trial.state for trial in study.trials] == [State.COMPLETE, State.COMPLETE, State.FAIL]
    assert study.direction is optuna.study.StudyDirection.MAXIMIZE
    assert study.best_params == {"model": "b"}
    assert study.best_trial.user_attrs["number"] == 1
    assert study.trials[2].user_attrs["error"] == "ValueError: no"


def test_several_objectives_keep_their_directions() -> None:
    goal = Goal.of({"auc": "maximize", "latency": "minimize"})
    trials = [
        trial_of(i, {"x": i / 4}, scores={"auc": i / 4, "latency": float(i)}) for i in range(3)
    ]
    study = to_optuna(trials, Space({"x": Float(0, 1)}), goal)
    assert len(study.best_trials) == 3
    assert study.trials[2].values == [0.5, 2.0]


def test_without_optuna_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'dspex\[optuna\]'"):
        Optuna(object())  # type: ignore[arg-type]
