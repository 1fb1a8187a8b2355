"""The front door without Dask: the contract of `optimize`, its result, its store, its errors."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

import dspex
from dspex import errors
from dspex.engine.ports import Progressed, StudyEnded, StudyEvent, StudyStarted, TrialEnded

# Studies here are small on purpose.
pytestmark = pytest.mark.filterwarnings("ignore:with .* trials and:UserWarning")

SPACE = {"x": dspex.Float(-1, 1), "kind": ["a", "b"]}
HERE: dict[str, Any] = {"distributed": False, "progress": False}


def square(params: Mapping[str, Any]) -> float:
    return float(params["x"] ** 2 + (params["kind"] == "b"))


def optimize(program: Any = square, data: Any = None, **options: Any) -> dspex.OptimizationResult:
    defaults: dict[str, Any] = {"trials": 20, "strategy": "random", **HERE}
    if program is square:
        defaults |= {"space": SPACE, "direction": "minimize"}
    return dspex.optimize(program, data, **{**defaults, **options})


def history(result: dspex.OptimizationResult) -> list[tuple[Any, ...]]:
    return [(t.number, dict(t.params), t.state, t.score, t.fold_scores) for t in result.trials]


# --- results -------------------------------------------------------------------------------


def test_a_function_is_optimised() -> None:
    result = optimize(trials=60, strategy="random")
    assert result.best_score == min(t.score for t in result.trials if t.score is not None)
    assert result.best_params == dict(result.best_trial.params)
    assert result.best_program() == result.best_score
    assert result.stop_reason == "trials"
    assert (len(result.trials), result.n_failed) == (60, 0)
    assert result.baseline_score is None
    assert 0 <= result.busy <= 1
    assert "trial" in repr(result)
    assert "<" in result._repr_html_()


def test_a_pipeline_is_optimised_and_refitted() -> None:
    X, y = load_iris(return_X_y=True)
    pipeline = make_pipeline(StandardScaler(), SVC())
    result = optimize(pipeline, (X, y), metric="accuracy", trials=12, seed=0, strategy="random")
    assert result.baseline_score == result.trials[0].score
    assert result.trials[0].proposed_by == "default"
    assert result.baseline_score is not None
    assert result.best_score >= result.baseline_score
    assert result.best_program.score(X, y) > 0.9
    assert len(result.best_trial.fold_scores) == 5


def test_several_objectives_give_a_front() -> None:
    result = optimize(
        lambda p: {"a": p["x"], "b": -p["x"], "seen": 1},
        space=SPACE,
        direction={"a": "minimize", "b": "minimize"},
        strategy="random",
    )
    assert len(result.pareto_front) == 20
    assert result.best_trial.scores["seen"] == 1.0


def test_a_generator_is_a_program() -> None:
    def steps(params: Mapping[str, Any]) -> Any:
        yield 3.0
        yield params["x"]

    result = optimize(steps, space=SPACE, direction="minimize", strategy="random")
    assert [len(t.measurements) for t in result.trials] == [2] * 20


def test_constraints_decide_what_is_best() -> None:
    result = optimize(
        lambda p: {"score": p["x"], "cost": p["x"]},
        space=SPACE,
        direction={"score": "maximize"},
        constraints={"cost": ("le", 0.0)},
        strategy="random",
    )
    assert result.best_score <= 0


def test_initial_params_come_first_and_once() -> None:
    initial = [{"x": 0.25, "kind": "b"}, {"x": 0.25, "kind": "b"}, {"x": -0.5, "kind": "a"}]
    result = optimize(initial=initial)
    assert [t.proposed_by for t in result.trials[:3]] == ["initial", "initial", "random"] or (
        [t.proposed_by for t in result.trials[:2]] == ["initial", "initial"]
    )
    assert [t.params["x"] for t in result.trials[:2]] == [0.25, -0.5]


def test_objects_are_labels_in_trials_and_objects_for_the_program() -> None:
    def apply(params: Mapping[str, Any]) -> float:
        return float(params["f"](0.5))

    result = optimize(
        apply,
        space={"f": dspex.Choice({"sine": np.sin, "cosine": np.cos})},
        direction="maximize",
        strategy="grid",
    )
    assert result.best_trial.params == {"f": "cosine"}
    assert result.best_params == {"f": np.cos}
    assert result.stop_reason == "space_exhausted"


# --- events --------------------------------------------------------------------------------


def test_callbacks_see_the_study_and_cannot_harm_it(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[StudyEvent] = []

    def broken(event: StudyEvent) -> None:
        raise RuntimeError("observer")

    result = optimize(callbacks=[broken, seen.append])
    assert isinstance(seen[0], StudyStarted)
    assert isinstance(seen[-1], StudyEnded)
    ended = [event.number for event in seen if isinstance(event, TrialEnded)]
    assert sorted(ended) == list(range(20))
    assert len(result.trials) == 20
    assert "observer failed" in caplog.text


# --- ending --------------------------------------------------------------------------------


def test_a_reproducible_study_says_which_trial_it_waits_for() -> None:
    causes: list[str] = []

    def remember(event: Any) -> None:
        if isinstance(event, Progressed):
            causes.append(event.progress.waiting_for)

    def slow(params: Any) -> float:
        time.sleep(0.05)
        return float(params["x"])

    dspex.optimize(
        slow,
        space={"x": dspex.Float(0, 1)},
        direction="maximize",
        trials=40,
        seed=1,
        parallel_evaluations=8,
        callbacks=[remember],
        distributed=False,
        progress=False,
    )
    assert any(re.fullmatch(r"trial \d+ \(parallel_evaluations=8\)", cause) for cause in causes)


def test_a_target_ends_the_study() -> None:
    result = optimize(trials=5000, target_score=0.1, strategy="random", seed=3)
    assert result.stop_reason == "target_score"
    assert result.best_score <= 0.1


def test_a_timeout_ends_the_study_and_keeps_what_is_done() -> None:
    result = optimize(trials=None, timeout="300ms", strategy="random")
    assert result.stop_reason == "timeout"
    assert result.trials


def test_interrupts_return_the_best_so_far() -> None:
    def program(params: Mapping[str, Any], data: Any, trial: dspex.RunningTrial) -> float:
        if trial.number == 5:
            os.kill(os.getpid(), signal.SIGINT)
            threading.Event().wait(30)
        return float(params["x"])

    result = optimize(program, 0, space=SPACE, direction="minimize", strategy="random")
    assert result.stop_reason == "interrupted"
    assert result.trials[4].score is not None
    assert result.trials[5].score is None


def test_ten_failures_raise_the_programs_own_traceback() -> None:
    def broken(params: Mapping[str, Any]) -> float:
        return 1 / 0

    with pytest.raises(errors.AllTrialsFailedError, match=r"return 1 / 0") as caught:
        optimize(broken, space=SPACE, direction="minimize")
    assert "ZeroDivisionError" in str(caught.value)


def test_some_failures_are_data() -> None:
    def sometimes(params: Mapping[str, Any]) -> Any:
        if params["x"] > 0.5:
            raise ValueError("hot")
        return float("nan") if params["x"] < -0.5 else params["x"]

    result = optimize(sometimes, space=SPACE, direction="minimize", trials=40, strategy="random")
    kinds = {t.error.kind for t in result.trials if t.error is not None}
    assert kinds == {"ValueError", "InvalidScore"}
    assert result.n_failed == sum(t.error is not None for t in result.trials)


def test_a_hung_trial_is_ended_and_the_next_one_runs() -> None:
    def hangs(params: Mapping[str, Any], data: Any, trial: dspex.RunningTrial) -> float:
        if trial.number == 1:
            threading.Event().wait(600)
        return float(params["x"])

    result = optimize(
        hangs, 0, space=SPACE, direction="minimize", trials=4, trial_timeout=0.5, seed=0
    )
    assert [t.state.name for t in result.trials] == [
        "COMPLETED",
        "TIMED_OUT",
        "COMPLETED",
        "COMPLETED",
    ]


# --- stores --------------------------------------------------------------------------------


def test_a_study_goes_on_from_its_store(tmp_path: Path) -> None:
    kept: dict[str, Any] = {
        "storage": str(tmp_path / "s.db"),
        "study": "mine",
        "seed": 5,
        "strategy": "random",
    }
    whole = history(optimize(trials=40, seed=5, strategy="random"))
    part = optimize(trials=15, **kept)
    assert history(part) == whole[:15]
    calls: list[int] = []

    def counted(params: Mapping[str, Any]) -> float:
        calls.append(1)
        return square(params)

    with pytest.warns(UserWarning, match="another program"):
        resumed = optimize(counted, trials=40, space=SPACE, direction="minimize", **kept)
    assert history(resumed) == whole
    assert len(calls) == 25
    loaded = dspex.load(kept["storage"], "mine")
    assert history(loaded) == whole
    with pytest.raises(errors.StudyError, match="holds params and scores"):
        loaded.best_program  # noqa: B018
    assert [info.name for info in dspex.studies(kept["storage"])] == ["mine"]
    dspex.delete_study(kept["storage"], "mine")
    assert dspex.studies(kept["storage"]) == []


def test_a_log_is_readable_without_pickle(tmp_path: Path) -> None:
    optimize(storage=str(tmp_path / "s.db"), study="mine", trials=3)
    code = (
        "import sqlite3, json, sys\n"
        "db = sqlite3.connect(sys.argv[1])\n"
        "names = db.execute(\"select name from sqlite_master where type='table'\")\n"
        "tables = [name for (name,) in names]\n"
        "text = ''.join(str(row) for t in tables for row in db.execute(f'select * from {t}'))\n"
        "print('\"kind\":\"asked\"' in text, 'cloudpickle' in text)\n"
    )
    out = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "s.db")], capture_output=True, text=True
    )
    assert out.stdout.split() == ["True", "False"], out.stderr


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"space": {"x": dspex.Float(-2, 1), "kind": ["a", "b"]}}, "space"),
        ({"direction": "maximize"}, "goal"),
        ({"seed": 6}, "seed"),
        ({"strategy": "sobol"}, "strategy"),
        ({"seed": None}, "reproducible"),
        ({"parallel_evaluations": 4}, "k"),
        ({"program": lambda params, data: 1.0, "data": [1, 2]}, "data"),
    ],
)
def test_another_study_under_the_same_name_is_refused_by_name(
    tmp_path: Path, change: dict[str, Any], name: str
) -> None:
    kept: dict[str, Any] = {
        "storage": str(tmp_path / "s.db"),
        "study": "mine",
        "seed": 5,
        "strategy": "random",
        "space": SPACE,
        "direction": "minimize",
        "program": square,
    }
    optimize(trials=3, **kept)
    with pytest.raises(errors.StudyMismatchError, match=rf"{name}: recorded .*, given") as caught:
        optimize(trials=5, **{**kept, **change})
    assert name in caught.value.different  # type: ignore[attr-defined]
    assert len(dspex.load(kept["storage"], "mine").trials) == 3


def test_of_another_space_only_what_differs_is_told(tmp_path: Path) -> None:
    many = {f"x{i}": dspex.Float(0, 1) for i in range(30)}
    kept: dict[str, Any] = {"storage": str(tmp_path / "s.db"), "study": "mine", "trials": 2}

    def run(space: Any) -> None:
        optimize(lambda p: p["x29"], direction="minimize", space=space, **kept)

    run(many)
    with pytest.raises(errors.StudyMismatchError) as caught:
        run({**many, "x29": dspex.Float(0, 2)})
    told = str(caught.value)
    assert '{"x29": {"high": 1.0}}' in told
    assert '{"x29": {"high": 2.0}}' in told
    assert "x28" not in told


def test_a_complete_study_needs_no_cluster(tmp_path: Path) -> None:
    kept: dict[str, Any] = {"storage": str(tmp_path / "s.db"), "study": "mine", "trials": 3}
    first = optimize(**kept)
    again = optimize(**kept, distributed=None, cluster="tcp://127.0.0.1:9")
    assert history(again) == history(first)


def test_a_raised_total_keeps_the_strategy_that_was_chosen(tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "space": {"x": dspex.Int(1, 12)},
        "direction": "minimize",
        "strategy": "auto",
        "storage": str(tmp_path / "s.db"),
        "study": "mine",
    }
    small = optimize(lambda p: p["x"], trials=5, **options)
    large = optimize(lambda p: p["x"], trials=200, **options)
    proposers = {t.proposed_by for t in [*small.trials, *large.trials]}
    assert len(proposers) == 1


def test_resume_says_what_to_do(tmp_path: Path) -> None:
    kept: dict[str, Any] = {"storage": str(tmp_path / "s.db"), "study": "mine", "trials": 3}
    with pytest.raises(errors.StudyNotFoundError, match="no study 'mine'"):
        optimize(resume="must", **kept)
    optimize(**kept)
    with pytest.raises(errors.StudyExistsError, match="'mine' is in"):
        optimize(resume="never", **kept)
    with pytest.raises(errors.InvalidArgumentError, match='"auto", "never"'):
        optimize(resume="maybe", **kept)
    forced = optimize(resume="force", **{**kept, "trials": 5, "direction": "maximize"})
    assert len(forced.trials) == 5


def test_a_store_file_of_somebody_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("my notes\n" * 1000)
    with pytest.raises(errors.StorageCorruptError, match="notes"):
        optimize(storage=str(path), study="mine")
    assert path.read_text() == "my notes\n" * 1000


# --- the door ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        ({"trials": 0}, errors.InvalidArgumentError, "trials is a whole number from 1.*got 0"),
        ({"trials": None}, errors.InvalidArgumentError, "ends by trials, timeout"),
        ({"timeout": "soon"}, errors.InvalidArgumentError, "timeout is more than 0 .* 'soon'"),
        ({"timeout": -1}, errors.InvalidArgumentError, "got -1"),
        ({"memory_limit": "lots"}, errors.InvalidArgumentError, "memory_limit .*'lots'"),
        ({"strategy": "tpee"}, errors.UnknownStrategyError, "did you mean 'tpe'"),
        ({"direction": "up"}, errors.InvalidArgumentError, "'up'"),
        ({"direction": None}, errors.InvalidArgumentError, "direction"),
        ({"space": None}, errors.InvalidArgumentError, "space"),
        ({"initial": [{"x": 2, "kind": "a"}]}, errors.InvalidParamsError, "'x'.*2"),
        ({"initial": [{"y": 2}]}, errors.InvalidParamsError, "y"),
        ({"isolation": "container"}, errors.InvalidArgumentError, "container"),
        ({"cluster": "tcp://127.0.0.1:1"}, errors.InvalidArgumentError, "distributed=False"),
        ({"cluster_nodes": 2}, errors.InvalidArgumentError, "cluster_nodes=2"),
        (
            {"parallel_evaluations": 0},
            errors.InvalidArgumentError,
            "parallel_evaluations is a whole",
        ),
        ({"retries": -1}, errors.InvalidArgumentError, "retries is a whole number from 0"),
        ({"metric": "acuracy"}, errors.InvalidArgumentError, "metric"),
        ({"cv": 3}, errors.InvalidArgumentError, "cv"),
    ],
)
def test_errors_at_the_door_name_rule_value_and_remedy(
    wrong: dict[str, Any], error: type[Exception], words: str
) -> None:
    calls: list[int] = []

    def program(params: Mapping[str, Any]) -> float:
        calls.append(1)
        return 0.0

    options: dict[str, Any] = {"space": SPACE, "direction": "minimize", **wrong}
    with pytest.raises(error, match=words):
        optimize(program, **options)
    assert not calls, "work was spent before the door"


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        ({"metric": "acuracy"}, errors.InvalidMetricError, "accuracy"),
        ({"metric": accuracy_score}, errors.InvalidMetricError, "make_scorer"),
        ({"space": {"CC": dspex.Float(0, 1)}}, errors.InvalidSpaceError, "'CC'"),
        ({"metric": "accuracy", "direction": "minimize"}, errors.DspexError, "neg_|maximize"),
        ({"training_data": (np.zeros((0, 2)), [])}, errors.InvalidDataError, "none"),
        ({"training_data": (np.zeros((3, 2)), [1, 2])}, errors.InvalidDataError, "3.*2"),
    ],
)
def test_an_estimators_door(wrong: dict[str, Any], error: type[Exception], words: str) -> None:
    X, y = load_iris(return_X_y=True)
    options: dict[str, Any] = {
        "training_data": (X, y),
        "space": {"C": dspex.Float(0.1, 10)},
        "metric": "accuracy",
        **wrong,
    }
    data = options.pop("training_data")
    with pytest.raises(error, match=words):
        optimize(LogisticRegression(), data, **options)


def test_three_positional_arguments_get_the_remedy() -> None:
    X, y = load_iris(return_X_y=True)
    with pytest.raises(errors.InvalidArgumentError, match=r"pass \(X, y\)"):
        dspex.optimize(SVC(), X, y)


def test_few_trials_for_many_in_flight_are_warned_about() -> None:
    with pytest.warns(UserWarning, match="strategy learns little"):
        optimize(trials=10, parallel_evaluations=8)


# --- ask and tell --------------------------------------------------------------------------


def test_a_study_with_a_loop_of_ones_own(tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "direction": "minimize",
        "seed": 3,
        "study": "loop",
        "storage": str(tmp_path / "s.db"),
    }
    with dspex.Study(SPACE, "random", **options) as study:
        first, second = study.ask(2)
        study.tell(second, square(second.params))
        study.tell(first, ValueError("no"))
        with pytest.raises(errors.InvalidArgumentError, match="FAILED already"):
            study.tell(first, 1.0)
        with pytest.raises(errors.InvalidArgumentError, match="number from 0 to 1"):
            study.tell(7, 1.0)
        with pytest.raises(errors.InvalidArgumentError, match="number from 0 to 1; got 'a'"):
            study.tell("a", 1.0)  # type: ignore[arg-type]
        assert repr(study) == "<Study random, 2/2 trials ended, 1 failed>"
        pending = study.ask()
    with dspex.Study(SPACE, "random", **options) as study:
        assert [t.params for t in study.trials] == [first.params, second.params, pending.params]
        assert study.best_trial is not None
        assert study.best_trial.number == 1
        study.tell(pending.number, {"score": 0.5})
        assert study.trials[2].score == 0.5


# --- two owners ----------------------------------------------------------------------------

OWNER = """
    import sys, dspex
    def program(params):
        print("running", flush=True)
        sys.stdin.readline()
        return params["x"]
    dspex.optimize(program, space={"x": dspex.Float(0, 1)}, direction="minimize", trials=5,
                   strategy="random", storage=sys.argv[1], study="mine",
                   distributed=False, progress=False)
"""


def test_a_second_process_on_one_study_is_refused(tmp_path: Path) -> None:
    store = str(tmp_path / "s.db")
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(OWNER), store],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as owner:
        assert owner.stdout is not None
        assert owner.stdin is not None
        assert owner.stdout.readline() == "running\n"
        with pytest.raises(errors.StudyInUseError, match=str(owner.pid)):
            optimize(
                lambda p: p["x"],
                space={"x": [1]},
                direction="minimize",
                study="mine",
                storage=store,
            )
        owner.stdin.write("\n" * 5)
        owner.stdin.close()
        assert owner.wait(30) == 0
    state = {t.state.name for t in dspex.load(store, "mine").trials}
    assert state == {"COMPLETED"}
    assert json.dumps(dspex.studies(store)[0].head)
