"""Fixtures of the tests with real processes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from distributed import Client, LocalCluster


@pytest.fixture(scope="session")
def cluster() -> Iterator[Any]:
    """Two worker processes of two threads, shared by all tests that leave it as it was."""
    make: Any = LocalCluster
    with make(
        n_workers=2,
        threads_per_worker=2,
        dashboard_address=None,
        scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
        silence_logs=False,  # it would silence pytest, too
    ) as cluster:
        yield cluster


@pytest.fixture
def client(cluster: Any) -> Iterator[Any]:
    make: Any = Client
    with make(cluster, set_as_default=False) as client:
        yield client
