"""Bare Dask: what a no-op task costs, one by one and mapped; the context of every other rate.

Knows nothing of dspex. Prints one line of JSON: {way: seconds}, tasks, versions.
"""

from __future__ import annotations

import itertools
import json
import sys
import time


def noop(number: int) -> float:
    return 0.0


def main(tasks: int, workers: int, in_flight: int) -> None:
    import distributed
    from distributed import Client, LocalCluster, as_completed

    with (
        LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        client.gather(client.map(noop, range(200), pure=False))
        started = time.perf_counter()
        client.gather(client.map(noop, range(tasks), pure=False))
        mapped = time.perf_counter() - started

        started = time.perf_counter()
        numbers = iter(range(tasks))
        first = itertools.islice(numbers, in_flight)
        waiting = as_completed([client.submit(noop, n, pure=False) for n in first])
        done = 0
        for batch in waiting.batches():
            client.gather(list(batch))
            done += len(batch)
            waiting.update(
                [client.submit(noop, n, pure=False) for n in itertools.islice(numbers, len(batch))]
            )
        submitted = time.perf_counter() - started
        assert done == tasks
    print(
        json.dumps(
            {
                "map": mapped,
                "submit": submitted,
                "tasks": tasks,
                "versions": {"distributed": distributed.__version__},
            }
        ),
        flush=True,
    )


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
