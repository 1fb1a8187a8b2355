"""The scheduler's plugin: the foundation's one arbiter, beside Dask's own scheduler.

Knows: which of Dask's hooks and handlers mean what for the ledger. Must not know: what the ledger
decides.

It adds one handler, ``dspex``, which takes and gives bytes. Worker processes are told of by a
worker plugin whose pickle needs nothing of dspex (`shim`), so that a worker without dspex can join
and is merely no member.

The plugin is registered by a client at run time, or added by a preload (`dspex.preload`), and then
recovers before the scheduler serves anything. Registered twice, at the same time too, both share
one server.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, final

from dask import config
from distributed import Scheduler, SchedulerPlugin

from dspex.cluster.agents.doors import Doors
from dspex.cluster.agents.hosting import actor_key
from dspex.cluster.foundation.operations import add_health_route, add_metrics
from dspex.cluster.foundation.server import LedgerServer
from dspex.cluster.foundation.shim import NAME as WORKER_PLUGIN
from dspex.cluster.foundation.shim import worker_plugin
from dspex.cluster.units import parse_seconds
from dspex.errors import InvalidRequestError
from dspex.foundation.ports import Journal
from dspex.storage.journals.opening import open_journal

__all__ = ["NAME", "FoundationPlugin"]

logger = logging.getLogger("dspex.foundation")

NAME = "dspex-foundation"

_WORKERS_WITHIN = 10.0
"""Seconds that workers get for taking up their part before the plugin goes on without them."""

_LEAVE_WITHIN = 10.0
"""Seconds without progress after which a worker leaves though agents are there still; the default
of ``dspex.agents.leave-within``."""

_RELEASE_WITHIN = 10.0

_LOOK_EVERY = 0.01


@final
class FoundationPlugin(SchedulerPlugin):
    """Runs the ledger on a scheduler.

    Parameters
    ----------
    journal : str
        "memory", "sqlite:///path" or "etcd://host:port".
    lease : float
        Seconds, of the workers' sessions.
    quotas : mapping of tenant to limits, optional
    repair : bool
        Whether a damaged journal is opened with what is left of it.
    """

    name = NAME
    idempotent = True

    def __init__(
        self,
        journal: str = "memory",
        *,
        lease: float = 3.0,
        quotas: Mapping[str, Mapping[str, float | None]] | None = None,
        repair: bool = False,
    ) -> None:
        self._journal = journal
        self._lease = lease
        self._quotas = quotas or {}
        self._repair = repair
        self._home: _Home | None = None

    async def start(self, scheduler: Scheduler) -> None:
        """Recover, and begin to serve; called by Dask."""
        untyped: Any = scheduler
        home: _Home | None = getattr(scheduler, "_dspex_home", None)
        if home is None:
            journal = open_journal(self._journal, repair=self._repair)
            home = _Home(scheduler, journal, self._journal, self._lease)
            # Before anything is awaited, so that a second plugin finds it.
            untyped._dspex_home = home
        self._home = home
        await home.start(self._quotas)
        # Dask tells of workers that come and go from now on.
        home.look_at_workers()

    def add_worker(self, scheduler: Scheduler, worker: str) -> None:
        """Take note of a worker that may become a member."""
        if self._home is not None:
            self._home.worker_added(worker)

    def remove_worker(self, scheduler: Scheduler, worker: str, **kwargs: Any) -> None:
        """Take note that Dask has lost or closed a worker."""
        if self._home is not None:
            self._home.worker_removed(worker, str(kwargs.get("stimulus_id", "")))

    def log_event(self, topic: str, msg: Any) -> None:
        """Listen for workers that say that they are about to close."""
        if self._home is not None and isinstance(msg, dict):
            self._home.heard(topic, msg)

    async def before_close(self) -> None:
        """Write what is queued and let the journal go."""
        if self._home is not None:
            await self._home.close()


@final
class _Home:
    """What there is once per scheduler."""

    def __init__(self, scheduler: Scheduler, journal: Journal, asked: str, lease: float) -> None:
        self._scheduler: Any = scheduler
        self._asked = asked
        self._lease = lease
        self.server = LedgerServer(journal, guard=self._guard, extend=self._extend)
        self._leaving: set[str] = set()
        said = config.get("dspex.agents.leave-within", _LEAVE_WITHIN)
        self._leave_within = parse_seconds("dspex.agents.leave-within", said) or math.inf
        self._remove_metrics: Callable[[], None] = lambda: None
        self._started: asyncio.Task[None] | None = None
        self._doors = Doors(
            scheduler,
            leave=self._leave,
            died=self._died,
            is_needed=lambda: self.server.ledger.agents.reading.count > 0,
        )

    async def start(self, quotas: Mapping[str, Mapping[str, float | None]]) -> None:
        if self._started is None:
            self._started = asyncio.create_task(self._start(quotas), name="dspex-start")
        await asyncio.shield(self._started)

    async def _start(self, quotas: Mapping[str, Mapping[str, float | None]]) -> None:
        try:
            await self._begin(quotas)
        except BaseException:
            # Another one may try, with another journal or this one mended.
            del self._scheduler._dspex_home
            await self.close()
            raise

    async def _begin(self, quotas: Mapping[str, Mapping[str, float | None]]) -> None:
        await self.server.start()
        if quotas:
            self.server.take(lambda now: self.server.ledger.set_quotas(quotas, now))
        handlers = self._scheduler.handlers
        handlers["dspex"] = self._handle
        self._doors.open()
        self._remove_metrics = add_metrics(self.server)
        add_health_route(self._scheduler, self.server)
        self._scheduler.worker_plugins[WORKER_PLUGIN] = worker_plugin(lease=self._lease)
        self.look_at_workers()
        if self._scheduler.workers:
            plugin = self._scheduler.worker_plugins[WORKER_PLUGIN]
            message = {"op": "plugin-add", "plugin": plugin, "name": WORKER_PLUGIN}
            try:
                async with asyncio.timeout(_WORKERS_WITHIN):
                    await self._scheduler.broadcast(msg=message, on_error="ignore")
            except TimeoutError:
                logger.warning(
                    "some workers have not answered within %g s; they join when they do",
                    _WORKERS_WITHIN,
                )

    async def _handle(self, blob: object = None, **unknown: object) -> bytes:
        return await self.server.handle(blob)

    def look_at_workers(self) -> None:
        workers = self._scheduler.workers
        for worker in workers:
            self.worker_added(worker)
        for member in self.server.ledger.members.everyone():
            if member["state"] == "joining" and member["address"] not in workers:
                self.worker_removed(member["address"], "")

    def worker_added(self, worker: str) -> None:
        found = self._scheduler.workers[worker]
        self.server.take(
            lambda now: self.server.ledger.worker_seen(worker, str(found.name), found.host, now)
        )

    def worker_removed(self, worker: str, stimulus: str) -> None:
        is_expected = worker in self._leaving or stimulus.startswith("retire-workers")
        self._leaving.discard(worker)
        self.server.take(
            lambda now: self.server.ledger.worker_closed(worker, is_expected=is_expected, now=now)
        )

    def heard(self, worker: str, message: Mapping[str, Any]) -> None:
        if message.get("action") == "worker-status-change":
            if message.get("status") in ("closing", "closing_gracefully", "closed"):
                self._leaving.add(worker)
            else:
                self._leaving.discard(worker)

    async def _leave(self, workers: Sequence[str]) -> None:
        """Have the agents of workers that are about to leave live elsewhere."""
        ledger = self.server.ledger
        for worker in workers:
            self.server.take(partial(ledger.drain, worker))
        left = sum(map(ledger.agents.reading.count_at, workers))
        since = time.monotonic()
        while left and time.monotonic() - since < self._leave_within:
            await asyncio.sleep(_LOOK_EVERY)
            before, left = left, sum(map(ledger.agents.reading.count_at, workers))
            if left < before:
                since = time.monotonic()
        if left:
            logger.warning("%d agents did not leave %s in time", left, ", ".join(workers))
        await asyncio.gather(*map(self._release, workers), return_exceptions=True)

    async def _release(self, worker: str) -> None:
        """Have a worker let its actor go, which would keep it from leaving."""
        is_here = worker in self._scheduler.workers
        if not is_here or self.server.ledger.members.session_at(worker) is None:
            return
        async with asyncio.timeout(_RELEASE_WITHIN):
            await self._scheduler.rpc(worker).dspex_release()
            while actor_key(worker) in self._scheduler.tasks:
                await asyncio.sleep(_LOOK_EVERY)
        state = self._scheduler.workers.get(worker)
        if state is not None:
            # Dask forgets an actor that was released while it was made, and counts it here still.
            gone = {each for each in state.actors if each.key == actor_key(worker)}
            state.actors.difference_update(gone)

    def _died(self, worker: str) -> None:
        self.server.take(lambda now: self.server.ledger.worker_dead(worker, now))

    def _guard(self, op: str, args: Mapping[str, Any]) -> None:
        if op == "members.join" and args.get("address") not in self._scheduler.workers:
            raise InvalidRequestError(
                f"members are workers of this scheduler; {args.get('address')!r:.80} is none (any "
                "more); it closes, and a new one joins"
            )

    def _extend(self, op: str, reply: Any) -> Any:
        if op == "members.list":
            return self._with_loads(reply)
        if op == "status":
            reply["members"] = self._with_loads(reply["members"])
            reply["journal"]["asked"] = self._asked
        return reply

    def _with_loads(self, members: list[dict[str, Any]]) -> list[dict[str, Any]]:
        workers = self._scheduler.workers
        return [
            {**member, "load": _load(workers[member["address"]])}
            if member["address"] in workers
            else member
            for member in members
        ]

    async def close(self) -> None:
        self._doors.close()
        self._remove_metrics()
        self._remove_metrics = lambda: None
        await self.server.close()


def _load(worker: Any) -> dict[str, float]:
    """What a worker's own heartbeat said of it last: per cent of a core, bytes."""
    metrics = worker.metrics
    return {
        "cpu_percent": float(metrics.get("cpu", 0.0)),
        "memory_gb": float(metrics.get("memory", 0)) / 1e9,
        "tasks": float(len(worker.processing)),
    }
