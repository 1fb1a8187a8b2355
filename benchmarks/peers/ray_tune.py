"""Ray Tune with a no-op function on a cluster of this machine.

Runs in the environment ``environments/ray.txt``; knows nothing of dspex. What can be switched off
is switched off: loggers, usage statistics, the dashboard, console output; actors are used again.
Ray starts before the clock does. Prints one line of JSON: seconds, trials, versions.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("TUNE_RESULT_BUFFER_LENGTH", "0")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")


def noop(config: dict[str, Any]) -> dict[str, float]:
    return {"loss": 0.0}


def main(trials: int, slots: int) -> None:
    import ray
    from ray import tune

    ray.init(
        num_cpus=slots,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=200_000_000,
        logging_level="ERROR",
    )
    space = {f"x{column}": tune.uniform(0.0, 1.0) for column in range(6)}
    space["n"] = tune.lograndint(1, 1001)
    space["kind"] = tune.choice(["a", "b", "c"])

    def run(count: int) -> float:
        with tempfile.TemporaryDirectory() as directory:
            tuner = tune.Tuner(
                noop,
                param_space=space,
                tune_config=tune.TuneConfig(num_samples=count, reuse_actors=True),
                run_config=tune.RunConfig(storage_path=directory, verbose=0),
            )
            started = time.perf_counter()
            results = tuner.fit()
            seconds = time.perf_counter() - started
        assert len(results) == count
        assert results.num_errors == 0
        return seconds

    run(slots)
    seconds = run(trials)
    ray.shutdown()
    versions = {"ray": ray.__version__}
    print(json.dumps({"seconds": seconds, "trials": trials, "versions": versions}), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
