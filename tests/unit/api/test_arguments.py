"""The plain arguments of `optimize`: what is refused at the door, and in which words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import dspex
from dspex.arguments import lease_request, whole
from dspex.cluster.admission import LeaseRequest
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


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"priority": 3}, r"priority orders requests for leases.*got priority=3 and neither"),
        ({"tenant": "me", "priority": 0.5}, r"priority is a whole number; got 0\.5"),
        ({"tenant": "me", "priority": 10**400}, r"priority is a whole number from -1,000,000"),
        ({"tenant": ""}, r"tenant is a name of 1 to 512 printable characters.*got ''"),
        ({"tenant": 7}, r"tenant is a name.*got 7"),
        ({"resources": {}}, r"resources is a dict with some of cpu_cores, memory_gb.*got \{\}"),
        ({"resources": 2}, r"resources is a dict .*such as \{\"cpu_cores\": 2.*got 2"),
        ({"resources": {"cores": 2}}, r"resources is a dict .*got \{'cores': 2\}"),
        ({"resources": {"cpu_cores": 0}}, r"cpu_cores of resources is a number above 0.*got 0"),
        ({"resources": {"cpu_cores": True}}, r"cpu_cores of resources is a number.*got True"),
        ({"resources": {"memory_gb": float("nan")}}, r"memory_gb of resources .*got nan"),
        ({"resources": {"gpus": "1"}}, r"gpus of resources is a number.*got '1'"),
        ({"resources": {"labels": [3]}}, r"labels of resources is a list of names.*got \[3\]"),
        ({"resources": {"cpu_cores": 1}}, r"without Dask there is no cluster.*drop one of them"),
        ({"tenant": "me"}, r"without Dask there is no cluster; got resources or tenant"),
    ],
)
def test_what_leases_cannot_be_asked_for_is_refused(option: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidArgumentError, match=words):
        _optimize(**option)


def test_an_evaluation_needs_a_core_where_nothing_else_is_said() -> None:
    assert lease_request(None, None, 0) is None
    alone = lease_request(None, "me", 3)
    assert alone == LeaseRequest(cpu_cores=1, tenant="me", priority=3, is_sized=False)
    sized = lease_request({"memory_gb": np.float32(4), "labels": "fast"}, None, 0)
    assert sized == LeaseRequest(cpu_cores=1, memory_gb=4.0, labels=("fast",))


@pytest.mark.parametrize(
    ("resources", "words"),
    [
        ({"cpu_cores": 1_000}, r"1 worker that each give 1000 cpu_cores needs more than this"),
        ({"memory_gb": 999_999}, r"needs more than this machine has: \d+ cores and .* GB"),
        ({"gpus": 1}, r"an embedded cluster has no gpus and no labels"),
        ({"labels": ["fast"]}, r"an embedded cluster has no gpus and no labels"),
    ],
)
def test_more_than_an_embedded_cluster_could_have_is_refused_before_anything_starts(
    resources: dict[str, Any], words: str
) -> None:
    built = []

    class Program:
        def space(self) -> None:
            built.append(1)

    with pytest.raises(InvalidArgumentError, match=words):
        dspex.optimize(Program(), resources=resources)
    assert not built
