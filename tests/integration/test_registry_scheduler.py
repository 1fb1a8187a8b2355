"""The registry on a scheduler in another process keeps what the suites of registries promise."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from distributed import Client, LocalCluster

import dspex
from dspex.cluster.foundation.bridge import LoopBridge
from dspex.cluster.foundation.calls import LedgerCaller
from dspex.foundation.ports import RegistryBackend
from dspex.testing.registries import BackendConformance
from dspex.testing.registry_handles import RegistryConformance


@pytest.fixture(scope="module")
def connection() -> Iterator[Any]:
    """One connection for all tests here, whose registries are in namespaces of their own."""
    make: Any = LocalCluster
    with (
        make(
            n_workers=1,
            threads_per_worker=1,
            dashboard_address=None,
            scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
            silence_logs=False,  # it would silence pytest, too
        ) as cluster,
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
