"""The unit cube, scipy distributions, descriptions, pickles."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from typing import Any

import cloudpickle
import numpy as np
import pytest
from scipy import stats

from dspex.errors import InvalidSpaceError
from dspex.space import Bool, Choice, Component, Derived, Float, Int, Leaf, Space

NAN = np.nan


def units(variable: Any, values: list[float]) -> list[float]:
    column = np.array(values, dtype=np.float64)[:, None]
    flat: list[float] = Space({"x": variable}).to_unit(column)[:, 0].tolist()
    return flat


def raws(variable: Any, unit: list[float]) -> list[float]:
    column = np.array(unit)[:, None]
    flat: list[float] = Space({"x": variable}).from_unit(column)[:, 0].tolist()
    return flat


def test_floats_go_linearly_or_by_their_logarithm() -> None:
    assert units(Float(-2, 2), [-2, -1, 2]) == [0, 0.25, 1]
    assert units(Float(0.01, 100, log=True), [0.01, 1, 100]) == pytest.approx([0, 0.5, 1])
    assert raws(Float(-2, 2), [0, 0.25, 1]) == [-2, -1, 2]
    assert raws(Float(0.1, 0.3), [0, 1]) == [0.1, 0.3]
    assert raws(Float(1e-3, 0.3, log=True), [0, 1]) == pytest.approx([1e-3, 0.3], rel=1e-15)
    assert min(raws(Float(1e-3, 0.3, log=True), [0, 1e-18])) >= 1e-3


def test_points_have_bins_of_equal_width() -> None:
    assert units(Int(1, 4), [1, 2, 3, 4]) == [0.125, 0.375, 0.625, 0.875]
    assert raws(Int(1, 4), [0, 0.2499, 0.25, 0.99, 1]) == [1, 1, 2, 4, 4]
    assert units(["a", "b"], [0, 1]) == [0.25, 0.75]
    assert units(Float(0, 1, step=0.25), [0, 0.5]) == pytest.approx([0.1, 0.5])
    assert units(Int(5, 5), [5]) == units(Float(5, 5), [5]) == units(["a"], [0]) == [0.5]


def test_logarithmic_whole_numbers_have_edges_half_a_step_off() -> None:
    low, high = np.log(0.5), np.log(8.5)
    middle = (np.log(1.5) + np.log(2.5)) / 2
    assert units(Int(1, 8, log=True), [2]) == pytest.approx([(middle - low) / (high - low)])
    edge = (np.log(1.5) - low) / (high - low)
    assert raws(Int(1, 8, log=True), [edge - 1e-9, edge + 1e-9]) == [1, 2]
    assert raws(Int(1, 9, log=True, step=4), [0, 0.99]) == [1, 9]


@pytest.mark.parametrize(
    "variable",
    [
        Int(1, 2**44, log=True),
        Int(2**43, 2**44, log=True, step=3),
        Int(-(2**49), 2**49 - 1),
        Int(2**53 - 5, 2**53),
        Float(0, 1, step=1e-9),
        Float(1e6, 1e6 + 1, step=1e-5),
    ],
)
def test_extreme_grids_round_trip_exactly(variable: Any) -> None:
    space = Space({"x": variable})
    rows = space.sample_rows(np.random.default_rng(0), 2000)
    rows[:2, 0] = space.leaves[0].low, space.leaves[0].high
    np.testing.assert_array_equal(space.from_unit(space.to_unit(rows)), rows)
    np.testing.assert_array_equal(space.rows([space.params(row) for row in rows]), rows)
    space.validate(space.params(rows[2]))


def test_inactive_units_are_nan_and_activity_is_repaired() -> None:
    space = Space(
        {
            "k": ["a", "b"],
            "n": Int(1, 4, default=4).when("k", equals="a"),
            "x": Float(0, 2).when("k", equals="a"),
        }
    )
    np.testing.assert_array_equal(space.to_unit(np.array([[1, NAN, NAN]])), [[0.75, NAN, NAN]])
    rows = space.from_unit(np.array([[0.9, 0.5, 0.5], [0.1, NAN, NAN], [NAN, 0.1, 7]]))
    np.testing.assert_array_equal(rows, [[1, NAN, NAN], [0, 4, 1], [1, NAN, NAN]])


def test_plain_distributions_become_plain_variables() -> None:
    space = Space(
        {
            "u": stats.uniform(1, 4),
            "l": stats.loguniform(1e-3, 10),
            "r": stats.reciprocal(1e-3, 1e-1, scale=10),
            "i": stats.randint(3, 9, loc=1),
        }
    )
    expected = {
        "u": Float(1, 5),
        "l": Float(1e-3, 10, log=True),
        "r": Float(1e-2, 1, log=True),
        "i": Int(4, 9),
    }
    assert space == Space(expected)


DISTRIBUTIONS = [
    stats.norm(3, 2),
    stats.expon(scale=5),
    stats.cauchy(),
    stats.beta(2, 3, loc=1),
    stats.loguniform(1, 10, loc=5),
    stats.poisson(4),
    stats.geom(0.1),
    stats.binom(10, 0.3),
    stats.rv_discrete(values=([1, 5, 10], [0.2, 0.5, 0.3])),
]


@pytest.mark.parametrize("frozen", DISTRIBUTIONS, ids=range(len(DISTRIBUTIONS)))
def test_samples_follow_their_distribution(frozen: Any) -> None:
    space = Space({"x": frozen})
    leaf = space.leaves[0]
    rows = space.sample_rows(np.random.default_rng(0), 4000)
    assert np.all((rows >= leaf.low) & (rows <= leaf.high))
    # Kolmogorov's distance at 4,000 samples exceeds 0.035 once in 10,000 draws.
    values = np.unique(rows)
    empirical = np.searchsorted(np.sort(rows[:, 0]), values, side="right") / len(rows)
    assert np.abs(empirical - frozen.cdf(values)).max() < 0.035
    for row in rows[:5]:
        assert space.params(space.rows([space.normalise(space.params(row))])[0])
    back = space.from_unit(space.to_unit(rows))
    if leaf.kind == "int":
        np.testing.assert_array_equal(back, rows)
        assert leaf.cardinality == len(list(space.enumerate_rows()))
    else:
        np.testing.assert_allclose(back, rows, rtol=1e-6)


def test_a_discrete_distribution_refuses_what_it_does_not_give() -> None:
    space = Space({"x": stats.rv_discrete(values=([1, 5, 10], [0.2, 0.5, 0.3]))})
    assert space.cardinality == 3
    with pytest.raises(ValueError, match="a number that its distribution gives"):
        space.validate({"x": 2})


def test_scipys_newer_distributions_are_taken_too() -> None:
    normal = Space({"x": stats.Normal(mu=0.0, sigma=1.0)})
    rows = normal.from_unit(np.array([[0.5], [0.975]]))
    assert rows[:, 0].tolist() == pytest.approx([0, 1.959964], abs=1e-6)
    assert Space({"x": stats.Uniform(a=1.0, b=2.0)}) == Space({"x": Float(1, 2)})
    coins = Space({"x": stats.Binomial(n=3, p=0.5)})
    assert [row[0] for row in coins.enumerate_rows()] == [0, 1, 2, 3]


def test_distributions_may_be_options_and_have_no_arrays() -> None:
    space = Space({"d": Choice([None, stats.randint(3, 21), stats.norm(0, 1)])})
    assert space.names == ("d", "d.int", "d.float")
    for frozen, words in [
        (stats.uniform([0, 1], [1, 2]), "one number"),
        (stats.norm(0, -1), "valid, single arguments"),
        (stats.beta, "lacks its arguments"),
        (stats.rv_discrete(values=([0.5, 1.5], [0.5, 0.5])), "gives whole numbers"),
        (stats.zipf(1.1), "at most 2\\*\\*20 likely values"),
    ]:
        with pytest.raises(InvalidSpaceError, match=words):
            Space({"x": frozen})


def big_space() -> Space:
    return Space(
        {
            "clf": Component({"a": (max, {"C": Float(0.1, 9, log=True)}), "b": min}, default="b"),
            "depth": Choice([None, Int(3, 20)], default=7),
            "lambda": Float(0, 1, step=0.1).when("clf", satisfies=lambda label: label == "b"),
            "many": Int(0, 9).when("lambda", satisfies=lambda value: value > 0.5),
            "x": stats.norm(0, scale=2),
            "twice": Derived(lambda x: 2 * x, of=["x"]),
        },
        constraints=[lambda params: params["x"] < 2],
    )


def test_a_description_drops_functions_and_reads_logs() -> None:
    space = big_space()
    described = json.loads(json.dumps(space.describe(), allow_nan=False))
    assert described["constraints"] == [f"{__name__}.big_space.<locals>.<lambda>"]
    assert "0x" not in json.dumps(described)
    read = Space.from_description(described)
    logged = space.sample(20, seed=3)
    np.testing.assert_array_equal(read.rows(logged), space.rows(logged))
    np.testing.assert_array_equal(
        read.to_unit(read.rows(logged)), space.to_unit(space.rows(logged))
    )
    assert read.defaults() is None
    assert read.resolve({"clf": "a", "clf.a.C": 1.0, "depth": "int", "depth.int": 5}) == {
        "clf": "a",
        "clf.a.C": 1.0,
        "depth": 5,
    }
    assert read != space
    assert Space.from_description(read.describe()) == read


def test_a_distribution_that_only_its_process_knows_is_read_as_its_bounds() -> None:
    space = Space({"x": stats.rv_discrete(values=([1, 5], [0.5, 0.5]))})
    read = Space.from_description(space.describe())
    assert (read.leaves[0].low, read.leaves[0].high) == (1, 5)


def test_spaces_pickle_compare_and_cannot_be_changed() -> None:
    space = big_space()
    copy = pickle.loads(cloudpickle.dumps(space))
    assert copy == space
    assert hash(copy) == hash(space)
    assert copy.sample(3, seed=1) == space.sample(3, seed=1)
    assert copy.resolve(space.sample(seed=1)) == space.resolve(space.sample(seed=1))
    plain = Space({"x": [1, 2], "y": Int(0, 1).when("x", equals=1)})
    assert pickle.loads(pickle.dumps(plain)) == plain
    assert plain != Space({"x": [1, 2], "y": Int(0, 1).when("x", equals=2)})
    assert plain != {"x": [1, 2]}
    with pytest.raises(AttributeError, match="immutable"):
        space.names = ()


def test_a_space_reads_well() -> None:
    text = repr(big_space())
    assert text.splitlines()[:4] == [
        "Space(",
        "  clf: 'a', 'b' (default 'b')",
        "  clf.a.C: float 0.1 to 9.0, log, when 'clf' is 'a'",
        "  depth: None, 'int' (default 'int')",
    ]
    assert repr(Space({})) == "Space()"


def test_leaves_say_what_a_column_holds() -> None:
    number, choice, flag = Space(
        {"n": Int(1, 9, step=2, default=3), "k": Choice(["a", "b"], ordered=True), "f": Bool()}
    ).leaves
    assert number == Leaf(
        name="n", kind="int", low=1.0, high=9.0, step=2.0, default=3, has_default=True
    )
    assert (choice.kind, choice.labels, choice.ordered, choice.low, choice.high) == (
        "choice",
        ("a", "b"),
        True,
        0.0,
        1.0,
    )
    assert flag.labels == (False, True)
    assert [leaf.cardinality for leaf in (number, choice, flag)] == [5, 2, 2]
    assert Space({"x": Float(0, 1)}).leaves[0].cardinality is None


def test_the_room_loads_without_scipy() -> None:
    code = (
        "import sys; from dspex.space import Float, Space; Space({'x': Float(0, 1)}).sample(); "
        "print([m for m in ('scipy', 'sklearn', 'pandas', 'distributed') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
