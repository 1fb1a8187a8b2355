"""How callables are called is decided by their parameters."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest

from dspex.errors import InvalidArgumentError
from dspex.programs.signature import plan

ROLES = ("params", "data", "trial")
FILLED = {"params": "P", "data": "D", "trial": "T"}


def called(function: Callable[..., Any], *, with_data: bool = True) -> Any:
    offered = ("params", "data") if with_data else ("params",)
    return plan(function, ROLES, offered=offered)(function, FILLED)


class Holder:
    def method(self, params: Any, data: Any) -> Any:
        return params, data

    def __call__(self, params: Any, data: Any, trial: Any) -> Any:
        return params, data, trial


def three(params: Any, data: Any, trial: Any) -> Any:
    return params, data, trial


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda params: (params,), "P"),
        (lambda p, d: (p, d), "PD"),
        (three, "PDT"),
        (lambda a, b, c: (a, b, c), "PDT"),
        (lambda params, trial: (params, trial), "PT"),
        (lambda trial, params: (trial, params), "TP"),
        (lambda params, *, trial: (params, trial), "PT"),
        (lambda params, data, *, trial=None: (params, data, trial), "PDT"),
        (lambda *args: args, "PD"),
        (lambda params, *rest: (params, *rest), "PD"),
        (lambda params, data, **options: (params, data, *options), "PD"),
        (Holder().method, "PD"),
        (Holder(), "PDT"),
        (functools.partial(three, trial="X"), "PDX"),
        (functools.partial(lambda scale, params: (scale, params), "S"), "SP"),
    ],
)
def test_each_parameter_gets_its_role(function: Callable[..., Any], expected: str) -> None:
    assert called(function) == tuple(expected)


def test_options_of_the_functions_own_stay_as_they_are() -> None:
    assert called(lambda params, verbose=7: verbose, with_data=False) == 7
    assert called(lambda params, data, depth=7: depth) == 7


def test_optional_data_is_filled_where_there_is_data() -> None:
    assert called(lambda params, rows=None: rows) == "D"
    assert called(lambda params, rows=None: rows, with_data=False) is None


def test_builtins_without_a_signature_get_the_params() -> None:
    assert plan(max, ROLES, offered=("params",)).positional == ("params",)


@pytest.mark.parametrize(
    ("function", "word"),
    [
        (lambda a, b, c, d: None, "'d'"),
        (lambda params, *, alpha: None, "'alpha'"),
        (lambda: None, "no argument"),
    ],
)
def test_what_cannot_be_called_is_refused(function: Callable[..., Any], word: str) -> None:
    with pytest.raises(InvalidArgumentError, match=word):
        plan(function, ROLES, offered=("params", "data"))
