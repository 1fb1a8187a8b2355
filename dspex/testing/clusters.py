"""Clusters of worker processes on this machine, for tests to share or to harm.

Knows: Dask's LocalCluster. Must not know: what a test does with one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["local_cluster"]


@contextmanager
def local_cluster(workers: int, *, threads: int = 1, **options: Any) -> Iterator[Any]:
    """Run a cluster, with a dashboard on a free port.

    Parameters
    ----------
    workers : int
        How many worker processes.
    threads : int
        Of each.
    **options
        More for `distributed.LocalCluster`.

    Examples
    --------
    >>> with local_cluster(1, threads=2) as cluster:
    ...     [worker["nthreads"] for worker in cluster.scheduler_info["workers"].values()]
    [2]
    """
    from distributed import LocalCluster

    make: Any = LocalCluster
    with make(
        n_workers=workers,
        threads_per_worker=threads,
        dashboard_address=None,
        scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
        silence_logs=False,  # it would silence pytest, too
        **options,
    ) as cluster:
        yield cluster
