"""What a suggestion costs, and how good it is: our random search and TPE against Optuna's.

Knows: which runs are compared. Must not know: how a run works (``peers/suggest.py``).
Each run is a process of its own with one BLAS thread, and the sides take turns, so that a machine
that slows down slows both.

Cost: a space of six floats, a logarithmic whole number and a label, a function that costs nothing,
one trial at a time through ``dspex.Study`` and ``optuna.Study``. Quality: the best of 200 trials on
Branin, Hartmann-6 and Rosenbrock-8, over 20 seeds.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks import harness

RUN = Path(__file__).resolve().parent / "peers" / "suggest.py"
LIMIT = 900.0
"""Seconds after which one run is given up."""
FUNCTIONS = ("branin", "hartmann6", "rosenbrock8")
SIDES = ("dspex", "optuna")


@dataclass(frozen=True)
class Sizes:
    """How many trials and repeats."""

    random: int = 10_000
    tpe: int = 3_000
    far: int = 10_000
    quality: int = 200
    seeds: int = 20
    repeats: int = 3


FULL = Sizes()
SHORT = Sizes(random=1_000, tpe=200, far=0, quality=50, seeds=2, repeats=1)


def run(*arguments: object) -> dict[str, Any]:
    command = [sys.executable, str(RUN), *map(str, arguments)]
    one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    return harness.run_json(command, timeout=LIMIT, variables=one_thread)


def cost(sizes: Sizes, report: harness.Report) -> None:
    seconds: dict[tuple[str, str], list[float]] = defaultdict(list)
    steps: dict[str, list[float]] = defaultdict(list)
    for repeat in range(sizes.repeats):
        for strategy, trials in (("random", sizes.random), ("tpe", sizes.tpe)):
            for side in SIDES:
                taken = run("cost", side, strategy, trials, repeat)["seconds"]
                seconds[side, strategy].append(1e3 * taken / trials)
                harness.say(f"{side} {strategy}: {taken:.2f} s for {trials:,} trials")
        if sizes.far:
            for n, step in run("cost", "dspex", "tpe", sizes.far, repeat)["step_at"].items():
                steps[n].append(1e3 * step)
    for strategy, trials, least in (("random", sizes.random, 3), ("tpe", sizes.tpe, 20)):
        made = harness.row(
            f"{strategy}: a trial among {trials:,}",
            seconds["dspex", strategy],
            peer=seconds["optuna", strategy],
            peer_name=f"Optuna {strategy}",
            unit="ms",
            goal=f">= {least}x faster",
            larger_is_better=False,
            note="the mean over the run, all bookkeeping included",
        )
        report.add({**made, "met": made["ratio"] >= least})
    if steps:
        near, far = steps["1000"], steps["10000"]
        made = harness.row(
            "tpe: one more trial at 10,000 against at 1,000",
            far,
            peer=near,
            peer_name="at 1,000",
            unit="ms",
            goal="<= 2x",
            larger_is_better=False,
            note="the median of the 100 trials before",
        )
        report.add({**made, "met": statistics.median(far) <= 2 * statistics.median(near)})


def quality(sizes: Sizes, report: harness.Report) -> None:
    for function in FUNCTIONS:
        best: dict[str, list[float]] = defaultdict(list)
        for seed in range(sizes.seeds):
            for side in SIDES:
                answer = run("best", side, "tpe", sizes.quality, seed, function)
                best[side].append(answer["best"])
        made = harness.row(
            f"tpe: the best of {sizes.quality} trials on {function}",
            best["dspex"],
            peer=best["optuna"],
            peer_name="Optuna tpe",
            unit="above the minimum",
            goal="not worse",
            larger_is_better=False,
            note=f"median over {sizes.seeds} seeds; geometric means "
            + ", ".join(f"{side} {_geometric_mean(best[side]):.3g}" for side in SIDES),
        )
        met = statistics.median(best["dspex"]) <= statistics.median(best["optuna"])
        report.add({**made, "met": met})


def _geometric_mean(values: list[float]) -> float:
    return math.exp(statistics.fmean(math.log(max(value, 1e-300)) for value in values))


def main() -> None:
    parser = harness.parser(
        __doc__, bound="about 15 minutes, of which Optuna takes nearly all", short="a minute"
    )
    arguments = parser.parse_args()
    sizes = SHORT if arguments.short else FULL
    if arguments.repeats:
        sizes = replace(sizes, repeats=arguments.repeats)
    report = harness.Report("suggestion", short=arguments.short)
    cost(sizes, report)
    quality(sizes, report)
    report.save()


if __name__ == "__main__":
    main()
