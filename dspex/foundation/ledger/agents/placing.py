"""Which worker an agent is placed on.

Knows: the fleet, how many agents are where, the vocabulary of placements. Must not know: events.

The words mean what they mean for leases (`placement`); load is the share of a worker that is
leased, then the number of agents on it, as an agent without `resources` leases nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import final

from dspex.foundation.ledger.agents.record import Agent
from dspex.foundation.ledger.fleet import Fleet, Worker
from dspex.foundation.ledger.hashing import mix
from dspex.foundation.ledger.placement import ALIASES, rendezvous

__all__ = ["Placing"]


@final
class Placing:
    """Chooses hosts.

    Parameters
    ----------
    fleet : Fleet
    count : callable
        Address to the number of agents there.
    locate : callable
        Key to the address of an agent; "" where it is nowhere.
    """

    def __init__(
        self, fleet: Fleet, count: Callable[[str], int], locate: Callable[[str], str]
    ) -> None:
        self._fleet = fleet
        self._count = count
        self._locate = locate
        self._draws = 0

    def at(self, agent: Agent, address: str | None) -> Worker | None:
        """The worker at an address, where it is up and has what the agent needs."""
        worker = self._fleet.get(address) if address else None
        if (
            worker is None
            or worker.state != "up"
            or not worker.free.holds(agent.spec.amounts)
            or not agent.spec.labels <= worker.labels
        ):
            return None
        return worker

    def choose(
        self, agent: Agent, taken: Mapping[str, int], except_of: Collection[str] = ()
    ) -> Worker | None:
        """A worker that is up and has what the agent needs; None where there is none.

        Parameters
        ----------
        agent : Agent
        taken : mapping of address to int
            Agents that were given to workers since they were counted.
        except_of : collection of str
            Addresses that will not do.
        """
        fields = agent.spec.fields
        only = fields["worker"]
        if fields["same_as"] is not None:
            only = self._locate(fields["same_as"]) or None
            if only is None:
                return None
        fitting = [
            worker
            for address in self._fleet.addresses
            if address not in except_of
            and (worker := self._fleet.get(address)) is not None
            and (only is None or only in (worker.address, worker.name))
            and worker.free.holds(agent.spec.amounts)
            and agent.spec.labels <= worker.labels
        ]
        if len(fitting) < 2:
            return fitting[0] if fitting else None
        placement = ALIASES.get(fields["placement"], fields["placement"])
        return self._preferred(placement, agent, fitting, taken)

    def _preferred(
        self, placement: str, agent: Agent, fitting: list[Worker], taken: Mapping[str, int]
    ) -> Worker | None:
        def agents(worker: Worker) -> int:
            return self._count(worker.address) + taken.get(worker.address, 0)

        def load(worker: Worker) -> tuple[int, int, str]:
            return worker.load, agents(worker), worker.address

        if placement == "any_node":
            return rendezvous(agent.key, fitting)
        if placement == "random":
            self._draws += 1
            return fitting[mix(self._draws) % len(fitting)]
        if placement == "round_robin":
            self._draws += 1
            return fitting[self._draws % len(fitting)]
        if placement == "pack":
            return max(fitting, key=load)
        if placement == "spread":
            hosts: dict[str, int] = {}
            for worker in fitting:
                hosts[worker.host] = hosts.get(worker.host, 0) + agents(worker)
            return min(fitting, key=lambda each: (hosts[each.host], agents(each), each.address))
        typical = self._fleet.typical()
        if placement == "compute_nodes":
            fitting = [each for each in fitting if each.capacity.cpu >= typical.cpu] or fitting
        elif placement == "memory_nodes":
            fitting = [
                each for each in fitting if each.capacity.memory >= typical.memory
            ] or fitting
        return min(fitting, key=load)
