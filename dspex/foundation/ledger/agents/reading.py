"""What is told of agents: to hosts, to those who look for one, to people.

Knows: all agents, members, loads. Must not know: what is decided.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, final

from dspex.errors import AgentNotFoundError
from dspex.foundation.ledger.agents.population import Population
from dspex.foundation.ledger.agents.record import OUTCOMES, Agent
from dspex.foundation.ledger.events import Token
from dspex.foundation.ledger.fleet import Fleet
from dspex.foundation.ledger.members import Members

__all__ = ["Reading"]

_SHOWN = 100
"""Agents that are nowhere and are told of one by one."""


@final
class Reading:
    """Reads the population.

    Attributes
    ----------
    loads : dict of address to mapping of key to int
        Messages that wait, as hosts told last.
    """

    def __init__(self, known: Population, members: Members, fleet: Fleet) -> None:
        self._known = known
        self._members = members
        self._fleet = fleet
        self.loads: dict[str, Mapping[str, int]] = {}

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._known.agents)

    def count_at(self, address: str) -> int:
        """How many are at a host."""
        return len(self._known.at.get(address, ()))

    def census(self) -> dict[str, Any]:
        """How many are at each host, and who is nowhere, and why."""
        unplaced = {}
        for key in islice(self._known.nowhere, _SHOWN):
            agent = self._known.agents[key]
            unplaced[key] = f"{agent.status}: {agent.reason}"
        return {
            "count": self.count,
            "hosts": {address: len(keys) for address, keys in self._known.at.items()},
            "unplaced": len(self._known.nowhere),
            "reasons": unplaced,
        }

    def get(self, key: str) -> Agent:
        """Find an agent.

        Raises
        ------
        AgentNotFoundError
        """
        found = self._known.agents.get(key)
        if found is None:
            raise AgentNotFoundError(
                f"there is no agent {key.partition(':')[2]!r}; list_agents() lists those there "
                "are; it may have been stopped"
            )
        return found

    def locate(self, keys: Iterable[str]) -> list[tuple[Any, ...] | None]:
        """(status, host, reason, persistence) of agents; None of one that is not there."""
        found = [self._known.agents.get(key) for key in keys]
        return [
            None if each is None else (each.status, each.host, each.reason, each.spec.persistence)
            for each in found
        ]

    def at_host(self, session: str) -> list[tuple[str, Token, str]]:
        """(key, incarnation, status) of all that are at the host of a session."""
        address = self._members.address_of(session)
        keys = self._known.at.get(address or "", ())
        return [
            (agent.key, agent.incarnation, agent.status)
            for agent in map(self._known.agents.__getitem__, keys)
        ]

    def load(self, session: str, keys: Iterable[str]) -> dict[str, Any]:
        """All that the host of a session needs to make its agents.

        ``specs``, each once, and ``parcels`` that give the numbers of theirs; None for an agent
        that is not at this host.
        """
        address = self._members.address_of(session)
        numbers: dict[int, int] = {}
        specs: list[Any] = []
        parcels: list[Any] = []
        for key in keys:
            agent = self._known.agents.get(key)
            if agent is None or agent.host != address:
                parcels.append(None)
                continue
            number = numbers.setdefault(id(agent.spec), len(specs))
            if number == len(specs):
                specs.append(agent.spec.fields)
            parcels.append(self._parcel(agent, number))
        return {"specs": specs, "parcels": parcels}

    @staticmethod
    def _parcel(agent: Agent, spec: int) -> dict[str, Any]:
        return {
            "token": agent.incarnation,
            "spec": spec,
            "args": agent.args,
            "started": agent.started,
            "state": agent.state,
            "dedup": None if agent.dedup is None else agent.dedup.rows(),
            "outbox": None if agent.outbox is None else list(agent.outbox.values()),
            "sent": agent.sent,
            "parcel": agent.parcel,
        }

    def code(self, digest: str) -> bytes | None:
        """A pickled class."""
        return self._known.codes.get(digest)

    def state(self, key: str) -> tuple[dict[str, bytes] | None, str, bool]:
        """What an agent has kept, how, and whether it was ever made."""
        agent = self.get(key)
        return agent.state, str(agent.spec.persistence), agent.started

    def host(self, address: str) -> Token | None:
        """The incarnation of a host; None where it is gone."""
        found = self._members.get(address)
        return None if found is None else found["incarnation"]

    def listing(
        self, prefix: str, capabilities: Sequence[str], match: str, limit: int | None
    ) -> list[dict[str, Any]]:
        """Agents whose keys begin so, with all or any of the capabilities, least loaded first."""
        keys: Iterable[str]
        if capabilities:
            sets = [set(self._known.capable(each)) for each in capabilities]
            keys = set.intersection(*sets) if match == "all" else set.union(*sets)
        else:
            keys = self._known.agents
        found = [self._known.agents[key] for key in keys if key.startswith(prefix)]
        rows = [(self._load_of(agent), agent) for agent in found]
        rows.sort(key=lambda row: (row[0], row[1].key))
        return [self._row(agent, load) for (_, load, _), agent in rows[:limit]]

    def row(self, key: str) -> dict[str, Any]:
        """What is told of an agent.

        Raises
        ------
        AgentNotFoundError
        """
        agent = self.get(key)
        return self._row(agent, self._load_of(agent)[1])

    def _load_of(self, agent: Agent) -> tuple[bool, int, int]:
        load = self.loads.get(agent.host, {}).get(agent.key, 0)
        worker = self._fleet.get(agent.host)
        return agent.status in OUTCOMES, load, worker.load if worker else 0

    @staticmethod
    def _row(agent: Agent, load: int) -> dict[str, Any]:
        return {
            "key": agent.key,
            "name": agent.spec.name,
            "status": agent.status,
            "reason": agent.reason,
            "host": agent.host,
            "incarnation": agent.incarnation,
            "persistence": agent.spec.persistence,
            "failover": agent.spec.failover,
            "capabilities": agent.spec.capabilities,
            "load": load,
            "restarts": len(agent.restarts),
        }

    def keys_at(self, address: str) -> list[str]:
        """Keys of the agents at a host."""
        return list(self._known.at.get(address, ()))
