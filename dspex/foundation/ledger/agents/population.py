"""All agents: what happened to them, folded.

Knows: the events of agents. Must not know: who decides, why.

===========  =================================================================================
tag          fields
===========  =================================================================================
code         digest, the pickled class
agents       fields of the spec, (session, number) of the creation, [(key, args), ...]
placed       host ("" for nowhere), status, reason, incarnation, keys
moving       host, target ("" for any other), keys; the host lets them go
fenced       host that is gone, seconds for which it may still believe in its lease, keys
held         host that is gone, keys; they wait until somebody asks for their recovery
restarted    keys; counted against the limit of their restart policy
turns        [turn, ...], each packed, see `turns`
started      keys
ended        host, reason, keys
kept         key, started, state, rows of its `Dedup`, outbox, sent (in snapshots only)
===========  =================================================================================

Turns of agents that are not durable are no events: they need not outlive the scheduler.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, final

from dspex.foundation.agents.dedup import Dedup
from dspex.foundation.ledger.agents.record import Agent, Outgoing, Spec
from dspex.foundation.ledger.agents.turns import unpack_turn
from dspex.foundation.ledger.events import Event

__all__ = ["TAGS", "Population", "sender_of"]

_IN_A_SNAPSHOT = 500


def sender_of(key: str) -> str:
    """The name under which an agent sends.

    Examples
    --------
    >>> sender_of(":bank")
    'agent::bank'
    """
    return f"agent:{key}"


@final
class Population:
    """The agents by key, by host, by capability.

    Attributes
    ----------
    agents : dict of key to Agent
    at : dict of address to dict of key to None
    nowhere : dict of key to None
        Those that are at no host.
    waiting : dict of key to None
        Those that are to be placed as soon as there is a place.
    held : dict of key to address
        Those that wait for a request, and the worker that was lost.
    fences : dict of address to (instant, seconds)
        When the last lease of a host that is gone has run out for certain, and how long that took.
    fenced : dict of key to address
        Those that wait for it.
    targets : dict of key to address
        Of agents that are on the move.
    codes : dict of digest to bytes
    """

    def __init__(self) -> None:
        self.agents: dict[str, Agent] = {}
        # In the order in which they came: by that of a set no two runs would be the same.
        self.at: dict[str, dict[str, None]] = {}
        self.waiting: dict[str, None] = {}
        self.nowhere: dict[str, None] = {}
        self.held: dict[str, str] = {}
        self.fences: dict[str, tuple[float, float]] = {}
        self.fenced: dict[str, str] = {}
        self.targets: dict[str, str] = {}
        self.codes: dict[str, bytes] = {}
        self._code_uses: dict[str, int] = {}
        self._capable: dict[str, dict[str, None]] = {}
        self._correspondents: dict[str, set[str]] = {}  # {sender: agents that know it}

    def capable(self, capability: str) -> Iterable[str]:
        """Keys of the agents that have it."""
        return self._capable.get(capability, ())

    # --- what happened -----------------------------------------------------------------------

    def apply(self, event: Event, now: float) -> None:
        """Take what happened."""
        _APPLY[event[0]](self, event, now)

    def _code(self, event: Event, now: float) -> None:
        self.codes[event[1]] = event[2]
        self._code_uses.setdefault(event[1], 0)

    def _agents(self, event: Event, now: float) -> None:
        _, fields, _, made = event
        spec = Spec.made(fields)
        self._code_uses[fields["class"]] += len(made)
        last: bytes = b""
        for key, args in made:
            if args == last:
                args = last  # of many that are alike one is kept
            last = args
            self.agents[key] = Agent(key, spec, args)
            self.waiting[key] = self.nowhere[key] = None
            for capability in spec.capabilities:
                self._capable.setdefault(capability, {})[key] = None

    def _placed(self, event: Event, now: float) -> None:
        _, host, status, reason, (term, n), keys = event
        incarnation = (term, n)
        for key in keys:
            agent = self.agents[key]
            self._leave(agent)
            agent.host, agent.status, agent.reason = host, status, reason
            agent.incarnation = incarnation
            if host:
                # Its set may have gone with the agent that was the last one there.
                self.at.setdefault(host, {})[key] = None
                self.nowhere.pop(key, None)
            if status == "waiting":
                self.waiting[key] = None

    def _leave(self, agent: Agent) -> None:
        """Take an agent from wherever it is."""
        key = agent.key
        if agent.host:
            there = self.at[agent.host]
            there.pop(key, None)
            if not there:
                del self.at[agent.host]
            agent.host = ""
            self.nowhere[key] = None
        self.waiting.pop(key, None)
        self.held.pop(key, None)
        self.fenced.pop(key, None)
        self.targets.pop(key, None)

    def _moving(self, event: Event, now: float) -> None:
        _, _, target, keys = event
        for key in keys:
            self.agents[key].status = "moving"
            if target:
                self.targets[key] = target

    def _fenced(self, event: Event, now: float) -> None:
        _, host, seconds, keys = event
        for key in keys:
            agent = self.agents[key]
            self._leave(agent)
            agent.status = "waiting"
            agent.reason = f"until the lease of its former host {host} has run out for certain"
            self.fenced[key] = host
        due, most = self.fences.get(host, (0.0, 0.0))
        self.fences[host] = (max(due, now + seconds), max(most, seconds))

    def _held(self, event: Event, now: float) -> None:
        _, host, keys = event
        for key in keys:
            agent = self.agents[key]
            self._leave(agent)
            agent.status = "waiting"
            agent.reason = (
                f"its worker {host} was lost, and its failover is manual; call "
                "state_store.recover_from_failure"
            )
            self.held[key] = host

    def _restarted(self, event: Event, now: float) -> None:
        for key in event[1]:
            agent = self.agents[key]
            within = agent.spec.fields["within"]
            agent.restarts = (*(each for each in agent.restarts if now - each < within), now)

    def _turns(self, event: Event, now: float) -> None:
        for blob in event[1]:
            self.take(unpack_turn(blob))

    def take(self, turn: Mapping[str, Any]) -> None:
        """Take what a turn changed."""
        agent = self.agents[turn["a"]]
        sender = agent.take(turn)
        if sender is not None:
            self._correspondents.setdefault(sender, set()).add(agent.key)
        if "t" in turn and agent.status == "starting":
            agent.status = "running"

    def _started(self, event: Event, now: float) -> None:
        for key in event[1]:
            agent = self.agents[key]
            agent.started = True
            if agent.status == "starting":
                agent.status = "running"

    def _ended(self, event: Event, now: float) -> None:
        for key in event[3]:
            agent = self.agents.pop(key)
            self._leave(agent)
            self.nowhere.pop(key, None)
            for capability in agent.spec.capabilities:
                of_one = self._capable[capability]
                del of_one[key]
                if not of_one:
                    del self._capable[capability]
            for sender in () if agent.dedup is None else agent.dedup.senders():
                self._part(sender, key)
            self._forget_sender(sender_of(key))
            digest = agent.spec.fields["class"]
            self._code_uses[digest] -= 1
            if not self._code_uses[digest]:
                del self._code_uses[digest], self.codes[digest]

    def _part(self, sender: str, key: str) -> None:
        known = self._correspondents.get(sender)
        if known is not None:
            known.discard(key)
            if not known:
                del self._correspondents[sender]

    def _gone(self, event: Event, now: float) -> None:
        self._forget_sender(event[1])

    def _forget_sender(self, sender: str) -> None:
        for key in self._correspondents.pop(sender, ()):
            agent = self.agents.get(key)
            if agent is not None and agent.dedup is not None:
                agent.dedup.forget(sender)

    def _kept(self, event: Event, now: float) -> None:
        _, key, started, state, rows, outbox, sent = event
        agent = self.agents[key]
        agent.started, agent.sent = started, sent
        agent.state = dict(state) if state else None
        if rows:
            agent.dedup = Dedup.from_rows(rows)
            for sender in agent.dedup.senders():
                self._correspondents.setdefault(sender, set()).add(key)
        if outbox:
            agent.outbox = {each[0]: Outgoing(*each) for each in outbox}

    # --- a snapshot --------------------------------------------------------------------------

    def dump(self) -> Iterator[Event]:
        """Events that make the agents as they are now."""
        events: list[Event] = [("code", *each) for each in self.codes.items()]
        by_spec: dict[Spec, list[Agent]] = {}
        by_place: dict[tuple[Any, ...], list[str]] = {}
        for agent in self.agents.values():
            by_spec.setdefault(agent.spec, []).append(agent)
            place = (agent.host, agent.status, agent.reason, agent.incarnation)
            by_place.setdefault(place, []).append(agent.key)
        for spec, agents in by_spec.items():
            for some in _pieces(agents, _IN_A_SNAPSHOT):
                made = [(each.key, each.args) for each in some]
                events.append(("agents", spec.fields, ("", 0), made))
        for place, keys in by_place.items():
            events += [("placed", *place, some) for some in _pieces(keys, _IN_A_SNAPSHOT)]
        for key, host in self.held.items():
            events.append(("held", host, [key]))
        for key, target in self.targets.items():
            events.append(("moving", self.agents[key].host, target, [key]))
        for host, (_, seconds) in self.fences.items():
            # How much of it has passed is not known to who reads it.
            keys = [key for key, other in self.fenced.items() if other == host]
            events.append(("fenced", host, seconds, keys))
        for agent in self.agents.values():
            if agent.started and agent.is_remembered:
                events.append(_snapshot_of(agent))
            events += [("restarted", [agent.key])] * len(agent.restarts)
        return iter(events)

    def validate(self) -> None:
        """Assert the invariants."""
        found: dict[str, set[str]] = {}
        for key, agent in self.agents.items():
            assert key == agent.key
            if agent.host:
                found.setdefault(agent.host, set()).add(key)
                assert agent.status in ("starting", "running", "moving"), agent
                assert key not in self.waiting
            else:
                assert agent.status in ("waiting", "failed", "lost"), agent
            for sender in () if agent.dedup is None else agent.dedup.senders():
                assert key in self._correspondents[sender]
        assert found == {host: set(keys) for host, keys in self.at.items()}
        assert self.nowhere.keys() == {key for key, each in self.agents.items() if not each.host}
        assert self.waiting.keys() | self.held.keys() <= self.agents.keys()
        assert not self.waiting.keys() & self.held.keys()
        assert self.targets.keys() <= self.agents.keys()
        for key, host in self.fenced.items():
            assert self.agents[key].status == "waiting"
            assert host in self.fences
            assert key not in self.waiting
            assert key not in self.held


def _snapshot_of(agent: Agent) -> Event:
    if agent.spec.persistence != "durable":
        # That it had a state is what the next scheduler must know: it is lost, and never fresh.
        return ("kept", agent.key, True, None, None, None, 0)
    return (
        "kept",
        agent.key,
        True,
        None if agent.state is None else dict(agent.state),
        None if agent.dedup is None else agent.dedup.rows(),
        None if agent.outbox is None else list(agent.outbox.values()),
        agent.sent,
    )


def _pieces(items: Sequence[Any], size: int) -> Iterator[Any]:
    return (items[at : at + size] for at in range(0, len(items), size))


_APPLY: Mapping[str, Callable[[Population, Event, float], None]] = {
    "code": Population._code,
    "agents": Population._agents,
    "placed": Population._placed,
    "moving": Population._moving,
    "fenced": Population._fenced,
    "held": Population._held,
    "restarted": Population._restarted,
    "turns": Population._turns,
    "started": Population._started,
    "ended": Population._ended,
    "kept": Population._kept,
    "gone": Population._gone,
}

TAGS = frozenset(_APPLY)
