"""One worker's part in the foundation: a session of its own, and what it has to give.

Knows: the worker, its capacity. Must not know: what others use it for.

The session is the worker's heartbeat. When it ran out (the process was stopped, or cut off) the
worker joins again, as a new incarnation: what was placed on the former one is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from typing import Any, final

import psutil
from dask import config
from distributed import Status, Worker

from dspex.cluster.agents.hosting import Hosting
from dspex.cluster.foundation.calls import LedgerCaller
from dspex.cluster.foundation.terminating import Termination
from dspex.errors import DspexError

__all__ = ["Membership", "capacity_of", "join"]

logger = logging.getLogger("distributed.worker.dspex")

_FIRST_WITHIN = 5.0
"""Seconds that a worker's start waits for the foundation; it goes on joining behind."""

_AGAIN_AFTER = 1.0

_HEARD_WITHIN = 1.0
_HAND_OVER_WITHIN = 5.0
"""Seconds of a worker's end; its nanny kills it after about 8."""


async def join(worker: Worker, *, lease: float) -> Membership:
    """Make a worker a member.

    Parameters
    ----------
    worker : distributed.Worker
    lease : float
        Seconds.
    """
    membership = Membership(worker, lease)
    membership.start()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(membership.joined.wait(), _FIRST_WITHIN)
    return membership


def capacity_of(worker: Worker) -> dict[str, Any]:
    """Say what a worker has to give.

    Cores are its threads; memory is its limit, or the machine's where it has none; gpus and labels
    are Dask's resources (``dask worker --resources "GPU=2 fast-disk=1"``) and
    ``dspex.worker.labels`` of Dask's configuration.
    """
    resources = dict(worker.state.total_resources)
    gpus = resources.pop("GPU", _visible_gpus(os.environ.get("CUDA_VISIBLE_DEVICES", "")))
    said = config.get("dspex.worker.labels", ())
    labels = {*resources, *(said.replace(",", " ").split() if isinstance(said, str) else said)}
    limit = worker.memory_manager.memory_limit or psutil.virtual_memory().total
    return {
        "cpu_cores": float(worker.state.nthreads),
        "memory_gb": limit / 1e9,
        "gpus": float(gpus),
        "labels": sorted(map(str, labels)),
    }


def _visible_gpus(variable: str) -> int:
    """How many devices CUDA sees: those before the first that there cannot be.

    Examples
    --------
    >>> _visible_gpus("0,1"), _visible_gpus(""), _visible_gpus("-1"), _visible_gpus("GPU-3a, -1, 2")
    (2, 0, 0, 1)
    """
    names = [each.strip() for each in variable.split(",")]
    return next(
        (at for at, each in enumerate(names) if each in ("", "-1", "NoDevFiles")), len(names)
    )


@final
class Membership:
    """A worker's session and its place among the members."""

    def __init__(self, worker: Worker, lease: float) -> None:
        self._worker: Any = worker
        self.joined = asyncio.Event()
        self.incarnation: tuple[int, int] | None = None
        self.caller = LedgerCaller(
            self._send,
            kind="worker",
            name=str(worker.name),
            lease=lease,
            on_open=self._join,
        )
        self._hosting = Hosting(worker, self.caller)
        self._termination = Termination(worker)
        self._starting: asyncio.Task[None] | None = None

    async def _send(self, blob: bytes) -> bytes | None:
        answer: bytes | None = await self._worker.scheduler.dspex(blob=blob)
        return answer

    def start(self) -> None:
        """Join, and go on trying."""
        self._termination.open()
        self._starting = asyncio.create_task(self._start(), name="dspex-member")

    async def _start(self) -> None:
        while True:
            try:
                await self.caller.start()
                self._hosting.start()
                return
            except (OSError, DspexError) as error:
                logger.warning("not yet a member of the foundation: %s", error)
                await asyncio.sleep(_AGAIN_AFTER)

    async def _join(self) -> None:
        """Called with every new session, until it succeeds."""
        if self._worker.status in (Status.closing, Status.closing_gracefully, Status.closed):
            return  # the scheduler has let it go
        joined = await self.caller.write(
            "members.join",
            address=self._worker.address,
            name=str(self._worker.name),
            host=self._worker.ip,
            capacity=capacity_of(self._worker),
        )
        term, n = joined["incarnation"]
        self.incarnation = (term, n)
        self._hosting.host.joined()
        self.joined.set()
        logger.info("member of the foundation, incarnation %s", self.incarnation)

    async def _hand_over(self) -> None:
        """Have the agents live elsewhere, as far as there is time."""
        with contextlib.suppress(TimeoutError, OSError, DspexError):
            async with asyncio.timeout(_HEARD_WITHIN):
                await self.caller.write("members.drain", address=self._worker.address, undo=False)
            async with asyncio.timeout(_HAND_OVER_WITHIN):
                await self._hosting.host.emptied()

    async def leave(self) -> None:
        """End the session; may be called twice."""
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.gather(self._starting, return_exceptions=True)
        await self._hand_over()
        # Before the session ends: what says that it is over must have stopped.
        await self._hosting.close()
        await self.caller.close("the worker closed")
        self._termination.close()
