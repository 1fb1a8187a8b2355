"""The parts of `agents` on a healthy cluster: creation, memory, messages, latency.

Knows: what is called, how often, and what is timed. Must not know: goals, tables.

A part is run as ``python -m benchmarks.agents --part NAME JSON`` and prints one line of JSON.
"""

from __future__ import annotations

import contextlib
import pickle
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from distributed import Client

from benchmarks.agents_cluster import (
    WITHIN,
    Counter,
    Shape,
    Tally,
    cluster,
    durable_cluster,
    memory,
    specs,
    warm,
)
from benchmarks.agents_failures import drain, failover, restart
from dspex.agents import create_agent, create_agents, gather

AHEAD = 4
"""Waves of calls that are under way: when the oldest is answered another one leaves."""

WAVES = 40
"""Of which a rate is made."""

PAUSE = 0.5
"""Seconds after which the side before is quiet."""


def _cluster(shape: Shape, persistence: str | None) -> contextlib.AbstractContextManager[Any]:
    return durable_cluster(shape) if persistence == "durable" else cluster(shape)


def create(shape: Shape, persistence: str, count: int) -> dict[str, Any]:
    """Seconds of one `create_agents`, and what an idle agent takes in all processes."""
    with _cluster(shape, persistence):
        warm(persistence)
        before = memory()
        wanted = specs(count, persistence)
        started = time.perf_counter()
        handles = create_agents(wanted)
        seconds = time.perf_counter() - started
        del wanted
        after = memory()
        some = handles[:: max(1, count // 1_000)]
        assert set(gather([each.inc() for each in some], timeout=WITHIN)) == {1}
        return {
            "seconds": seconds,
            "bytes": (after["all"] - before["all"]) / count,
            "client": (after["client"] - before["client"]) / count,
            "own": len(handles[0].id) + len(pickle.dumps({"n": 0})),
        }


def many(shape: Shape, count: int, at_once: int) -> dict[str, Any]:
    """Growth of all processes over so many volatile agents, all of whose handles are held."""
    with cluster(shape):
        warm(None)
        before = memory()
        started = time.perf_counter()
        handles: list[Any] = []
        for first in range(0, count, at_once):
            begun = time.perf_counter()
            handles += create_agents(specs(min(at_once, count - first), None, first=first))
            taken = time.perf_counter() - begun
            print(f"{len(handles):,} agents; the last took {taken:.1f} s", file=sys.stderr)
        seconds = time.perf_counter() - started
        after = memory()
        errors: list[str] = []
        _ours(handles[:: max(1, count // 1_000)], 1, errors)
        growth = {each: after[each] - before[each] for each in after}
        told = {"seconds": seconds, "growth": growth, "errors": len(errors)}
        return {**told, "error": errors[0][:300] if errors else ""}


def messages(shape: Shape, agents: int, each_has: int, rounds: int) -> dict[str, Any]:
    """Calls per second of volatile agents and of bare Dask's actors, round by round in turns.

    Dask's actors have a client of their own: their calls open hundreds of connections each, and
    close those of whoever shares the client.
    """
    connect: Any = Client
    errors: list[str] = []
    with (
        cluster(shape) as running,
        connect(running.client.scheduler.address, timeout=WITHIN) as client,
    ):
        handles = create_agents(specs(agents, None, cls=Tally), foundation=running.foundation)
        actors = [
            each.result()
            for each in [client.submit(Tally, actor=True, pure=False) for _ in range(agents)]
        ]
        _ours(handles, 1, errors)
        _dasks(actors, 1)
        ours, dask = [], []
        for _ in range(rounds):
            time.sleep(PAUSE)
            ours.append(_ours(handles, each_has, errors, waves=WAVES))
            dask.append(_dasks(actors, each_has))
    error = errors[0][:300] if errors else ""
    return {"ours": ours, "dask": dask, "errors": len(errors), "error": error}


def kept(shape: Shape, persistence: str, agents: int, each_has: int, rounds: int) -> dict[str, Any]:
    """Calls per second, exactly once, of agents that keep their state."""
    with _cluster(shape, persistence):
        handles = create_agents(specs(agents, persistence))
        _ours(handles, 1)
        rates = [_ours(handles, each_has, waves=WAVES) for _ in range(rounds)]
        last = gather([each.inc() for each in handles], timeout=WITHIN)
        assert set(last) == {2 + rounds * WAVES * each_has}, set(last)
        return {"rates": rates}


def _ours(
    handles: Sequence[Any], each_has: int, errors: list[str] | None = None, *, waves: int = 1
) -> float:
    """Calls answered per second; what failed is raised, unless errors are collected."""
    answered = 0
    ahead: deque[list[Any]] = deque()
    started = time.perf_counter()
    for wave in range(waves + AHEAD):
        if wave < waves:
            ahead.append([handle.inc() for _ in range(each_has) for handle in handles])
        if wave < AHEAD - 1 or not ahead:
            continue
        answers = gather(ahead.popleft(), timeout=WITHIN, return_exceptions=errors is not None)
        failed = [
            f"{type(each).__name__}: {each}" for each in answers if isinstance(each, Exception)
        ]
        if errors is not None:
            errors += failed
        answered += len(answers) - len(failed)
    return answered / (time.perf_counter() - started)


def _dasks(actors: Sequence[Any], each_has: int) -> float:
    started = time.perf_counter()
    for future in [actor.inc() for _ in range(each_has) for actor in actors]:
        future.result(timeout=WITHIN)
    return len(actors) * each_has / (time.perf_counter() - started)


def latency(shape: Shape, calls: int, kept_calls: int) -> dict[str, Any]:
    """Seconds of one call at a time; the volatile agent and Dask's actor take turns call by call.

    Both are on the same worker.
    """
    with durable_cluster(shape) as running:
        volatile = create_agent(Counter)
        worker = volatile.worker
        actor = running.client.submit(Tally, actor=True, workers=[worker]).result()
        for _ in range(50):
            volatile.inc().result(WITHIN)
            actor.inc().result(WITHIN)
        ours, dask = [], []
        for _ in range(calls):
            ours.append(_timed(volatile))
            dask.append(_timed(actor))
        answer = {"volatile": statistics.median(ours), "dask": statistics.median(dask)}
        for persistence in ("cluster_replicated", "durable"):
            agent = create_agent(Counter, persistence=persistence)
            for _ in range(20):
                agent.inc().result(WITHIN)
            taken = [_timed(agent) for _ in range(kept_calls)]
            answer[persistence] = statistics.median(taken)
        return answer


def _timed(called: Any) -> float:
    started = time.perf_counter()
    called.inc().result(WITHIN)
    return time.perf_counter() - started


PARTS: dict[str, Callable[..., dict[str, Any]]] = {
    "create": create,
    "many": many,
    "messages": messages,
    "kept": kept,
    "latency": latency,
    "failover": failover,
    "drain": drain,
    "restart": restart,
}
