"""Checking params: what is accepted, and what an error says."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

from dspex.errors import InvalidParamsError
from dspex.space import Bool, Choice, Component, Derived, Float, Int, Space


class Estimator:
    """Like an estimator: no ``==`` of its own, and a repr that tells its arguments."""

    def __init__(self, **options: Any) -> None:
        self.options = options

    def __repr__(self) -> str:
        return f"Estimator({self.options})"


class Odd:
    """Its ``==`` raises, as that of some arrays does."""

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no")

    __hash__ = None  # type: ignore[assignment]


ONE, TWO, ODD = Estimator(C=1), Estimator(C=2), Odd()


def space() -> Space:
    return Space(
        {
            "C": Float(0.01, 100, log=True),
            "rate": Float(0, 1, step=0.1),
            "n": Int(1, 9, step=2),
            "kernel": ["rbf", "poly"],
            "degree": Int(2, 5).when("kernel", equals="poly"),
            "shrink": Bool(),
            "double": Derived(lambda n: 2 * n, of=["n"]),
        }
    )


GOOD = {"C": 1.0, "rate": 0.3, "n": 3, "kernel": "rbf", "shrink": True}


def test_numpy_scalars_and_near_grid_points_become_plain_values() -> None:
    given = {
        "shrink": np.bool_(True),
        "kernel": np.str_("rbf"),
        "n": np.int32(3),
        "rate": 0.1 * 3,
        "C": 1,
    }
    clean = space().normalise(given)
    assert repr(clean) == repr(GOOD)
    assert list(clean) == ["C", "rate", "n", "kernel", "shrink"]


@pytest.mark.parametrize(
    ("change", "variable", "words"),
    [
        ({"kernal": "rbf"}, "kernal", "did you mean 'kernel'"),
        ({"zzz": 1}, "zzz", "the names are 'C', 'rate'"),
        ({"C": 0.001}, "C", "'C' must lie between 0.01 and 100.0; got 0.001"),
        ({"C": "1"}, "C", "must be a number; got '1'"),
        ({"C": True}, "C", "must be a number; got True"),
        ({"C": None}, "C", "must be a number; got None"),
        ({"C": float("nan")}, "C", "must be a number; got nan"),
        ({"C": 10**400}, "C", "must be a number"),
        ({"C": np.ones(2)}, "C", "must be a number"),
        ({"rate": 0.35}, "rate", "plus a multiple of the step 0.1; got 0.35"),
        ({"n": 2}, "n", "must be 1 plus a multiple of the step 2; got 2"),
        ({"n": 2.5}, "n", "must be a whole number; got 2.5"),
        ({"n": 11}, "n", "must lie between 1 and 9; got 11"),
        (
            {"kernel": "rfb"},
            "kernel",
            "must be one of 'rbf', 'poly'; got 'rfb'; did you mean 'rbf'",
        ),
        ({"kernel": ["rbf"]}, "kernel", "must be one of"),
        ({"shrink": 1}, "shrink", "must be one of False, True; got 1"),
        ({"degree": 3}, "degree", "is active only when 'kernel' is 'poly'; got degree=3 with"),
        ({"kernel": "poly"}, "degree", "'degree' is active, so params must hold it"),
        ({"double": 7}, "double", "is derived and must be 6; got 7"),
    ],
)
def test_errors_name_variable_rule_and_value(
    change: dict[str, Any], variable: str, words: str
) -> None:
    with pytest.raises(InvalidParamsError, match=words) as caught:
        space().validate({**GOOD, **change})
    fields = pickle.loads(pickle.dumps(caught.value)).__dict__
    assert fields["variable"] == variable
    assert fields["rule"]
    if variable in change:
        np.testing.assert_equal(fields["value"], change[variable])


def test_missing_variables_and_what_is_no_mapping_are_refused() -> None:
    with pytest.raises(InvalidParamsError, match="'n' is active, so params must hold it"):
        space().validate({k: v for k, v in GOOD.items() if k != "n"})
    with pytest.raises(InvalidParamsError, match="pass a dict"):
        space().validate([GOOD])  # type: ignore[arg-type]


def test_derived_values_that_agree_are_dropped() -> None:
    assert space().normalise({**GOOD, "double": 6}) == GOOD
    arrays = Space({"n": Int(1, 3), "grid": Derived(lambda n: np.arange(n), of=["n"])})
    assert arrays.normalise(arrays.resolve({"n": 2})) == {"n": 2}
    with pytest.raises(InvalidParamsError, match="'grid' is derived"):
        arrays.normalise({"n": 2, "grid": np.arange(3)})
    conditional = Space(
        {
            "f": Bool(),
            "n": Int(1, 3).when("f", equals=True),
            "m": Derived(abs, of=["n"]),
        }
    )
    with pytest.raises(InvalidParamsError, match="derived from an inactive variable"):
        conditional.normalise({"f": False, "m": 1})


def test_broken_constraints_are_named() -> None:
    def small(params: Any) -> bool:
        return bool(params["a"] + params["b"] < 5)

    constrained = Space({"a": Int(0, 9), "b": Int(0, 9)}, constraints=[small])
    with pytest.raises(InvalidParamsError, match=r"does not meet .*small"):
        constrained.validate({"a": 3, "b": 3})
    constrained.validate({"a": 2, "b": 2})


def test_objects_are_found_by_identity_equality_and_stable_repr() -> None:
    objects = {"one": ONE, "two": TWO, "odd": ODD, "array": np.arange(3), "pair": (1, 2)}
    choice = Space({"x": Choice(objects)})
    for label, each in objects.items():
        assert choice.normalise({"x": each}) == {"x": label}
        assert choice.normalise({"x": label}) == {"x": label}
        assert choice.resolve({"x": label})["x"] is each
    # as best_params come back from another process
    assert choice.normalise({"x": pickle.loads(pickle.dumps(TWO))}) == {"x": "two"}
    assert choice.normalise({"x": np.arange(3)}) == {"x": "array"}
    for stranger in (Estimator(C=3), Odd(), np.arange(4), (2, 1), object()):
        with pytest.raises(InvalidParamsError, match="'x' must be one of"):
            choice.normalise({"x": stranger})


def test_equal_objects_are_told_apart_by_their_own_variables() -> None:
    ridge = Space(
        {
            "m": Component(
                {
                    "small": (Estimator(), {"alpha": Float(0, 1)}),
                    "large": (Estimator(), {"alpha": Float(1, 9)}),
                }
            )
        }
    )
    params = {"m": "large", "m.large.alpha": 5.0}
    back = pickle.loads(pickle.dumps(ridge.resolve(params)))
    assert ridge.normalise(back) == params


def test_a_choice_and_its_variable_may_be_given_together_if_they_agree() -> None:
    depth = Space({"d": Choice([None, Int(3, 20)])})
    expected = {"d": "int", "d.int": 7}
    assert depth.normalise({"d": 7}) == expected
    assert depth.normalise({"d": "int", "d.int": 7}) == expected
    assert depth.normalise({"d": 7, "d.int": 7}) == expected
    with pytest.raises(InvalidParamsError, match="say the same; got 7 and 8"):
        depth.normalise({"d": 7, "d.int": 8})
    with pytest.raises(InvalidParamsError, match=r"'d\.int' is active, so params must hold it"):
        depth.normalise({"d": "int"})
    with pytest.raises(InvalidParamsError, match="'d' must be one of None, 'int'; got 21"):
        depth.normalise({"d": 21})


def test_equal_numbers_of_another_type_are_taken_where_nothing_fits_better() -> None:
    assert repr(Space({"x": [1, 2]}).normalise({"x": 2.0})) == "{'x': 2}"
    assert repr(Space({"x": [0.5, 2.0]}).normalise({"x": 2})) == "{'x': 2.0}"
    assert repr(Space({"x": [True, 1]}).normalise({"x": 1})) == "{'x': 1}"
    with pytest.raises(InvalidParamsError):
        Space({"x": [1, 2]}).normalise({"x": True})


def test_rows_take_absent_names_as_inactive_and_refuse_unknown_ones() -> None:
    rows = space().rows([{"kernel": "poly"}, {}])
    assert np.isnan(rows).sum() == 11
    faults: list[tuple[dict[str, Any], str]] = [
        ({"kernal": "rbf"}, "did you mean 'kernel'"),
        ({"kernel": "rfb"}, "did you mean 'rbf'"),
        ({"kernel": ["rbf"]}, "must be one of"),
        ({"C": "much"}, "must be a number"),
        ({"C": None}, "must be a number"),
        ({"C": float("nan")}, "must be a number"),
        ({"C": [1.0]}, "must be a number"),
    ]
    for params, words in faults:
        with pytest.raises(InvalidParamsError, match=words):
            space().rows([GOOD, params])


def test_labels_that_python_confuses_are_refused_by_name_in_rows() -> None:
    confusing = Space({"x": [1, True, "a"]})
    assert confusing.rows([{"x": True}, {"x": 1.0}])[:, 0].tolist() == [1, 0]
    with pytest.raises(InvalidParamsError, match="'x' must be one of"):
        confusing.rows([{"x": 2}])


def test_resolve_is_a_copy_and_refuses_what_is_not_normal() -> None:
    plain = Space({"x": Int(1, 2)})
    params: dict[str, Any] = {"x": 1}
    assert plain.resolve(params) == params
    assert plain.resolve(params) is not params
    depth = Space({"d": Choice([None, Int(3, 20)])})
    with pytest.raises(InvalidParamsError, match="params hold it"):
        depth.resolve({"d": "int"})
    with pytest.raises(InvalidParamsError, match="must be one of"):
        depth.resolve({"d": 7})
    with pytest.raises(InvalidParamsError, match="name variables of the space"):
        depth.resolve({"e": 7})
