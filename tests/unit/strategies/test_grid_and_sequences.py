"""Grid, Sobol and Random: what they promise beyond the laws."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from dspex.errors import InvalidArgumentError
from dspex.space import Bool, Choice, Float, Int, Space
from dspex.strategies import Grid, Random, Sobol
from dspex.strategies.blocks import BLOCK, Blocks
from dspex.testing.strategies import SPACES, Session


def test_a_grid_gives_every_row_once() -> None:
    session = Session(Grid(), SPACES["finite conditional"]())
    numbers = session.ask(100)
    assert len(numbers) == session.space.cardinality == 4
    assert len({row.tobytes() for row in session.rows}) == 4
    session.tell(numbers, np.zeros(4))
    assert session.ask(1) == []


def test_a_grid_asked_one_by_one_gives_every_row_once() -> None:
    session = Session(Grid(), SPACES["finite"]())
    session.play(100, pending=2)
    assert len(session.rows) == 6
    assert len({row.tobytes() for row in session.rows}) == 6


def test_a_grid_tells_numbers_of_the_same_digits_apart() -> None:
    space = Space({"n": Int(1, 30), "C": Float(0.1, 10, log=True)})
    session = Session(Grid(resolution=3), space)
    session.play(100)
    assert len({row.tobytes() for row in session.rows}) == len(session.rows) == 90


def test_a_grid_is_shuffled_by_the_seed() -> None:
    space = Space({"n": Int(0, 99)})
    one, two = (Session(Grid(), space, seed=seed) for seed in (1, 2))
    one.ask(100)
    two.ask(100)
    assert sorted(one.rows[:, 0]) == sorted(two.rows[:, 0]) == list(range(100))
    assert not np.array_equal(one.rows, two.rows)
    assert not np.array_equal(one.rows[:, 0], np.arange(100))


def test_a_grid_skips_what_others_tried() -> None:
    space = Space({"x": Float(0, 1), "kind": ["a", "b"]})
    session = Session(Grid(resolution=11), space)
    # As a user types it, 0.3 is not the grid's 0.30000000000000004.
    mine = session.add(space.rows([{"x": 0.3, "kind": "a"}, {"x": 0.25, "kind": "a"}]))
    session.tell(mine[:1], [1.0])
    rows = session.peek(100)
    assert len(rows) == 21
    assert not ((np.abs(rows[:, 0] - 0.3) < 1e-9) & (rows[:, 1] == 0)).any()


def test_a_grid_keeps_the_constraints() -> None:
    session = Session(Grid(resolution=3), SPACES["constrained"]())
    session.ask(100)
    assert sorted(map(tuple, session.rows.tolist())) == [
        (0, 0), (0, 0.5), (0, 1), (0.5, 0), (0.5, 0.5), (1, 0),
    ]  # fmt: skip


def test_a_grid_spaces_continuous_variables_on_their_scale() -> None:
    space = Space({"log": Float(0.01, 1, log=True), "law": stats.norm(0, 1)})
    session = Session(Grid(resolution=3), space)
    session.ask(9)
    assert sorted(set(session.rows[:, 0])) == pytest.approx([0.01, 0.1, 1])
    assert sorted(set(session.rows[:, 1])) == pytest.approx(stats.norm.ppf([1 / 6, 0.5, 5 / 6]))


def test_a_grid_needs_a_resolution_for_continuous_variables() -> None:
    with pytest.raises(InvalidArgumentError, match=r"'x' is continuous; .*Grid\(resolution=5\)"):
        Session(Grid(), Space({"kind": ["a", "b"], "x": Float(0, 1)}))


def test_a_grid_that_is_too_large_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="at most 1,000,000 rows"):
        Session(Grid(), Space({f"n{i}": Int(1, 100) for i in range(9)}))


def test_sobol_fills_every_quarter_evenly() -> None:
    session = Session(Sobol(), Space({"x": Float(0, 1), "y": Float(0, 1)}))
    session.play(64)
    cells = np.floor(8 * session.rows[:, 0]) + 8 * np.floor(8 * session.rows[:, 1])
    assert len(set(cells)) == 64


def test_sobol_has_only_so_many_dimensions() -> None:
    space = Space({f"x{i}": Float(0, 1) for i in range(21_202)})
    with pytest.raises(InvalidArgumentError, match=r'at most 21201 dimensions.*strategy="random"'):
        Session(Sobol(), space)


@pytest.mark.parametrize("strategy", [Random, Sobol])
def test_a_row_follows_from_its_number_alone(strategy: type[Random] | type[Sobol]) -> None:
    space = SPACES["conditional"]()
    together = Session(strategy(), space, seed=5)
    together.ask(200)
    apart = Session(strategy(), space, seed=5)
    apart.play(200, batch=7, pending=20)
    assert np.array_equal(together.rows, apart.rows, equal_nan=True)


def test_random_covers_labels_evenly() -> None:
    session = Session(Random(), Space({"kind": ["a", "b", "c"], "flag": Bool()}))
    session.ask(3000)
    counts = np.bincount((2 * session.rows[:, 0] + session.rows[:, 1]).astype(int))
    assert stats.chisquare(counts).pvalue > 1e-3


def test_blocks_are_made_once_while_in_use() -> None:
    made: list[int] = []

    def make(index: int) -> np.ndarray:
        made.append(index)
        return np.full((BLOCK, 1), float(index))

    blocks = Blocks(make)
    assert blocks.rows(0, BLOCK + 1)[:, 0].tolist() == [0.0] * BLOCK + [1.0]
    assert blocks.rows(BLOCK + 1, 3)[:, 0].tolist() == [1.0] * 3
    assert made == [0, 1]


def test_ordered_choices_and_constants_are_fine_everywhere() -> None:
    space = Space({"size": Choice(["s", "m"], ordered=True), "one": Int(3, 3)})
    for strategy in (Grid(), Random(), Sobol()):
        session = Session(strategy, space)
        session.ask(2)
        assert (session.rows[:, 1] == 3).all()
