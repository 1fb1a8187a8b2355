"""How busy the slots are kept, and Ray's published row of sleeps.

Knows: what is slept, on how many slots, and how a busy share is counted. Must not know: how work
reaches a slot.

A program that sleeps needs no processor, so a hundred threads of two processes stand for a hundred
cores (``isolation="thread"``). The share counts only the seconds that the program meant to sleep:
what a slot waits for the interpreter is not busy. The clock starts when evaluations may start
(the study's `StudyStarted`), and stops when the last trial starts, because from then on there is
no work left that an idle slot could have done.

The row of Ray Tune ("10,000 trials of 1 s on 16 CPUs: 715 s, ideal 625 s", its "Scalability and
Overhead Benchmarks") is run with evaluator children, the default, two processes of eight slots.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from distributed import Client, LocalCluster

import dspex
from benchmarks import harness

SIGMA = 0.5
PROCESSES = 2
SPACE = {"x": dspex.Float(0.0, 1.0)}
LIMIT = 900.0
"""Seconds after which a study is ended in order."""


@dataclass(frozen=True)
class Sizes:
    """How much is slept, where."""

    sleeps: int
    slots: int
    mean: float
    repeats: int
    row_sleeps: int
    row_slots: int
    row_seconds: float


FULL = Sizes(3_000, 100, 1.0, 3, 10_000, 16, 1.0)
SHORT = Sizes(200, 20, 0.2, 1, 160, 8, 0.2)


def sleeper(mean: float) -> Callable[[dict[str, Any], Any, Any], float]:
    """A program that sleeps LogNormal seconds, the same for a trial's number in every run."""

    def sleep(params: dict[str, Any], data: Any, trial: Any) -> float:
        rng = np.random.default_rng(trial.number)
        # The mean of exp(N(m, s^2)) is exp(m + s^2 / 2).
        seconds = mean * float(rng.lognormal(-SIGMA * SIGMA / 2, SIGMA))
        time.sleep(seconds)
        return seconds

    return sleep


def constant_sleeper(seconds: float) -> Callable[[dict[str, Any]], float]:
    def sleep(params: dict[str, Any]) -> float:
        time.sleep(seconds)
        return seconds

    return sleep


@contextmanager
def cluster(slots: int) -> Iterator[Client]:
    start: Any = LocalCluster  # distributed has no types
    connect: Any = Client
    with (
        start(
            n_workers=PROCESSES,
            threads_per_worker=slots // PROCESSES,
            dashboard_address=None,
            scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
        ) as made,
        connect(made) as client,
    ):
        yield client


@dataclass(frozen=True)
class Outcome:
    """One study: its busy share, its seconds, and whether it came to its end."""

    share: float
    seconds: float
    whole: bool


def study(client: Client, program: Any, slots: int, **options: Any) -> Outcome:
    """Run one study, and count how busy the slots were while work remained."""
    begun: list[float] = []

    def watch(event: Any) -> None:
        if type(event).__name__ == "StudyStarted":
            begun.append(time.time())

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # k is large for few trials: that is the point
        started = time.perf_counter()
        result = dspex.optimize(
            program,
            space=SPACE,
            direction="minimize",
            strategy="random",
            cluster=client,
            callbacks=[watch],
            progress=False,
            timeout=LIMIT,
            **options,
        )
        seconds = time.perf_counter() - started
    frame = [
        (trial.started, trial.score)
        for trial in result.trials
        if trial.started is not None and trial.score is not None
    ]
    starts = np.array([start for start, _ in frame])
    slept = np.array([score for _, score in frame])
    end = starts.max()
    inside = np.clip(np.minimum(starts + slept, end) - starts, 0.0, None).sum()
    share = float(inside / (slots * (end - begun[0])))
    return Outcome(share, seconds, result.stop_reason == "trials" and not result.n_failed)


def busy_shares(sizes: Sizes, report: harness.Report) -> None:
    """The hundred threads, in arrival order and reproducibly."""
    slots = sizes.slots
    modes: dict[str, dict[str, Any]] = {
        "arrival order": {},
        "reproducible, k = 2 per slot": {"seed": 0, "parallel_evaluations": 2 * slots},
        "reproducible, k = 4 per slot": {"seed": 0, "parallel_evaluations": 4 * slots},
    }
    found: dict[str, list[Outcome]] = {name: [] for name in modes}
    program = sleeper(sizes.mean)
    with cluster(slots) as client:
        study(client, program, slots, trials=2 * slots, isolation="thread")
        for repeat in range(sizes.repeats):
            for name, options in modes.items():
                outcome = study(
                    client, program, slots, trials=sizes.sleeps, isolation="thread", **options
                )
                harness.say(
                    f"repeat {repeat + 1} of {sizes.repeats}, {name}: "
                    f"{outcome.share:.1%} busy, {outcome.seconds:.1f} s"
                )
                if not outcome.whole:
                    report.cut(f"{name}, repeat {repeat + 1}: ended before its trials had")
                    continue
                found[name].append(outcome)
    simulated = {"reproducible, k = 2 per slot": " (design: 74 % in simulation)"}
    for name, outcomes in found.items():
        if not outcomes:
            continue
        shares = [100 * outcome.share for outcome in outcomes]
        seconds, _ = harness.summary([outcome.seconds for outcome in outcomes])
        has_goal = name == "arrival order"
        report.add(
            harness.row(
                f"busy, {name}, {slots} threads",
                shares,
                unit="%",
                goal=">= 95 %" if has_goal else None,
                met=harness.summary(shares)[0] >= 95 if has_goal else None,
                note=f"{sizes.sleeps:,} sleeps of LogNormal, mean {sizes.mean:g} s, sigma {SIGMA}, "
                f"while unstarted work remains; {seconds:g} s in all{simulated.get(name, '')}",
            )
        )


def rays_row(sizes: Sizes, report: harness.Report) -> None:
    """Ten thousand sleeps of a second on sixteen slots."""
    slots, each = sizes.row_slots, sizes.row_seconds
    ideal = sizes.row_sleeps * each / slots
    with cluster(slots) as client:
        harness.say(
            f"{sizes.row_sleeps:,} sleeps of {each:g} s on {slots} slots: {ideal:g} s or more"
        )
        outcome = study(client, constant_sleeper(each), slots, trials=sizes.row_sleeps)
    if not outcome.whole:
        report.cut("the row of Ray: ended before its trials had")
    published = 715.0 if sizes is FULL else None
    report.add(
        harness.row(
            f"{sizes.row_sleeps:,} sleeps of {each:g} s on {slots} slots",
            outcome.seconds,
            unit="s",
            peer=published,
            peer_name="Ray Tune, published, not run here",
            larger_is_better=False,
            goal="< 650 s",
            met=outcome.whole and outcome.seconds < 650,
            note=f"ideal {ideal:g} s; evaluator children; {outcome.share:.1%} busy while unstarted "
            "work remains; one run",
        )
    )


def main() -> None:
    parser = harness.parser(
        __doc__,
        bound="about 17 minutes: nine studies of some 40 s, one of 630 s",
        short="about 25 seconds",
    )
    parser.add_argument("--only", choices=["busy", "row"], help="one half of it")
    arguments = parser.parse_args()
    sizes = SHORT if arguments.short else FULL
    if arguments.repeats:
        sizes = Sizes(**{**sizes.__dict__, "repeats": arguments.repeats})
    report = harness.Report("utilisation", short=arguments.short)
    if arguments.only != "row":
        busy_shares(sizes, report)
    else:
        report.cut("busy shares were not measured")
    if arguments.only != "busy":
        rays_row(sizes, report)
    else:
        report.cut("the row of Ray was not measured")
    report.save()


if __name__ == "__main__":
    main()
