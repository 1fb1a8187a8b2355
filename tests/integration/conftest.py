"""Fixtures of the tests with real processes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from distributed import Client

from dspex.testing.clusters import local_cluster


@pytest.fixture(scope="session")
def cluster() -> Iterator[Any]:
    """Two worker processes of two threads, shared by all tests that leave it as it was."""
    with local_cluster(2, threads=2) as cluster:
        yield cluster


@pytest.fixture
def client(cluster: Any) -> Iterator[Any]:
    make: Any = Client
    with make(cluster, set_as_default=False) as client:
        yield client
