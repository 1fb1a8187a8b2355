"""A task that an agent owns: what it keeps of it, and how it goes on after it was made anew.

Knows: the state, the timers and the turns of an agent, plans and ways. Must not know: how parts
are worked off, who asks for the result.

========  ==========================  ============================================================
step      arguments                   what the agent does in one call
========  ==========================  ============================================================
begin     task, plan                  keeps the plan; nothing has left yet
ask       task                        tells how far it is; works on it, if nobody does
keep      task, driver, index, way    keeps how far a part has come; False where another one drives
end       task, driver, error         keeps that it is over
forget    task                        lets go of it, and tells how far it was
tend                                  works on every task on which nobody does; a timer calls it
========  ==========================  ============================================================

Parts are worked off beside the agent, so that it serves others meanwhile, by a *driver* that ends
with the agent's process. It calls the agent for everything that is to be kept, and each such call
is committed before the next step. The agent that lives on elsewhere has no driver, and the next
``ask`` or ``tend`` starts one, which goes on from what was kept. Each driver has a name that is
kept, too: of one that another has followed results are taken, and it is told to end.

A result that was kept is never made again. A part that was under way when its driver ended is sent
again, to the worker that the plan gives it, under the same key: it takes effect once where that
worker keeps its state, and did not forget the key.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import secrets
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any, final

from dspex.agents.handle import AgentHandle
from dspex.agents.working import OWN_TROUBLE, Plan, Way, Work
from dspex.cluster.agents.resident import dumps, error_bytes, loads
from dspex.cluster.agents.turns import TurnContext, current_turn
from dspex.errors import InvalidArgumentError

if TYPE_CHECKING:
    from dspex.agents.agent import Agent

__all__ = ["RESERVED_KEYS", "UNKNOWN", "Driver", "perform"]

logger = logging.getLogger("dspex.agents")

RESERVED_KEYS = "dspex:"
"""What the keys of a state begin with that are not the user's."""

UNKNOWN = "unknown"

TEND_EVERY = 1.0
FORGET_AFTER = 3600.0
"""Seconds for which the result of a task is kept that nobody asks for."""

_TIMER = "dspex:tasks"


def perform(agent: Agent, step: str, args: tuple[Any, ...]) -> Any:
    """Do a step."""
    turn = current_turn()
    if turn is None or step not in _STEPS:
        raise InvalidArgumentError(
            "coordinate_task is called by distribute_task alone; call that, with this agent as the "
            f"coordinator; got {step!r}"
        )
    return _STEPS[step](agent, turn, *args)


def _key(task: str, what: object = "") -> str:
    return f"{RESERVED_KEYS}task:{task}" + (f":{what}" if what != "" else "")


def _begin(agent: Agent, turn: TurnContext, task: str, plan: bytes) -> None:
    agent.state.setdefault(_key(task), plan)
    agent.every(TEND_EVERY, "coordinate_task", "tend", name=_TIMER)


def _ask(agent: Agent, turn: TurnContext, task: str) -> Any:
    """``"unknown"``, None while it is under way, then an error or b"", and the pickled ways."""
    if _key(task) not in agent.state:
        return UNKNOWN
    error = agent.state.get(_key(task, "end"))
    if error is None:
        _drive(agent, turn, task)
        return None
    plan: Plan = loads(agent.state[_key(task)])
    return error, [agent.state.get(_key(task, index)) for index in range(plan.size)]


def _keep(agent: Agent, turn: TurnContext, task: str, driver: str, index: int, way: bytes) -> bool:
    if _key(task) not in agent.state:
        return False
    is_current = bool(agent.state.get(_key(task, "driver")) == driver)
    if is_current or Way(*loads(way)).answer is not None:
        kept = agent.state.get(_key(task, index))
        if kept is None or not Way(*loads(kept)).is_over:
            agent.state[_key(task, index)] = way
    return is_current


def _end(agent: Agent, turn: TurnContext, task: str, driver: str, error: bytes) -> None:
    if agent.state.get(_key(task, "driver")) == driver:
        agent.state[_key(task, "end")] = error
        agent.after(FORGET_AFTER, "coordinate_task", "forget", task, name=_key(task))


def _forget(agent: Agent, turn: TurnContext, task: str) -> list[Any]:
    driver = agent._drivers.pop(task, None)
    if driver is not None:
        driver.stop()
    if _key(task) not in agent.state:
        return []
    plan: Plan = loads(agent.state[_key(task)])
    ways = [agent.state.get(_key(task, index)) for index in range(plan.size)]
    for what in ("", "driver", "end", *range(plan.size)):
        agent.state.pop(_key(task, what), None)
    agent.cancel_timer(_key(task))
    if not any(key.startswith(_key("")) for key in agent.state):
        agent.cancel_timer(_TIMER)
    return ways


def _tend(agent: Agent, turn: TurnContext) -> None:
    for key in list(agent.state):
        task = key.removeprefix(_key(""))
        if task != key and ":" not in task and _key(task, "end") not in agent.state:
            _drive(agent, turn, task)


_STEPS: Mapping[str, Callable[..., Any]] = {
    "begin": _begin,
    "ask": _ask,
    "keep": _keep,
    "end": _end,
    "forget": _forget,
    "tend": _tend,
}


# --- the driver ----------------------------------------------------------------------------------


@final
class Driver:
    """Who works on a task in this process."""

    __slots__ = ("name", "running")

    def __init__(self) -> None:
        self.name = secrets.token_hex(8)
        self.running: Future[None] | None = None

    def stop(self) -> None:
        """Work no more."""
        if self.running is not None:
            self.running.cancel()


class _Followed(Exception):
    """Another driver has taken over, or the task is not there any more."""


def _drive(agent: Agent, turn: TurnContext, task: str) -> None:
    """Start a driver, unless there is one."""
    if task in agent._drivers:
        return
    plan: Plan = loads(agent.state[_key(task)])
    kept = {index: agent.state.get(_key(task, index)) for index in range(plan.size)}
    ways = {index: Way(*loads(way)) for index, way in kept.items() if way is not None}
    driver = agent._drivers[task] = Driver()
    agent.state[_key(task, "driver")] = driver.name
    handle = AgentHandle(turn.key, type(agent).__qualname__, turn.runtime)
    work = _work_off(handle, agent._drivers, task, driver, plan, ways)
    # In a context of its own: what a driver sends is no part of this turn.
    start = partial(asyncio.run_coroutine_threadsafe, work, turn.runtime.loop)
    driver.running = contextvars.Context().run(start)


async def _work_off(
    handle: AgentHandle,
    drivers: dict[str, Driver],
    task: str,
    driver: Driver,
    plan: Plan,
    ways: Mapping[int, Way],
) -> None:
    async def step(name: str, *args: Any) -> Any:
        return await handle.call("coordinate_task", (name, task, driver.name, *args))

    async def keep(index: int, way: Way) -> None:
        try:
            is_current = await step("keep", index, dumps(tuple(way)))
        except Exception as error:
            raise _Followed from error
        if not is_current:
            raise _Followed

    try:
        failure = b""
        try:
            await Work(plan, handle._reached(), ways, keep, name=task).run()
        except (_Followed, *OWN_TROUBLE):
            raise
        except Exception as error:
            failure = error_bytes(error)
        await step("end", failure)
    except Exception as error:
        logger.info(
            "a driver of the task %s of %s has ended: %r", task, handle.id, error.__cause__ or error
        )
    finally:
        if drivers.get(task) is driver:
            del drivers[task]
