"""Variables: bounds, grids, labels, defaults, and what they refuse."""

from __future__ import annotations

import enum
import math
import pickle
from functools import partial
from typing import Any

import numpy as np
import pytest

from dspex.errors import InvalidSpaceError
from dspex.space import Bool, Choice, Component, Derived, Float, Int, Space, Variable
from dspex.space.labels import label_of


class Colour(enum.Enum):
    RED = 1


class Named:
    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"Named({self.name!r})"


class Nameless:
    pass


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Float(1, 0), "low is at most high"),
        (lambda: Float(0, math.inf), "high is a finite number"),
        (lambda: Float(math.nan, 1), "low is a finite number"),
        (lambda: Float("0", 1), "low is a finite number"),  # type: ignore[arg-type]
        (lambda: Float(False, 1), "low is a finite number"),
        (lambda: Float(0, 10**400), "high is a finite number"),
        (lambda: Float(-1.7e308, 1.7e308), "width of a range is finite"),
        (lambda: Float(0, 1, log=True), "lies above 0"),
        (lambda: Float(1, 2, log=True, step=0.1), "log=True or a step, not both"),
        (lambda: Float(0, 1, step=0), "positive number"),
        (lambda: Float(0, 1, step=3), "a step is at most as wide as the range; got step=3"),
        (lambda: Float(0, 1, step=math.nan), "positive number"),
        (lambda: Float(0, 1, step=1e-17), "at most 2\\*\\*50 points"),
        (lambda: Float(0, 1, default=1.1), "must lie between 0.0 and 1.0; got default=1.1"),
        (lambda: Float(0, 1, default=math.nan), "must be a number"),
        (lambda: Float(0, 1, step=0.5, default=0.3), "plus a multiple of the step 0.5"),
        (lambda: Int(0.5, 2), "whole number"),  # type: ignore[arg-type]
        (lambda: Int(0, 2**53 + 1), "between -2\\*\\*53 and 2\\*\\*53"),
        (lambda: Int(-(2**52), 2**52), "at most 2\\*\\*50 points"),
        (lambda: Int(1, 2**45, log=True), "ends at 2\\*\\*44"),
        (lambda: Int(0, 5, log=True), "lies above 0"),
        (lambda: Int(0, 5, step=1.5), "step of an Int is a whole number"),  # type: ignore[arg-type]
        (lambda: Int(0, 5, default=2.5), "must be a whole number"),  # type: ignore[arg-type]
        (lambda: Int(0, 5, default=True), "must be a whole number"),
        (lambda: Choice([]), "at least one option"),
        (lambda: Choice("abc"), "are a list or a dict"),
        (lambda: Choice({"b", "a"}), "a set has no order"),
        (lambda: Choice(["a", "a"]), "two options are called 'a'"),
        (lambda: Choice([np.float64(1), 1.0]), "two options are called 1.0"),
        (lambda: Choice([math.nan]), "NaN equals nothing"),
        (lambda: Choice([lambda: 1]), "a lambda has no name"),
        (lambda: Choice([Nameless()]), "Nameless objects print as an address"),
        (lambda: Choice([partial(max, Nameless())]), "has an address in it"),
        (lambda: Choice([(1, Nameless())]), "has an address in it"),
        (lambda: Choice(["a"], default="b"), "a default is one of the options"),
        (lambda: Choice([None, Int(3, 20)], default=2), "a default is one of the options"),
        (lambda: Choice({(1, 2): "a"}), "a label is a str, int, finite float, bool or None"),
        (lambda: Choice({math.inf: "a"}), "a label is a str, int, finite float, bool or None"),
        (lambda: Choice({"a": "b", "b": "a"}), "does not stand for one option and equal another"),
        (lambda: Choice([Int(1, 2).when("x", equals=1)]), "no condition of its own"),
        (lambda: Component(["a"]), "a Component is a dict"),  # type: ignore[arg-type]
        (lambda: Component({}), "at least one option"),
        (lambda: Component({"a": 1}, default="b"), "a default is one of the options"),
        (lambda: Derived(3, of=["x"]), "computed by a function"),  # type: ignore[arg-type]
        (lambda: Derived(abs, of="x"), "as a list of strings"),
        (lambda: Derived(abs, of=[]), "as a list of strings"),
        (lambda: Int(1, 2).when("x"), "exactly one of"),
        (lambda: Int(1, 2).when("x", equals=1, one_of=[1]), "exactly one of"),
        (lambda: Int(1, 2).when("x", one_of=[]), "is empty"),
        (lambda: Int(1, 2).when("x", one_of="abc"), "use equals="),
        (lambda: Int(1, 2).when("x", satisfies=0), "takes a function"),  # type: ignore[arg-type]
        (lambda: Int(1, 2).when(3, equals=1), "by a string"),  # type: ignore[arg-type]
    ],
)
def test_contradictions_are_refused_with_rule_and_value(make: Any, words: str) -> None:
    with pytest.raises(InvalidSpaceError, match=words):
        make()


@pytest.mark.parametrize(
    ("variable", "high", "count"),
    [
        (Float(0, 1, step=0.1), 1.0, 11),
        (Float(0, 0.3, step=0.1), 0.3, 4),
        (Float(0, 3 * 0.1, step=0.1), 0.3, 4),
        (Float(0, 1, step=0.3), 0.9, 4),
        (Float(-1, 1, step=1e-5), 1.0, 200_001),
        (Float(0.05, 1, step=0.1), 0.95, 10),
        (Float(0, 1, step=1 / 3), 1.0, 4),
        (Int(1, 10, step=4), 9, 3),
        (Int(7, 7), 7, 1),
        (Float(7, 7), 7, 1),
        (Int(0, 2**50 - 1), 2**50 - 1, 2**50),
    ],
)
def test_high_is_lowered_onto_the_grid(variable: Float | Int, high: float, count: int) -> None:
    assert variable.range.high == pytest.approx(high, rel=1e-15)
    assert variable.range.count == count


def test_points_of_a_grid_are_the_decimals_that_people_write() -> None:
    leaf = Space({"x": Float(0, 1, step=0.1)}).leaves[0]
    assert leaf.values().tolist() == [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1]


@pytest.mark.parametrize(
    ("option", "label"),
    [
        ("a", "a"),
        (1, 1),
        (1.0, 1.0),
        (True, True),
        (None, None),
        (np.int64(3), 3),
        (np.float32(0.5), 0.5),
        (np.bool_(True), True),
        (np.str_("a"), "a"),
        (math.inf, "inf"),
        (-math.inf, "-inf"),
        (max, "max"),
        (np.tanh, "tanh"),
        (Named, "Named"),
        (Colour.RED, "Colour.RED"),
        ((100, np.int64(50)), "(100, 50)"),
        ([1, "a"], "[1, 'a']"),
        (Named("x"), "Named('x')"),
    ],
)
def test_labels(option: Any, label: Any) -> None:
    assert label_of(option) == label
    assert type(label_of(option)) is type(label)


def test_long_labels_are_shortened_and_kept_apart() -> None:
    one, other = label_of(Named("x" * 200 + "1")), label_of(Named("x" * 200 + "2"))
    assert isinstance(one, str)
    assert len(one) <= 80
    assert one != other


def test_labels_differ_by_type() -> None:
    space = Space({"x": [1, 1.0, True, "1"]})
    rows = space.rows([{"x": 1}, {"x": 1.0}, {"x": True}, {"x": "1"}])
    assert rows[:, 0].tolist() == [0, 1, 2, 3]
    assert [type(space.params(row)["x"]) for row in rows] == [int, float, bool, str]


def test_several_variables_among_the_options_are_numbered() -> None:
    space = Space({"x": Choice([Int(1, 2), "a", Int(5, 6), Float(0, 1), Bool(), Choice(["b"])])})
    assert space.leaves[0].labels == ("int1", "a", "int2", "float", "bool", "choice")
    assert space.names[1:] == ("x.int1", "x.int2", "x.float", "x.bool", "x.choice")


def test_none_may_be_a_default_where_it_is_an_option() -> None:
    assert Space({"x": Choice([None, 3], default=None)}).defaults() == {"x": None}
    assert Space({"x": Choice([None, 3])}).defaults() is None
    assert Space({"x": Choice([1, 3], default=None)}).defaults() is None


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        (Float(0.01, 100, log=True, default=1), "Float(0.01, 100.0, log=True, default=1.0)"),
        (Int(0, 9, step=3, default=0), "Int(0, 9, step=3, default=0)"),
        (Choice(["a", None], ordered=True), "Choice(['a', None], ordered=True)"),
        (Choice({"a": max}, default="a"), "Choice({'a': <built-in function max>}, default='a')"),
        (Choice([None, Int(1, 2)]), "Choice([None, Int(1, 2)])"),
        (Bool(), "Bool()"),
        (Bool(False), "Bool(False)"),
        (Derived(max, ["a", "b"]), "Derived(builtins.max, of=['a', 'b'])"),
        (Int(1, 2).when("x", one_of=[1, 2]), "Int(1, 2).when('x', one_of=[1, 2])"),
        (
            Int(1, 2).when("x", satisfies=bool).when("y", equals=None),
            "Int(1, 2).when('x', satisfies=builtins.bool).when('y', equals=None)",
        ),
        (
            Component({"a": (max, {"n": Int(1, 2)}), "b": min}, default="b"),
            "Component({'a': (<built-in function max>, {'n': Int(1, 2)}), "
            "'b': <built-in function min>}, default='b')",
        ),
    ],
)
def test_reprs_are_what_one_would_type(variable: Variable, text: str) -> None:
    assert repr(variable) == text


def test_variables_are_values() -> None:
    one = Int(1, 5, default=2).when("x", equals=None)
    assert one == pickle.loads(pickle.dumps(one))
    assert hash(one) == hash(Int(1, 5, default=2).when("x", equals=None))
    assert one != Int(1, 5, default=2)
    assert Choice(["a"]) == pickle.loads(pickle.dumps(Choice(["a"])))
    assert Space({"x": pickle.loads(pickle.dumps(Choice(["a", None])))}) == Space(
        {"x": ["a", None]}
    )
    with pytest.raises(AttributeError):
        one.default = 3  # type: ignore[misc]
