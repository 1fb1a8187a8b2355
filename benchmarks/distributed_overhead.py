"""What Dask and we add to a trial: a program that does nothing, on two worker processes.

Knows: which sides are compared, at how many trials. Must not know: how a side works (``peers``,
`noop_study`). Each run is a process of its own with a warm-up before its clock starts, and the
sides take turns, so that a machine that slows down slows all of them.

The clock of our side includes everything that `dspex.optimize` does on a cluster that runs:
placing the program, starting evaluator children, taking leave.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import harness

PEERS = Path(__file__).resolve().parent / "peers"
K = 256
WORKERS = 2
LIMIT = 600.0
"""Seconds after which one run is given up, and the side with it."""


@dataclass(frozen=True)
class Sizes:
    """How many trials each side runs."""

    ours: int
    optuna: int
    ray: int
    dask: int
    repeats: int


FULL = Sizes(ours=20_000, optuna=1_000, ray=100, dask=5_000, repeats=3)
SHORT = Sizes(ours=2_000, optuna=40, ray=6, dask=500, repeats=1)


def ours(strategy: str, trials: int, seed: int | None) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.noop_study", strategy, str(trials)]
    command += [str(WORKERS), str(K), "none" if seed is None else str(seed)]
    return harness.run_json(command, timeout=LIMIT)


def optuna(sampler: str, trials: int) -> dict[str, Any]:
    command = [harness.environment("optuna"), str(PEERS / "optuna_dask.py"), sampler]
    return harness.run_json([*command, str(trials), str(WORKERS)], timeout=LIMIT)


def ray(trials: int) -> dict[str, Any]:
    command = [harness.environment("ray"), str(PEERS / "ray_tune.py"), str(trials), str(WORKERS)]
    return harness.run_json(command, timeout=LIMIT)


def dask(tasks: int) -> dict[str, Any]:
    command = [sys.executable, str(PEERS / "raw_dask.py"), str(tasks), str(WORKERS), str(K)]
    return harness.run_json(command, timeout=LIMIT)


def measure(sizes: Sizes, peers: set[str], report: harness.Report) -> dict[str, list[float]]:
    """Rates per second, by side, one per repeat."""
    rates: dict[str, list[float]] = defaultdict(list)

    def note(side: str, rate: float) -> None:
        rates[side].append(rate)
        harness.say(f"{side}: {rate:,.1f}/s")

    for repeat in range(sizes.repeats):
        harness.say(f"repeat {repeat + 1} of {sizes.repeats}")
        for name, seed in (("unseeded", None), ("seeded", repeat)):
            answer = ours("random", sizes.ours, seed)
            note(f"random {name}", sizes.ours / answer["seconds"])
            note(f"random {name} session", sizes.ours / answer["session_seconds"])
            cpu = 1e6 * answer["client_cpu_seconds"] / sizes.ours
            rates[f"cpu {name}"].append(cpu)
        for strategy in ("random", "tpe"):
            answer = ours(strategy, sizes.optuna, None)
            note(f"{strategy} {sizes.optuna}", sizes.optuna / answer["seconds"])
            if "optuna" in peers:
                try:
                    answer = optuna(strategy, sizes.optuna)
                except RuntimeError as error:
                    report.cut(f"Optuna's {strategy} run {repeat + 1}: {error}")
                else:
                    note(f"optuna {strategy}", sizes.optuna / answer["seconds"])
                    report.peers |= answer["versions"]
        if "ray" in peers:
            try:
                answer = ray(sizes.ray)
            except RuntimeError as error:
                report.cut(f"Ray Tune's run {repeat + 1}: {error}")
            else:
                note("ray", sizes.ray / answer["seconds"])
                report.peers |= answer["versions"]
        answer = dask(sizes.dask)
        note("dask map", sizes.dask / answer["map"])
        note("dask submit", sizes.dask / answer["submit"])
    return rates


def judge(rates: dict[str, list[float]], sizes: Sizes, report: harness.Report) -> None:
    """Turn rates into rows."""
    harness.say("--- medians")
    for name in ("unseeded", "seeded"):
        values = rates[f"random {name}"]
        cpu, _ = harness.summary(rates[f"cpu {name}"])
        session, _ = harness.summary(rates[f"random {name} session"])
        report.add(
            harness.row(
                f"random, {name}, {sizes.ours:,} trials",
                values,
                unit="trials/s",
                goal=">= 3,000",
                met=harness.summary(values)[0] >= 3000,
                note=f"k = {K}; {session:,.0f}/s without opening and closing; {cpu:.0f} us of the "
                "client's and scheduler's processor per trial",
            )
        )
    for strategy in ("random", "tpe"):
        values = rates[f"{strategy} {sizes.optuna}"]
        theirs = rates.get(f"optuna {strategy}")
        made = harness.row(
            f"{strategy}, {sizes.optuna:,} trials",
            values,
            unit="trials/s",
            peer=theirs,
            peer_name="Optuna 5 DaskStorage",
            goal=">= 20x the peer" if theirs else None,
            note=f"ours with k = {K}; the peer with a study.optimize on each of {WORKERS} workers",
        )
        report.add(_judged(made, 20))
    theirs = rates.get("ray")
    made = harness.row(
        f"random, unseeded, against Ray Tune's {sizes.ray} trials",
        rates["random unseeded"],
        unit="trials/s",
        peer=theirs,
        peer_name="Ray Tune",
        goal=">= 500x the peer" if theirs else None,
        note=f"ours {sizes.ours:,} trials; the peer with loggers, dashboard and console off, "
        f"actors used again, {WORKERS} processors",
    )
    report.add(_judged(made, 500))
    for way, words in (("map", "one client.map"), ("submit", f"submit, {K} in flight")):
        report.add(
            harness.row(
                f"trials against bare Dask tasks: {words}",
                rates["random unseeded"],
                unit="per s",
                peer=rates[f"dask {way}"],
                peer_name="Dask",
                note="for context: a trial travels with others in a task",
            )
        )


def _judged(made: dict[str, Any], least: float) -> dict[str, Any]:
    return {**made, "met": made["ratio"] >= least} if made["ratio"] is not None else made


def main() -> None:
    parser = harness.parser(
        __doc__,
        bound="about 15 minutes, of which Optuna's TPE takes half; never more than 10 per run",
        short="about a minute once the peers' environments exist",
    )
    parser.add_argument(
        "--peers", nargs="*", default=["optuna", "ray"], help="which peers: optuna ray"
    )
    arguments = parser.parse_args()
    sizes = SHORT if arguments.short else FULL
    if arguments.repeats:
        sizes = Sizes(**{**sizes.__dict__, "repeats": arguments.repeats})
    report = harness.Report("distributed_overhead", short=arguments.short)
    for name in sorted({"optuna", "ray"} - set(arguments.peers)):
        report.cut(f"the peer {name} was not run")
    judge(measure(sizes, set(arguments.peers), report), sizes, report)
    report.save()


if __name__ == "__main__":
    main()
