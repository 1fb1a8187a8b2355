"""How fast and how large the foundation is, on a scheduler that is a process of its own.

Knows: which parts are run, how large, and what is asked of them. Must not know: how a part
measures (`foundation_parts`).

Each part is a client in a process of its own beside ``dask scheduler --preload dspex.preload`` with
a new SQLite journal, on the machine's own disk. The bare call of Dask, beside which a strong lookup
is put, is ``ncores_running`` while there are no workers: the scheduler's own handler, which does
next to nothing; the two take turns call by call, on the same connection.

The scheduler's work per operation is told twice: by the server's own count of its seconds on the
loop (``status()["loop_seconds"]``), and by the processor time that the system charges to the loop's
thread, in which Dask's part of every call is contained.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from benchmarks import harness

LIMIT = 300.0
"""Seconds after which a part is given up."""

ON_LOOP = 0.2
"""Milliseconds of the scheduler's loop that an operation may take."""


@dataclass(frozen=True)
class Sizes:
    """How much is done, how often."""

    entries: int
    calls: int
    restarts: int
    mutations: int
    alone: int
    members: int
    idle: float
    repeats: int


FULL = Sizes(50_000, 4_000, 3, 5_000, 300, 200, 25.0, 3)
SHORT = Sizes(2_000, 400, 1, 300, 20, 5, 0.5, 1)


def part(name: str, *arguments: Any) -> dict[str, Any]:
    harness.say(f"{name} {', '.join(map(str, arguments))}")
    command = [sys.executable, "-m", "benchmarks.foundation", "--part", name]
    return harness.run_json([*command, json.dumps(arguments)], timeout=LIMIT)


def costs(
    report: harness.Report, what: str, answers: Sequence[dict[str, float]], note: str
) -> None:
    """The scheduler's work for one operation, told twice."""
    process = statistics.median(each["process"] for each in answers) / 1e3
    for way, key in (("its own count", "told"), ("processor time of its thread", "loop")):
        report.measure(
            f"on the loop, {what}: {way}",
            [each[key] / 1e3 for each in answers],
            "ms/operation",
            below=ON_LOOP,
            note=note if key == "told" else f"{note}; all threads of the scheduler {process:.3f}",
        )


# --- the registry --------------------------------------------------------------------------


def registry(sizes: Sizes, report: harness.Report) -> None:
    answers = [
        part("registry", sizes.entries, sizes.calls, sizes.restarts) for _ in range(sizes.repeats)
    ]
    count = f"{sizes.entries:,}"
    own = answers[0]["own"]
    report.measure(
        f"bulk registration of {count} entries",
        [each["bulk"] for each in answers],
        "s",
        below=3,
        note=f"one register_many, until all is on the disk; {own:.0f} bytes of key, value, "
        "metadata and a capability each",
    )
    report.measure(
        f"a capability's 100 entries of {count}",
        [1e3 * each["query"] for each in answers],
        "ms",
        below=5,
        note="blocking client; median of the calls",
    )
    for key, way in (("eventual", "blocking"), ("eventual_async", "awaited")):
        report.measure(
            f"eventual lookup, {way}",
            [1e6 * each[key] for each in answers],
            "us",
            below=20,
            note=f"mean of {sizes.calls:,} calls, once the copy is there",
        )
    strong(sizes, report, answers)
    bulk = [each["bulk_cost"] for each in answers]
    costs(report, "an entry of a bulk", bulk, "1,000 entries travel together")
    told = [each["costs"]["lookup"]["told"] / 1e3 for each in answers]
    report.measure(
        "on the loop, strong lookup: its own count",
        told,
        "ms/operation",
        below=ON_LOOP,
        note="each travels alone",
    )
    report.measure(
        "on the loop, strong lookup: processor time of its thread",
        [each["costs"]["lookup"]["loop"] / 1e3 for each in answers],
        "ms/operation",
        peer=[each["costs"]["bare"]["loop"] / 1e3 for each in answers],
        peer_name="Dask's bare RPC",
        larger_is_better=False,
        note="each travels alone, so that Dask's part is the larger one; not judged",
    )
    report.measure(
        f"an entry among {count}, beside its own bytes: resident memory",
        [each["growth"] - each["own"] for each in answers],
        "bytes",
        below=1_000,
        note=f"growth of the scheduler over the bulk, less {own:.0f} bytes that an entry has",
    )
    restarts(report, count, answers)


def strong(sizes: Sizes, report: harness.Report, answers: Sequence[dict[str, Any]]) -> None:
    """A strong lookup beside what Dask takes for any call."""
    for key, way in (("strong_sync", "blocking"), ("strong_async", "awaited")):
        pairs = [each[key] for each in answers]
        ratios = [ours / bare for ours, bare in pairs]
        median, (least, most) = harness.summary(ratios)
        report.measure(
            f"strong lookup, {way} client",
            [1e3 * ours for ours, _ in pairs],
            "ms",
            goal="<= 1.3x the peer's time",
            met=median <= 1.3,
            peer=[1e3 * bare for _, bare in pairs],
            peer_name="Dask's bare RPC",
            larger_is_better=False,
            note=f"medians of {sizes.calls // 4:,} calls each, in turns; {median:.2f} times the "
            f"bare RPC's time ({least:.2f} - {most:.2f})",
        )


def restarts(report: harness.Report, count: str, answers: Sequence[dict[str, Any]]) -> None:
    """From SIGKILL to the first answer."""
    start = statistics.median(each["start"] for each in answers)
    for place, (name, note) in enumerate(
        (
            (
                "to the first strong lookup",
                "from the start of the process, a new client's connecting included; "
                f"{start:.2f} s with an empty journal",
            ),
            ("its recovery alone", 'status()["recovery_seconds"]'),
        )
    ):
        report.measure(
            f"restart after SIGKILL with {count} entries, {name}",
            [pair[place] for each in answers for pair in each["restarts"]],
            "s",
            below=3,
            note=note,
        )


def memory(sizes: Sizes, report: harness.Report) -> None:
    answer = part("traced", sizes.entries)
    beside = answer["traced"] - answer["own"]
    report.measure(
        f"an entry among {sizes.entries:,}, beside its own bytes: tracemalloc",
        [beside],
        "bytes",
        below=1_000,
        note="a server in the process that measures, without Dask",
    )


# --- mutations -----------------------------------------------------------------------------


def mutations(sizes: Sizes, report: harness.Report) -> None:
    answers = [part("mutations", sizes.mutations, sizes.alone) for _ in range(sizes.repeats)]
    disk = statistics.median(each["disk"] for each in answers)
    crowd = f"{sizes.mutations:,} by 50 coroutines of one client"
    rows: tuple[tuple[str, str, str, float | None], ...] = (
        ("register", "single registrations", "per s", 1_000),
        ("put", "strong StateStore puts of 1 kB", "per s", 1_000),
        ("lease", "lease acquired and released", "pairs/s", 500),
        ("lock", "lock acquired and released", "pairs/s", None),
    )
    for key, name, unit, least in rows:
        report.measure(
            f"{name}, 50 at once",
            [each[key]["rate"] for each in answers],
            unit,
            least=least,
            note=f"{crowd}, each on the disk before it is acknowledged",
        )
    for key, name, most in (
        ("put", "a strong put of 1 kB, alone", 10.0),
        ("register", "a registration, alone", None),
        ("lease", "a lease acquired and released, alone", None),
    ):
        report.measure(
            f"{name}: median",
            [1e3 * each[key]["alone"] for each in answers],
            "ms",
            below=most,
            note=f"one after the other; a bare write with fsync takes {disk:.2f} ms here",
        )
    for key, name, _, _ in rows:
        note = "acquire and release are two operations" if key in ("lease", "lock") else crowd
        costs(report, name, [each[key]["cost"] for each in answers], note)


# --- an idle cluster -----------------------------------------------------------------------


def idle(sizes: Sizes, report: harness.Report) -> None:
    shares: dict[str, list[float]] = {"bare": [], "calls": [], "foundation": []}
    for _ in range(sizes.repeats):
        for way, each in shares.items():
            each.append(part("idle", sizes.members, sizes.idle, way)["share"])
    added, floor = (
        [share - bare for share, bare in zip(shares[way], shares["bare"], strict=True)]
        for way in ("foundation", "calls")
    )
    bare, ours = (statistics.median(shares[way]) for way in ("bare", "foundation"))
    report.measure(
        f"an idle cluster of {sizes.members} members",
        added,
        "% of a core",
        below=6,
        peer=floor,
        peer_name="a bare RPC of each, as often",
        note="what is added to the scheduler's process, which uses "
        f"{ours:.1f} % with the foundation and {bare:.1f} % without; real Dask workers in one "
        f"other process, each with its own connections; {sizes.idle:g} s each, in turns",
    )


def main() -> None:
    parser = harness.parser(__doc__, bound="about 9 minutes", short="about 40 seconds")
    parser.add_argument("--part", nargs=2, metavar=("NAME", "JSON"), help="run one part, as JSON")
    every = {"registry": registry, "memory": memory, "mutations": mutations, "idle": idle}
    parser.add_argument("--only", nargs="*", choices=list(every), default=list(every))
    arguments = parser.parse_args()
    if arguments.part:
        from benchmarks.foundation_parts import PARTS

        name, given = arguments.part
        print(json.dumps(PARTS[name](*json.loads(given))), flush=True)
        return
    sizes = SHORT if arguments.short else FULL
    if arguments.repeats:
        sizes = replace(sizes, repeats=arguments.repeats)
    report = harness.Report("foundation", short=arguments.short)
    for name, measure in every.items():
        if name in arguments.only:
            measure(sizes, report)
        else:
            report.cut(f"{name} was not measured")
    report.save()


if __name__ == "__main__":
    main()
