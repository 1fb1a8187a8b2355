"""The laws of strategies, over random spaces and random courses of events."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspex.errors import InvalidArgumentError
from dspex.space import Choice, Float, Int, Space
from dspex.strategies import CMAES, TPE, Grid, Random, Sobol, Strategy
from dspex.testing.strategies import Session

MAKERS = {
    "random": Random,
    "sobol": Sobol,
    "grid": lambda: Grid(resolution=2),
    "tpe": lambda: TPE(startup=3, candidates=4),
    "cmaes": lambda: CMAES(population=4),
}


@st.composite
def variables(draw: st.DrawFn) -> Any:
    match draw(st.integers(0, 4)):
        case 0:
            low = draw(st.floats(-1e6, 1e6))
            return Float(low, low + draw(st.floats(1e-3, 1e6)))
        case 1:
            low = draw(st.floats(1e-9, 1e3))
            return Float(low, low * draw(st.floats(1.5, 1e9)), log=True)
        case 2:
            low = draw(st.integers(1, 50))
            return Int(low, low + draw(st.integers(0, 500)), log=draw(st.booleans()))
        case 3:
            return Float(0, 1, step=draw(st.sampled_from([0.1, 0.25, 0.3, 1])))
        case _:
            return Choice(list("abcdef")[: draw(st.integers(1, 6))], ordered=draw(st.booleans()))


@st.composite
def spaces(draw: st.DrawFn) -> Space:
    made = {f"v{i}": draw(variables()) for i in range(draw(st.integers(1, 4)))}
    if draw(st.booleans()):
        made["gate"] = Choice(["on", "off"])
        made["child"] = draw(variables()).when("gate", equals="on")
    return Space(made)


# What may happen next: ask for so many, or tell the outcome of some of the active trials.
outcomes = st.one_of(
    st.floats(-1e9, 1e9),
    st.sampled_from([0.0, float("nan"), 1e308, -1e308, 5e-324]),
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.integers(1, 9)),
        st.tuples(st.just("tell"), st.lists(st.tuples(outcomes, st.sampled_from([0.0, 0.0, 2.0])))),
    ),
    max_size=25,
)


def begun(name: str, space: Space, seed: int) -> Session | None:
    maker: Any = MAKERS[name]
    strategy: Strategy = maker()
    try:
        return Session(strategy, space, seed=seed)
    except InvalidArgumentError:
        return None  # refused at the door


@pytest.mark.parametrize("name", sorted(MAKERS))
@settings(max_examples=40)
@given(space=spaces(), seed=st.integers(0, 2**62), course=steps)
def test_any_course_of_events_keeps_the_laws(
    name: str, space: Space, seed: int, course: list[tuple[str, Any]]
) -> None:
    session = begun(name, space, seed)
    if session is None:
        return
    for what, value in course:
        if what == "ask":
            rows = session.peek(value)
            assert np.array_equal(rows, session.peek(value), equal_nan=True)
            assert len(rows) <= value
            full = space.rows(list(map(space.params, rows)))
            assert np.array_equal(space.activate(full), rows, equal_nan=True)
            for row in rows:
                space.validate(space.params(row))
            session.add(rows)
        else:
            ending = session.active.numbers[: len(value)].tolist()
            losses = [loss for loss, _ in value[: len(ending)]]
            violations = [violation for _, violation in value[: len(ending)]]
            session.tell(ending, losses, violations)
    fresh = begun(name, space, seed)
    assert fresh is not None
    fresh.strategy.tell(session.completed)
    again = fresh.strategy.ask(3, session.completed, session.active)
    assert np.array_equal(again, session.peek(3), equal_nan=True)
