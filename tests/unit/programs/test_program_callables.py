"""Functions, classes and users' own programs, from the door to the best program."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any

import cloudpickle
import numpy as np
import pytest

from dspex.errors import (
    InvalidArgumentError,
    InvalidDataError,
    InvalidMetricError,
    InvalidSpaceError,
)
from dspex.programs import Prepared, RunningTrial, build
from dspex.space import Float, Int, Space
from dspex.study.measurement import Measurement
from dspex.testing.programs import measure

SPACE = {"x": Float(0, 1, default=0.5), "n": Int(1, 9, default=2)}
PARAMS = {"x": 0.5, "n": 2}


def total(params: Mapping[str, Any], data: Any) -> float:
    return float(params["x"] * sum(data))


def function(program: Any, data: Any = None, **options: Any) -> Prepared:
    return build(program, data, **{"space": SPACE, "direction": "minimize", **options})


# --- functions -----------------------------------------------------------------------------


def test_a_function_returns_a_number_a_dict_or_a_measurement() -> None:
    for returned in (0.25, {"score": 0.25}, Measurement(0.25), np.float64(0.25)):
        prepared = function(lambda params, value=returned: value)
        assert measure(prepared.program, PARAMS) == [{"score": 0.25}]


def test_a_function_gets_params_of_its_own_the_data_and_the_trial() -> None:
    def program(params: dict[str, Any], data: Any, trial: RunningTrial) -> float:
        params["x"] = 9
        return float(data + trial.number)

    prepared = function(program, 10)
    given = dict(PARAMS)
    assert measure(prepared.program, given, number=4) == [{"score": 14.0}]
    assert given == PARAMS


def test_a_generator_measures_at_each_step_and_is_closed_when_left() -> None:
    closed = []

    def program(params: Mapping[str, Any]) -> Iterator[Any]:
        try:
            yield 1
            yield {"score": 2}
            yield Measurement(3)
        finally:
            closed.append(True)

    prepared = function(program)
    assert measure(prepared.program, PARAMS) == [{"score": 1.0}, {"score": 2.0}, {"score": 3.0}]
    steps = prepared.program.evaluate(PARAMS, RunningTrial(0, 0, PARAMS, 0))
    assert isinstance(steps, Iterator)
    next(steps)
    steps.close()  # type: ignore[attr-defined]
    assert closed == [True, True]


def test_the_best_program_of_a_function_has_its_params_bound() -> None:
    best = function(total, [1, 2]).program.finish(PARAMS)
    assert isinstance(best, functools.partial)
    assert best([4, 4]) == 4.0


def test_data_does_not_travel_with_the_program() -> None:
    prepared = function(total, list(range(10_000)))
    assert len(cloudpickle.dumps(prepared.program)) < 5_000
    assert measure(prepared.program, PARAMS) == [{"score": 24997500.0}]


def test_the_spaces_defaults_are_the_programs() -> None:
    assert function(total, [1]).defaults == PARAMS
    assert function(total, [1], space={"x": Float(0, 1)}).defaults is None


def test_a_dict_of_directions_names_the_objectives() -> None:
    goal = function(total, [1], direction={"a": "maximize", "b": "minimize"}).goal
    assert [(each.name, each.direction) for each in goal.objectives] == [
        ("a", "maximize"),
        ("b", "minimize"),
    ]


@pytest.mark.parametrize(
    ("options", "error", "word"),
    [
        ({"direction": None}, InvalidArgumentError, "direction="),
        ({"direction": "up"}, InvalidArgumentError, "'up'"),
        ({"direction": 1}, InvalidArgumentError, "direction is"),
        ({"direction": {}}, InvalidArgumentError, "at least one objective"),
        ({"space": None}, InvalidSpaceError, "space="),
        ({"space": {}}, InvalidSpaceError, "no variable"),
        ({"metric": "accuracy"}, InvalidMetricError, "drop metric"),
        ({"cv": 5}, InvalidArgumentError, "cv applies"),
        ({"validation_data": ([1], [1])}, InvalidArgumentError, "validation_data applies"),
        ({"metadata": {"groups": [1]}}, InvalidArgumentError, "metadata applies"),
        ({"refit": True}, InvalidArgumentError, "refit applies"),
        ({"refit": "yes"}, InvalidArgumentError, "refit is"),
        ({"constraints": [1]}, InvalidArgumentError, "constraints is a dict"),
    ],
)
def test_what_does_not_apply_to_a_function_is_refused(
    options: dict[str, Any], error: type[Exception], word: str
) -> None:
    with pytest.raises(error, match=word):
        function(total, [1], **options)


def test_refit_false_asks_for_nothing() -> None:
    assert function(total, [1], refit=False).folds == 1


def test_data_without_a_taker_and_a_taker_without_data_are_refused() -> None:
    with pytest.raises(InvalidDataError, match="takes no data"):
        function(lambda params: 1.0, [1])
    with pytest.raises(InvalidDataError, match="pass training_data"):
        function(total)
    program = function(lambda params, data, trial: 1.0 if data is None else 0.0).program
    assert measure(program, PARAMS) == [{"score": 1.0}]


@pytest.mark.parametrize("program", ["svc", 3, None, [total]])
def test_what_is_no_program_is_refused(program: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="a program is"):
        function(program)


# --- classes -------------------------------------------------------------------------------


class ByMapping:
    def __init__(self, params: Mapping[str, Any]) -> None:
        self.x = params["x"]

    def __call__(self, data: Any) -> float:
        return float(self.x * len(data))


class ByName:
    def __init__(self, x: float, n: int = 1) -> None:
        self.x, self.n = x, n

    def __call__(self, data: Any, trial: RunningTrial) -> float:
        return self.x * self.n * len(data) + trial.number


class Silent:
    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = settings

    def score(self, X: Any, y: Any = None) -> float:
        return float(self.settings["x"] * (len(X) - sum(y or [])))


def test_a_class_is_built_with_params_and_called_with_data() -> None:
    prepared = function(ByMapping, [0, 0])
    assert measure(prepared.program, PARAMS) == [{"score": 1.0}]
    assert prepared.program.finish(PARAMS).x == 0.5


def test_a_class_may_name_its_variables_instead() -> None:
    prepared = function(ByName, [0, 0])
    assert measure(prepared.program, PARAMS, number=1) == [{"score": 3.0}]
    assert prepared.program.finish(PARAMS).n == 2


def test_a_metric_measures_the_object_on_a_pair_or_on_the_data() -> None:
    prepared = build(Silent, ([1, 1], [1, 0]), space=SPACE, metric=Silent.score)
    assert measure(prepared.program, PARAMS) == [{"score": 0.5}]
    assert prepared.goal.objectives[0].direction == "maximize"
    prepared = build(Silent, [1, 1], space=SPACE, metric=Silent.score)
    assert measure(prepared.program, PARAMS) == [{"score": 1.0}]


def test_several_metrics_of_a_class_are_named() -> None:
    metrics = {"total": Silent.score, "size": lambda built, data: len(data)}
    prepared = build(Silent, [1, 1], space=SPACE, metric=metrics, constraints={"size": ("le", 3)})
    assert measure(prepared.program, PARAMS) == [{"total": 1.0, "size": 2.0}]
    assert [each.name for each in prepared.goal.objectives] == ["total"]
    with pytest.raises(InvalidArgumentError, match="did you mean 'size'"):
        build(Silent, [1], space=SPACE, metric=metrics, constraints={"sise": ("le", 3)})


class Odd:
    def __init__(self, first: int, second: int) -> None: ...

    def __call__(self, data: Any) -> float:
        return 0.0


@pytest.mark.parametrize(
    ("program", "options", "error", "word"),
    [
        (Silent, {}, InvalidArgumentError, "no __call__"),
        (Silent, {"metric": "accuracy"}, InvalidMetricError, "callable"),
        (Silent, {"metric": {}}, InvalidMetricError, "empty"),
        (Odd, {}, InvalidArgumentError, "fits neither"),
        (ByMapping, {"direction": None}, InvalidArgumentError, "direction="),
    ],
)
def test_what_is_wrong_with_a_class_is_said(
    program: type, options: dict[str, Any], error: type[Exception], word: str
) -> None:
    with pytest.raises(error, match=word):
        function(program, [1], **options)


def test_a_metric_needs_data() -> None:
    with pytest.raises(InvalidDataError, match="training_data=None"):
        build(Silent, space=SPACE, metric=Silent.score)


# --- users' own ----------------------------------------------------------------------------


class Folded:
    def __init__(self, folds: int = 3) -> None:
        self.count = folds

    def space(self) -> Space | None:
        return Space({"x": Float(0, 1)})

    def folds(self) -> int:
        return self.count

    def prepare(self, data: Any) -> None: ...

    def evaluate(self, params: Mapping[str, Any], trial: RunningTrial) -> Measurement:
        return Measurement(trial.fold)

    def finish(self, params: Mapping[str, Any]) -> Any:
        return params


def test_a_program_is_passed_through_with_its_own_space_or_the_users() -> None:
    program = Folded()
    prepared = build(program, direction="maximize")
    assert prepared.program is program
    assert (prepared.folds, prepared.space.names) == (3, ("x",))
    assert build(program, direction="maximize", space=SPACE).space.names == ("x", "n")


def test_a_programs_folds_are_at_least_one() -> None:
    with pytest.raises(InvalidArgumentError, match="at least 1"):
        build(Folded(0), direction="maximize")


def test_a_program_is_passed_as_an_object() -> None:
    with pytest.raises(InvalidArgumentError, match="as an object"):
        build(Folded, direction="maximize")


def test_dspy_modules_are_not_supported_yet() -> None:
    module = type("Predict", (), {"__module__": "dspy.predict.predict", "__call__": lambda s: 0})
    with pytest.raises(InvalidArgumentError, match="DSPy"):
        build(module(), [1], direction="maximize", space=SPACE)


def test_a_function_that_takes_its_params_one_by_one_is_refused() -> None:
    def loss(x: float, y: float = 0.0) -> float:
        return x + y

    with pytest.raises(InvalidArgumentError, match=r"one dict; .*loss takes 'x'.*f\(\*\*params\)"):
        build(loss, space={"x": Float(0, 1), "y": Float(0, 1)}, direction="minimize")
    # The name of a dict of params is the user's own.
    build(loss, space={"a": Float(0, 1)}, direction="minimize")


def test_an_async_function_is_refused() -> None:
    async def loss(params: dict[str, float]) -> float:
        return params["x"]

    class Loss:
        async def __call__(self, params: dict[str, float]) -> float:
            return params["x"]

    for program in (loss, Loss()):
        with pytest.raises(InvalidArgumentError, match=r"is async .*asyncio\.run"):
            build(program, space={"x": Float(0, 1)}, direction="minimize")
