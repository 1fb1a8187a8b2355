"""What every benchmark shares: how it is timed, said, compared and kept.

Knows: the machine, the versions, the form of a result, the peers' environments. Must not know:
what a benchmark measures.

A result is one JSON file per benchmark in ``benchmarks/results``:
``{"benchmark", "machine", "versions", "commit", "date", "busy_before", "seconds", "cuts",
"rows": [...]}``; a row is what `row` makes. `tables` turns the files into ``docs/benchmarks.md``.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import time
import venv
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
ENVIRONMENTS = HERE / ".environments"
PACKAGES = ("dspex", "numpy", "scipy", "scikit-learn", "cmaes", "dask", "distributed", "optuna")

_began = time.monotonic()


# --- words ---------------------------------------------------------------------------------


def say(message: str) -> None:
    """One line of progress, with the seconds since the start."""
    print(f"[{time.monotonic() - _began:7.1f} s] {message}", flush=True)


def parser(doc: str, *, bound: str, short: str) -> argparse.ArgumentParser:
    """The arguments that every benchmark takes.

    Parameters
    ----------
    doc : str
        The module's docstring.
    bound, short : str
        How long the full and the short form take at most, in words.
    """
    made = argparse.ArgumentParser(
        description=doc,
        epilog=f"Full form: {bound}. Short form: {short}; it keeps no result and judges nothing.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--short", action="store_true", help="a small form for CI: only prints")
    made.add_argument("--repeats", type=int, help="runs of each side, interleaved")
    return made


# --- numbers -------------------------------------------------------------------------------


def significant(value: float, digits: int = 4) -> float:
    """Rounded to so many digits: what a benchmark can claim to know."""
    return float(f"{value:.{digits}g}")


def summary(values: Sequence[float]) -> tuple[float, list[float]]:
    """The median, and the least and the largest."""
    return (
        significant(statistics.median(values)),
        [significant(min(values)), significant(max(values))],
    )


def row(
    name: str,
    ours: Sequence[float] | float,
    *,
    unit: str,
    peer: Sequence[float] | float | None = None,
    peer_name: str | None = None,
    goal: str | None = None,
    met: bool | None = None,
    larger_is_better: bool = True,
    note: str = "",
) -> dict[str, Any]:
    """One line of a table.

    Parameters
    ----------
    name : str
    ours, peer : float or sequence of float
        One value per repeat.
    unit : str
    peer_name : str, optional
        Whom `peer` was measured of.
    goal : str, optional
        In words, such as ``">= 3,000"``.
    met : bool, optional
        Whether our median keeps the goal; None where there is no goal.
    larger_is_better : bool
        Which way `ratio` goes: it says how many times better ours is.
    note : str
        How it was measured, where that is not obvious.
    """
    our_median, our_spread = summary(_many(ours))
    made: dict[str, Any] = {
        "name": name,
        "ours": our_median,
        "peer": None,
        "ratio": None,
        "unit": unit,
        "spread": our_spread,
        "repeats": len(_many(ours)),
        "goal": goal,
        "met": met,
        "note": note,
    }
    if peer is not None:
        peer_median, peer_spread = summary(_many(peer))
        above, below = (our_median, peer_median) if larger_is_better else (peer_median, our_median)
        made |= {
            "peer": peer_median,
            "peer_name": peer_name,
            "peer_spread": peer_spread,
            # Too little for the clock: of a short form on a fast machine.
            "ratio": significant(above / below, 3) if below else None,
        }
    return made


def _many(values: Sequence[float] | float) -> Sequence[float]:
    return [values] if isinstance(values, int | float) else values


# --- where it was measured -----------------------------------------------------------------


def machine() -> dict[str, Any]:
    """What a reader must know to judge the numbers."""
    import psutil

    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "python": platform.python_version(),
    }


def _busy_now() -> float:
    import psutil

    return float(psutil.cpu_percent(interval=1.0))


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def versions(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Versions of what takes part; ``extra`` are those of peers in environments of their own."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    if "dspex" not in found:
        import dspex

        found["dspex"] = dspex.__version__
    return {**found, **(extra or {})}


def commit() -> str:
    """The commit of the working tree, marked where it has changes that are not committed."""
    try:
        answer = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            cwd=HERE,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return answer.stdout.strip()


# --- results -------------------------------------------------------------------------------


class Report:
    """Collects the rows of one benchmark, and keeps them unless it was the short form.

    Parameters
    ----------
    benchmark : str
        The name of the file and the heading of the table.
    short : bool
    """

    def __init__(self, benchmark: str, *, short: bool) -> None:
        self.benchmark = benchmark
        self.short = short
        self.rows: list[dict[str, Any]] = []
        self.cuts: list[str] = []
        self.peers: dict[str, str] = {}
        self._started = time.monotonic()
        # What others use now; an average over minutes would blame the benchmark before this one.
        self._busy = _busy_now()
        if self._busy > 10:
            self.cut(f"the machine was not quiet: {self._busy:.0f} % busy with other work")

    def cut(self, words: str) -> None:
        """Say what was left out or made smaller."""
        say(f"cut: {words}")
        self.cuts.append(words)

    def measure(
        self,
        name: str,
        values: Sequence[float],
        unit: str,
        *,
        below: float | None = None,
        least: float | None = None,
        **more: Any,
    ) -> None:
        """Add a row, judged by its median where there is something to be kept; none without values.

        Parameters
        ----------
        name, values, unit, more
            As of `row`.
        below, least : float, optional
            What the median must be less than, or not less than.
        """
        if not values:
            return
        median = statistics.median(values)
        if below is not None:
            more |= {"goal": f"< {below:,g}", "met": median < below, "larger_is_better": False}
        if least is not None:
            more |= {"goal": f">= {least:,g}", "met": median >= least}
        self.add(row(name, values, unit=unit, **more))

    def add(self, made: dict[str, Any]) -> None:
        """Take a row, and say it."""
        self.rows.append(made)
        spread = "-".join(f"{each:g}" for each in made["spread"])
        words = f"{made['name']}: {made['ours']:g} {made['unit']} ({spread})"
        if made["peer"] is not None:
            words += f"; {made['peer_name']} {made['peer']:g}, ratio {made['ratio']}"
        if made["goal"] and not self.short:
            words += f"; goal {made['goal']}: {'met' if made['met'] else 'NOT MET'}"
        say(words)

    def save(self) -> Path | None:
        """Write the file; the short form writes none."""
        if self.short:
            say("short form: nothing kept, nothing judged")
            return None
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"{self.benchmark}.json"
        result = {
            "benchmark": self.benchmark,
            "machine": machine(),
            "versions": versions(self.peers),
            "commit": commit(),
            "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
            "busy_before": self._busy,
            "seconds": round(time.monotonic() - self._started),
            "cuts": self.cuts,
            "rows": self.rows,
        }
        path.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n")
        say(f"kept in {path.relative_to(HERE.parent)}")
        return path


# --- other processes -----------------------------------------------------------------------


def environment(name: str) -> str:
    """The Python of a peer's own virtual environment, made from ``environments/<name>.txt``.

    Made once and kept in ``benchmarks/.environments``; made again when the list changes.
    """
    wanted = (HERE / "environments" / f"{name}.txt").read_text()
    directory = ENVIRONMENTS / name
    python = directory / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    stamp = directory / "installed.txt"
    if python.exists() and stamp.exists() and stamp.read_text() == wanted:
        return str(python)
    say(f"making the environment of {name} (once)")
    venv.create(directory, clear=True, with_pip=True)
    requirements = HERE / "environments" / f"{name}.txt"
    subprocess.run(
        [str(python), "-m", "pip", "install", "--quiet", "--requirement", str(requirements)],
        check=True,
        timeout=900,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    stamp.write_text(wanted)
    return str(python)


def run_json(
    command: Sequence[str], *, timeout: float, variables: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Run a process, and read the line of JSON that it prints last.

    Raises
    ------
    RuntimeError
        Where it fails or takes more than ``timeout`` seconds; with the end of what it wrote.
    """
    project = str(HERE.parent)
    own = {"PYTHONPATH": project} if command[0] == sys.executable else {}
    try:
        done = subprocess.run(
            list(command),
            capture_output=True,
            text=True,
            timeout=timeout,
            env={**os.environ, **own, **(variables or {})},
        )
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"took more than {timeout:g} s: {' '.join(command)}") from None
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if not lines:
        raise RuntimeError(f"{' '.join(command)} printed no JSON:\n{done.stderr[-3000:]}")
    answer: dict[str, Any] = json.loads(lines[-1])
    return answer
