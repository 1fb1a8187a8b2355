"""Moving agents because workers come, go, or are started anew.

Knows: members, what the ledger moves. Must not know: Dask, what an agent is.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from dspex.errors import InvalidArgumentError, UnavailableError
from dspex.foundation.member import Member
from dspex.foundation.ports import Caller

__all__ = ["Move", "Restarted", "drain", "rebalance", "rolling_restart"]

_LOOK_EVERY = 0.02
_BACK_WITHIN = 120.0


class Move(NamedTuple):
    """An agent that moves, or would.

    Attributes
    ----------
    agent : str
        Its id.
    source, target : str
        Addresses.
    """

    agent: str
    source: str
    target: str


class Restarted(NamedTuple):
    """A worker that was started anew.

    Attributes
    ----------
    before, after : str
        Its address, and that of the one in its place.
    seconds : float
    """

    before: str
    after: str
    seconds: float


async def drain(caller: Caller, address: str, *, undo: bool) -> bool:
    """Have a member get nothing new, and wait until its agents live elsewhere."""
    while True:
        left = await caller.write("members.drain", address=address, undo=undo)
        if undo or not left["agents"]:
            return True
        await caller.sleep(_LOOK_EVERY)


async def rebalance(caller: Caller, *, dry_run: bool, max_moves: int | None) -> list[Move]:
    """Move agents to where their placement wants them now; gives the moves.

    Raises
    ------
    InvalidArgumentError
    """
    given: Any = max_moves
    if given is not None and (not isinstance(given, int) or given < 0):
        raise InvalidArgumentError(f"max_moves is a whole number from 0, or None; got {given!r}")
    rows = await caller.write("agents.rebalance", dry_run=dry_run, max_moves=max_moves)
    return [Move(key.partition(":")[2], source, target) for key, source, target in rows]


async def rolling_restart(
    caller: Caller, restart: Callable[[str], Awaitable[None]]
) -> list[Restarted]:
    """Start all workers anew, one after the other, each when its agents have left.

    Raises
    ------
    UnavailableError
        Where one does not come back, or is alone, so that its agents have nowhere to go.
    """
    members = await _members(caller)
    up = [member for member in members if member.state == "up"]
    if len(up) < 2:
        raise UnavailableError(
            f"workers are started anew one by one while the others work; there are {len(up)} that "
            "are up; add one"
        )
    done = []
    for member in up:
        began = caller.now()
        known = {each.incarnation for each in await _members(caller)}
        await drain(caller, member.address, undo=False)
        await restart(member.address)
        after = await _newcomer(caller, known, member.address)
        done.append(Restarted(member.address, after, caller.now() - began))
    return done


async def _newcomer(caller: Caller, known: set[tuple[int, int]], before: str) -> str:
    deadline = caller.now() + _BACK_WITHIN
    while caller.now() < deadline:
        for member in await _members(caller):
            if member.state == "up" and member.incarnation not in known:
                return member.address
        await caller.sleep(_LOOK_EVERY)
    raise UnavailableError(
        f"a worker that is started anew joins again; after {_BACK_WITHIN:g} s nobody has come in "
        f"place of {before}; look at its nanny's log; the others were not touched"
    )


async def _members(caller: Caller) -> list[Member]:
    return [Member.from_fields(each) for each in await caller.read("members.list")]
