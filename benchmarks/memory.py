"""What a trial costs in memory, how fast a log opens, what ``import dspex`` costs.

Knows: whose memory is read, and when. Must not know: what it is spent on.

The client, the scheduler and the workers are processes of their own here (in a `LocalCluster` the
scheduler lives in the client). Growth is the slope of the resident memory over the trials, from a
fifth of the study on: what modules and warm-up take is not charged to trials. As a cross-check,
`tracemalloc` counts what the state of the same study takes when it is read back from its log.
Every part is a process of its own, which prints one line of JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.noop_study import noop, space

STUDY = "memory"
SEED = 1
LIMIT = 600.0
"""Seconds after which a part is given up."""


def options() -> dict[str, Any]:
    """The study that every part runs or reads."""
    return {
        "space": space(),
        "direction": "minimize",
        "strategy": "random",
        "seed": SEED,
        "parallel_evaluations": 256,
        "study": STUDY,
        "progress": False,
    }


# --- parts, each in a process of its own ---------------------------------------------------


@contextlib.contextmanager
def _cluster(directory: str) -> Iterator[tuple[int, str]]:
    """A scheduler and two workers as processes; the scheduler's id, and the file that finds it."""
    file = str(Path(directory) / "scheduler.json")
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    dask = [sys.executable, "-m", "dask"]
    scheduler = ["scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", file]
    worker = ["worker", "--scheduler-file", file, "--nthreads", "1", "--no-dashboard"]
    started: list[subprocess.Popen[bytes]] = []
    try:
        started.append(
            subprocess.Popen([*dask, *scheduler, "--no-dashboard"], cwd=directory, **quiet)
        )
        environment = {**os.environ, "PYTHONPATH": str(harness.HERE.parent)}
        started.extend(
            subprocess.Popen([*dask, *worker], cwd=directory, env=environment, **quiet)
            for _ in range(2)
        )
        yield started[0].pid, file
    finally:
        for process in reversed(started):
            process.terminate()
        for process in started:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)


def growth(trials: int, storage: str | None) -> dict[str, Any]:
    """Bytes per trial of a study on a cluster, in the client and in the scheduler."""
    import numpy as np
    import psutil
    from distributed import Client

    import dspex

    every = max(1, trials // 50)
    samples: list[tuple[int, int, int]] = []
    with tempfile.TemporaryDirectory() as directory, _cluster(directory) as (pid, file):
        client_process, scheduler_process = psutil.Process(), psutil.Process(pid)
        ended = 0

        def watch(event: Any) -> None:
            nonlocal ended
            if type(event).__name__ != "TrialEnded":
                return
            ended += 1
            if ended % every == 0:
                mine = client_process.memory_info().rss
                samples.append((ended, mine, scheduler_process.memory_info().rss))

        connect: Any = Client  # distributed has no types
        with connect(scheduler_file=file, timeout=60) as client:
            client.wait_for_workers(2, timeout=60)
            result = dspex.optimize(
                noop,
                **{**options(), "study": STUDY if storage else None},
                storage=storage,
                trials=trials,
                cluster=client,
                callbacks=[watch],
                timeout=LIMIT / 2,
            )
            assert result.stop_reason == "trials", result.stop_reason
            seconds = result.wall_time
    table = np.array([each for each in samples if each[0] > trials / 5], dtype=float)
    slopes = [float(np.polyfit(table[:, 0], table[:, side], 1)[0]) for side in (1, 2)]
    return {
        "client": slopes[0],
        "scheduler": slopes[1],
        "client_mb": samples[-1][1] / 1e6,
        "scheduler_mb": samples[-1][2] / 1e6,
        "seconds": seconds,
    }


def fill(trials: int, storage: str) -> dict[str, Any]:
    """Make a store: a whole study, in process."""
    import dspex

    started = time.perf_counter()
    dspex.optimize(noop, **options(), storage=storage, trials=trials, distributed=False)
    return {"seconds": time.perf_counter() - started, "bytes": Path(storage).stat().st_size}


def traced(trials: int, storage: str) -> dict[str, Any]:
    """What the state of a study takes, by its own account and by tracemalloc's."""
    from dspex.results.opening import restore
    from dspex.storage import read_records, study_info

    head = study_info(storage, STUDY).head
    tracemalloc.start()
    state = restore(head, read_records(storage, STUDY))
    current, _ = tracemalloc.get_traced_memory()
    assert state.n_ended == trials
    return {"traced": current / trials, "columns": state.nbytes / trials}


def opening(trials: int, storage: str) -> dict[str, Any]:
    """Seconds to read a log, and the peak of this process's memory."""
    import dspex

    load = dspex.load
    before = _peak()
    started = time.perf_counter()
    result = load(storage, STUDY)
    seconds = time.perf_counter() - started
    assert len(result.trials) == trials
    return {"seconds": seconds, "mb": _peak() - before}


def resuming(trials: int, storage: str) -> dict[str, Any]:
    """Seconds that the same call takes when the whole study is in the store."""
    import dspex

    optimize = dspex.optimize
    started = time.perf_counter()
    result = optimize(noop, **options(), storage=storage, trials=trials, distributed=False)
    seconds = time.perf_counter() - started
    assert len(result.trials) == trials
    return {"seconds": seconds}


def fill_log(trials: int, storage: str, like: str) -> dict[str, Any]:
    """Write a long log record by record, with the head of the study in the store ``like``."""
    import numpy as np

    from dspex import Measurement
    from dspex.space import Space
    from dspex.storage import open_log, study_info
    from dspex.study.records import Asked, Measured, Opened

    head = {**study_info(like, STUDY).head, "trials": trials}
    of = Space.of(space())
    rng = np.random.default_rng(SEED)
    started = time.perf_counter()
    log = open_log(storage, STUDY)
    try:
        log.append([Opened(head=head, time=time.time())])
        for first in range(0, trials, 250):
            count = min(250, trials - first)
            params = [of.params(row) for row in of.sample_rows(rng, count)]
            log.append(
                [
                    Asked(first=first, told=first, by=["random"] * count, params=params),
                    *(
                        Measured(
                            trial=number,
                            fold=0,
                            attempt=0,
                            steps=(Measurement(float(rng.random())),),
                            worker="tcp://127.0.0.1:40000",
                            started=1.7e9 + number / 1000,
                            seconds=0.001,
                        )
                        for number in range(first, first + count)
                    ),
                ]
            )
    finally:
        log.close()
    return {"seconds": time.perf_counter() - started, "bytes": Path(storage).stat().st_size}


def _peak() -> float:
    # Linux counts in kilobytes, macOS in bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (
        1e3 if sys.platform == "linux" else 1e6
    )


PARTS: dict[str, Callable[..., dict[str, Any]]] = {
    "growth": growth,
    "fill": fill,
    "traced": traced,
    "opening": opening,
    "resuming": resuming,
    "fill_log": fill_log,
}


# --- the whole -----------------------------------------------------------------------------


def part(name: str, *arguments: Any) -> dict[str, Any]:
    harness.say(f"{name} of {arguments[0]:,} trials")
    command = [sys.executable, "-m", "benchmarks.memory", "--part", name, json.dumps(arguments)]
    return harness.run_json(command, timeout=LIMIT)


def measure_growth(trials: int, report: harness.Report, directory: str) -> None:
    for log, storage in (("memory", None), ("SQLite", str(Path(directory) / "growth.db"))):
        answer = part("growth", trials, storage)
        for side in ("client", "scheduler"):
            kept = "the log in memory" if storage is None else "the log in SQLite"
            report.add(
                harness.row(
                    f"{side}, {log} log, {trials:,} trials",
                    answer[side],
                    unit="bytes/trial",
                    goal="< 2,000",
                    met=answer[side] < 2000,
                    note=f"slope of resident memory; {kept}; {answer[f'{side}_mb']:.0f} MB in the "
                    f"end; the study took {answer['seconds']:.0f} s",
                )
            )


def measure_opening(
    trials: int, long: int, repeats: int, report: harness.Report, directory: str
) -> None:
    storage = str(Path(directory) / "study.db")
    filled = part("fill", trials, storage)
    answer = part("traced", trials, storage)
    report.add(
        harness.row(
            f"the state of {trials:,} trials, by tracemalloc",
            answer["traced"],
            unit="bytes/trial",
            goal="< 2,000",
            met=answer["traced"] < 2000,
            note=f"cross-check, without the log; columns alone {answer['columns']:.0f}",
        )
    )
    per_trial = filled["bytes"] / trials
    for way, words in (("opening", "dspex.load"), ("resuming", "the same optimize call again")):
        answers = [part(way, trials, storage)["seconds"] for _ in range(repeats)]
        report.add(
            harness.row(
                f"a store of {trials:,} trials: {words}",
                answers,
                unit="s",
                goal="< 3 s",
                met=harness.summary(answers)[0] < 3,
                note=f"a fresh process, from after its imports; {per_trial:.0f} bytes of "
                "SQLite per trial",
            )
        )
    longer = str(Path(directory) / "long.db")
    part("fill_log", long, longer, storage)
    answer = part("opening", long, longer)
    report.add(
        harness.row(
            f"a log of {long:,} trials: dspex.load",
            answer["seconds"],
            unit="s",
            goal="opens",
            met=True,
            note=f"peak memory {answer['mb']:.0f} MB above the import; one run",
        )
    )


def measure_import(repeats: int, report: harness.Report) -> None:
    commands = {"bare": "pass", "dspex": "import dspex"}
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    environment = {**os.environ, "PYTHONPATH": str(harness.HERE.parent)}
    for repeat in range(repeats + 1):
        for name, code in commands.items():
            started = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True, env=environment)
            if repeat:  # the first fills caches
                seconds[name].append(time.perf_counter() - started)
    bare = statistics.median(seconds["bare"])
    ours = [each - bare for each in seconds["dspex"]]
    report.add(
        harness.row(
            "import dspex",
            ours,
            unit="s",
            goal="< 0.1 s",
            met=harness.summary(ours)[0] < 0.1,
            note=f"wall time of a process, less the {bare:.3f} s of a bare Python",
        )
    )


def main() -> None:
    parser = harness.parser(
        __doc__,
        bound="about 6 minutes; no part more than 10",
        short="about 40 seconds",
    )
    parser.add_argument("--part", nargs=2, metavar=("NAME", "JSON"), help="run one part, as JSON")
    arguments = parser.parse_args()
    if arguments.part:
        name, given = arguments.part
        print(json.dumps(PARTS[name](*json.loads(given))), flush=True)
        return
    short = arguments.short
    report = harness.Report("memory", short=short)
    trials, long = (3_000, 10_000) if short else (100_000, 1_000_000)
    repeats = arguments.repeats or (1 if short else 3)
    with tempfile.TemporaryDirectory() as directory:
        measure_import(3 if short else 10, report)
        measure_growth(trials, report, directory)
        measure_opening(trials, long, repeats, report, directory)
    report.save()


if __name__ == "__main__":
    main()
