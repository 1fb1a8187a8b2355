"""Calls of Ray's actors, pipelined, and one at a time, on this machine.

Runs in the environment ``environments/ray.txt``; knows nothing of dspex. An actor is a process, so
that there are as many as workers, and the calls are shared out among them. What can be switched
off is switched off. Prints one line of JSON: calls per second, seconds of one call, versions.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections import deque

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")


WAVES = 20
"""Of calls, of which `AHEAD` are under way: when the oldest is answered another one leaves."""

AHEAD = 10


class Tally:
    """What every actor here is."""

    def __init__(self) -> None:
        self.n = 0

    def inc(self) -> int:  # noqa: D102
        self.n += 1
        return self.n


def main(actors: int, outstanding: int, rounds: int, calls: int) -> None:
    import ray

    ray.init(
        num_cpus=actors,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=200_000_000,
        logging_level="ERROR",
    )
    made = [ray.remote(Tally).remote() for _ in range(actors)]
    ray.get([each.inc.remote() for each in made])

    def rate() -> float:
        each = outstanding // AHEAD
        ahead: deque[list[object]] = deque()
        started = time.perf_counter()
        for wave in range(WAVES + AHEAD):
            if wave < WAVES:
                ahead.append([made[at % actors].inc.remote() for at in range(each)])
            if wave >= AHEAD - 1 and ahead:
                ray.get(ahead.popleft())
        return WAVES * each / (time.perf_counter() - started)

    def latency() -> float:
        started = time.perf_counter()
        ray.get(made[0].inc.remote())
        return time.perf_counter() - started

    rate()
    answer = {
        "rate": statistics.median(rate() for _ in range(rounds)),
        "latency": statistics.median(latency() for _ in range(calls)),
        "versions": {"ray": ray.__version__},
    }
    ray.shutdown()
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:5]))
