"""The plain arguments of `optimize`: what is refused at the door, and in which words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import dspex
from dspex.arguments import whole
from dspex.errors import InvalidArgumentError


def _optimize(**options: Any) -> dspex.OptimizationResult:
    return dspex.optimize(
        lambda params: params["x"],
        space={"x": dspex.Float(0, 1)},
        direction="maximize",
        **{"trials": 3, "distributed": False, "progress": False, **options},
    )


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"trials": "100"}, r"trials is a whole number from 1, or None; got '100'"),
        ({"trials": 1e2}, r"trials is a whole number.*got 100\.0; pass 100"),
        ({"trials": 0}, r"trials is a whole number from 1.*got 0"),
        ({"parallel_evaluations": 0}, r"parallel_evaluations is a whole number from 1.*got 0"),
        ({"retries": -1}, r"retries is a whole number from 0.*got -1"),
        ({"max_failures": "none"}, r"max_failures is a whole number from 0, or \"auto\".*'none'"),
        ({"target_score": "0.9"}, r"target_score is a finite number.*got '0.9'"),
        ({"target_score": float("nan")}, r"target_score is a finite number.*got nan"),
        ({"seed": "a"}, r"seed is a whole number, or None; got 'a'"),
        ({"seed": True}, r"seed is a whole number, or None; got True"),
        ({"initial": {"x": 0.5}}, r"initial is a list of params; got one dict.*pass \[params\]"),
        ({"callbacks": print}, r"callbacks is a list; .*pass \[callback\]"),
        ({"callbacks": ["print"]}, r"a callback is called .*got 'print'"),
        ({"retry_on": OSError}, r"retry_on is a list of exception classes.*pass \[OSError\]"),
        ({"retry_on": ["OSError"]}, r"retry_on is a list of exception classes.*got 'OSError'"),
    ],
)
def test_a_wrong_argument_is_named_with_rule_and_value(option: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidArgumentError, match=words):
        _optimize(**option)


def test_numbers_of_numpy_are_numbers(tmp_path: Any) -> None:
    result = _optimize(
        trials=np.int64(6),
        seed=np.int64(3),
        parallel_evaluations=np.int32(1),
        target_score=np.float32(7),
        study="numpy",
        storage=str(tmp_path / "store.db"),
    )
    assert len(result.trials) == 6
    assert type(whole("n", np.int64(1))) is int
