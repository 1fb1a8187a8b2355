"""A task in parts, given to agents.

Knows: how parts are cut, who may own a task. Must not know: how parts are worked off.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
import secrets
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar, final

from dspex.agents.answer import AgentFuture
from dspex.agents.assigning import RULES, bid_of, parts_of
from dspex.agents.bridge import handle_of, runtime_for
from dspex.agents.coordinating import UNKNOWN
from dspex.agents.handle import AgentHandle
from dspex.agents.retrying import deadline_of
from dspex.agents.settling import raw_of, settled
from dspex.agents.task_result import TaskResult, result_of
from dspex.agents.working import OWN_TROUBLE, Chooser, Plan, Way, Work
from dspex.cluster.agents.requests import AUTO
from dspex.cluster.agents.resident import dumps, loads
from dspex.cluster.agents.runtime import Runtime
from dspex.cluster.agents.turns import current_turn
from dspex.cluster.units import parse_seconds
from dspex.errors import (
    AgentNotFoundError,
    DspexError,
    InvalidArgumentError,
    TaskFailedError,
)

__all__ = ["TaskResult", "distribute_task"]

T = TypeVar("T")

_ON_FAILURE = ("reassign", "raise", "skip")
_POLL = (0.002, 0.25)
"""Seconds between two questions whether a coordinator is done: the first ones, the last ones."""
_GIVE_UP_WITHIN = 5.0


def distribute_task(
    coordinator: Any,
    workers: Iterable[Any],
    task: Any,
    *,
    assign: str | Callable[[Any, Sequence[AgentHandle]], Any] = "least_loaded",
    split: int | Callable[[Any], Iterable[Any]] | None = None,
    on_failure: str = "reassign",
    timeout: float | str | None = None,
) -> TaskResult:
    """Give the parts of a task to agents, and gather what they make of them.

    ``on_task(part)`` of a worker is called for each part; all parts are given out at once. In async
    code, await it.

    Parameters
    ----------
    coordinator : None, AgentHandle or id
        Who owns the task. None: whoever calls this; it ends with its caller. An `Agent` that keeps
        its state: it keeps the parts, and each result as it comes, and goes on when it lives on
        elsewhere; the caller waits for it.
    workers : iterable of AgentHandle or id
    task : Any
        Picklable, as are its parts.
    assign : str or callable
        Who gets which part:

        - "least_loaded": who has the fewest messages before it, with what was given meanwhile
        - "round_robin": in the order of the workers
        - "consistent_hash": always the same one for the same part (its pickle), as long as it is
          among the workers
        - "auction": who bids least: ``bid(part)`` of each worker gives what it would cost, a finite
          number, without knowing the bids of others; one that raises or gives None does not bid.
          All bids are asked before any part is given out; ties go by id
        - "broadcast": everybody gets the whole task
        - a callable of (part, handles of the workers that have not tried it) that gives one of them

    split : None, int or callable
        How the task is cut: not at all, a sequence into so many parts, or task -> parts.
    on_failure : "reassign", "raise" or "skip"
        What becomes of a part whose worker raised, was lost or stopped, or has failed. reassign:
        another worker gets it, each at most once; where none is left the other parts are waited
        for, and then that is the error. raise: that is the error at once. skip: the result is
        without it, and says so.
    timeout : float or str, optional
        Seconds for all of it. With ``on_failure="skip"`` what is not done by then has failed.

    Returns
    -------
    TaskResult

    Raises
    ------
    TaskFailedError
        Its ``causes`` are the errors of one part, by worker; its ``result`` is what was done.
    DeadlineError
        With ``result``.
    InvalidArgumentError, UnsupportedGuaranteeError, AgentNotFoundError

    Notes
    -----
    In a call of an agent the parts are no part of that call: where it is made again because the
    agent's worker was lost, the parts are given out again. Give it a coordinator that must not.

    What a coordinator has kept is never done again. A part that was under way when the
    coordinator's worker was lost is sent again, and takes effect again unless who does it keeps its
    state. A worker that keeps its state and lives on elsewhere goes on with its part. A part waits
    for a worker whose failover is manual, until that is asked for.

    Examples
    --------
    >>> from dspex.agents import Agent, create_agents
    >>> class Adder(Agent):
    ...     def on_task(self, numbers):
    ...         return sum(numbers)
    >>> specs = [{"cls": Adder, "id": f"doc-adder-{n}"} for n in range(3)]
    >>> adders = create_agents(specs, distribution="local")
    >>> done = distribute_task(None, adders, range(100), split=3, assign="round_robin")
    >>> done
    <TaskResult: 3 of 3 parts done by 3 workers in 3 attempts>
    >>> sum(done.results)
    4950
    """
    given = list(workers)
    runtime = runtime_for(coordinator, *given)
    handles = list(dict.fromkeys(handle_of(each, runtime) for each in given))
    owner = None if coordinator is None else handle_of(coordinator, runtime)
    _check(owner, handles, assign, split, on_failure)
    parts = parts_of(task, split)
    deadline = deadline_of(runtime, parse_seconds("timeout", timeout))
    plan = Plan(
        workers=tuple((each._key, each._name) for each in handles),
        parts=tuple(dumps(((part,), {})) for part in parts),
        assign=assign,
        on_failure=on_failure,
        loads={},
    )
    return runtime.run(_outside_turns(partial(_distribute, runtime, owner, plan, deadline)))


def _check(
    owner: AgentHandle | None, handles: Sequence[Any], assign: Any, split: Any, on_failure: str
) -> None:
    if not handles:
        raise InvalidArgumentError("a task is given to at least one worker; got none")
    if not callable(assign) and assign not in RULES:
        raise InvalidArgumentError(
            f"assign is one of {', '.join(RULES)} or a callable; got {assign!r}"
        )
    if on_failure not in _ON_FAILURE:
        raise InvalidArgumentError(
            f"on_failure is one of {', '.join(_ON_FAILURE)}; got {on_failure!r}"
        )
    if assign == "broadcast" and split is not None:
        raise InvalidArgumentError(
            f'"broadcast" gives everybody the whole task; got split={split!r}; leave it out'
        )
    turn = current_turn()
    if owner is not None and turn is not None and turn.key == owner._key:
        raise InvalidArgumentError(
            f"an agent cannot wait in its own call for what it coordinates; got {owner.id!r} as "
            "the coordinator of a task that it distributes itself; use coordinator=None"
        )


async def _outside_turns(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Do work as part of no turn.

    Which worker gets what, and how often, may differ when a turn is run again; the numbers of the
    turn's messages would then name other messages than before.
    """
    loop = asyncio.get_running_loop()
    return await loop.create_task(work(), context=contextvars.Context())


async def _distribute(
    runtime: Runtime, owner: AgentHandle | None, plan: Plan, deadline: float | None
) -> TaskResult:
    left = None if deadline is None else max(0.0, deadline - runtime.caller.now())
    owned = None if owner is None else _Owned(owner)
    ways: Mapping[int, Way] = {}
    try:
        async with asyncio.timeout(left) as within:
            plan = await _chosen(plan, runtime)
            if owned is not None:
                ways = await owned.run(plan)
                return result_of(plan, ways)
            work = Work(plan, runtime)
            ways = work.ways
            await work.run()
            return result_of(plan, ways)
    except TimeoutError:
        if not within.expired():
            raise
        if owned is not None and not ways:
            ways = await owned.give_up()
    except asyncio.CancelledError:
        if owned is not None:
            owned.abandon()
        raise
    late = (
        f"a task was not done in the {left:g} s that it had; allow more time, or use "
        'on_failure="skip" to take what there is'
    )
    return result_of(plan, ways, late)


async def _chosen(plan: Plan, runtime: Runtime) -> Plan:
    """The plan, with who tries each part first."""
    chooser = Chooser(plan, runtime)
    keys = list(chooser.handles)
    if plan.assign == "least_loaded":
        found = await asyncio.gather(*[_load(runtime, key) for key in keys])
        plan = replace(plan, loads=dict(zip(keys, found, strict=True)))
    elif plan.assign == "auction":
        handles = chooser.handles.values()
        asked = [asyncio.gather(*[_bid(each, part) for each in handles]) for part in plan.parts]
        bids = [zip(keys, costs, strict=True) for costs in await asyncio.gather(*asked)]
        plan = replace(
            plan,
            bids=tuple({key: cost for key, cost in each if cost is not None} for each in bids),
        )
    chooser = Chooser(plan, runtime)
    return replace(plan, first=tuple(chooser.choose(index) for index in range(plan.size)))


async def _load(runtime: Runtime, key: str) -> float:
    """How many messages wait before an agent; one that cannot answer comes last."""
    try:
        row = await runtime.caller.read("agents.row", key=key)
    except AgentNotFoundError:
        return math.inf
    return math.inf if row["status"] in ("lost", "failed") else float(row["load"])


async def _bid(handle: AgentHandle, part: bytes) -> float | None:
    future = handle._send("bid", part, AUTO, None)
    await settled(future)
    raw = raw_of(future)
    if isinstance(raw, OWN_TROUBLE):
        raise raw
    return bid_of(future.result(0)) if isinstance(raw, bytes) else None


@final
class _Owned:
    """A task that a coordinator owns, as its caller sees it."""

    def __init__(self, owner: AgentHandle) -> None:
        self._owner = owner
        self._task = secrets.token_hex(8)
        self._is_begun = False

    async def run(self, plan: Plan) -> Mapping[int, Way]:
        """Have it done, and wait for that."""
        try:
            await self._step("begin", dumps(plan), delivery="exactly_once")
        except AttributeError as error:
            if "has no attribute 'coordinate_task'" not in str(error):
                raise
            raise InvalidArgumentError(
                "a coordinator keeps its task in its state; the class of "
                f"{self._owner.id!r} is no dspex.agents.Agent; let it inherit from that, or use "
                "coordinator=None"
            ) from error
        self._is_begun = True
        wait, longest = _POLL
        while (told := await self._step("ask")) is None:
            await asyncio.sleep(wait)
            wait = min(wait * 2, longest)
        await self.give_up()
        if told == UNKNOWN:
            raise TaskFailedError(
                f"a coordinator keeps a task until its caller has the result; {self._owner.id!r} "
                "does not know this one (any more); distribute it again"
            )
        packed, ways = told
        if packed:
            failure, words = loads(packed)
            failure.add_note(f"in the coordinator:\n{words}")
            raise failure
        return _unpacked(ways)

    def _step(self, name: str, *args: Any, **options: Any) -> AgentFuture:
        options = {"delivery": "at_least_once", **options}
        return self._owner.call("coordinate_task", (name, self._task, *args), **options)

    async def give_up(self) -> Mapping[int, Way]:
        """Let the coordinator forget it, and see what was done."""
        if not self._is_begun:
            return {}
        try:
            return _unpacked(await self._step("forget", timeout=_GIVE_UP_WITHIN))
        except DspexError:
            return {}

    def abandon(self) -> None:
        """Let the coordinator know that nobody waits for it any more."""
        if self._is_begun:
            with suppress(DspexError):
                self._owner.cast(
                    "coordinate_task", ("forget", self._task), delivery="at_least_once"
                )


def _unpacked(ways: Sequence[bytes | None]) -> Mapping[int, Way]:
    return {index: Way(*loads(way)) for index, way in enumerate(ways) if way is not None}
