"""Which agents would be better off elsewhere.

Knows: agents, the fleet, placements. Must not know: how one moves.

An agent placed by hashing moves if the hash prefers another worker now, which after one worker has
come concerns its share alone (Thaler and Ravishankar 1998). Of the others as many move from the
fullest workers to the emptiest as it takes for their numbers to differ by one at most. Agents that
are pinned, or stay with another, do not move.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from dspex.foundation.ledger.agents.record import Agent
from dspex.foundation.ledger.fleet import Fleet, Worker
from dspex.foundation.ledger.placement import rendezvous

__all__ = ["Better", "better_places"]


class Better(NamedTuple):
    """An agent, and where it would be better off."""

    key: str
    source: str
    target: str


def better_places(agents: Mapping[str, Agent], fleet: Fleet, most: int | None) -> list[Better]:
    """Find moves, at most so many."""
    up = [worker for address in fleet.addresses if (worker := fleet.get(address)) is not None]
    moves: list[Better] = []
    even: dict[str, list[Agent]] = {worker.address: [] for worker in up}
    for agent in agents.values():
        if agent.status != "running" or _is_bound(agent):
            continue
        if agent.spec.fields["placement"] == "any_node":
            target = rendezvous(agent.key, _fitting(agent, up))
            if target is not None and target.address != agent.host:
                moves.append(Better(agent.key, agent.host, target.address))
        elif agent.host in even and agent.spec.fields["placement"] != "pack":
            even[agent.host].append(agent)
    moves += _evened(even, fleet)
    return moves if most is None else moves[:most]


def _is_bound(agent: Agent) -> bool:
    return agent.spec.fields["worker"] is not None or agent.spec.fields["same_as"] is not None


def _fitting(agent: Agent, up: Iterable[Worker]) -> list[Worker]:
    return [
        worker
        for worker in up
        if worker.address == agent.host
        or (worker.free.holds(agent.spec.amounts) and agent.spec.labels <= worker.labels)
    ]


def _evened(agents: dict[str, list[Agent]], fleet: Fleet) -> list[Better]:
    counts = {address: len(there) for address, there in agents.items()}
    moves = []
    while some := [address for address, there in agents.items() if there]:
        fullest = max(some, key=lambda address: (counts[address], address))
        emptier = [
            worker
            for address, count in counts.items()
            if count < counts[fullest] - 1 and (worker := fleet.get(address)) is not None
        ]
        if not emptier:
            break
        agent = agents[fullest].pop()
        fitting = _fitting(agent, emptier)
        if fitting:  # else it stays, and another may move
            target = min(fitting, key=lambda worker: (counts[worker.address], worker.address))
            counts[fullest] -= 1
            counts[target.address] += 1
            moves.append(Better(agent.key, fullest, target.address))
    return moves
