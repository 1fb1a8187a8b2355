"""Many idle workers in one process, and what a scheduler of theirs spends.

Knows: Dask's workers, and which of their habits only matter to themselves. Must not know: goals.

They are real workers of Dask, each with its own connections and its own heartbeat, so that they
are members as others are: the ledger takes only workers of its scheduler for members. What they
cost without the foundation is measured likewise, to be subtracted; and what they cost when each
makes a bare call of Dask's as often as a member renews its lease, which is the least that anything
of this kind can cost.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.foundation_cluster import (
    WITHIN,
    Scheduler,
    Spent,
    connected,
    directory,
    scheduler,
    until,
)

TOGETHER = 20
"""Workers that start at the same time."""


RENEWAL = 1.0
"""Seconds from one renewal of a member's lease to the next."""


@contextlib.contextmanager
def members(at: Scheduler, count: int, folder: Path, *, calls: bool = False) -> Iterator[None]:
    """Run so many workers in another process; each `calls` as often as a member renews."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.foundation_members", at.address, str(count), str(calls)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(harness.HERE.parent)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=(folder / "members.log").open("wb"),
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        if process.stdout.readline().strip() != "ready":
            raise RuntimeError((folder / "members.log").read_text()[-3000:])
        yield
    finally:
        process.kill()
        process.wait()


def idle(count: int, seconds: float, way: str) -> dict[str, Any]:
    """The share of a core that a scheduler of so many idle workers uses.

    The `way` is "bare", "calls", where each makes a bare call now and then, or "foundation".
    """
    has_foundation = way == "foundation"
    with directory() as folder:
        journal = f"sqlite:///{folder / 'foundation.db'}" if has_foundation else None
        with (
            scheduler(folder, journal, kills=True) as at,
            members(at, count, folder, calls=way == "calls"),
        ):
            if has_foundation:
                with connected(at) as (_, foundation):
                    until(
                        lambda: sum(each.state == "up" for each in foundation.members()) == count,
                        "some members",
                    )
            time.sleep(min(5.0, seconds))  # what came with the joining goes
            before, started = Spent.of(at.pid), time.monotonic()
            time.sleep(seconds)
            after, lasted = Spent.of(at.pid), time.monotonic() - started
            if has_foundation:
                with connected(at) as (_, foundation):
                    up = sum(each.state == "up" for each in foundation.members())
                    assert up == count, f"{count - up} members were lost"
    return {"share": 100 * (after.process - before.process) / lasted}


async def _run(address: str, count: int, calls: bool) -> None:
    from dask import config
    from distributed import Worker

    make: Any = Worker  # distributed has no types
    # A process of its own would do these beside the scheduler, not on its cores.
    config.set(
        {
            "distributed.worker.profile.enabled": False,
            "distributed.admin.system-monitor.interval": "60s",
        }
    )
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as calling:
        for first in range(0, count, TOGETHER):
            started = [
                make(address, nthreads=1, memory_limit=0, dashboard=False, name=f"idle-{number}")
                for number in range(first, min(count, first + TOGETHER))
            ]
            await asyncio.wait_for(
                asyncio.gather(*(stack.enter_async_context(each) for each in started)), WITHIN
            )
            if calls:
                for each in started:
                    calling.create_task(_call(each, RENEWAL * random.random()))
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)


async def _call(worker: Any, after: float) -> None:
    """Call the scheduler without end, as a renewal would, for an answer that is empty."""
    await asyncio.sleep(after)
    while True:
        began = time.monotonic()
        await worker.scheduler.ncores_running(workers=[])
        await asyncio.sleep(max(0.0, began + RENEWAL - time.monotonic()))


if __name__ == "__main__":
    asyncio.run(_run(sys.argv[1], int(sys.argv[2]), sys.argv[3] == "True"))
