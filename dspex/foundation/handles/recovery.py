"""Recovery on request: agents whose failover is manual, after the loss of their worker.

Knows: what the ledger tells of agents. Must not know: hosts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

from dspex.errors import UnavailableError
from dspex.foundation.ports import Caller

__all__ = ["RecoveryReport", "recover"]

_LOOK_EVERY = 0.02
_ASK_EVERY = 0.1
_WITHIN = 60.0
_LEASE_WITHIN = 600.0


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryReport:
    """What was recovered, from what.

    Attributes
    ----------
    worker : str
        That was lost.
    agents : tuple of str
        Ids of the agents that answer again.
    failed : dict of str to str
        Ids of those that do not, and why.
    source : str
        Where their states came from: "journal", "scheduler" (its memory) or "none" (they keep
        nothing, and have begun afresh); several with commas.
    version : int
        The revision of the ledger that they were recovered from.
    lost_writes : int or None
        Acknowledged calls whose effect is gone: 0 where the state is kept, None where it is not
        and nobody knows.
    copies_used : int
        How many copies were read.
    """

    worker: str
    agents: tuple[str, ...]
    failed: dict[str, str]
    source: str
    version: int
    lost_writes: int | None
    copies_used: int


async def recover(
    caller: Caller, worker: str, namespace: str, agent_id: str | None
) -> RecoveryReport:
    """Have agents that wait for it live on, and wait until they do.

    Of a worker whose connection closed nobody knows whether it is dead: the end of its lease is
    waited for.

    Raises
    ------
    AgentNotFoundError
    InvalidRequestError
        Where the agent does not wait since this worker was lost.
    UnavailableError
        Where they are not made in time.
    """
    asked = None if agent_id is None else [f"{namespace}:{agent_id}"]
    deadline = caller.now() + _LEASE_WITHIN
    while True:
        keys, is_begun = await caller.write("agents.recover", worker=worker, keys=asked)
        if is_begun:
            break
        if caller.now() > deadline:
            raise UnavailableError(
                f"agents are recovered when the lease of their lost worker has run out; that of "
                f"{worker} has not after {_LEASE_WITHIN:g} s; ask again"
            )
        await caller.sleep(_ASK_EVERY)
    deadline = caller.now() + _WITHIN
    while True:
        places = await caller.read("agents.locate", keys=keys)
        open_ones = [
            each for each in places if each is not None and each[0] in ("starting", "waiting")
        ]
        if not open_ones:
            break
        if caller.now() > deadline:
            raise UnavailableError(
                f"agents are recovered onto workers that are up; {len(open_ones)} of {len(keys)} "
                f"are not made after {_WITHIN:g} s ({open_ones[0][2]!r}); add workers; they go on"
            )
        await caller.sleep(_LOOK_EVERY)
    return _report(worker, keys, places, await caller.read("status"))


def _report(worker: str, keys: Any, places: Any, status: Any) -> RecoveryReport:
    sources = {"durable": "journal", "cluster_replicated": "scheduler", None: "none"}
    running, failed, found = [], {}, set()
    for key, place in zip(keys, places, strict=True):
        name = key.partition(":")[2]
        if place is None:
            failed[name] = "it was stopped meanwhile"
        elif place[0] in ("failed", "lost"):
            failed[name] = place[2]
        else:
            running.append(name)
            found.add(sources[place[3]])
    return RecoveryReport(
        worker=worker,
        agents=tuple(running),
        failed=failed,
        source=", ".join(sorted(found)) or "none",
        version=status["revision"],
        lost_writes=None if "none" in found else 0,
        copies_used=int(bool(found - {"none"})),
    )
