"""The Dask executor keeps the contract of the port."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
from distributed import Client

from dspex.cluster import DaskExecutor
from dspex.engine.ports import Executor
from dspex.testing.clusters import local_cluster
from dspex.testing.executors import IsolatingExecutorSuite


class TestDask(IsolatingExecutorSuite):
    client: Any
    max_workers: int | None = None

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _cluster(cls) -> Iterator[None]:
        with (
            local_cluster(2) as cluster,
            Client(cluster, set_as_default=False) as cls.client,
        ):
            yield

    def executor(self) -> contextlib.AbstractContextManager[Executor]:
        return contextlib.closing(DaskExecutor(self.client, max_workers=self.max_workers))

    def test_work_starts_in_order_of_trial_and_fold(self) -> None:
        self.max_workers = 1  # on one slot the order is exact
        super().test_work_starts_in_order_of_trial_and_fold()
