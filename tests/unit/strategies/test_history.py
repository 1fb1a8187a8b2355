"""What a model keeps: the best, the recent, and a fair sample of the rest."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from dspex.strategies.history import ELITES, RECENT, RESERVOIR, History, fronts
from dspex.study.table import CompletedTrials

NAN = float("nan")


def told(losses: ArrayLike, violations: ArrayLike | None = None) -> CompletedTrials:
    table = np.asarray(losses, dtype=np.float64).reshape(len(np.asarray(losses)), -1)
    count = len(table)
    return CompletedTrials(
        np.arange(count),
        np.arange(count, dtype=np.float64)[:, None],
        table,
        np.zeros(count) if violations is None else np.asarray(violations, dtype=np.float64),
    )


def history(trials: CompletedTrials) -> History:
    made = History(1, seed=3)
    made.add(trials.rows, trials)
    return made


def test_the_best_come_first_and_failures_never() -> None:
    made = history(told([3.0, 1.0, NAN, 2.0, 1.0]))
    assert made.elites.positions == [1, 4, 3, 0]
    assert made.elites.units(2).tolist() == [[1.0], [4.0]]
    assert (made.count, made.finite) == (5, 4)


def test_feasible_trials_come_before_infeasible_ones() -> None:
    assert history(told([3.0, 1.0, 2.0], [0, 2.0, 0.5])).elites.positions == [0, 2, 1]


def test_only_so_many_are_kept() -> None:
    made = history(told(np.arange(1000.0)[::-1]))
    assert made.elites.positions == list(range(999, 999 - ELITES, -1))
    assert made.elites.units(ELITES)[:, 0].tolist() == made.elites.positions
    assert made.filled == len(made.units) == RECENT + RESERVOIR


def test_the_first_front_comes_first() -> None:
    losses = np.array([[3, 3], [0, 2], [1, 1], [2, 0], [1, 3]])
    assert set(history(told(losses)).elites.positions[:3]) == {1, 2, 3}
    assert history(told(losses)).elites.positions[-1] == 0


def test_fronts_and_crowding() -> None:
    front, crowding = fronts(np.array([[0, 4], [1, 2], [4, 0], [1.0, 2.0], [5, 5]]))
    assert front.tolist() == [0, 0, 0, 0, 1]
    assert np.isinf(crowding[[0, 2, 4]]).all()
    assert np.isfinite(crowding[[1, 3]]).all()


def test_what_is_kept_does_not_depend_on_how_it_was_told() -> None:
    trials = told(np.random.default_rng(0).random(900))
    at_once, piecemeal = history(trials), History(1, seed=3)
    for start, stop in ((0, 1), (1, 300), (300, 301), (301, 900)):
        part = CompletedTrials(
            trials.numbers[start:stop], trials.rows, trials.losses, trials.violations
        )
        piecemeal.add(part.rows, part)
    assert np.array_equal(at_once.units, piecemeal.units)
    assert at_once.elites.positions == piecemeal.elites.positions


def test_the_recent_are_all_there_and_the_old_fairly_sampled() -> None:
    count = 5000
    kept = history(told(np.zeros(count))).units[:, 0]
    assert sorted(kept[:RECENT]) == list(range(count - RECENT, count))
    old = kept[RECENT:]
    assert len(set(old)) == RESERVOIR
    assert old.max() < count - RECENT
    # The mean of a uniform sample: within four standard errors.
    expected = (count - RECENT) / 2
    assert abs(old.mean() - expected) < 4 * (count / 12**0.5) / RESERVOIR**0.5


def test_slots_are_found_by_position() -> None:
    made = History(1, seed=3)
    for _ in range(30):
        trials = told(np.zeros(100))
        rows = trials.rows + made.count
        changed = made.add(rows, trials)
        assert all(0 <= slot < len(made.units) for slot in changed)
        for position in range(made.count):
            for slot in made.slots([position]):
                assert made.units[slot, 0] == position
    assert len(made.slots(range(made.count))) == RECENT + RESERVOIR
