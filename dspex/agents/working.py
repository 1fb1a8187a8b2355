"""A task in parts, worked off by agents: who gets which part, again where one fails, to the end.

Knows: plans, ways, calls of ``on_task``. Must not know: who owns the task, where ways are kept.

A `Plan` never changes. A `Way` says how far one part has come, and is all that whoever goes on with
a task must have kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple, final

from dspex.agents.assigning import Choice, choose
from dspex.agents.handle import AgentHandle
from dspex.agents.settling import raw_of, settled
from dspex.cluster.agents.requests import AUTO, Raised
from dspex.cluster.agents.resident import error_bytes, loads
from dspex.cluster.agents.runtime import Runtime
from dspex.errors import InvalidArgumentError, SessionExpiredError, UnavailableError
from dspex.foundation.agents.dedup import BY_KEY

__all__ = ["OWN_TROUBLE", "Chooser", "Plan", "Way", "Work"]

OWN_TROUBLE = (UnavailableError, SessionExpiredError)
"""What says something about this process, or the foundation, and nothing about a worker."""


@final
@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be done, and by whom; picklable.

    Attributes
    ----------
    workers : tuple of (key, name of the class)
    parts : tuple of bytes
        Pickled arguments of `on_task`. Of a broadcast there is one.
    assign : str or callable
    on_failure : str
    loads : mapping
        {key of a worker: messages that waited when the plan was made}
    bids : tuple of mappings
        {key of a worker: cost}, for each part.
    first : tuple of (key of a worker, or None)
        Who tries each part first. It is chosen once, so that whoever goes on with the task asks the
        same ones.
    """

    workers: tuple[tuple[str, str], ...]
    parts: tuple[bytes, ...]
    assign: str | Callable[[Any, Sequence[Any]], Any] = "least_loaded"
    on_failure: str = "reassign"
    loads: Mapping[str, float]
    bids: tuple[Mapping[str, float], ...] = ()
    first: tuple[str | None, ...] = ()

    @property
    def is_broadcast(self) -> bool:
        """Whether every worker does the same."""
        return isinstance(self.assign, str) and self.assign == "broadcast"

    @property
    def size(self) -> int:
        """How many results there are to be."""
        return len(self.workers) if self.is_broadcast else len(self.parts)

    def packed(self, index: int) -> bytes:
        """The arguments of one call."""
        return self.parts[0 if self.is_broadcast else index]


class Way(NamedTuple):
    """How far a part has come.

    Attributes
    ----------
    failures : tuple of (key of a worker, pickled error)
        The attempts that failed.
    worker : str
        Key of the one that did it, or is to try next; "" for who is the first.
    answer : bytes or None
        Its pickled result.
    is_over : bool
        Whether nobody is to try (again).
    """

    failures: tuple[tuple[str, bytes], ...] = ()
    worker: str = ""
    answer: bytes | None = None
    is_over: bool = False


@final
class Chooser:
    """Chooses workers, and counts what was given to each meanwhile.

    Attributes
    ----------
    handles : dict of str to AgentHandle
    """

    def __init__(self, plan: Plan, runtime: Runtime) -> None:
        self._plan = plan
        self._loads = dict(plan.loads)
        self.handles = {key: AgentHandle(key, name, runtime) for key, name in plan.workers}

    def choose(self, index: int, tried: Sequence[str] = ()) -> str | None:
        """Who gets a part, of those that have not tried it; None where nobody does."""
        left = [key for key in self.handles if key not in tried]
        worker = self._chosen(index, left)
        if worker is not None:
            self.give(worker)
        return worker

    def _chosen(self, index: int, left: Sequence[str]) -> str | None:
        plan = self._plan
        if callable(plan.assign):
            return self._asked(plan.assign, index, left) if left else None
        choice = Choice(
            index=index,
            part=plan.packed(index),
            everyone=list(self.handles),
            left=left,
            loads=self._loads,
            bids=plan.bids[index] if plan.bids else {},
        )
        return choose(plan.assign, choice)

    def _asked(self, assign: Callable[..., Any], index: int, left: Sequence[str]) -> str:
        ((part,), _) = loads(self._plan.packed(index))
        handles = [self.handles[key] for key in left]
        chosen = assign(part, handles)
        for key, handle in zip(left, handles, strict=True):
            if chosen in (handle, handle.id):
                return key
        raise InvalidArgumentError(
            f"assign gives one of the workers that it is given; got {chosen!r:.80} of "
            f"{[handle.id for handle in handles]}"
        )

    def give(self, worker: str) -> None:
        """Take note of a part that is before a worker."""
        self._loads[worker] = self._loads.get(worker, 0.0) + 1

    def take_back(self, worker: str) -> None:
        """Take note that it is not any more."""
        self._loads[worker] -= 1


@final
class Work:
    """One run of a plan, from wherever its parts have got to.

    Parameters
    ----------
    plan : Plan
    runtime : Runtime
        On whose loop it runs.
    ways : mapping, optional
        {index: `Way`} of parts that were begun before.
    keep : coroutine function of (index, way), optional
        Called when an attempt has ended, before anything is made of that.
    name : str
        Of the task, the same in each run. An attempt that two runs make takes effect once where the
        worker keeps its state.

    Attributes
    ----------
    ways : dict of int to Way
        How far all parts have come.
    """

    def __init__(
        self,
        plan: Plan,
        runtime: Runtime,
        ways: Mapping[int, Way] | None = None,
        keep: Callable[[int, Way], Awaitable[None]] | None = None,
        *,
        name: str = "",
    ) -> None:
        self._name = name
        self._plan = plan
        self._keep = keep
        self._chooser = Chooser(plan, runtime)
        self.ways = {index: (ways or {}).get(index, Way()) for index in range(plan.size)}
        for index, way in self.ways.items():
            worker = way.worker or plan.first[index]
            if not way.is_over and worker is not None:
                self._chooser.give(worker)

    async def run(self) -> None:
        """Go on until each part is over; with ``on_failure="raise"`` until one has failed."""
        tasks = {
            asyncio.create_task(self._go(index))
            for index, way in self.ways.items()
            if not way.is_over
        }
        try:
            while tasks and not self._is_hopeless():
                done, tasks = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
        finally:
            for task in tasks:
                task.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.gather(*tasks, return_exceptions=True)

    def _is_hopeless(self) -> bool:
        return self._plan.on_failure == "raise" and any(
            way.is_over and way.answer is None for way in self.ways.values()
        )

    async def _go(self, index: int) -> None:
        way = self.ways[index]
        while not way.is_over:
            worker = way.worker or self._plan.first[index]
            if worker is None:
                way = way._replace(is_over=True)
            else:
                way = await self._attempt(index, way, worker)
            if self._keep is not None:
                await self._keep(index, way)
            self.ways[index] = way

    async def _attempt(self, index: int, way: Way, worker: str) -> Way:
        key = f"{self._name}:{index}:{len(way.failures)}"
        future = self._chooser.handles[worker]._send(
            "on_task",
            self._plan.packed(index),
            AUTO,
            None,
            sender=f"{BY_KEY}on_task:{key}" if self._name else "",
        )
        try:
            await settled(future)
        finally:
            self._chooser.take_back(worker)
        raw = raw_of(future)
        if isinstance(raw, OWN_TROUBLE):
            raise raw
        if raw is None:  # another run of this task has withdrawn the call, for both
            raise UnavailableError(f"the answer of {future!r} is not known; ask again")
        if isinstance(raw, bytes):
            return way._replace(worker=worker, answer=raw, is_over=True)
        error = raw.payload if isinstance(raw, Raised) else error_bytes(raw)
        failures = (*way.failures, (worker, error))
        following = None
        if self._plan.on_failure == "reassign":
            following = self._chooser.choose(index, [each for each, _ in failures])
        return Way(failures, following or "", is_over=following is None)
