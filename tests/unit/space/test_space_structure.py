"""Conditions, components, derived values, constraints: how a space hangs together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from dspex.errors import InvalidArgumentError, InvalidSpaceError
from dspex.space import Bool, Choice, Component, Derived, Float, Int, Space


class Svc:
    def __repr__(self) -> str:
        return "Svc()"


class Knn:
    def __repr__(self) -> str:
        return "Knn()"


SVC, KNN = Svc(), Knn()


def classifier() -> Component:
    return Component(
        {
            "svc": (
                SVC,
                {
                    "kernel": Choice(["rbf", "poly"]),
                    "degree": Int(2, 5).when("kernel", equals="poly"),
                    "C": Float(0.1, 10, log=True),
                    "cost": Derived(lambda c: 2 * c, of=["C"]),
                },
            ),
            "knn": KNN,
        }
    )


def test_nested_variables_are_named_with_dots_and_follow_their_component() -> None:
    space = Space({"clf": classifier()})
    assert space.names == ("clf", "clf.svc.kernel", "clf.svc.degree", "clf.svc.C")
    assert space.is_conditional
    assert len(space) == 4
    assert space.params(space.rows([{"clf": "knn"}])[0]) == {"clf": "knn"}
    full = np.array([[1, 1, 3, 1.0], [0, 0, 3, 1.0], [0, 1, 3, 1.0]])
    nan = np.nan
    np.testing.assert_array_equal(
        space.activate(full), [[1, nan, nan, nan], [0, 0, nan, 1], [0, 1, 3, 1]]
    )


def test_a_program_gets_objects_and_derived_values() -> None:
    space = Space({"clf": classifier()})
    params = {"clf": "svc", "clf.svc.kernel": "rbf", "clf.svc.C": 1.5}
    resolved = space.resolve(params)
    assert resolved.pop("clf") is SVC
    assert resolved == {"clf.svc.kernel": "rbf", "clf.svc.C": 1.5, "clf.svc.cost": 3.0}
    assert space.resolve({"clf": "knn"}) == {"clf": KNN}


def test_components_nest() -> None:
    inner = Component({"ridge": ("R", {"alpha": Float(0, 1)}), "lasso": "L"})
    space = Space({"model": Component({"linear": inner, "tree": ("T", {"depth": Int(1, 3)})})})
    assert space.names == (
        "model",
        "model.linear",
        "model.linear.ridge.alpha",
        "model.tree.depth",
    )
    params = {"model": "linear", "model.linear": "ridge", "model.linear.ridge.alpha": 0.5}
    assert space.resolve(params) == {"model": "R", "model.linear.ridge.alpha": 0.5}
    assert space.normalise({"model": "R", "model.linear.ridge.alpha": 0.5}) == params
    assert space.normalise({"model": "L"}) == {"model": "linear", "model.linear": "lasso"}


def test_options_that_are_variables_are_folded() -> None:
    space = Space({"x": Choice([None, Int(3, 20), Choice(["a", Float(0.5, 1)])])})
    assert space.names == ("x", "x.int", "x.choice", "x.choice.float")
    params = {"x": "choice", "x.choice": "float", "x.choice.float": 0.75}
    assert space.resolve(params) == {"x": 0.75}
    assert space.normalise({"x": 0.75}) == params
    assert space.normalise({"x": 7.0}) == {"x": "int", "x.int": 7}
    assert space.normalise({"x": "a"}) == {"x": "choice", "x.choice": "a"}
    assert space.resolve({"x": None}) == {"x": None}


def test_the_default_of_a_choice_may_be_a_value_of_a_variable_in_it() -> None:
    space = Space({"x": Choice([None, Int(3, 20)], default=7), "y": Bool(True)})
    assert space.defaults() == {"x": "int", "x.int": 7, "y": True}


def test_defaults_of_active_variables_suffice() -> None:
    space = Space({"k": Choice(["a", "b"], default="a"), "n": Int(1, 3).when("k", equals="b")})
    assert space.defaults() == {"k": "a"}
    assert Space({"k": Choice(["a", "b"]), "n": Int(1, 3)}).defaults() is None
    broken = Space({"n": Int(1, 3, default=1)}, constraints=[lambda p: p["n"] > 1])
    assert broken.defaults() is None
    assert Space({}).defaults() == {}


def test_parents_come_first_whatever_the_order_of_writing() -> None:
    space = Space(
        {
            "c": Int(1, 2).when("b", equals=1),
            "a": Bool(),
            "b": Int(0, 1).when("a", equals=True),
        }
    )
    assert space.names == ("a", "b", "c")


def test_conditions_find_a_sibling_first_then_outwards() -> None:
    inner = {"n": Int(0, 1).when("k", equals="in"), "m": Int(0, 1).when("flag", equals=True)}
    space = Space(
        {
            "k": ["out", "other"],
            "flag": Bool(),
            "c": Component({"a": ("A", {"k": Choice(["in"]), **inner}), "b": "B"}),
            "top": Int(0, 1).when("c.a.k", equals="in"),
        }
    )
    leaves = {leaf.name: leaf for leaf in space.leaves}
    assert [c.parent for c in leaves["c.a.n"].clauses] == ["c", "c.a.k"]
    assert [c.parent for c in leaves["c.a.m"].clauses] == ["c", "flag"]
    assert [c.parent for c in leaves["top"].clauses] == ["c.a.k"]


def test_conditions_take_objects_numbers_and_functions() -> None:
    space = Space(
        {
            "f": [min, max],
            "n": Int(0, 9),
            "x": Float(0, 1),
            "of_object": Int(0, 1).when("f", equals=max),
            "of_label": Int(0, 1).when("f", satisfies=lambda label: label.startswith("mi")),
            "of_numbers": Int(0, 1).when("n", one_of=[1, 2.0]),
            "of_whole": Int(0, 1).when("n", satisfies=lambda n: isinstance(n, int) and n > 5),
            "of_float": Int(0, 1).when("x", satisfies=lambda x: x > 0.5),
        }
    )
    rows = np.ones((4, 8))
    rows[:, :3] = [[0, 1, 0.2], [1, 2, 0.7], [0, 6, 0.5], [1, 3, 0.9]]
    active = ~np.isnan(space.activate(rows)[:, 3:])
    assert active.tolist() == [
        [False, True, True, False, False],
        [True, False, True, False, True],
        [False, True, False, True, False],
        [True, False, False, False, True],
    ]


def test_a_child_of_an_inactive_parent_is_inactive_even_where_a_function_says_yes() -> None:
    space = Space(
        {
            "a": Bool(),
            "b": Int(0, 3).when("a", equals=True),
            "c": Int(0, 3).when("b", satisfies=lambda b: True),
        }
    )
    assert space.activate(np.zeros((1, 3)))[0].tolist() == pytest.approx(
        [0, np.nan, np.nan], nan_ok=True
    )


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"x": Int(0, 1).when("kernle", equals=1), "kernel": [1]}, "did you mean 'kernel'"),
        ({"x": Int(0, 1).when("x", equals=1)}, "in a circle; got x -> x"),
        (
            {"a": Int(0, 1).when("b", equals=1), "b": Int(0, 1).when("a", equals=1)},
            "in a circle; got a -> b -> a",
        ),
        ({"x": (0, 1)}, r"could be either; pass \[0, 1\], or Int\(0, 1\)"),
        ({"x": (0.5, 1)}, r"pass \[0.5, 1\], or Float\(0.5, 1\)"),
        ({"k": ["a"], "x": Int(0, 1).when("k", equals="b")}, "'k' is one of \\['a'\\]"),
        ({"k": Int(0, 3), "x": Int(0, 1).when("k", equals=4)}, "must lie between 0 and 3"),
        ({"k": ["a"], "x": Int(0, 1).when("k", satisfies=lambda k: False)}, "active somewhere"),
        ({"k": [None], "x": Int(0, 1).when("k", satisfies=lambda k: k > 1)}, "takes every label"),
        ({"x": Int(0, 1), "y": Derived(abs, ["z"])}, "'y' is computed from 'z', which is not in"),
        (
            {"x": Int(0, 1), "d": Derived(abs, ["x"]), "y": Int(0, 1).when("d", equals=1)},
            "which is derived, not chosen",
        ),
        ({"d": Derived(abs, ["e"]), "e": Derived(abs, ["d"])}, "in a circle; got d -> e -> d"),
        ({"x": Choice([Derived(abs, ["x"])])}, "put it beside the choice"),
        ({"x": 3}, "a constant is a list of one"),
        ({"x": []}, "in 'x': a Choice has at least one option"),
        ({3: Int(0, 1)}, "name is a string"),
        ({"": Int(0, 1)}, "name is a string"),
        ({"c": Component({"a": ("A", {"k": 3})})}, "'c.a.k' must be a variable"),
        ({"c.a.k": Int(0, 1), "c": Component({"a": ("A", {"k": [1]})})}, "two are called 'c.a.k'"),
        (
            {"c": Component({"1": ("A", {"k": [1]}), 1: ("B", {"k": [1]})})},
            "two are called 'c.1.k'",
        ),
    ],
)
def test_spaces_that_contradict_themselves_are_refused(variables: Any, words: str) -> None:
    with pytest.raises(InvalidSpaceError, match=words):
        Space(variables)


def test_what_is_no_space_is_refused() -> None:
    with pytest.raises(InvalidSpaceError, match="pass a dict"):
        Space([("x", Int(0, 1))])  # type: ignore[arg-type]
    with pytest.raises(InvalidSpaceError, match="belong to the study"):
        Space({"x": Int(0, 1)}, constraints=["x > 0"])  # type: ignore[list-item]


def test_plain_dicts_and_lists_are_accepted() -> None:
    space = Space.of({"a": [1, 2], "b": (1, 2, 3), "c": range(2), "d": np.array([0.5, 1.5])})
    assert [leaf.labels for leaf in space.leaves] == [(1, 2), (1, 2, 3), (0, 1), (0.5, 1.5)]
    assert Space.of(space) is space


def test_derived_values_of_derived_values_in_any_order() -> None:
    space = Space(
        {
            "area": Derived(lambda w, h: w * h, of=["width", "height"]),
            "height": Derived(lambda w: w + 1, of=["width"]),
            "width": Int(1, 9),
        }
    )
    assert space.resolve({"width": 2}) == {"width": 2, "height": 3, "area": 6}


def test_derived_values_see_what_programs_get_and_vanish_with_their_inputs() -> None:
    space = Space(
        {
            "depth": Choice([None, Int(3, 20)]),
            "leaves": Derived(lambda d: None if d is None else 2**d, of=["depth"]),
            "flag": Bool(),
            "n": Int(1, 2).when("flag", equals=True),
            "m": Derived(lambda n: -n, of=["n"]),
            "only": Derived(lambda d: "yes", of=["flag"]).when("flag", equals=True),
        }
    )
    assert space.resolve({"depth": "int", "depth.int": 3, "flag": False}) == {
        "depth": 3,
        "flag": False,
        "leaves": 8,
    }
    resolved = space.resolve({"depth": None, "flag": True, "n": 2})
    assert resolved == {
        "depth": None,
        "flag": True,
        "n": 2,
        "leaves": None,
        "m": -2,
        "only": "yes",
    }
    assert space.normalise(resolved) == {"depth": None, "flag": True, "n": 2}


def test_errors_of_users_functions_say_whose_they_are() -> None:
    space = Space({"x": Int(0, 1), "y": Derived(lambda x: 1 / x, of=["x"])})
    with pytest.raises(ZeroDivisionError) as caught:
        space.resolve({"x": 0})
    assert "derived variable 'y'" in caught.value.__notes__[0]
    constrained = Space({"x": Int(0, 1)}, constraints=[lambda p: p["y"]])
    with pytest.raises(KeyError) as missing:
        constrained.sample(seed=1)
    assert "inactive variables are absent" in missing.value.__notes__[0]


def below(params: Mapping[str, Any]) -> bool:
    return bool(params["a"] < params["b"])


def test_samples_meet_the_constraints_and_are_reproducible() -> None:
    space = Space({"a": Int(0, 99), "b": Int(0, 99)}, constraints=[below])
    rows = space.sample_rows(np.random.default_rng(1), 500)
    assert rows.shape == (500, 2)
    assert np.all(rows[:, 0] < rows[:, 1])
    assert space.feasible(rows).all()
    np.testing.assert_array_equal(rows, space.sample_rows(np.random.default_rng(1), 500))
    assert space.feasible(np.array([[1.0, 2], [2, 1]])).tolist() == [True, False]
    assert all(a < b for a, b in space.enumerate_rows())
    assert len(list(space.enumerate_rows())) == 99 * 100 // 2
    assert space.sample(0, seed=1) == []


def test_constraints_that_nothing_meets_end_sampling() -> None:
    space = Space({"a": Float(0, 1)}, constraints=[lambda p: p["a"] > 2])
    with pytest.raises(InvalidSpaceError, match="samples in a row did not meet"):
        space.sample(seed=1)
    with pytest.raises(InvalidArgumentError, match="n is a whole number"):
        space.sample(-1)


@pytest.mark.parametrize(
    ("variables", "count"),
    [
        ({}, 1),
        ({"x": Float(0, 1)}, None),
        ({"x": Float(1, 1), "y": [1, 2]}, 2),
        ({"x": Float(0, 1, step=0.25), "y": Bool()}, 10),
        ({"k": ["a", "b"], "n": Int(1, 5).when("k", equals="a")}, 6),
        ({"k": Int(0, 2**40), "n": Int(1, 5).when("k", one_of=[1, 2])}, 2**40 + 1 + 8),
        ({"k": Int(0, 2**40), "n": Int(1, 5).when("k", satisfies=bool)}, None),
        ({"a": Int(0, 2**40), "b": Int(0, 2**40)}, None),
        ({f"x{i}": Bool() for i in range(40)}, 2**40),
        ({"f": Bool(), **{f"x{i}": Bool().when("f", equals=True) for i in range(40)}}, 2**40 + 1),
        ({"clf": Component({"a": ("A", {"n": Int(1, 3)}), "b": "B"})}, 4),
    ],
)
def test_cardinality(variables: dict[str, Any], count: int | None) -> None:
    assert Space(variables).cardinality == count


def test_enumeration_is_in_a_fixed_order() -> None:
    space = Space({"k": ["a", "b"], "n": Int(1, 2).when("k", equals="a"), "f": Bool()})
    params = [space.params(row) for row in space.enumerate_rows()]
    assert params == [
        {"k": "a", "n": 1, "f": False},
        {"k": "a", "n": 1, "f": True},
        {"k": "a", "n": 2, "f": False},
        {"k": "a", "n": 2, "f": True},
        {"k": "b", "f": False},
        {"k": "b", "f": True},
    ]


@pytest.mark.parametrize(
    ("variable", "words"), [(Float(0, 1), "is continuous"), (Int(0, 2**30), "values")]
)
def test_what_is_too_large_is_not_enumerated(variable: Float | Int, words: str) -> None:
    with pytest.raises(InvalidSpaceError, match=words):
        next(Space({"x": variable}).enumerate_rows())
