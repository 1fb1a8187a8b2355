"""Fixtures for more than one kind of test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from distributed import Client


@pytest.fixture
def cluster_of() -> Iterator[Callable[[int], Client]]:
    """Make clusters of so many worker processes, which a test may harm as it likes."""
    from distributed import Client, LocalCluster

    with ExitStack() as stack:

        def make(workers: int) -> Client:
            cluster = stack.enter_context(
                LocalCluster(
                    n_workers=workers,
                    threads_per_worker=1,
                    dashboard_address=None,
                    scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
                    silence_logs=False,  # it would silence pytest, too
                )
            )
            client: Client = stack.enter_context(Client(cluster, set_as_default=False))
            return client

        yield make
