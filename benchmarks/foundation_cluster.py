"""A scheduler of its own for a part of `foundation`, and what it spends.

Knows: how processes are started and ended, whose seconds and bytes are read. Must not know: what
is measured with them.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from distributed import Client

import dspex
from benchmarks import harness

WITHIN = 60.0
"""Seconds in which a process must be there."""


@dataclass(frozen=True)
class Scheduler:
    """A scheduler as a process of its own."""

    pid: int
    address: str

    def rss(self) -> int:
        """Bytes of its resident memory."""
        return int(psutil.Process(self.pid).memory_info().rss)


@dataclass(frozen=True)
class Spent:
    """Seconds of processor: of the event loop's thread, and of the whole process."""

    loop: float
    process: float

    @classmethod
    def of(cls, pid: int) -> Spent:
        """Read what a process has spent until now."""
        process = psutil.Process(pid)
        times = process.cpu_times()
        whole = times.user + times.system
        # On Linux the first thread, which runs the loop, has the number of the process.
        threads = {each.id: each.user_time + each.system_time for each in process.threads()}
        return cls(threads.get(pid, whole), whole)


@dataclass(frozen=True)
class Cost:
    """Microseconds of the scheduler for one operation.

    `told` is the server's own count of what it does on the loop; `loop` is the processor time of
    the loop's thread, Dask's part of a call included; `process` that of all threads.
    """

    told: float
    loop: float
    process: float

    @classmethod
    def between(
        cls, before: tuple[Spent, float], after: tuple[Spent, float], operations: int
    ) -> Cost:
        """Share what was spent between two readings of `meter` out among the operations."""
        (spent, told), (spent_then, told_then) = before, after
        return cls(
            told=(told_then - told) / operations * 1e6,
            loop=(spent_then.loop - spent.loop) / operations * 1e6,
            process=(spent_then.process - spent.process) / operations * 1e6,
        )


def meter(scheduler: Scheduler, status: Mapping[str, Any]) -> tuple[Spent, float]:
    """What was spent so far."""
    return Spent.of(scheduler.pid), float(status["loop_seconds"])


@contextlib.contextmanager
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


@contextlib.contextmanager
def scheduler(
    folder: Path, journal: str | None = None, *, kills: bool = False
) -> Iterator[Scheduler]:
    """Run a scheduler with the foundation on a journal; without one where there is no journal.

    It is ended with SIGTERM, or, where it `kills`, with SIGKILL.
    """
    file = folder / f"scheduler-{time.monotonic_ns()}.json"
    options = ["--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(file)]
    options += ["--no-dashboard"]
    if journal is not None:
        options += ["--preload", "dspex.preload", "--dspex-journal", journal]
    with _process(folder, ["scheduler", *options], kills=kills) as process:
        _until(lambda: _address(file) is not None, "the scheduler", process)
        yield Scheduler(process.pid, str(_address(file)))


def _address(file: Path) -> str | None:
    """Where the scheduler listens; None as long as it has not said so."""
    try:
        return str(json.loads(file.read_text())["address"])
    except (OSError, ValueError):
        return None


@contextlib.contextmanager
def worker(folder: Path, at: Scheduler, threads: int) -> Iterator[None]:
    """Run a worker, which will join."""
    options = [at.address, "--nthreads", str(threads), "--no-dashboard", "--no-nanny"]
    with _process(folder, ["worker", *options]):
        yield


@contextlib.contextmanager
def connected(at: Scheduler) -> Iterator[tuple[Any, Any]]:
    """A blocking client, and the foundation over it."""
    connect: Any = Client  # distributed has no types
    with connect(at.address, timeout=WITHIN) as client, dspex.connect(client) as foundation:
        yield client, foundation


@contextlib.contextmanager
def _process(
    folder: Path, arguments: list[str], *, kills: bool = False
) -> Iterator[subprocess.Popen[bytes]]:
    environment = {**os.environ, "PYTHONPATH": str(harness.HERE.parent)}
    log = folder / f"{arguments[0]}.log"
    with log.open("ab") as written:
        process = subprocess.Popen(
            [sys.executable, "-m", "dask", *arguments],
            cwd=folder,
            env=environment,
            stdout=written,
            stderr=written,
        )
    try:
        yield process
    finally:
        process.kill() if kills else process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _until(
    is_there: Callable[[], bool], what: str, process: subprocess.Popen[bytes] | None = None
) -> None:
    deadline = time.monotonic() + WITHIN
    while not is_there():
        if process is not None and process.poll() is not None:
            raise RuntimeError(f"{what} ended with exit code {process.returncode}")
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what} was not there within {WITHIN:g} s")
        time.sleep(0.005)


def until(is_there: Callable[[], bool], what: str) -> None:
    """Wait for something that comes by itself."""
    _until(is_there, what)


def write_through(folder: Path) -> float:
    """Median milliseconds of a write of 4 kB with fsync, in place as in SQLite's log."""
    seconds = []
    with (folder / "write").open("wb", buffering=0) as file:
        for _ in range(50):
            started = time.perf_counter()
            file.seek(0)
            file.write(b"x" * 4096)
            os.fsync(file.fileno())
            seconds.append(time.perf_counter() - started)
    return statistics.median(seconds) * 1e3
