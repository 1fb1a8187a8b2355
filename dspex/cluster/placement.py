"""Where the payload lies: two copies in workers' memory, the original with the client.

Knows: how to put a payload on workers, and whether it is still there. Must not know: evaluations.

Each copy is a key of its own. Dask's own replicas of one key would not last: its active memory
manager drops those that no waiting task needs. A worker gets the payload as the dependency of its
first task, from whichever worker has it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any, final

from distributed import Client, Future

from dspex.cluster.tasks import PlacedPayload
from dspex.execution.payload import Payload

__all__ = ["Placement"]

COPIES = 2
SMALL = 10_000_000
"""Bytes that may go through the scheduler, which passes them on without keeping them."""

_KNOCK_TIMEOUT = 3.0

PLACE_WITHIN = 30.0
"""Seconds for a worker to take a copy, and more for large ones."""

SLOWEST = 1_000_000
"""Bytes per second that are to be expected of the network at least."""


@final
class Placement:
    """The copies of one payload.

    Everything but `place` is called from the executor's thread; `place` runs on the client's loop.
    """

    def __init__(self, client: Client, payload: Payload) -> None:
        self._client: Any = client
        self._payload = payload
        self._copies: dict[str, Future[Any]] = {}

    @property
    def copy(self) -> Future[Any] | None:
        """A copy that is there; None where all are lost."""
        self._drop_lost()
        return next(iter(self._copies.values()), None)

    def copy_for(self, worker: str, likely: Collection[str]) -> Future[Any] | None:
        """The copy that a worker reaches best: its own, else one of a worker likely to answer."""
        self._drop_lost()
        near = [worker, *(each for each in self._copies if each in likely), *self._copies]
        return next((self._copies[each] for each in near if each in self._copies), None)

    def lacks(self, workers: Collection[str]) -> list[str]:
        """The workers on which to place a copy next."""
        self._drop_lost()
        for worker in set(self._copies) - set(workers):
            # The worker has left; what it held may live on elsewhere, but that is Dask's secret.
            del self._copies[worker]
        free = [worker for worker in workers if worker not in self._copies]
        return free[: max(0, COPIES - len(self._copies))]

    def _drop_lost(self) -> None:
        self._copies = {
            worker: copy for worker, copy in self._copies.items() if copy.status == "finished"
        }

    def forget(self) -> None:
        """Release all copies."""
        self._copies = {}

    async def place(self, worker: str) -> None:
        """Put a copy on a worker.

        Raises
        ------
        OSError, TimeoutError, KeyError
            Where the worker does not take it, or is not there any more.
        """
        # Asked before, because the scheduler logs an error where a worker has just left.
        if worker not in await self._client.scheduler.ncores(workers=[worker]):
            raise KeyError(worker)
        scatter = self._client.scatter(
            PlacedPayload(self._payload),
            workers=[worker],
            hash=False,
            direct=await self._reaches(worker),
        )
        # A worker that hangs must not keep the others from being served.
        copy = await asyncio.wait_for(scatter, PLACE_WITHIN + self._payload.nbytes / SLOWEST)
        self._copies[worker] = copy

    async def _reaches(self, worker: str) -> bool:
        """Whether to send straight to the worker; behind a gateway only the scheduler can."""
        if self._payload.nbytes <= SMALL:
            return False
        try:
            await asyncio.wait_for(self._client.rpc(worker).identity(), _KNOCK_TIMEOUT)
        except (OSError, ValueError, TimeoutError):
            return False
        return True
