"""The engine on a simulated cluster: whatever dies and whoever is slow, the history is right."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from dspex.engine.engine import Engine
from dspex.engine.settings import Settings, block_size
from dspex.errors import AllTrialsFailedError, WorkerLostError
from dspex.space import Choice, Float, Space
from dspex.strategies import make
from dspex.study.goal import Goal
from dspex.study.records import Measured, Record
from dspex.study.state import StudyState
from dspex.study.trial import TrialState
from dspex.testing.simulation import SimulatedCluster

SPACE = Space({"x": Float(-1, 1), "kind": Choice(["a", "b", "c"])})
GOAL = Goal.of("minimize")
SEEDS = range(20)


def score(params: Mapping[str, Any], trial: int, fold: int) -> float:
    if trial % 13 == 5:
        raise ValueError("unlucky")
    x = float(params["x"])
    return x * x + 0.1 * fold + float(params["kind"] == "c")


def run(
    cluster: SimulatedCluster,
    settings: Settings,
    *,
    strategy: str = "tpe",
    folds: int = 1,
    records: list[Record] | None = None,
    initial: int = 0,
    crash_after: int | None = None,
) -> StudyState:
    state = StudyState(SPACE, GOAL, folds=folds, reproducible=settings.reproducible)
    state.replay(records or [])
    chosen, _ = make(strategy, space=SPACE, objectives=1, trials=settings.trials)
    chosen.begin(SPACE, objectives=1, seed=7, trials=settings.trials)
    rows = SPACE.rows([{"x": 0.5, "kind": "a"}, {"x": -0.5, "kind": "b"}][:initial])
    engine = Engine(state, settings, initial=rows, initial_by=["initial"] * initial, by=chosen.name)
    cluster.run(engine, chosen, crash_after=crash_after)
    return state


def history(state: StudyState) -> list[tuple[Any, ...]]:
    return [
        # As text: NaN, of a fold that was not measured, equals nothing.
        (t.number, tuple(t.params.items()), t.state, t.score, str(t.fold_scores), t.proposed_by)
        for t in map(state.trial, range(len(state)))
    ]


def reproducible(k: int, trials: int = 60, **options: Any) -> Settings:
    return Settings(
        trials=trials,
        k=k,
        block=block_size(k),
        blame_losses=False,
        survive_losses=True,
        **options,
    )


@pytest.mark.parametrize("strategy", ["random", "sobol", "tpe"])
@pytest.mark.parametrize("folds", [1, 3])
@pytest.mark.parametrize("k", [1, 6, 32])
def test_reproducible_history_does_not_depend_on_the_cluster(
    strategy: str, folds: int, k: int
) -> None:
    calm = SimulatedCluster(score=score, slots=1)
    expected = history(run(calm, reproducible(k), strategy=strategy, folds=folds, initial=2))
    for seed, slots in ((1, 2), (2, 4), (3, 50)):
        wild = SimulatedCluster(score=score, slots=slots, seed=seed, loss_rate=0.2, double_rate=0.2)
        state = run(wild, reproducible(k), strategy=strategy, folds=folds, initial=2)
        # Which fold failed first may differ; what ended, and how, may not.
        scores = [each[:4] for each in history(state)]
        assert scores == [each[:4] for each in expected], f"seed {seed}"
        assert wild.most_in_flight <= k


@pytest.mark.parametrize("seed", SEEDS)
def test_a_crash_at_any_record_and_a_resume_give_the_uninterrupted_study(seed: int) -> None:
    rng = np.random.default_rng(seed)
    settings = reproducible(8)
    whole = SimulatedCluster(score=score, seed=seed)
    expected = history(run(whole, settings, folds=2, initial=1))
    records: list[Record] = []
    for _ in range(3):
        crashed = SimulatedCluster(score=score, seed=int(rng.integers(1000)), loss_rate=0.1)
        run(
            crashed,
            settings,
            folds=2,
            initial=1,
            records=records,
            crash_after=int(rng.integers(1, 30)),
        )
        records += crashed.log
    last = SimulatedCluster(score=score, seed=seed + 1)
    resumed = run(last, settings, folds=2, initial=1, records=records)
    assert [each[:4] for each in history(resumed)] == [each[:4] for each in expected]
    measured = [(r.trial, r.fold) for r in [*records, *last.log] if isinstance(r, Measured)]
    assert len(measured) == len(set(measured)), "a recorded measurement was made again"


@pytest.mark.parametrize("seed", SEEDS)
def test_arrival_order_gives_each_trial_one_outcome(seed: int) -> None:
    cluster = SimulatedCluster(score=score, slots=5, seed=seed, loss_rate=0.3, double_rate=0.3)
    state = run(cluster, Settings(trials=50, k=10), folds=2)
    assert len(state) == 50
    assert all(state.is_final(number) for number in range(50))
    assert sorted(state.order) == list(range(50))
    replayed = StudyState(SPACE, GOAL, folds=2)
    replayed.replay(cluster.log)
    assert history(replayed) == history(state)


def test_a_raised_total_continues_the_same_study() -> None:
    expected = history(run(SimulatedCluster(score=score), reproducible(32, trials=45)))
    first = SimulatedCluster(score=score)
    run(first, reproducible(32, trials=21))
    second = SimulatedCluster(score=score)
    state = run(second, reproducible(32, trials=45), records=first.log)
    assert history(state) == expected


def test_a_target_ends_a_reproducible_study_at_the_same_trial_everywhere() -> None:
    lengths = set()
    for slots in (1, 3, 20):
        cluster = SimulatedCluster(score=score, slots=slots, seed=slots)
        state = run(cluster, reproducible(6, trials=500, target_score=0.05))
        assert cluster.reason == "target_score"
        assert all(state.is_final(number) for number in range(len(state)))
        lengths.add(len(state))
    assert len(lengths) == 1
    assert lengths.pop() < 500


def test_a_target_ends_an_unordered_study_at_once() -> None:
    cluster = SimulatedCluster(score=score, slots=8)
    state = run(cluster, Settings(trials=500, k=16, target_score=0.05))
    assert cluster.reason == "target_score"
    best = state.best()
    assert best is not None
    assert best.score is not None
    assert best.score <= 0.05


def failing(params: Mapping[str, Any], trial: int, fold: int) -> float:
    raise RuntimeError("always")


@pytest.mark.parametrize("settings", [Settings(k=4), reproducible(4)])
def test_ten_failures_and_nothing_else_end_the_study(settings: Settings) -> None:
    cluster = SimulatedCluster(score=failing)
    state = run(cluster, settings)
    assert isinstance(cluster.error, AllTrialsFailedError)
    assert "always" in str(cluster.error)
    assert 10 <= state.n_failed < 20


def test_fewer_trials_than_ten_that_all_fail_raise_as_well() -> None:
    cluster = SimulatedCluster(score=failing)
    run(cluster, Settings(trials=3, k=2))
    assert isinstance(cluster.error, AllTrialsFailedError)


def test_resuming_after_ten_failures_gives_a_mended_program_its_chance() -> None:
    broken = SimulatedCluster(score=failing)
    run(broken, Settings(trials=40, k=4))
    mended = SimulatedCluster(score=score)
    state = run(mended, Settings(trials=40, k=4), records=broken.log)
    assert mended.reason == "trials"
    assert state.best() is not None


def test_max_failures_stops_in_order() -> None:
    cluster = SimulatedCluster(score=score)
    state = run(cluster, Settings(trials=500, k=4, max_failures=2))
    assert cluster.reason == "max_failures"
    assert state.n_failed == 3


def test_an_evaluation_lost_too_often_fails_its_trial_in_arrival_order() -> None:
    cluster = SimulatedCluster(score=score, loss_rate=1.0)
    state = run(cluster, Settings(trials=5, k=2, retries=1))
    assert {state.state_of(n) for n in range(len(state))} == {TrialState.FAILED}
    assert "lost with 2 workers" in str(state.error_of(0))


def test_an_evaluation_lost_too_often_ends_a_reproducible_study_instead() -> None:
    cluster = SimulatedCluster(score=score, loss_rate=1.0)
    settings = Settings(trials=5, k=2, block=1, retries=1, blame_losses=False)
    state = run(cluster, settings)
    assert isinstance(cluster.error, WorkerLostError)
    assert state.n_failed == 0


def test_a_finite_space_is_exhausted() -> None:
    small = Space({"kind": Choice(["a", "b", "c"])})
    state = StudyState(small, GOAL)
    strategy, _ = make("grid", space=small, objectives=1, trials=10)
    strategy.begin(small, objectives=1, seed=0, trials=10)
    engine = Engine(
        state,
        Settings(trials=10, k=2),
        initial=small.rows([{"kind": "b"}]),
        initial_by=["default"],
        by="grid",
    )
    cluster = SimulatedCluster(score=lambda params, trial, fold: float(params["kind"] == "a"))
    cluster.run(engine, strategy)
    assert cluster.reason == "space_exhausted"
    assert sorted(state.trial(n).params["kind"] for n in range(len(state))) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("slots", "sigma", "low", "high"),
    [(4, 0.5, 0.93, 1.0), (16, 0.5, 0.82, 0.96), (16, 1.0, 0.40, 0.62)],
)
def test_the_price_of_reproducibility_is_what_the_docs_say(
    slots: int, sigma: float, low: float, high: float
) -> None:
    def seconds(rng: np.random.Generator) -> float:
        return float(rng.lognormal(0, sigma))

    cluster = SimulatedCluster(score=lambda params, trial, fold: 0.0, slots=slots, seconds=seconds)
    k = 2 * slots
    settings = Settings(trials=100 * slots, k=k, block=1)
    run(cluster, settings, strategy="random")
    assert low < cluster.busy < high
