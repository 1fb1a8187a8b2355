"""Writes ``docs/benchmarks.md`` from ``benchmarks/results/*.json``.

Knows: the form of a result (`harness`), what each benchmark asks, how the page reads. Must not
know: how anything is measured. What is not met is said as loudly as what is; a benchmark without a
result is named, not left out.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "benchmarks.md"

# {benchmark: (heading, what it asks)}; the order is the page's.
BENCHMARKS = {
    "suggestion": (
        "Suggestion cost",
        "What a strategy adds to a trial whose evaluation costs nothing, in one process, beside "
        "Optuna's sampler of the same kind; and whether the cheaper suggestions are as good.",
    ),
    "distributed_overhead": (
        "Distributed overhead",
        "What Dask and dspex add to a trial that does nothing, on a `LocalCluster` of two "
        "processes with 256 trials in flight, beside Optuna's `DaskStorage`, Ray Tune and bare "
        "Dask. Each run is a process of its own; the sides take turns.",
    ),
    "utilisation": (
        "Utilisation",
        "How busy slots are while there is work left to start. A reproducible study waits for "
        "its slowest trials, and the price is shown beside the share in arrival order.",
    ),
    "memory": (
        "Memory, reopening, import",
        "What a trial costs in the client and in the scheduler, how fast a log opens, what "
        "`import dspex` costs.",
    ),
    "foundation": (
        "The foundation",
        "Registry, state store, leases and members on a scheduler that is a process of its own, "
        "with a SQLite journal: what is on the disk is acknowledged, and not before. Strong "
        "lookups take turns with a call of Dask that does nothing.",
    ),
    "agents": (
        "Agents",
        "How fast agents are made and called, what an idle one takes, and how soon they answer "
        "again after a death, a silence, a drain and a restart, on four workers of one thread. "
        "Bare Dask's actors and Ray's are called in turns with ours.",
    ),
}

INTRODUCTION = """\
# Benchmarks

Measured by the scripts in `benchmarks/` ("python -m benchmarks.run_all", within an hour), and
written by `python -m benchmarks.tables` from the results that they keep. A number is the median of
the repeats, with the least and the largest in brackets. A ratio says how many times better we are
than the peer. Peers run on the same machine, in turns with us, in environments of their own with
pinned versions (`benchmarks/environments/`), unless the table says that a number was published by
others.
"""


def number(value: float | None) -> str:
    """Four digits at most, thousands apart."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def measured(median: float | None, spread: Any) -> str:
    """A median with its spread, where there is one."""
    if median is None:
        return ""
    if isinstance(spread, list | tuple) and len(spread) == 2 and spread[0] != spread[1]:
        return f"{number(median)} ({number(spread[0])} - {number(spread[1])})"
    if isinstance(spread, int | float) and spread:
        return f"{number(median)} (± {number(spread)})"
    return number(median)


def verdict(row: dict[str, Any]) -> str:
    met = row.get("met")
    if met is None:
        return "" if not row.get("goal") else "not judged"
    return "met" if met else "**not met**"


def cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def table(rows: list[dict[str, Any]]) -> list[str]:
    """A Markdown table; the columns of peers only where there is one."""
    has_peer = any(row.get("peer") is not None for row in rows)
    heads = ["what", "dspex", "unit"]
    heads += ["peer", "ratio"] if has_peer else []
    heads += ["goal", ""]
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    for row in rows:
        cells = [row["name"], measured(row.get("ours"), row.get("spread")), row.get("unit") or ""]
        if has_peer:
            peer = measured(row.get("peer"), row.get("peer_spread"))
            name = row.get("peer_name") or ""
            ratio = row.get("ratio")
            cells += [f"{name}: {peer}" if peer and name else peer]
            cells += [f"{number(ratio)}x" if ratio is not None else ""]
        cells += [row.get("goal") or "", verdict(row)]
        lines.append("| " + " | ".join(map(cell, cells)) + " |")
    return lines


def notes(rows: list[dict[str, Any]]) -> list[str]:
    """How rows were measured; one that several rows share is said once."""
    said: dict[str, list[str]] = {}
    for row in rows:
        if row.get("note"):
            said.setdefault(row["note"], []).append(row["name"])
    return [f"- {'; '.join(names)}: {note}." for note, names in said.items()]


def section(name: str, result: dict[str, Any] | None) -> list[str]:
    """One benchmark: what it asks, where and when it ran, its table, its cuts."""
    heading, question = BENCHMARKS.get(name, (name.replace("_", " ").capitalize(), ""))
    lines = [f"## {heading}", "", question, ""]
    if result is None:
        return [*lines, f"No result yet: `python -m benchmarks.{name}`.", ""]
    machine = result["machine"]
    where = [
        machine.get("processor"),
        f"{machine['cores']} cores" if "cores" in machine else None,
        f"{machine['memory_gb']} GB" if "memory_gb" in machine else None,
        machine.get("system"),
        f"Python {machine['python']}" if "python" in machine else None,
    ]
    found = ", ".join(f"{package} {version}" for package, version in result["versions"].items())
    lines += table(result["rows"])
    lines += [""]
    lines += notes(result["rows"])
    lines += ["", f"Machine: {', '.join(each for each in where if each)}. Versions: {found}."]
    ran = [f"commit `{result['commit']}`"]
    ran += [result["date"]] if "date" in result else []
    ran += [f"{result['seconds']:,} s in all"] if "seconds" in result else []
    lines += [f"Ran at {', '.join(ran)}.", ""]
    if result.get("cuts"):
        lines += ["Cuts:", "", *(f"- {cell(cut)}" for cut in result["cuts"]), ""]
    return lines


def unmet(results: dict[str, dict[str, Any]]) -> list[str]:
    """What stands at the top of the page: how many goals there are, and those not met."""
    judged = [
        (BENCHMARKS.get(name, (name, ""))[0], row)
        for name, result in results.items()
        for row in result["rows"]
        if row.get("met") is not None
    ]
    missed = [(heading, row) for heading, row in judged if not row["met"]]
    if not judged:
        return []
    lines = [f"Of {len(judged)} goals {len(judged) - len(missed)} are met."]
    if missed:
        lines += ["Not met:", ""]
        lines += [
            f"- {heading}: {row['name']}: {number(row['ours'])} {row['unit']}"
            + (f", {number(row['ratio'])}x the peer" if row.get("ratio") is not None else "")
            + f"; the goal is {row['goal']}."
            for heading, row in missed
        ]
    return [*lines, ""]


def page(results: dict[str, dict[str, Any]]) -> str:
    """The whole page, as Markdown."""
    lines = [INTRODUCTION, *unmet(results)]
    for name in [*BENCHMARKS, *sorted(set(results) - set(BENCHMARKS))]:
        lines += section(name, results.get(name))
    return "\n".join(lines).rstrip() + "\n"


def read(directory: Path) -> dict[str, dict[str, Any]]:
    """{benchmark: its result}."""
    found = {}
    for path in sorted(directory.glob("*.json")):
        result = json.loads(path.read_text())
        found[result["benchmark"]] = result
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--page", type=Path, default=PAGE, help="where to write; - prints")
    arguments = parser.parse_args()
    text = page(read(arguments.results))
    if str(arguments.page) == "-":
        sys.stdout.write(text)
        return
    arguments.page.parent.mkdir(exist_ok=True)
    arguments.page.write_text(text)
    print(f"wrote {arguments.page}")


if __name__ == "__main__":
    main()
