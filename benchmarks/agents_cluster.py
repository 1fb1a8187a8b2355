"""A cluster for a part of `agents`, its classes, and what its processes hold.

Knows: how processes are started, whose bytes are read, how answers are timed. Must not know: what
is measured with them.

The scheduler of a `LocalCluster` shares its process, and its interpreter's lock, with the client;
`apart` it has a process of its own, as most deployments do.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import psutil
from distributed import Client

import dspex
from benchmarks.foundation_cluster import directory
from dspex.agents import Agent, create_agents, gather, wait
from dspex.testing.clusters import local_cluster
from dspex.testing.processes import SchedulerProcess, WorkerProcess

WITHIN = 60.0
"""Seconds in which answers must be there."""


class Counter(Agent):
    """What every agent here is."""

    def on_start(self) -> None:  # noqa: D102
        self.state["n"] = 0

    def inc(self) -> int:  # noqa: D102
        self.state["n"] += 1
        number: int = self.state["n"]
        return number


class Tally:
    """The same as an actor of bare Dask."""

    def __init__(self) -> None:
        self.n = 0

    def inc(self) -> int:  # noqa: D102
        self.n += 1
        return self.n


@dataclass(frozen=True)
class Shape:
    """Of the cluster of a part.

    Attributes
    ----------
    apart : bool
        Whether the scheduler has a process of its own.
    """

    workers: int = 4
    apart: bool = False


@dataclass(frozen=True)
class Running:
    """A client of a cluster that is up, and the foundation over it."""

    client: Any
    foundation: Any

    def pids(self) -> dict[str, int]:
        """{address: process} of the workers."""
        return dict(self.client.run(os.getpid))


@contextlib.contextmanager
def cluster(shape: Shape, journal: str | None = None) -> Iterator[Running]:
    """Run workers of one thread each, each under a nanny, and a client of them."""
    with contextlib.ExitStack() as stack:
        if shape.apart:
            scheduler = stack.enter_context(SchedulerProcess(journal or "memory"))
            for _ in range(shape.workers):
                stack.enter_context(WorkerProcess(scheduler.address, nanny=True))
            at: Any = scheduler.address
        else:
            at = stack.enter_context(_local(shape.workers))
        yield stack.enter_context(connected(at, journal, shape.workers))


@contextlib.contextmanager
def _local(workers: int) -> Iterator[Any]:
    """A `LocalCluster`; that a worker is not gone in Dask's time spoils no measurement."""
    made = local_cluster(workers)
    at = made.__enter__()
    try:
        yield at
    finally:
        with contextlib.suppress(TimeoutError):
            made.__exit__(None, None, None)


@contextlib.contextmanager
def connected(at: Any, journal: str | None, workers: int) -> Iterator[Running]:
    """Connect a client, and wait for the workers."""
    connect: Any = Client  # distributed has no types
    with connect(at, timeout=WITHIN) as client, dspex.connect(client, journal=journal) as known:
        client.wait_for_workers(workers, timeout=WITHIN)
        deadline = time.monotonic() + WITHIN
        while len(known.members()) < workers and time.monotonic() < deadline:
            time.sleep(0.02)
        yield Running(client, known)


@contextlib.contextmanager
def durable_cluster(shape: Shape) -> Iterator[Running]:
    """As `cluster`, with a new SQLite journal on the machine's own disk."""
    with (
        directory() as folder,
        cluster(shape, f"sqlite:///{folder / 'agents.db'}") as running,
    ):
        yield running


def specs(
    count: int,
    persistence: str | None,
    *,
    first: int = 0,
    name: str = "agent",
    cls: type = Counter,
) -> list[dict[str, Any]]:
    return [
        {"cls": cls, "id": f"{name}-{number:07d}", "persistence": persistence}
        for number in range(first, first + count)
    ]


def warm(persistence: str | None) -> None:
    """Have every worker know the class, and the client every worker."""
    handles = create_agents(specs(100, persistence, name="warm"))
    gather([each.inc() for each in handles], timeout=WITHIN)


def create_on(running: Running, only: str, count: int, persistence: str) -> list[Any]:
    """Create agents that are all on one worker, and may live on any; each is called once."""
    others = [each for each in running.pids() if each != only]
    for each in others:
        running.foundation.drain(each)
    handles = create_agents(specs(count, persistence))
    for each in others:
        running.foundation.drain(each, undo=True)
    gather([each.inc() for each in handles], timeout=WITHIN)
    assert {handle.worker for handle in (handles[0], handles[-1])} == {only}
    return handles


# --- memory --------------------------------------------------------------------------------


def memory() -> dict[str, int]:
    """Bytes of the client's process (and a scheduler's in it), and of all processes it started.

    What processes share is shared out among them, where the system tells (PSS). Garbage is not
    collected first: with a million agents that stops a process for longer than a lease.
    """
    this = psutil.Process()
    below = sum(map(_resident, this.children(recursive=True)))
    own = _resident(this)
    return {"client": own, "below": below, "all": own + below}


def _resident(process: psutil.Process) -> int:
    with contextlib.suppress(psutil.Error):
        told = process.memory_full_info()
        return int(getattr(told, "pss", 0) or told.rss)
    return 0


# --- answers -------------------------------------------------------------------------------


@dataclass
class Answers:
    """When each agent has answered one call, in seconds after some instant."""

    since: float
    expected: int
    seconds: dict[int, float] = field(default_factory=dict)
    wrong: int = 0
    errors: list[str] = field(default_factory=list)

    def ask(self, handles: Sequence[Any]) -> Answers:
        """Call all at once, and wait for all."""
        futures = []
        for number, handle in enumerate(handles):
            future = handle.inc()
            future.add_done_callback(self._note(number))
            futures.append(future)
        _, late = wait(futures, timeout=WITHIN)
        self.errors += [f"no answer within {WITHIN:g} s"] * len(late)
        for future in futures:
            if future not in late:
                self._check(future)
        return self

    def _note(self, number: int) -> Callable[[Any], None]:
        def note(_: Any) -> None:
            self.seconds[number] = time.perf_counter() - self.since

        return note

    def _check(self, future: Any) -> None:
        try:
            self.wrong += future.result() != self.expected
        except Exception as error:
            self.errors.append(f"{type(error).__name__}: {error}")

    def told(self) -> dict[str, Any]:
        """What a part says of them."""
        every = sorted(self.seconds.values())
        return {
            "median": quantile(every, 0.5),
            "p99": quantile(every, 0.99),
            "last": every[-1],
            "wrong": self.wrong,
            "errors": len(self.errors),
            "error": self.errors[0][:300] if self.errors else "",
        }


def quantile(values: Sequence[float], share: float) -> float:
    """The value that so large a share of them does not exceed."""
    every = sorted(values)
    return every[min(len(every) - 1, int(share * len(every)))]
