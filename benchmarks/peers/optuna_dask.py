"""Optuna's own way to Dask: `DaskStorage`, with ``study.optimize`` as a task on every worker.

Runs in the environment ``environments/optuna.txt``; knows nothing of dspex. Prints one line of
JSON: seconds, trials, versions.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from importlib.metadata import version
from typing import Any


def objective(trial: Any) -> float:
    for column in range(6):
        trial.suggest_float(f"x{column}", 0.0, 1.0)
    trial.suggest_int("n", 1, 1000, log=True)
    trial.suggest_categorical("kind", ["a", "b", "c"])
    return 0.0


def main(sampler: str, trials: int, workers: int) -> None:
    import optuna
    from distributed import Client, LocalCluster, wait
    from optuna_integration.dask import DaskStorage

    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    makers: Any = {"random": optuna.samplers.RandomSampler, "tpe": optuna.samplers.TPESampler}
    with (
        LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        # A line of log per trial would be charged to the peer.
        client.run(optuna.logging.set_verbosity, optuna.logging.WARNING)

        def run(count: int, name: str) -> float:
            study = optuna.create_study(
                storage=DaskStorage(client=client), study_name=name, sampler=makers[sampler]()
            )
            started = time.perf_counter()
            # One task per worker, as in its documentation; each draws its share of the trials.
            share, rest = divmod(count, workers)
            futures = [
                client.submit(study.optimize, objective, n_trials=share + (n < rest), pure=False)
                for n in range(workers)
            ]
            wait(futures)
            for future in futures:
                future.result()
            seconds = time.perf_counter() - started
            assert len(study.get_trials(deepcopy=False)) == count
            return seconds

        run(2 * workers, "warm-up")
        seconds = run(trials, "measured")
    versions = {name: version(name) for name in ("optuna", "optuna-integration")}
    print(json.dumps({"seconds": seconds, "trials": trials, "versions": versions}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
