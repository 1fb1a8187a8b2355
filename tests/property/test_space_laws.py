"""Laws that hold for every space: round trips, activity, counting, descriptions."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dspex.space import Bool, Choice, Component, Float, Int, Space, Variable

BIG = 2.0**40
LABELS = st.one_of(
    st.text("abcxyz", max_size=4),
    st.integers(-3, 3),
    st.booleans(),
    st.none(),
    st.floats(-2, 2, allow_nan=False),
)


def _distinct(labels: list[Any]) -> list[Any]:
    return list({(type(each), each): each for each in labels}.values())


@st.composite
def floats(draw: st.DrawFn, *, finite: bool = False) -> Variable:
    low = draw(st.floats(-BIG, BIG, allow_subnormal=False))
    kind = draw(st.sampled_from(["step"] if finite else ["plain", "log", "step"]))
    if kind == "step":
        low = draw(st.decimals(-50, 50, places=2).map(float))
        step = draw(st.decimals("0.01", 3, places=2).map(float))
        return Float(low, low + draw(st.integers(0, 6)) * step, step=step)
    if kind == "log":
        low = draw(st.floats(1e-12, 1e6))
        return Float(low, draw(st.floats(low, 1e12)), log=True)
    return Float(low, draw(st.floats(low, BIG)))


@st.composite
def ints(draw: st.DrawFn, *, finite: bool = False) -> Variable:
    log = draw(st.booleans())
    low = draw(st.integers(1 if log else -20, 20))
    width = draw(st.integers(0, 8 if finite else 2**43))
    return Int(low, low + width, log=log, step=draw(st.integers(1, max(1, min(5, width)))))


@st.composite
def choices(draw: st.DrawFn, *, finite: bool = False, depth: int = 1) -> Variable:
    labels = _distinct(draw(st.lists(LABELS, min_size=1, max_size=4)))
    if depth and draw(st.booleans()):
        # A value that fits both the choice and a choice in it could not be told apart.
        inner = draw(variables(finite=finite, depth=depth - 1))
        return Choice({f"plain {depth}": f"plain {depth}", "nested": inner})
    return Choice(labels, ordered=draw(st.booleans()))


@st.composite
def components(draw: st.DrawFn, *, finite: bool = False, depth: int = 1) -> Variable:
    labels = draw(st.lists(st.sampled_from("pqr"), min_size=1, max_size=3, unique=True))
    return Component(
        {
            label: (f"object {label} {depth}", draw(mappings(finite=finite, depth=depth - 1)))
            for label in labels
        }
    )


def variables(*, finite: bool = False, depth: int = 1) -> st.SearchStrategy[Variable]:
    leaf = [floats(finite=finite), ints(finite=finite), st.just(Bool())]
    nested = [choices(finite=finite, depth=depth)]
    if depth > 0:
        nested.append(components(finite=finite, depth=depth))
    return st.one_of(*leaf, *nested)


def _conditioned(draw: st.DrawFn, variable: Variable, name: str, parent: Variable) -> Variable:
    """The variable, active only for some values of its neighbour."""
    if isinstance(parent, Choice | Bool | Component):
        labels = [option.label for option in parent.options]
        chosen = draw(st.lists(st.sampled_from(labels), min_size=1, unique_by=repr))
        return variable.when(name, one_of=chosen)
    if isinstance(parent, Int):
        low = int(parent.range.low)
        if draw(st.booleans()):
            return variable.when(name, equals=low)
        return variable.when(name, satisfies=lambda value: value % 2 == 0)
    return variable.when(name, satisfies=lambda value: value > 0)


@st.composite
def mappings(draw: st.DrawFn, *, finite: bool = False, depth: int = 1) -> dict[str, Variable]:
    names = draw(st.lists(st.sampled_from("abcde"), max_size=4, unique=True))
    drawn = {name: draw(variables(finite=finite, depth=depth)) for name in names}
    for child, parent in zip(names[1:], names, strict=False):
        if draw(st.booleans()):
            drawn[child] = _conditioned(draw, drawn[child], parent, drawn[parent])
    return {name: drawn[name] for name in sorted(drawn)}


def spaces(*, finite: bool = False, depth: int = 2) -> st.SearchStrategy[Space]:
    return mappings(finite=finite, depth=depth).map(Space)


SEEDS = st.integers(0, 2**32)


def _sampled(space: Space, seed: int, n: int = 20) -> np.ndarray[Any, np.dtype[np.float64]]:
    return space.sample_rows(np.random.default_rng(seed), n)


@given(spaces(), SEEDS)
def test_params_and_rows_round_trip_exactly(space: Space, seed: int) -> None:
    rows = _sampled(space, seed)
    params = [space.params(row) for row in rows]
    np.testing.assert_array_equal(space.rows(params), rows)
    logged = [json.loads(json.dumps(each, allow_nan=False)) for each in params]
    np.testing.assert_array_equal(space.rows(logged), rows)
    again = [space.params(row) for row in space.rows(logged)]
    assert [repr(each) for each in again] == [repr(each) for each in params]


@given(spaces(), SEEDS)
def test_sampled_params_are_normal_and_so_is_what_programs_get(space: Space, seed: int) -> None:
    for params in space.sample(5, seed=seed):
        assert repr(space.normalise(params)) == repr(params)
        resolved = space.resolve(params)
        assert repr(space.normalise(resolved)) == repr(params)


@given(spaces(), SEEDS)
def test_unit_round_trip(space: Space, seed: int) -> None:
    rows = _sampled(space, seed)
    unit = space.to_unit(rows)
    np.testing.assert_array_equal(np.isnan(unit), np.isnan(rows))
    assert np.all((unit >= 0) & (unit <= 1) | np.isnan(unit))
    back = space.from_unit(unit)
    for j, leaf in enumerate(space.leaves):
        if leaf.cardinality is not None:
            np.testing.assert_array_equal(back[:, j], rows[:, j])
        else:
            # Linear floats are exact to the width of their range, logarithmic ones to themselves.
            scale = 0.0 if leaf.log else 1e-12 * max(abs(leaf.low), abs(leaf.high))
            np.testing.assert_allclose(back[:, j], rows[:, j], rtol=1e-12, atol=scale)


@given(spaces(), SEEDS, st.data())
def test_any_unit_array_gives_valid_rows(space: Space, seed: int, data: st.DataObject) -> None:
    rng = np.random.default_rng(seed)
    unit = rng.random((8, len(space))) * 1.5 - 0.25
    unit[rng.random(unit.shape) < 0.2] = np.nan
    corners = data.draw(st.sampled_from([0.0, 1.0, math.inf, -math.inf, math.nan]))
    unit[:2] = corners
    for row in space.from_unit(unit):
        space.validate(space.params(row))


@given(spaces(), SEEDS)
def test_activate_is_idempotent_and_keeps_active_values(space: Space, seed: int) -> None:
    rng = np.random.default_rng(seed)
    full = np.stack([[rng.choice(_some(leaf, rng)) for leaf in space.leaves] for _ in range(8)])
    full = full.reshape(8, len(space))
    active = space.activate(full)
    np.testing.assert_array_equal(space.activate(active), active)
    kept = ~np.isnan(active)
    np.testing.assert_array_equal(active[kept], full[kept])
    for row in active:
        space.validate(space.params(row))


def _some(leaf: Any, rng: np.random.Generator) -> Any:
    if leaf.cardinality is None or leaf.cardinality > 1000:
        return [leaf.low, leaf.high]
    return leaf.values()


@given(spaces(), SEEDS)
def test_a_description_is_json_and_reads_the_same_logs(space: Space, seed: int) -> None:
    described = json.loads(json.dumps(space.describe(), allow_nan=False))
    assert described == space.describe()
    read = Space.from_description(described)
    assert read.names == space.names
    rows = _sampled(space, seed)
    params = [space.params(row) for row in rows]
    np.testing.assert_array_equal(read.rows(params), rows)
    np.testing.assert_array_equal(read.to_unit(rows), space.to_unit(rows))
    if "satisfies" not in json.dumps(described):
        assert read == space
        np.testing.assert_array_equal(_sampled(read, seed), rows)


@given(spaces(finite=True))
def test_cardinality_counts_what_is_enumerated(space: Space) -> None:
    count = space.cardinality
    assert count is not None
    if count > 3000:
        return
    rows = list(space.enumerate_rows())
    assert len(rows) == count
    assert len({row.tobytes() for row in rows}) == count
    for row in rows[:20]:
        space.validate(space.params(row))


@given(spaces(), SEEDS)
def test_a_bound_or_label_is_accepted_and_a_step_beyond_is_not(space: Space, seed: int) -> None:
    for params in space.sample(3, seed=seed):
        for leaf in space.leaves:
            if leaf.name in params and leaf.kind == "int":
                beyond = {**params, leaf.name: int(leaf.high) + 1}
                parents = {c.parent for other in space.leaves for c in other.clauses}
                if leaf.name not in parents:
                    assert _refused(space, beyond)


def _refused(space: Space, params: dict[str, Any]) -> bool:
    try:
        space.validate(params)
    except ValueError:
        return True
    return False
