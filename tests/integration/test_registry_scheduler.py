"""The registry on a scheduler in another process keeps what the suites of registries promise."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from distributed import Client

import dspex
from dspex.cluster.foundation.bridge import LoopBridge
from dspex.cluster.foundation.calls import LedgerCaller
from dspex.foundation.ports import RegistryBackend
from dspex.testing.clusters import local_cluster
from dspex.testing.registries import BackendConformance
from dspex.testing.registry_handles import RegistryConformance


@pytest.fixture(scope="module")
def connection() -> Iterator[Any]:
    """One connection for all tests here, whose registries are in namespaces of their own."""
    with (
        local_cluster(1) as cluster,
        Client(cluster, set_as_default=False) as client,
        dspex.connect(client) as foundation,
    ):
        yield foundation


class OnAScheduler:
    @pytest.fixture
    def bridge(self, connection: Any) -> LoopBridge:
        bridge: LoopBridge = connection._bridge
        return bridge

    @pytest.fixture
    def caller(self, connection: Any) -> LedgerCaller:
        caller: LedgerCaller = connection._caller
        return caller

    @pytest.fixture
    def backend(self, connection: Any) -> RegistryBackend:
        backend: RegistryBackend = connection.registry._backend
        return backend


class TestSchedulerBackend(OnAScheduler, BackendConformance):
    pass


class TestRegistryOnAScheduler(OnAScheduler, RegistryConformance):
    pass
