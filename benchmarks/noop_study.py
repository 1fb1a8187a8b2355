"""Our side of `distributed_overhead`: one study of a program that does nothing, on two processes.

Knows: the same space, cluster and clock as the scripts in ``peers``. Prints one line of JSON:
seconds, trials, and the processor time of the client (which holds the scheduler too, as in any
`LocalCluster`).
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from typing import Any

import dspex


def space() -> dict[str, Any]:
    """Six floats, a logarithmic integer, a choice: the space of every overhead benchmark."""
    return {
        **{f"x{column}": dspex.Float(0.0, 1.0) for column in range(6)},
        "n": dspex.Int(1, 1000, log=True),
        "kind": ["a", "b", "c"],
    }


def noop(params: dict[str, Any]) -> float:
    return 0.0


def main(strategy: str, trials: int, workers: int, k: int, seed: int | None) -> None:
    import distributed

    start: Any = distributed.LocalCluster  # distributed has no types
    connect: Any = distributed.Client

    # That k is large for few trials is the point here.
    warnings.simplefilter("ignore")
    with (
        start(n_workers=workers, threads_per_worker=1, dashboard_address=None) as cluster,
        connect(cluster) as client,
    ):

        def run(count: int) -> dict[str, float]:
            started, processor = time.perf_counter(), time.process_time()
            result = dspex.optimize(
                noop,
                space=space(),
                direction="minimize",
                strategy=strategy,
                trials=count,
                seed=seed,
                parallel_evaluations=k,
                cluster=client,
                progress=False,
            )
            seconds = time.perf_counter() - started
            assert len(result.trials) == count
            assert result.n_failed == 0
            return {
                "seconds": seconds,
                "session_seconds": result.wall_time,
                "client_cpu_seconds": time.process_time() - processor,
            }

        run(4 * workers)
        measured = run(trials)
    print(json.dumps({**measured, "trials": trials}), flush=True)


if __name__ == "__main__":
    main(
        sys.argv[1],
        int(sys.argv[2]),
        int(sys.argv[3]),
        int(sys.argv[4]),
        None if sys.argv[5] == "none" else int(sys.argv[5]),
    )
