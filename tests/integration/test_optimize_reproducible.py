"""G2 on real clusters: the same history on 1, 2 and 4 workers, with sleeps, deaths and resumes."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from distributed import Client
from sklearn.datasets import load_breast_cancer
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import ShuffleSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import dspex
from dspex.engine.ports import StudyEvent, TrialEnded

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore:with .* trials and:UserWarning"),
    pytest.mark.filterwarnings("ignore:the study .* goes on with another program:UserWarning"),
]

SPACE = {
    "x": dspex.Float(-5, 10),
    "y": dspex.Float(0, 15),
    "kind": ["a", "b", "c"],
    "depth": dspex.Int(1, 9).when("kind", equals="a"),
}


def sleepy(params: Mapping[str, Any], data: Any, trial: dspex.RunningTrial) -> float:
    # The program's own sense of time differs in every run; its numbers come from the trial.
    time.sleep(random.SystemRandom().random() * 0.03)
    noise = float(trial.rng.normal()) + random.random()
    if trial.number % 11 == 7:
        raise ValueError("unlucky")
    return float((params["x"] - 1) ** 2 + params["y"] + params.get("depth", 3) + 0.01 * noise)


def history(result: dspex.OptimizationResult) -> list[tuple[Any, ...]]:
    return [
        (t.number, tuple(t.params.items()), t.state, t.score, t.fold_scores, t.proposed_by)
        if t.score is not None
        # Which fold of a failed trial came first is nobody's promise.
        else (t.number, tuple(t.params.items()), t.state, None, None, t.proposed_by)
        for t in result.trials
    ]


def function_study(**options: Any) -> dspex.OptimizationResult:
    return dspex.optimize(
        sleepy,
        0,
        **{
            "space": SPACE,
            "direction": "minimize",
            "strategy": "tpe",
            "trials": 48,
            "parallel_evaluations": 8,
            "seed": 11,
            "progress": False,
            **options,
        },
    )


def pipeline_study(**options: Any) -> dspex.OptimizationResult:
    X, y = load_breast_cancer(return_X_y=True)
    # No random_state anywhere: the study's seed is all that there is.
    pipeline = make_pipeline(StandardScaler(), PCA(), RandomForestClassifier(n_estimators=5))
    space = {
        "pca__n_components": dspex.Int(2, 20),
        "randomforestclassifier__max_depth": dspex.Choice([None, dspex.Int(2, 10)]),
    }
    return dspex.optimize(
        pipeline,
        (X[::2], y[::2]),
        **{
            "space": space,
            "metric": "accuracy",
            "cv": ShuffleSplit(3, random_state=1),
            "trials": 20,
            "parallel_evaluations": 4,
            "strategy": "tpe",
            "seed": 3,
            "progress": False,
            **options,
        },
    )


STUDIES = [function_study, pytest.param(pipeline_study, marks=pytest.mark.slow)]


class Assassin:
    """Kills a worker of a cluster when the trial of this number has ended."""

    def __init__(self, client: Client, number: int) -> None:
        self._pids = list(client.run(os.getpid).values())
        self._number = number
        self.killed = 0

    def __call__(self, event: StudyEvent) -> None:
        if isinstance(event, TrialEnded) and event.number == self._number:
            os.kill(self._pids.pop(), signal.SIGKILL)
            self.killed += 1


@pytest.mark.parametrize("study", STUDIES)
def test_the_history_is_the_same_on_any_number_of_workers(
    study: Callable[..., dspex.OptimizationResult], cluster_of: Callable[[int], Client]
) -> None:
    expected = history(study(distributed=False))
    assert len({str(each[1]) for each in expected}) > 10, (
        "a study that varies nothing shows nothing"
    )
    for workers in (1, 2, 4):
        assert history(study(cluster=cluster_of(workers))) == expected, f"{workers} workers"


@pytest.mark.chaos
@pytest.mark.parametrize("study", STUDIES)
def test_the_history_survives_a_killed_worker_and_a_resume(
    study: Callable[..., dspex.OptimizationResult],
    cluster_of: Callable[[int], Client],
    tmp_path: Path,
) -> None:
    expected = history(study(distributed=False))
    client = cluster_of(2)
    assassin = Assassin(client, number=6)
    kept = {"storage": str(tmp_path / "s.db"), "study": "s"}
    part = study(cluster=client, callbacks=[assassin], trials=13, **kept)
    assert assassin.killed == 1
    assert history(part) == expected[:13]
    whole = study(cluster=client, **kept)
    assert history(whole) == expected


def test_in_arrival_order_every_suggestion_derives_from_the_log(
    client: Client, tmp_path: Path
) -> None:
    from dspex.results.verify import verify
    from dspex.storage import read_records, study_info

    store = str(tmp_path / "s.db")
    for trials in (20, 40):
        function_study(cluster=client, seed=None, trials=trials, storage=store, study="s")
    verification = verify(study_info(store, "s").head, read_records(store, "s"))
    assert verification.not_derivable == ""
    assert verification.different == ()
    assert verification.derived == 40
