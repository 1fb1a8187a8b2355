"""The parts of `foundation`: each is a client in a process of its own, with a scheduler of its own.

Knows: what is called, how often, and what is timed. Must not know: goals, tables.

A part is run as ``python -m benchmarks.foundation --part NAME JSON`` and prints one line of JSON.
"""

from __future__ import annotations

import asyncio
import gc
import os
import pickle
import statistics
import time
import tracemalloc
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from typing import Any

import msgpack
from distributed import Client

import dspex
from benchmarks.foundation_cluster import (
    WITHIN,
    Cost,
    Scheduler,
    connected,
    directory,
    meter,
    scheduler,
    until,
    worker,
    write_through,
)
from benchmarks.foundation_members import idle

COROUTINES = 50
HOLDERS = 100
"""Entries that have the same capability."""

VALUE = os.urandom(100)
STATE = os.urandom(1_000)


def entries(count: int) -> list[dict[str, Any]]:
    """What is registered in bulk: as a model or a worker would be."""
    return [
        {
            "key": f"models/{number:06d}",
            "value": VALUE,
            "metadata": {"kind": "model", "number": number, "owner": f"user-{number % 50}"},
            "capabilities": [f"capability-{number // HOLDERS}"],
        }
        for number in range(count)
    ]


def own_bytes(made: Sequence[dict[str, Any]]) -> float:
    """Bytes that an entry consists of, as it travels: key, value, metadata, capabilities."""
    return statistics.mean(
        len(each["key"])
        + len(pickle.dumps(each["value"]))
        + len(msgpack.packb(each["metadata"]))
        + sum(map(len, each["capabilities"]))
        for each in made
    )


# --- the registry --------------------------------------------------------------------------


def registry(count: int, calls: int, restarts: int) -> dict[str, Any]:
    """Bulk registration, queries, lookups, then restarts after SIGKILL, on one journal."""
    with directory() as folder:
        journal = f"sqlite:///{folder / 'foundation.db'}"
        with scheduler(folder, journal, kills=True) as running:
            answer = _blocking(running, count, calls)
            answer |= asyncio.run(_awaited(running, count, calls))
        answer["restarts"] = []
        for _ in range(restarts):
            started = time.monotonic()
            with (
                scheduler(folder, journal, kills=True) as again,
                connected(again) as (_, foundation),
            ):
                foundation.registry.lookup("models/000000")
                seconds = time.monotonic() - started
                status = foundation.status()
                assert status["entries"] == count, status["entries"]
            answer["restarts"].append([seconds, status["recovery_seconds"]])
        started = time.monotonic()
        empty = f"sqlite:///{folder / 'empty.db'}"
        with scheduler(folder, empty) as fresh, connected(fresh) as (_, foundation):
            foundation.registry.get("models/000000")
            answer["start"] = time.monotonic() - started
    return answer


def _blocking(at: Scheduler, count: int, calls: int) -> dict[str, Any]:
    made = entries(count)
    with connected(at) as (client, foundation):
        known = foundation.registry
        known.register_many(
            {f"first/{number}": VALUE for number in range(1_000)}, capabilities="warm"
        )
        known.unregister_many([f"first/{number}" for number in range(1_000)])
        rss = at.rss()
        before = meter(at, foundation.status())
        started = time.perf_counter()
        known.register_many(made)
        bulk = time.perf_counter() - started
        until(lambda: foundation.status()["journal"]["waiting"] == 0, "the journal")
        bulk_cost = Cost.between(before, meter(at, foundation.status()), count)
        time.sleep(1.0)  # a snapshot may be under way
        growth = (at.rss() - rss) / count

        query = []
        for number in range(calls // 10):
            name = f"capability-{number * 7 % (count // HOLDERS)}"
            started = time.perf_counter()
            found = known.find_by_capability(name)
            query.append(time.perf_counter() - started)
            assert len(found) == HOLDERS, len(found)

        keys = [made[number * 37 % count]["key"] for number in range(calls)]
        # The first one makes the copy.
        until(lambda: known.lookup(keys[0], consistency="eventual").age < 5, "the copy")
        started = time.perf_counter()
        for key in keys:
            known.lookup(key, consistency="eventual")
        eventual = (time.perf_counter() - started) / calls
        known.close()

        bare_rpc = client.scheduler.ncores_running
        ours: list[float] = []
        bare: list[float] = []
        for key in keys[: calls // 4]:
            for times, call in (
                (ours, lambda key=key: known.lookup(key)),
                (bare, lambda: client.sync(bare_rpc)),
            ):
                started = time.perf_counter()
                call()
                times.append(time.perf_counter() - started)
    return {
        "bulk": bulk,
        "bulk_cost": asdict(bulk_cost),
        "growth": growth,
        "own": own_bytes(made),
        "query": statistics.median(query),
        "eventual": eventual,
        "strong_sync": [statistics.median(ours), statistics.median(bare)],
    }


async def _awaited(at: Scheduler, count: int, calls: int) -> dict[str, Any]:
    connect: Any = Client
    async with (
        connect(at.address, asynchronous=True, timeout=WITHIN) as client,
        await _connect(client) as foundation,
    ):
        known = foundation.registry
        keys = [f"models/{number * 37 % count:06d}" for number in range(calls)]
        bare_rpc = client.scheduler.ncores_running
        ours: list[float] = []
        bare: list[float] = []
        for key in keys[: calls // 4]:
            started = time.perf_counter()
            await known.lookup(key)
            between = time.perf_counter()
            await bare_rpc()
            ours.append(between - started)
            bare.append(time.perf_counter() - between)

        # What each costs the scheduler: in turns again, but long enough for its clock.
        costs: dict[str, list[Cost]] = {"lookup": [], "bare": []}
        for _ in range(3):
            for name, call in (("lookup", known.lookup), ("bare", lambda key: bare_rpc())):
                before = meter(at, await foundation.status())
                for key in keys[: calls // 4]:
                    await call(key)
                spent = Cost.between(before, meter(at, await foundation.status()), calls // 4)
                costs[name].append(spent)

        await known.lookup(keys[0], consistency="eventual")
        started = time.perf_counter()
        for key in keys:
            await known.lookup(key, consistency="eventual")
        eventual = (time.perf_counter() - started) / calls
    middle = {
        name: asdict(sorted(each, key=lambda cost: cost.loop)[1]) for name, each in costs.items()
    }
    return {
        "strong_async": [statistics.median(ours), statistics.median(bare)],
        "costs": middle,
        "eventual_async": eventual,
    }


async def _connect(client: Any) -> Any:
    opening: Any = dspex.connect(client)
    return await opening


# --- mutations -----------------------------------------------------------------------------


def mutations(count: int, alone: int) -> dict[str, Any]:
    """Single mutations of many coroutines, and of one alone."""
    with directory() as folder:
        disk = write_through(folder)
        journal = f"sqlite:///{folder / 'foundation.db'}"
        with (
            scheduler(folder, journal) as at,
            worker(folder, at, COROUTINES // 2),
            worker(folder, at, COROUTINES // 2),
        ):
            return {"disk": disk, **asyncio.run(_mutations(at, count, alone))}


async def _mutations(at: Scheduler, count: int, alone: int) -> dict[str, Any]:
    connect: Any = Client
    answer: dict[str, Any] = {}
    async with (
        connect(at.address, asynchronous=True, timeout=WITHIN) as client,
        await _connect(client) as foundation,
    ):
        known, states, resources = foundation.registry, foundation.state_store, foundation.resources
        async with asyncio.timeout(WITHIN):
            while len(await resources.workers()) < 2:
                await asyncio.sleep(0.01)

        async def register(number: int) -> None:
            await known.register(
                f"one/{number}", VALUE, {"number": number}, capabilities=[f"c{number % 100}"]
            )

        async def put(number: int) -> None:
            await states.put(f"state/{number}", STATE)

        async def lease(number: int) -> None:
            held = await resources.acquire("benchmark", cpu_cores=1, timeout=WITHIN)
            await held.release()

        async def lock(number: int) -> None:
            # Each coroutine has at most one number, so none of them waits for another.
            held = foundation.lock(f"lock/{number}")
            await held.acquire()
            await held.release()

        each: dict[str, tuple[Callable[[int], Awaitable[None]], int]] = {
            "register": (register, 1),
            "put": (put, 1),
            "lease": (lease, 2),
            "lock": (lock, 2),
        }
        for name, (once, operations) in each.items():
            await at_once(once, range(-COROUTINES, 0))  # opens connections, warms caches
            before = meter(at, await foundation.status())
            seconds = await at_once(once, range(count))
            cost = Cost.between(before, meter(at, await foundation.status()), operations * count)
            answer[name] = {"rate": count / seconds, "cost": asdict(cost)}
        for name in ("put", "register", "lease"):
            once, _ = each[name]
            times = []
            for number in range(alone):
                started = time.perf_counter()
                await once(10**6 + number)
                times.append(time.perf_counter() - started)
            answer[name]["alone"] = statistics.median(times)
    return answer


async def at_once(once: Callable[[int], Awaitable[None]], numbers: range) -> float:
    """Seconds in which the coroutines share the work out among them."""
    left = iter(numbers)

    async def work() -> None:
        for number in left:
            await once(number)

    started = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(COROUTINES)))
    return time.perf_counter() - started


# --- memory, in this process ---------------------------------------------------------------


def traced(count: int) -> dict[str, Any]:
    """What a server keeps per entry, by tracemalloc: the server alone, without a scheduler."""
    return asyncio.run(_traced(count))


async def _traced(count: int) -> dict[str, Any]:
    from dspex.cluster.foundation.calls import LedgerCaller
    from dspex.cluster.foundation.server import LedgerServer
    from dspex.foundation.handles.backend import LedgerBackend
    from dspex.foundation.record import put
    from dspex.storage.journals.opening import open_journal

    with directory() as folder:
        server = LedgerServer(open_journal(f"sqlite:///{folder / 'foundation.db'}"))
        await server.start()
        caller = LedgerCaller(server.handle, kind="client", name="benchmark", lease=60.0)
        await caller.start()
        backend = LedgerBackend(caller, shared=True)
        made = entries(count)
        own = own_bytes(made)
        tracemalloc.start()
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        for first in range(0, count, 1_000):
            await backend.commit(
                "r:",
                [
                    put(
                        each["key"],
                        pickle.dumps(each["value"]),
                        each["metadata"],
                        tuple(each["capabilities"]),
                    )
                    for each in made[first : first + 1_000]
                ],
            )
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        await caller.close()
        await server.close()
    return {"traced": (after - before) / count, "own": own}


PARTS: dict[str, Callable[..., dict[str, Any]]] = {
    "registry": registry,
    "mutations": mutations,
    "traced": traced,
    "idle": idle,
}
