"""CMA-ES: what it refuses, how generations are made, restarts, discrete columns."""

from __future__ import annotations

import numpy as np
import pytest

from dspex.errors import InvalidArgumentError
from dspex.space import Bool, Choice, Float, Int, Space
from dspex.strategies import CMAES
from dspex.testing.strategies import Session

PLANE = Space({f"x{i}": Float(-1, 3) for i in range(4)})


def solve(session: Session, trials: int, *, pending: int = 0) -> float:
    """The least loss on a sphere around 1."""
    while len(session.rows) < trials:
        session.ask(1)
        for number in session.active.numbers[: max(0, len(session.active) - pending)]:
            session.tell([number], [((session.rows[number] - 1) ** 2).sum()])
    return float(np.nanmin(session.losses))


@pytest.mark.parametrize(
    ("space", "objectives", "rule"),
    [
        (Space({"x": Float(0, 1)}), 2, "minimises one objective; the study has 2"),
        (Space({"x": Float(0, 1), "kind": ["a", "b", "c"]}), 1, "'kind' have no order"),
        (
            Space({"n": Int(1, 2), "x": Float(0, 1).when("n", equals=1)}),
            1,
            "variables that are always active",
        ),
    ],
)
def test_what_it_cannot_serve_is_refused_with_the_remedy(
    space: Space, objectives: int, rule: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=f'{rule}.*strategy="tpe"'):
        Session(CMAES(), space, objectives=objectives)


@pytest.mark.parametrize(("pending", "least"), [(0, 1e-4), (7, 1e-3), (63, 0.05)])
def test_it_converges_with_any_number_of_trials_in_flight(pending: int, least: float) -> None:
    assert solve(Session(CMAES(), PLANE, seed=1), 700, pending=pending) < least


def test_one_dimension_is_enough() -> None:
    assert solve(Session(CMAES(), Space({"x": Float(-1, 3)}), seed=1), 200) < 1e-6


def test_a_generation_counts_only_trials_with_losses() -> None:
    session = Session(CMAES(population=4), PLANE, seed=1)
    before = session.peek(1)
    session.tell(session.ask(8), np.full(8, np.nan))
    numbers = session.ask(3)
    session.tell(numbers, [1.0, 2.0, 3.0])
    strategy = session.strategy
    assert isinstance(strategy, CMAES)
    assert strategy._distribution.generation == 0
    session.tell(session.ask(1), [0.5])
    assert strategy._distribution.generation == 1
    assert not np.array_equal(before, session.peek(1))


def test_it_restarts_with_twice_the_population() -> None:
    session = Session(CMAES(population=6), Space({"x": Float(-1, 3), "y": Float(-1, 3)}), seed=1)
    solve(session, 900)
    strategy = session.strategy
    assert isinstance(strategy, CMAES)
    assert strategy._restarts > 0
    assert strategy._distribution.population_size == 6 * 2**strategy._restarts


def test_infeasible_trials_lose_against_all_others() -> None:
    session = Session(CMAES(), PLANE, seed=1)
    for _ in range(600):
        for number in session.ask(1):
            row = session.rows[number]
            short = max(0.0, 1.5 - float(row[0]))
            session.tell([number], [((row - 1) ** 2).sum()], [short])
    best = np.lexsort((session.losses[:, 0], session.violations))[0]
    assert session.violations[best] == 0
    assert session.losses[best, 0] == pytest.approx(0.25, abs=0.05)


def test_discrete_columns_reach_their_optimum() -> None:
    space = Space(
        {
            "x": Float(0, 1),
            "n": Int(1, 40),
            "flag": Bool(),
            "size": Choice(["s", "m", "l", "xl"], ordered=True),
        }
    )
    wanted = np.array([0.3, 31, 1, 3])
    for seed in range(3):
        session = Session(CMAES(), space, seed=seed)
        for _ in range(400):
            for number in session.ask(1):
                off = (session.rows[number] - wanted) / [1, 40, 1, 3]
                session.tell([number], [(off**2).sum()])
        best = session.rows[np.argmin(session.losses[:, 0])]
        assert best[1:].tolist() == [31, 1, 3]


def test_rows_that_break_constraints_are_drawn_again() -> None:
    space = Space({"x": Float(0, 1), "y": Float(0, 1)}, constraints=[lambda p: p["x"] < 0.01])
    session = Session(CMAES(), space)
    session.play(30)
    assert (session.rows[:, 0] < 0.01).all()
