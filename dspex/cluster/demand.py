"""What tells an adaptive cluster that more workers would be of use.

Knows: how Dask's adaptive scaling counts work that nobody can take. Must not know: evaluations.

`Cluster.adapt` looks at the tasks which the scheduler holds (`Scheduler.adaptive_target`). Ours are
bound to workers that are there, and those without a slot wait with the client; so it would see no
reason to start another worker, nor even the first. For what waits, the scheduler is given tasks
that no worker may take: it counts each as half a second of work, and does nothing else about them.
"""

from __future__ import annotations

import contextvars
import math
from typing import Any, final

from distributed import Client, Future

from dspex.cluster.dispatch import Dispatcher

__all__ = ["Demand"]

NOBODY = "dspex-asks-for-more-workers"
"""The name of a worker that does not exist."""

TASK_SECONDS = 0.5
"""What Dask takes a task for whose duration it does not know."""

MOST = 100
"""Dask looks at no more tasks than this, and takes the rest to be like them."""

SHORTEST = 0.1
"""Seconds of waiting work per slot that are not worth a worker."""


@final
class Demand:
    """Tasks that stand for evaluations without a slot.

    Examples
    --------
    >>> (
    ...     Demand.tasks(waiting=4, seconds=None, slots=0),
    ...     Demand.tasks(waiting=8, seconds=5.0, slots=2),
    ... )
    (4, 80)
    >>> (
    ...     Demand.tasks(waiting=0, seconds=5.0, slots=2),
    ...     Demand.tasks(waiting=9, seconds=0.01, slots=2),
    ... )
    (0, 0)
    """

    def __init__(self, client: Client) -> None:
        self._client: Any = client
        self._tasks: list[Future[Any]] = []

    @staticmethod
    def tasks(*, waiting: int, seconds: float | None, slots: int) -> int:
        """How many tasks stand for so many evaluations of such a duration."""
        if slots and waiting * (seconds or 0.0) < SHORTEST * slots:
            return 0
        worth = waiting * max(seconds or 0.0, TASK_SECONDS)
        return min(MOST, math.ceil(worth / TASK_SECONDS))

    def follow(self, work: Dispatcher, token: str) -> None:
        """Hold as many tasks as what waits now is worth."""
        tasks = self.tasks(waiting=work.waiting, seconds=work.seconds, slots=work.slots)
        # Dropping the last reference to a future releases its key.
        del self._tasks[tasks:]
        for number in range(len(self._tasks), tasks):
            future = contextvars.Context().run(
                self._client.submit,
                int,
                key=f"dspex-{token}-demand-{number}",
                workers=[NOBODY],
                allow_other_workers=False,
                pure=False,
            )
            self._tasks.append(future)

    def forget(self) -> None:
        """Release all."""
        self._tasks.clear()
