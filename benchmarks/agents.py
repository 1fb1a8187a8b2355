"""How fast agents are made and called, how large they are, and how soon they are back.

Knows: which parts are run, how large, and what is asked of them. Must not know: how a part
measures (`agents_parts`, `agents_failures`).

Each part is a client in a process of its own with a new cluster of four workers of one thread, on
this machine. The scheduler of a `LocalCluster` shares its process with the client; ``--apart``
gives it one of its own, and says so. Bare Dask's actors are called by the same client on the same
workers, in turns; Ray's actors, each a process, run in turns with both.
"""

from __future__ import annotations

import faulthandler
import json
import signal
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from benchmarks import harness

LIMIT = 900
"""Seconds after which a part is given up."""

LEASE = 3.0
"""Seconds for which a silent worker is believed in; the default."""

AHEAD = 4
"""Parts of the calls under way (`agents_parts`, which is not loaded here, has the same number)."""


@dataclass(frozen=True)
class Sizes:
    """How much is done, how often."""

    create: int
    many: int
    many_at_once: int
    agents: int
    each_has: int
    rounds: int
    calls: int
    kept_calls: int
    moved: int
    called: int
    every: float
    quiet: float
    repeats: int
    workers: int
    is_full: bool
    apart: bool = False


FULL = Sizes(50_000, 1_000_000, 50_000, 1_000, 5, 3, 1_000, 300, 10_000, 500, 0.25, 3.0, 3, 4, True)
SHORT = Sizes(400, 2_000, 1_000, 100, 5, 1, 50, 20, 300, 50, 0.25, 0.5, 1, 2, False)

RAY = (4, 20_000, 3, 1_000)
"""Actors, outstanding calls (fewer are slower), rounds, single calls."""


class Parts:
    """Runs parts; one that fails is a cut."""

    def __init__(self, report: harness.Report, sizes: Sizes) -> None:
        self._report = report
        self._shape = {"workers": sizes.workers, "apart": sizes.apart}

    def one(self, name: str, *arguments: Any) -> dict[str, Any] | None:
        """What a part says; None where it failed."""
        words = f"{name} {', '.join(map(str, arguments))}"
        harness.say(words)
        command = [sys.executable, "-m", "benchmarks.agents", "--part", name]
        try:
            answer = harness.run_json(
                [*command, json.dumps([self._shape, *arguments])], timeout=LIMIT + 60
            )
        except RuntimeError as error:
            self._report.cut(f"{words} failed: {_last_line(str(error))}")
            print(error, file=sys.stderr, flush=True)
            return None
        harness.say(f"  {_shown(answer)}")
        for what in ("wrong", "errors"):
            if answer.get(what):
                told = f": {answer['error']}" if answer.get("error") else ""
                self._report.cut(f"{words}: {answer[what]} {what}{told}")
        return answer

    def some(self, repeats: int, name: str, *arguments: Any) -> list[dict[str, Any]]:
        """What a part says each time that it did not fail."""
        made = (self.one(name, *arguments) for _ in range(repeats))
        return [each for each in made if each is not None]


def _last_line(words: str) -> str:
    lines = words.strip().splitlines()
    return lines[-1][:300] if lines else ""


def _shown(answer: dict[str, Any]) -> str:
    return ", ".join(
        f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
        for key, value in answer.items()
        if value != ""
    )


# --- creation, memory ------------------------------------------------------------------------


def create(sizes: Sizes, report: harness.Report) -> None:
    parts = Parts(report, sizes)
    count = f"{sizes.create:,}"
    for persistence in ("cluster_replicated", "durable") if sizes.is_full else ("durable",):
        answers = parts.some(sizes.repeats, "create", persistence, sizes.create)
        report.measure(
            f"create {count} agents at once, {persistence}",
            [each["seconds"] for each in answers],
            "s",
            below=10,
            note="one create_agents, on_start and its state's commit included",
        )
        report.measure(
            f"an idle agent of {count} beside its own state, {persistence}",
            [each["bytes"] - each["own"] for each in answers],
            "bytes",
            below=2_000,
            note="growth of the resident memory (PSS) of client, scheduler and workers over the "
            "creation, the handles included, less once the id and the pickled state",
        )


def memory(sizes: Sizes, report: harness.Report) -> None:
    if not sizes.is_full:  # a few agents say nothing of a million, and are made by `create`, too
        return
    answer = Parts(report, sizes).one("many", sizes.many, sizes.many_at_once)
    if answer is None:
        return
    count = f"{sizes.many:,}"
    growth = answer["growth"]
    where = "the client's, " if sizes.apart else "the client's and scheduler's, "
    report.measure(
        f"{count} volatile agents: growth of all processes",
        [growth["all"] / 1e9],
        "GB",
        below=4,
        note=f"resident memory (PSS); {growth['client'] / 1e9:.2f} GB of it {where}"
        f"{growth['below'] / 1e9:.2f} GB the others'; all handles are held; made in "
        f"{answer['seconds']:.0f} s, {sizes.many_at_once:,} at once",
    )


# --- messages --------------------------------------------------------------------------------


def messages(sizes: Sizes, report: harness.Report) -> None:
    parts = Parts(report, sizes)
    outstanding = AHEAD * sizes.agents * sizes.each_has
    rates: list[float] = []
    pairs: list[tuple[float, float]] = []
    rays: list[tuple[float, float]] = []
    for _ in range(sizes.repeats):
        answer = parts.one("messages", sizes.agents, sizes.each_has, 1)
        peer = ray(report) if sizes.is_full else None
        if answer is None:
            continue
        rates += answer["ours"]
        pairs += zip(answer["ours"], answer["dask"], strict=True)
        if peer is not None:
            rays.append((statistics.median(answer["ours"]), peer))
    note = (
        f"{outstanding:,} calls under way to {sizes.agents:,} agents: when the oldest quarter is "
        "answered another leaves"
    )
    name = "calls of volatile agents, pipelined"
    beside = f"{note}; {sizes.agents * sizes.each_has:,} calls of Dask's actors at once"
    compare(report, f"{name}, beside Dask's actors", pairs, "Dask's actors", 100, beside)
    note += f"; {RAY[0]} of Ray's actors, {RAY[1]:,} calls under way to them"
    compare(report, f"{name}, beside Ray's actors", rays, "Ray's actors", 20, note)
    kinds = ("durable", "cluster_replicated") if sizes.is_full else ("durable",)
    answers: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(sizes.repeats):
        for persistence, each in answers.items():
            told = parts.one("kept", persistence, sizes.agents, sizes.each_has, sizes.rounds)
            each += [] if told is None else told["rates"]
    for persistence, each in answers.items():
        report.measure(
            f"calls exactly once, pipelined, {persistence}",
            each,
            "messages/s",
            least=20_000 if persistence == "durable" else None,
            note=f"{outstanding:,} calls under way to {sizes.agents:,} agents, each of which "
            "changes its state",
        )


def compare(
    report: harness.Report,
    name: str,
    pairs: Sequence[tuple[float, float]],
    peer: str,
    times: float,
    note: str,
) -> None:
    """A rate beside a peer's of the same run; judged by the median of the ratios."""
    if not pairs:
        return
    median, (least, most) = harness.summary([ours / other for ours, other in pairs])
    report.measure(
        name,
        [ours for ours, _ in pairs],
        "messages/s",
        goal=f">= {times:g}x the peer's",
        met=median >= times,
        peer=[other for _, other in pairs],
        peer_name=peer,
        note=f"{note}; {median:.1f} times the peer's ({least:.1f} - {most:.1f}) within a run",
    )


def ray(report: harness.Report) -> float | None:
    """Calls per second of Ray's actors; None where Ray cannot be had."""
    try:
        python = harness.environment("ray")
        script = harness.HERE / "peers" / "ray_actors.py"
        answer = harness.run_json([python, str(script), *map(str, RAY)], timeout=LIMIT)
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        report.cut(f"Ray was not measured: {_last_line(str(error))}")
        return None
    report.peers |= answer["versions"]
    harness.say(f"Ray: {answer['rate']:,.0f} calls/s, one call {1e3 * answer['latency']:.2f} ms")
    return float(answer["rate"])


def latency(sizes: Sizes, report: harness.Report) -> None:
    answers = Parts(report, sizes).some(sizes.repeats, "latency", sizes.calls, sizes.kept_calls)
    if not answers:
        return
    ratios = [each["volatile"] / each["dask"] for each in answers]
    median, (least, most) = harness.summary(ratios)
    report.measure(
        "one call of a volatile agent",
        [1e3 * each["volatile"] for each in answers],
        "ms",
        goal="<= 1.5x the peer's time",
        met=median <= 1.5,
        peer=[1e3 * each["dask"] for each in answers],
        peer_name="Dask's actor",
        larger_is_better=False,
        note=f"medians of {sizes.calls:,} calls each, in turns, on the same worker; "
        f"{median:.2f} times the peer's time ({least:.2f} - {most:.2f})",
    )
    for persistence, most_ms in (("cluster_replicated", None), ("durable", 10.0)):
        report.measure(
            f"one call, exactly once, {persistence}: median",
            [1e3 * each[persistence] for each in answers],
            "ms",
            below=most_ms,
            note=f"{sizes.kept_calls:,} calls, one after the other, each changes the state",
        )


# --- failures --------------------------------------------------------------------------------


def failures(sizes: Sizes, report: harness.Report) -> None:
    parts = Parts(report, sizes)
    count = f"{sizes.moved:,}"
    ways = [("SIGKILL", "is killed", 2.0)]
    if sizes.is_full:  # it takes a lease at least
        ways += [("SIGSTOP", "falls silent", LEASE + 3.0)]
    for how, what, most in ways:
        answers = parts.some(sizes.repeats, "failover", sizes.moved, how)
        report.measure(
            f"a worker with {count} agents {what}: until an agent has answered, 99th percentile",
            [each["p99"] for each in answers],
            "s",
            below=most,
            note=f"cluster_replicated; {how}, then a call of each at once, seconds from the signal",
        )


def drain(sizes: Sizes, report: harness.Report) -> None:
    answers = Parts(report, sizes).some(
        sizes.repeats, "drain", sizes.moved, sizes.called, sizes.every, sizes.quiet
    )
    if not answers:
        return
    before = statistics.median(each["before"] for each in answers)
    taken = statistics.median(each["seconds"] for each in answers)
    report.measure(
        f"drain of a worker with {sizes.moved:,} agents: slowest call of an agent, 99th percentile",
        [each["p99"] for each in answers],
        "s",
        below=0.5,
        note=f"cluster_replicated; {sizes.called:,} of them are called every {sizes.every:g} s, "
        f"{answers[0]['rate']:,.0f} calls/s; {before:.3f} s in the {sizes.quiet:g} s before; the "
        f"drain takes {taken:.2f} s",
    )


def restart(sizes: Sizes, report: harness.Report) -> None:
    answers = Parts(report, sizes).some(sizes.repeats, "restart", sizes.moved)
    if not answers:
        return
    back = statistics.median(each["back"] for each in answers)
    report.measure(
        f"restart of the scheduler with {sizes.moved:,} durable agents: until an agent has "
        "answered, 99th percentile",
        [each["p99"] for each in answers],
        "s",
        below=5,
        note="SIGKILL of the scheduler; a call of each at once when all new workers are "
        f"there, {back:.1f} s after the signal; seconds from then, by the client from before",
    )


EVERY = {
    "create": create,
    "memory": memory,
    "messages": messages,
    "latency": latency,
    "failures": failures,
    "drain": drain,
    "restart": restart,
}


def run_part(name: str, given: str) -> None:
    """Run one part; where it hangs, tell where, and end it with its processes."""
    from benchmarks.agents_cluster import Shape
    from benchmarks.agents_parts import PARTS

    def give_up(*_: object) -> None:
        faulthandler.dump_traceback(all_threads=True)
        raise TimeoutError(f"{name} took more than {LIMIT} s")

    if hasattr(signal, "SIGALRM"):
        signal.signal(signal.SIGALRM, give_up)
        signal.alarm(LIMIT)
    shape, *arguments = json.loads(given)
    print(json.dumps(PARTS[name](Shape(**shape), *arguments)), flush=True)


def main() -> None:
    parser = harness.parser(__doc__, bound="about 15 minutes", short="about 50 seconds")
    parser.add_argument("--part", nargs=2, metavar=("NAME", "JSON"), help="run one part, as JSON")
    parser.add_argument("--only", nargs="*", choices=list(EVERY), default=list(EVERY))
    parser.add_argument("--apart", action="store_true", help="the scheduler in its own process")
    arguments = parser.parse_args()
    if arguments.part:
        run_part(*arguments.part)
        return
    sizes = SHORT if arguments.short else FULL
    sizes = replace(sizes, apart=arguments.apart, repeats=arguments.repeats or sizes.repeats)
    report = harness.Report("agents", short=arguments.short)
    if arguments.apart:
        report.cut("the scheduler had a process of its own, apart from the client's")
    for name, measure in EVERY.items():
        if name in arguments.only:
            measure(sizes, report)
        else:
            report.cut(f"{name} was not measured")
    report.save()


if __name__ == "__main__":
    main()
