"""Agents in the ledger, whatever is called in whatever order: never at two hosts, never forgotten.

Workers join, drain, leave, close and fall silent; agents are created, run, move, fail and end;
time passes. A model of what each host may still believe says who could act for an agent.
"""

from __future__ import annotations

from itertools import count
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from dspex.errors import DspexError
from dspex.foundation.ledger.agents.record import OUTCOMES
from dspex.foundation.ledger.agents.turns import pack_turn
from dspex.foundation.ledger.events import Token
from dspex.foundation.ledger.sessions import HOLDER_SHARE
from dspex.testing.agents_ledger import LEASE, AgentsRun, facts

ADDRESSES = ("a", "b", "c")
KEYS = tuple(f":{name}" for name in "uvxyz")

addresses = st.sampled_from(ADDRESSES)
agents = st.sampled_from(KEYS)
some_agents = st.lists(agents, min_size=1, max_size=4)

specs = st.fixed_dictionaries(
    {
        "persistence": st.sampled_from(["durable", "durable", "cluster_replicated", None]),
        "failover": st.sampled_from(["automatic", "automatic", "manual", "none"]),
        "placement": st.sampled_from(["any_node", "least_loaded", "pack", "spread", "random"]),
        "worker": st.sampled_from([None, None, None, "a"]),
        "same_as": st.sampled_from([None, None, None, ":u"]),
        "amounts": st.sampled_from([{}, {"cpu_cores": 1.0}, {"cpu_cores": 3.0}]),
        "max_restarts": st.sampled_from([None, None, 0, 1]),
        "within": st.sampled_from([1.0, 60.0]),
    }
)


class Agents(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.run = AgentsRun()
        self.run.client()
        self.sender = "sender"
        self.run.client(self.sender)
        self.numbers = count(1)
        self.tokens: dict[str, Token] = {}
        self.states: dict[str, dict[str, bytes]] = {}  # of the durable ones, as was committed
        self.believes: dict[str, tuple[float, dict[str, Token]]] = {}  # {session: (until, agents)}

    @initialize(some=st.lists(specs, min_size=2, max_size=3), count=st.integers(2, 3))
    def begin(self, some: list[dict[str, Any]], count: int) -> None:
        for address in ADDRESSES[:count]:
            self.run.worker(address)
        for key, spec in zip(KEYS, some, strict=False):
            self.run.create(key, **spec)
        self.make_all()

    # --- workers -----------------------------------------------------------------------------

    def is_member(self, address: str) -> bool:
        session = self.run.sessions.get(address)
        return session is not None and self.run.ledger.members.session_at(address) == session

    @rule(address=addresses)
    @precondition(lambda self: not all(map(self.is_member, ADDRESSES)))
    def join(self, address: str) -> None:
        if not self.is_member(address):
            self.run.worker(address)

    @rule(address=addresses, is_expected=st.booleans())
    def close(self, address: str, is_expected: bool) -> None:
        self.run.close(address, is_expected=is_expected)

    @rule(address=addresses)
    def end_process(self, address: str) -> None:
        if not self.is_member(address):
            # An address is that of one process at a time; sessions are named by theirs.
            for session in [each for each in self.believes if each.startswith(f"{address}-")]:
                del self.believes[session]
            self.run.dead(address)

    @rule(address=addresses)
    def leave(self, address: str) -> None:
        if self.is_member(address):
            self.believes.pop(self.run.sessions[address], None)
            self.run.end(self.run.sessions[address])

    @rule(address=addresses)
    def fall_silent(self, address: str) -> None:
        self.run.alive.pop(self.run.sessions.get(address, ""), None)

    @rule(address=addresses, undo=st.booleans())
    def drain(self, address: str, undo: bool) -> None:
        self.try_to("client", "members.drain", address=address, undo=undo)

    @rule(seconds=st.sampled_from([0.2, 0.6, 2.0, 5.0]))
    def pass_time(self, seconds: float) -> None:
        for _ in range(round(seconds / 0.2)):
            self.run.run(0.2)
            for session in self.run.alive:
                # It asks for its lease at least this often.
                self.renewed(session)
            self.no_agent_is_believed_to_be_at_two_hosts()

    def renewed(self, session: str) -> None:
        if session in self.believes:
            _, mine = self.believes[session]
            self.believes[session] = self.run.now + HOLDER_SHARE * LEASE, mine

    def try_to(self, session: str, op: str, **args: Any) -> Any:
        try:
            return self.run.call(session, op, **args)
        except DspexError:
            return None

    # --- agents ------------------------------------------------------------------------------

    @rule(keys=some_agents, spec=specs, conflict=st.sampled_from(["error", "existing"]))
    def create(self, keys: list[str], spec: dict[str, Any], conflict: str) -> None:
        try:
            self.run.create(*keys, on_conflict=conflict, **spec)
        except DspexError:
            return

    @rule(keys=some_agents, goal=st.sampled_from(["", *ADDRESSES]))
    def move(self, keys: list[str], goal: str) -> None:
        self.try_to("client", "agents.move", keys=keys, target=goal)

    @rule(is_done=st.booleans())
    def rebalance(self, is_done: bool) -> None:
        self.try_to("client", "agents.rebalance", dry_run=not is_done, max_moves=3)

    @rule(keys=some_agents)
    def end(self, keys: list[str]) -> None:
        self.try_to("client", "agents.end", keys=keys, reason="enough")
        for key in keys:
            self.forget(key)

    def forget(self, key: str) -> None:
        self.states.pop(key, None)
        for _, mine in self.believes.values():
            mine.pop(key, None)

    @rule(address=addresses, keys=st.none() | some_agents)
    @precondition(lambda self: self.run.ledger.agents._known.held)
    def recover(self, address: str, keys: list[str] | None) -> None:
        self.try_to("client", "agents.recover", worker=address, keys=keys)

    @rule()
    def another_sender(self) -> None:
        """The session of who sent messages ends: nobody knows of them any more."""
        self.run.end(self.sender)
        for key in KEYS:
            agent = self.run.agent(key)
            assert agent is None or agent.dedup is None or not list(agent.dedup.senders())
        self.sender = f"sender-{next(self.numbers)}"
        self.run.client(self.sender)

    # --- hosts -------------------------------------------------------------------------------

    def here(self, address: str) -> list[str]:
        return sorted(self.run.ledger.agents._known.at.get(address, ()))

    def is_any_starting(self) -> bool:
        known = self.run.ledger.agents._known.agents
        return any(agent.status == "starting" for agent in known.values())

    @rule()
    @precondition(is_any_starting)
    def make_all(self) -> None:
        for address in ADDRESSES:
            self.make(address)

    def make(self, address: str) -> None:
        if not self.is_member(address):
            return
        session = self.run.sessions[address]
        keys = [key for key in self.here(address) if self.run.status(key) == "starting"]
        turns = [self.run.turn(key, t=1) for key in keys]
        assert self.run.commit(address, *turns) == []
        _, mine = self.believes.setdefault(session, (0.0, {}))
        for key in keys:
            mine[key] = self.run.agent(key).incarnation
        self.renewed(session)

    @rule(data=st.data())
    @precondition(lambda self: self.believes)
    def run_turns(self, data: st.DataObject) -> None:
        """A host commits what it believes to be its own; some of it is not."""
        session = data.draw(st.sampled_from(sorted(self.believes)))
        _, mine = self.believes[session]
        if not mine:
            return
        keys = data.draw(st.lists(st.sampled_from(sorted(mine)), min_size=1, max_size=3))
        turns: list[dict[str, Any]] = []
        for key in keys:
            number = next(self.numbers)
            changed = {data.draw(st.sampled_from("mn")): b"%d" % number}
            answered = [self.sender, number, 0, True, b"r", 7]
            turns.append({"a": key, "i": mine[key], "s": changed, "r": answered, "n": number})
        refused = self.try_to(session, "agents.commit", turns=list(map(pack_turn, turns)))
        if refused is None:
            return
        self.renewed(session)
        places = {place for place, _ in refused}
        for place, turn in enumerate(turns):
            agent = self.run.agent(turn["a"])
            if place in places:
                continue
            assert agent.host == self.run.ledger.members.address_of(session)
            assert agent.incarnation == turn["i"]
            if agent.spec.persistence is not None:
                self.states.setdefault(turn["a"], {}).update(turn["s"])

    @rule(address=addresses)
    @precondition(
        lambda self: any(
            agent.status == "moving" for agent in self.run.ledger.agents._known.agents.values()
        )
    )
    def let_go(self, address: str) -> None:
        self.last_turns(address, "moving", {"m": b"parcel"})

    @rule(address=addresses)
    def stop_all(self, address: str) -> None:
        for key in self.last_turns(address, "running", {"e": 1}):
            self.forget(key)

    def last_turns(self, address: str, status: str, fields: dict[str, Any]) -> list[str]:
        keys = [key for key in self.here(address) if self.run.status(key) == status]
        if not keys or not self.is_member(address):
            return []
        turns = [self.run.turn(key, **fields) for key in keys]
        assert self.run.commit(address, *turns) == []
        _, mine = self.believes.get(self.run.sessions[address], (0.0, {}))
        for key in keys:
            mine.pop(key, None)
        return keys

    @rule(address=addresses, is_fresh=st.booleans())
    @precondition(is_any_starting)
    def fail(self, address: str, is_fresh: bool) -> None:
        keys = [key for key in self.here(address) if self.run.status(key) == "starting"]
        if not keys or not self.is_member(address):
            return
        key = keys[0]
        self.run.fail(key, token=None if is_fresh else (1, 1))
        if is_fresh:
            for _, mine in self.believes.values():
                mine.pop(key, None)
            if self.run.agent(key) is None:
                self.forget(key)

    @rule(address=addresses, keys=some_agents)
    def retake(self, address: str, keys: list[str]) -> None:
        if self.is_member(address):
            session = self.run.sessions[address]
            self.try_to(session, "agents.retake", keys=keys)
            _, mine = self.believes.get(session, (0.0, {}))
            for key in keys:
                mine.pop(key, None)

    # --- what holds --------------------------------------------------------------------------

    @invariant()
    def no_agent_is_believed_to_be_at_two_hosts(self) -> None:
        found: dict[str, str] = {}
        for session, (until, mine) in self.believes.items():
            if until <= self.run.now:
                continue
            for key, token in mine.items():
                agent = self.run.agent(key)
                if agent is None:
                    continue
                assert key not in found, f"{key} is at {found[key]} and at {session}"
                found[key] = session
                if agent.host and agent.incarnation > token:
                    raise AssertionError(f"{key} is placed anew, and {session} believes in it")

    @invariant()
    def tokens_only_grow(self) -> None:
        for key in KEYS:
            agent = self.run.agent(key)
            if agent is not None and agent.host:
                assert agent.incarnation >= self.tokens.get(key, (0, 0))
                self.tokens[key] = agent.incarnation

    @invariant()
    def what_was_committed_is_there(self) -> None:
        for key, state in self.states.items():
            agent = self.run.agent(key)
            assert agent is not None
            assert agent.state == state

    @invariant()
    def leases_are_those_of_agents_at_hosts(self) -> None:
        ledger = self.run.ledger
        leases = {lease.token: lease.worker for lease in ledger.resources.leases()}
        held = {}
        for agent in ledger.agents._known.agents.values():
            if agent.lease is not None and agent.lease in leases:
                held[agent.lease] = agent.host
            if agent.host and agent.spec.fields["amounts"]:
                assert agent.lease in leases
        assert held == leases
        for worker in ledger.resources.fleet:
            assert worker.free.cpu >= 0

    @invariant()
    def who_waits_for_creations_waits_for_some_that_are_being_made(self) -> None:
        agents = self.run.ledger.agents
        known = agents._known.agents
        for unready in agents._creations._unready.values():
            assert unready
            for key in unready:
                assert not known[key].started
                assert known[key].status not in OUTCOMES

    @invariant()
    def the_journal_says_the_same(self) -> None:
        assert facts(self.run.replayed()) == facts(self.run.ledger)

    def teardown(self) -> None:
        assert facts(self.run.restored()) == facts(self.run.ledger)
        # In the end all that may live again does.
        self.run.run(10.0)
        for address in ADDRESSES:
            if not self.is_member(address):
                self.run.worker(address, cpu_cores=64.0)
            self.try_to("client", "members.drain", address=address, undo=True)
        for _ in range(3):
            self.run.run(4.0)
        known = self.run.ledger.agents._known
        for key in known.waiting:
            agent = self.run.agent(key)
            leader = self.run.agent(agent.spec.fields["same_as"] or "")
            is_crowded = bool(agent.spec.fields["amounts"])
            assert is_crowded or (agent.spec.fields["same_as"] and not (leader and leader.host))
        assert not known.fences
        second = self.run.restarted()
        for key, state in self.states.items():
            if known.agents[key].spec.persistence == "durable":
                assert second.agent(key).state == state


TestAgents = Agents.TestCase
TestAgents.settings = settings(max_examples=60, stateful_step_count=40)
