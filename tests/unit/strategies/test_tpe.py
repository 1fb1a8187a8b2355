"""TPE: startup, what repels it, what it does not repeat, and what it learns."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from dspex.space import Component, Float, Int, Space
from dspex.strategies import TPE, Random, Sobol
from dspex.testing.strategies import SPACES, Session

LINE = Space({"x": Float(0, 1)})


def learned(losses: NDArray[np.float64], space: Space = LINE, **options: int) -> Session:
    """A session that was told of evenly spread trials on a line."""
    session = Session(TPE(**options), space)
    x = np.linspace(0, 1, len(losses))
    session.tell(session.add(x[:, None]), losses)
    return session


def test_the_first_rows_are_those_of_sobol() -> None:
    one, two = Session(TPE(startup=12), LINE, seed=4), Session(Sobol(), LINE, seed=4)
    one.play(12)
    two.play(12)
    assert np.array_equal(one.rows, two.rows)


def test_failed_trials_do_not_end_the_startup() -> None:
    session = Session(TPE(startup=2), LINE, seed=4)
    for _ in range(5):
        session.tell(session.ask(1), [float("nan")])
    sobol = Session(Sobol(), LINE, seed=4)
    sobol.ask(6)
    session.ask(1)
    assert np.array_equal(session.rows, sobol.rows)


def test_it_goes_where_the_good_trials_are() -> None:
    session = learned(np.abs(np.linspace(0, 1, 50) - 0.7))
    assert np.abs(np.median(session.peek(32)) - 0.7) < 0.05


def test_a_batch_is_spread_out() -> None:
    rows = np.sort(learned(np.abs(np.linspace(0, 1, 50) - 0.7)).peek(16)[:, 0])
    assert np.diff(rows).min() > 1e-4
    assert np.ptp(rows) > 0.04


def test_active_trials_repel() -> None:
    session = learned(np.abs(np.linspace(0, 1, 50) - 0.7))
    alone = session.peek(1)[0, 0]
    session.add(np.full((8, 1), alone))
    # Other numbers draw other candidates, so it is compared on average.
    near = [abs(session.peek(i + 1)[i, 0] - alone) for i in range(8)]
    assert np.median(near) > 0.02


def test_failed_trials_repel() -> None:
    x = np.linspace(0, 1, 60)
    losses = np.abs(x - 0.5)
    failing = losses.copy()
    failing[(x > 0.5) & (x < 0.9)] = np.nan
    share = [float((learned(each).peek(64) > 0.5).mean()) for each in (losses, failing)]
    assert share[1] < share[0]


def test_infeasible_trials_are_not_good() -> None:
    x = np.linspace(0, 1, 50)
    session = Session(TPE(), LINE)
    session.tell(session.add(x[:, None]), x, np.where(x < 0.5, 0.5 - x, 0.0))
    assert 0.45 < np.median(session.peek(32)) < 0.65


def test_a_finite_space_is_tried_out_before_anything_is_repeated() -> None:
    space = Space({"n": Int(1, 12), "kind": ["a", "b", "c", "d"]})
    session = Session(TPE(startup=5), space, seed=2)
    session.play(5)
    before = {row.tobytes() for row in session.rows}
    session.play(5 + 40, batch=3, pending=2)
    assert len({row.tobytes() for row in session.rows}) == len(before) + 40
    session.play(100)
    assert len({row.tobytes() for row in session.rows}) == 48


def test_it_goes_on_where_hardly_a_row_meets_the_constraints() -> None:
    space = Space({"x": Float(0, 1)}, constraints=[lambda p: p["x"] < 0.02])
    session = Session(TPE(), space)
    session.play(40)
    assert (session.rows < 0.02).all()


def test_it_finds_the_better_branch_of_a_conditional_space() -> None:
    space = Space(
        {
            "model": Component(
                {
                    "a": ("a", {"x": Float(0, 1)}),
                    "b": ("b", {"x": Float(0, 1), "y": Float(0, 1)}),
                    "c": "c",
                }
            )
        }
    )
    session = Session(TPE(), space, seed=1)

    def loss(params: dict[str, object]) -> float:
        match params["model"]:
            case "a":
                return 1.0 + float(str(params["model.a.x"]))
            case "b":
                x, y = (float(str(params[f"model.b.{each}"])) for each in "xy")
                return (x - 0.2) ** 2 + (y - 0.8) ** 2
            case _:
                return 0.9

    for _ in range(120):
        for number in session.ask(1):
            session.tell([number], [loss(dict(space.params(session.rows[number])))])
    late = [space.params(row)["model"] for row in session.rows[60:]]
    assert late.count("b") > 45
    assert session.losses.min() < 0.01


def test_several_objectives_are_followed_to_the_front() -> None:
    space = Space({"x": Float(0, 1), "y": Float(0, 1)})
    session = Session(TPE(), space, objectives=2, seed=3)
    for _ in range(150):
        for number in session.ask(1):
            x, y = session.rows[number]
            session.tell([number], [[x + y, (1 - x) + y]])
    # The front is y = 0, all of it.
    late = session.rows[100:]
    assert np.median(late[:, 1]) < 0.05
    assert np.ptp(late[:, 0]) > 0.5


@pytest.mark.parametrize("name", ["numbers", "mixed", "conditional"])
def test_the_model_is_asked_after_the_startup(name: str) -> None:
    one, two = (Session(each, SPACES[name](), seed=1) for each in (TPE(), Random()))
    one.play(40)
    two.play(40)
    median = [np.nanmedian(each.losses[20:]) for each in (one, two)]
    assert median[0] < median[1]


def test_what_it_keeps_does_not_grow() -> None:
    session = Session(TPE(), Space({"x": Float(0, 1), "kind": ["a", "b"]}))
    rows = session.space.sample_rows(np.random.default_rng(0), 3000)
    session.tell(session.add(rows), rows[:, 0])
    strategy = session.strategy
    assert isinstance(strategy, TPE)
    assert len(strategy._history.units) == len(strategy._kernels) - 1 == 512
    assert session.peek(1)[0, 0] < 0.2
