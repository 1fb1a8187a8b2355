"""A worker whose process is told to end leaves in order first.

Knows: signals, how ``dask worker`` ends, workers. Must not know: what leaves with a worker.

Under a nanny Dask closes the worker when the nanny gets SIGTERM. Without one ``dask worker`` just
returns, and all connections break: to everybody else the worker has died. So the signal is met
here, the worker is retired, and then the signal goes where it was going.

Source, in distributed 2026.8: `cli/dask_worker.py`, `_signals.wait_for_signals`.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from typing import Any, final

from dask import config
from distributed import Worker

from dspex.cluster.units import parse_seconds

__all__ = ["Termination"]

logger = logging.getLogger("distributed.worker.dspex")

_DASKS_HANDLERS = "distributed._signals"
"""The module of the handler that ``dask worker`` sets."""

_ANSWERS_WITHIN = 3.0
"""Seconds for a scheduler that is to let a worker leave to show that it is there."""

_LEAVES_WITHIN = 20.0
"""Seconds; Kubernetes, as others do, kills what has not ended after 30. The default of
``dspex.agents.terminate-within``."""


@final
class Termination:
    """Meets SIGTERM where the process is that of a ``dask worker`` without a nanny.

    Anybody else's handler of that signal is left alone.

    Parameters
    ----------
    worker : distributed.Worker
    """

    def __init__(self, worker: Worker) -> None:
        self._worker: Any = worker
        said = config.get("dspex.agents.terminate-within", _LEAVES_WITHIN)
        self._within = parse_seconds("dspex.agents.terminate-within", said)
        self._loop = asyncio.get_running_loop()
        self._former: Any = None
        self._leaving: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Stand in the signal's way; on the worker's loop."""
        is_main = threading.current_thread() is threading.main_thread()
        former = signal.getsignal(signal.SIGTERM)
        is_dasks = getattr(former, "__module__", "") == _DASKS_HANDLERS
        if is_main and is_dasks and not self._worker.nanny:
            self._former = former
            signal.signal(signal.SIGTERM, self._told)

    def _told(self, signum: int, frame: object) -> None:
        # A second one ends the process at once.
        signal.signal(signal.SIGTERM, self._former)
        self._loop.call_soon_threadsafe(self._begin)

    def _begin(self) -> None:
        self._leaving = self._loop.create_task(self._leave(), name="dspex-termination")

    async def _leave(self) -> None:
        worker = self._worker
        try:
            async with asyncio.timeout(_ANSWERS_WITHIN):
                await worker.scheduler.ncores(workers=[worker.address])
            async with asyncio.timeout(self._within):
                await worker.scheduler.retire_workers(
                    workers=[worker.address], close_workers=False, remove=True
                )
        except Exception as error:
            logger.warning("this worker was told to end, and did not leave in order: %r", error)
        else:
            # As `Worker.close_gracefully`, but for tasks that run still, which are not waited for.
            await worker.close(executor_wait=False, reason="signal-15")
        self._former(signal.SIGTERM, None)

    def close(self) -> None:
        """Step out of the signal's way; what has begun goes on."""
        if self._former is not None and signal.getsignal(signal.SIGTERM) == self._told:
            signal.signal(signal.SIGTERM, self._former)
