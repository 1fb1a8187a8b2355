"""The parts of `agents` in which a process dies, falls silent, or is to be emptied.

Knows: what is done to whom, and what is timed. Must not know: goals, tables.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.agents_cluster import (
    WITHIN,
    Answers,
    Shape,
    cluster,
    connected,
    create_on,
    quantile,
    specs,
)
from benchmarks.foundation_cluster import directory
from dspex.agents import create_agents, gather
from dspex.testing.processes import SchedulerProcess, WorkerProcess


def failover(shape: Shape, count: int, how: str) -> dict[str, Any]:
    """Seconds from a signal to the one worker that has all agents until each has answered.

    Parameters
    ----------
    how : str
        "SIGKILL", which closes the worker's connections, or "SIGSTOP", which leaves them open.
    """
    with cluster(shape) as running:
        address, pid = next(iter(running.pids().items()))
        handles = create_on(running, address, count, "cluster_replicated")
        try:
            since = time.perf_counter()
            os.kill(pid, signal.Signals[how])
            return Answers(since, expected=2).ask(handles).told()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)  # or a stopped one would keep the cluster from closing


# --- drain ---------------------------------------------------------------------------------


class Traffic:
    """Calls each of some agents again and again, one call at a time, from a thread of its own.

    Attributes
    ----------
    slowest : list of float
        Seconds of the slowest call of each since `forget`.
    """

    def __init__(self, handles: Sequence[Any], every: float) -> None:
        self._handles = handles
        self._every = every
        self._due = [every * number / len(handles) for number in range(len(handles))]
        self._asked: list[float | None] = [None] * len(handles)
        self.slowest = [0.0] * len(handles)
        self.counts = [0] * len(handles)
        self.errors: list[str] = []
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Traffic:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._is_over.set()
        self._thread.join()

    def forget(self) -> None:
        """Begin anew with the slowest calls."""
        self.slowest = [0.0] * len(self._handles)

    def settle(self) -> None:
        """Stop calling, and wait for what was called."""
        self.__exit__()
        deadline = time.monotonic() + WITHIN
        while any(each is not None for each in self._asked):
            if time.monotonic() > deadline:
                self.errors.append(f"no answer within {WITHIN:g} s")
                return
            time.sleep(0.01)

    def _run(self) -> None:
        began = time.perf_counter()
        while not self._is_over.wait(0.01):
            now = time.perf_counter()
            for number, handle in enumerate(self._handles):
                if self._asked[number] is None and self._due[number] <= now - began:
                    self._due[number] = now - began + self._every
                    self._asked[number] = time.perf_counter()
                    handle.inc().add_done_callback(self._note(number))

    def _note(self, number: int) -> Callable[[Any], None]:
        def note(future: Any) -> None:
            asked = self._asked[number]
            assert asked is not None
            taken = time.perf_counter() - asked
            self.slowest[number] = max(self.slowest[number], taken)
            self.counts[number] += 1
            self._asked[number] = None
            if future.has_failed():
                self.errors.append(repr(future))

        return note


def drain(shape: Shape, count: int, called: int, every: float, quiet: float) -> dict[str, Any]:
    """The slowest call of each of some agents while a worker with all of them is emptied.

    Parameters
    ----------
    called : int
        How many of the agents are called, one call at a time, a new one ``every`` seconds.
    quiet : float
        Seconds in which the same is measured before.
    """
    with cluster(shape) as running:
        address = next(iter(running.pids()))
        handles = create_on(running, address, count, "cluster_replicated")
        some = handles[:: max(1, count // called)]
        with Traffic(some, every) as traffic:
            time.sleep(min(1.0, quiet))
            traffic.forget()
            time.sleep(quiet)
            before = quantile(traffic.slowest, 0.99)
            traffic.forget()
            started = time.perf_counter()
            running.foundation.drain(address)
            seconds = time.perf_counter() - started
            time.sleep(every)
            traffic.settle()
        hosts = {each.worker for each in handles[:: max(1, count // 50)]}
        after = gather([each.inc() for each in some], timeout=WITHIN)
        wrong = sum(n != calls + 2 for n, calls in zip(after, traffic.counts, strict=True))
        return {
            "seconds": seconds,
            "before": before,
            "median": quantile(traffic.slowest, 0.5),
            "p99": quantile(traffic.slowest, 0.99),
            "last": max(traffic.slowest),
            "rate": len(some) / every,
            "wrong": wrong + (address in hosts),
            "errors": len(traffic.errors),
            "error": traffic.errors[0][:300] if traffic.errors else "",
        }


# --- restart -------------------------------------------------------------------------------


def restart(shape: Shape, count: int) -> dict[str, Any]:
    """Seconds from the return of all workers until each durable agent has answered.

    The scheduler is killed; its workers end by themselves. The client is the one that was there
    before.
    """
    with directory() as folder, contextlib.ExitStack() as stack:
        journal = f"sqlite:///{folder / 'agents.db'}"
        scheduler = stack.enter_context(SchedulerProcess(journal))
        workers = [_worker(stack, scheduler) for _ in range(shape.workers)]
        running = stack.enter_context(connected(scheduler.address, None, shape.workers))
        handles = create_agents(specs(count, "durable"))
        gather([each.inc() for each in handles], timeout=WITHIN)
        killed = time.perf_counter()
        scheduler.kill()
        for each in workers:
            each.close()
        scheduler.start()
        scheduler.wait_until_up()
        up = time.perf_counter()
        for _ in range(shape.workers):
            _worker(stack, scheduler)
        running.client.wait_for_workers(shape.workers, timeout=WITHIN)
        back = time.perf_counter()
        told = Answers(back, expected=2).ask(handles).told()
        return {**told, "up": up - killed, "back": back - killed}


def _worker(stack: contextlib.ExitStack, scheduler: SchedulerProcess) -> WorkerProcess:
    worker: WorkerProcess = stack.enter_context(WorkerProcess(scheduler.address))
    return worker
