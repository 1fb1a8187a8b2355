"""The Dask executor keeps the contract of the port."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
from distributed import Client, LocalCluster

from dspex.cluster import DaskExecutor
from dspex.engine.ports import Executor
from dspex.testing.executors import IsolatingExecutorSuite

make_cluster: Any = LocalCluster


class TestDask(IsolatingExecutorSuite):
    client: Any
    max_workers: int | None = None

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _cluster(cls) -> Iterator[None]:
        with (
            make_cluster(
                n_workers=2,
                threads_per_worker=1,
                dashboard_address=None,
                scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
                silence_logs=False,  # it would silence pytest, too
            ) as cluster,
            Client(cluster, set_as_default=False) as cls.client,
        ):
            yield

    def executor(self) -> contextlib.AbstractContextManager[Executor]:
        return contextlib.closing(DaskExecutor(self.client, max_workers=self.max_workers))

    def test_work_starts_in_order_of_trial_and_fold(self) -> None:
        self.max_workers = 1  # on one slot the order is exact
        super().test_work_starts_in_order_of_trial_and_fold()
