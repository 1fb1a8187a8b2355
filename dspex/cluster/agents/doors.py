"""The doors by which a worker leaves a scheduler, and who is told before it does.

Knows: the places through which Dask retires a worker, hears that one has died, and closes an idle
scheduler. Must not know: what an agent is, nor how one is moved.

A worker that holds a Dask actor is never retired: Dask gives up, and whoever asked closes the
worker all the same, or keeps it. So whoever owns the actors is asked first.

Sources, in distributed 2026.8: `Scheduler.retire_workers`, `SpecCluster._correct_state_internal`,
`Adaptive.scale_down`, `Worker.close_gracefully`, `http/scheduler/api.py`, `Nanny._on_worker_exit`,
`Scheduler.check_idle`. No plugin hook comes before a retirement, so the places are wrapped.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, final

from distributed import Scheduler

__all__ = ["Doors", "addresses_of"]

logger = logging.getLogger("dspex.agents")

_HOW = frozenset({"names", "close_workers", "remove", "stimulus_id"})
"""What `Scheduler.retire_workers` takes that is no criterion for `workers_to_close`."""

_DEATH = "nanny-close-"
"""How the stimulus begins with which a nanny unregisters a worker whose process has ended."""

_JOB = re.compile(r"-\d+$")
"""What is added to a job's name for each of its workers."""


@final
class Doors:
    """Has agents moved before workers leave, tells of workers that died, keeps a scheduler up.

    All of it happens on the scheduler's event loop.

    Parameters
    ----------
    scheduler : distributed.Scheduler
    leave : async callable
        Awaited with the addresses of workers that are about to be retired. It bounds its own time:
        the retirement waits for it. If it raises, that is logged and the workers are retired
        nevertheless. It is called once for a worker however many ask to retire it at the same time,
        and again where a retirement that failed is repeated. `LocalCluster.close` retires all
        workers, so there may be nowhere to go.
    died : callable
        Called with the address of a worker whose nanny says that the process has ended, by a signal
        or by `Client.restart`. Not called where the worker was retired and `leave` had not failed.
    is_needed : callable
        While it says yes, the scheduler is not idle.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        *,
        leave: Callable[[Sequence[str]], Awaitable[None]],
        died: Callable[[str], None],
        is_needed: Callable[[], bool],
    ) -> None:
        self._scheduler: Any = scheduler
        self._leave = leave
        self._died = died
        self._is_needed = is_needed
        self._wraps: list[_Wrap] = []
        self._moves: dict[str, asyncio.Task[None]] = {}
        self._failed: set[str] = set()

    def open(self) -> None:
        """Stand in all doors; may be called again."""
        if self._wraps:
            return
        scheduler = self._scheduler
        handlers = scheduler.handlers
        self._wraps = [
            _Wrap(handlers, "retire_workers", self._around_retiring),
            # POST /api/v1/retire_workers calls the method itself.
            _Wrap(scheduler, "retire_workers", self._around_retiring),
            _Wrap(handlers, "unregister", self._around_unregistering),
            # Each of these holds the bound method, and can close the scheduler.
            _Wrap(handlers, "check_idle", self._around_idling),
            _Wrap(scheduler, "check_idle", self._around_idling),
            _Wrap(scheduler.periodic_callbacks["idle-timeout"], "callback", self._around_idling),
        ]

    def close(self) -> None:
        """Step out of all doors, and stop waiting for who is about to leave.

        Where somebody has wrapped over it meanwhile, the wrap stays and does nothing any more.
        """
        for wrap in self._wraps:
            wrap.undo()
        self._wraps = []
        for move in set(self._moves.values()):
            move.cancel()

    def _around_retiring(self, original: Callable[..., Awaitable[Any]]) -> Callable[..., Any]:
        async def retire_workers(workers: Any = None, **options: Any) -> Any:
            names = options.get("names")
            criteria = {name: options[name] for name in options.keys() - _HOW}
            if (workers is not None) + (names is not None) + bool(criteria) > 1:
                # It refuses that, before anybody has moved.
                return await original(workers=workers, **options)
            if workers is None and names is None:
                # Chosen once: by now, another choice would be of workers that nobody has left. An
                # empty choice is passed on as such, and the answer is that nobody was retired.
                workers = self._scheduler.workers_to_close(**criteria)
                options = {name: options[name] for name in options.keys() - criteria.keys()}
                workers = addresses_of(self._scheduler.workers, workers)
            leaving = addresses_of(self._scheduler.workers, workers, names)
            return await self._retire(leaving, lambda: original(workers=workers, **options))

        return retire_workers

    async def _retire(
        self, leaving: Sequence[str], retire: Callable[[], Awaitable[Any]]
    ) -> Mapping[str, Any]:
        """Let the agents leave, then retire; workers that nobody knows are none to leave."""
        new = [worker for worker in leaving if worker not in self._moves]
        if new:
            move = asyncio.create_task(self._move(new), name="dspex-leave")
            self._moves.update(dict.fromkeys(new, move))
        try:
            if leaving:
                await asyncio.wait({self._moves[worker] for worker in leaving})
            retired: Mapping[str, Any] = await retire()
            return retired
        finally:
            # Kept until here for whoever asks meanwhile, or asks one door through another.
            for worker in new:
                del self._moves[worker]

    async def _move(self, leaving: Sequence[str]) -> None:
        self._failed.update(leaving)
        try:
            await self._leave(tuple(leaving))
        except Exception:
            logger.exception(
                "agents did not leave %s, which is retired nevertheless: they fail over",
                ", ".join(leaving),
            )
        else:
            self._failed.difference_update(leaving)

    def _around_unregistering(self, original: Callable[..., Awaitable[Any]]) -> Callable[..., Any]:
        async def unregister(address: Any = None, **options: Any) -> Any:
            try:
                return await original(address=address, **options)
            finally:
                if str(options.get("stimulus_id")).startswith(_DEATH):
                    self._process_ended(address)

        return unregister

    def _process_ended(self, worker: str) -> None:
        # A worker with lifetime-restart is retired, then ends, and its nanny tells that, too.
        if self._was_retired(worker) and worker not in self._failed:
            return
        self._failed.discard(worker)
        try:
            self._died(worker)
        except Exception:
            logger.exception("the death of %s could not be dealt with", worker)

    def _was_retired(self, worker: str) -> bool:
        """Whether the last one at this address left as expected; addresses are used again."""
        for _, event in reversed(self._scheduler.get_events(worker)):
            if isinstance(event, dict) and event.get("action") == "remove-worker":
                return bool(event.get("expected"))
        return False

    def _around_idling(self, original: Callable[[], float | None]) -> Callable[..., Any]:
        def check_idle() -> float | None:
            if self._is_needed():
                # So that the whole timeout begins when it is not needed any more.
                self._scheduler.idle_since = None
                return None
            return original()

        return check_idle


def addresses_of(
    known: Mapping[str, Any], workers: Iterable[Any] | None, names: Iterable[Any] | None = None
) -> list[str]:
    """Find out whom somebody means who asks to retire workers.

    Parameters
    ----------
    known : mapping of address to distributed.scheduler.WorkerState
    workers : iterable, optional
        Addresses; or names, which is what `SpecCluster.scale` passes. Dask itself does not find
        workers by those, and retires nobody; the cluster then closes them by force. A name there
        may be that of a job with several workers, which are called like it with "-0", "-1".
    names : iterable, optional
        Names, or what they look like as text.

    Examples
    --------
    >>> from types import SimpleNamespace as Worker
    >>> known = {"tcp://a:1": Worker(name=0), "tcp://b:1": Worker(name="job-7-0")}
    >>> addresses_of(known, ["tcp://a:1", "tcp://gone:1"])
    ['tcp://a:1']
    >>> addresses_of(known, [0])
    ['tcp://a:1']
    >>> addresses_of(known, ["job-7"])
    ['tcp://b:1']
    >>> addresses_of(known, None, names=["0", "job-7"])
    ['tcp://a:1']
    """
    # Dask reads a lone string as its letters, which are nobody's addresses.
    asked = [] if workers is None or isinstance(workers, str) else list(workers)
    found = {item for item in asked if item in known}
    taken = {worker.name for worker in known.values()}
    named = {item for item in asked if item in taken}
    jobs = {item for item in asked if isinstance(item, str)} - found - named
    texts = {str(name) for name in names or ()}
    for address, worker in known.items():
        name = worker.name
        if name in named or str(name) in texts or _JOB.sub("", str(name)) in jobs:
            found.add(address)
    return [address for address in known if address in found]


@final
class _Wrap:
    """What stands in one place for what Dask had put there."""

    def __init__(
        self, owner: Any, name: str, around: Callable[[Callable[..., Any]], Callable[..., Any]]
    ) -> None:
        self._owner = owner
        self._name = name
        self._original = owner[name] if isinstance(owner, dict) else getattr(owner, name)
        self._is_open = True
        wrapped = around(self._original)

        # Dask looks at a handler's name and signature.
        @functools.wraps(self._original)
        def wrapper(*args: Any, **options: Any) -> Any:
            return (wrapped if self._is_open else self._original)(*args, **options)

        self._wrapper = wrapper
        self._put(wrapper)

    def undo(self) -> None:
        self._is_open = False
        owner, name = self._owner, self._name
        there = owner[name] if isinstance(owner, dict) else getattr(owner, name)
        if there is self._wrapper:
            self._put(self._original)

    def _put(self, what: Callable[..., Any]) -> None:
        if isinstance(self._owner, dict):
            self._owner[self._name] = what
        else:
            setattr(self._owner, self._name, what)
