"""What a worker has to give, as it says itself."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from dask import config

from dspex.cluster.foundation.member import capacity_of


def worker(memory: int | None = 8 * 10**9, **resources: float) -> Any:
    return SimpleNamespace(
        state=SimpleNamespace(total_resources=resources, nthreads=4),
        memory_manager=SimpleNamespace(memory_limit=memory),
    )


@pytest.fixture(autouse=True)
def _no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_cores_are_threads_and_memory_is_the_limit_or_the_machines() -> None:
    assert capacity_of(worker()) == {
        "cpu_cores": 4.0,
        "memory_gb": 8.0,
        "gpus": 0.0,
        "labels": [],
    }
    assert capacity_of(worker(None))["memory_gb"] == psutil.virtual_memory().total / 1e9


@pytest.mark.parametrize(
    ("visible", "gpus"), [("0,1", 2.0), ("", 0.0), ("-1", 0.0), ("NoDevFiles", 0.0)]
)
def test_gpus_are_those_that_cuda_sees_unless_dask_is_told(
    monkeypatch: pytest.MonkeyPatch, visible: str, gpus: float
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert capacity_of(worker())["gpus"] == gpus
    assert capacity_of(worker(GPU=3.0))["gpus"] == 3.0


@pytest.mark.parametrize("labels", [["fast", "near"], "fast near", "fast,near", ("near", "fast")])
def test_labels_come_from_dasks_resources_and_configuration(labels: Any) -> None:
    with config.set({"dspex.worker.labels": labels}):
        assert capacity_of(worker(disk=1.0))["labels"] == ["disk", "fast", "near"]
