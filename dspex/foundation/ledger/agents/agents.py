"""Agents: who may be created, where each is placed, whose turns count.

Knows: members, free capacity, open sessions, policies. Must not know: clocks, messages, what an
agent is made of.

The record of an agent's place is the commit point of every move: a turn counts if it comes from
the session of the host that the record names, with the incarnation that the record names. When a
host's session ends, what its former incarnation still sends is refused without any clock.

::

                 placed                    made                move, drain
    waiting  ────────────▶  starting  ────────────▶  running  ────────────▶  moving
       ▲                        │                       │                       │ let go
       └────────────────────────┴───────────────────────┴───────────────────────┘
         the host is gone: at once where it is known dead, else after its lease; by policy on
         request (manual), or never (none: lost)
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, final

from dspex.errors import (
    AgentExistsError,
    AgentNotFoundError,
    InvalidRequestError,
    SessionExpiredError,
    UnsatisfiableRequestError,
)
from dspex.foundation.ledger.agents.placing import Placing
from dspex.foundation.ledger.agents.population import Population
from dspex.foundation.ledger.agents.record import NOWHERE, OUTCOMES, Agent, Spec
from dspex.foundation.ledger.amounts import NOTHING
from dspex.foundation.ledger.events import Emit, Event, Token
from dspex.foundation.ledger.members import Members
from dspex.foundation.ledger.resources import Resources
from dspex.foundation.ledger.sessions import Sessions

__all__ = ["Agents"]

_Call = tuple[str, int]

MAX_AGENTS = 2_000_000

_KIND = "agent"
"""Of the leases of agents."""


@final
class Agents:
    """The part of the ledger that decides about agents.

    Parameters
    ----------
    sessions : Sessions
    members : Members
    resources : Resources
    """

    tags = frozenset(
        {
            "code",
            "agents",
            "placed",
            "moving",
            "fenced",
            "held",
            "restarted",
            "turns",
            "started",
            "ended",
            "kept",
            "gone",
            "member",
            "free",
        }
    )

    def __init__(self, sessions: Sessions, members: Members, resources: Resources) -> None:
        self._sessions = sessions
        self._members = members
        self._resources = resources
        self._known = Population()
        self._placing = Placing(
            resources.fleet,
            lambda address: len(self._known.at.get(address, ())),
            lambda key: self._known.agents[key].host if key in self._known.agents else "",
        )
        self._is_settled = True
        self._unready: dict[_Call, set[str]] = {}
        self._creations: dict[str, list[_Call]] = {}
        self._failures: dict[_Call, list[Any]] = {}
        self._loads: dict[str, Mapping[str, int]] = {}

    # --- reading -----------------------------------------------------------------------------

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._known.agents)

    def count_at(self, address: str) -> int:
        """How many are at a host."""
        return len(self._known.at.get(address, ()))

    def census(self) -> dict[str, Any]:
        """How many are in which state, and who waits for what."""
        states: dict[str, int] = {}
        waiting: dict[str, str] = {}
        for key, agent in self._known.agents.items():
            states[agent.status] = states.get(agent.status, 0) + 1
            if not agent.host and len(waiting) < 100:
                waiting[key] = f"{agent.status}: {agent.reason}"
        return {"states": states, "unplaced": waiting}

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

    def load(self, session: str, keys: Iterable[str]) -> list[Any]:
        """All that the host of a session needs to make its agents; None of those not its own."""
        address = self._members.address_of(session)
        return [
            self._parcel(agent)
            if (agent := self._known.agents.get(key)) is not None and agent.host == address
            else None
            for key in keys
        ]

    @staticmethod
    def _parcel(agent: Agent) -> dict[str, Any]:
        return {
            "token": agent.incarnation,
            "spec": agent.spec.fields,
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
        load = self._loads.get(agent.host, {}).get(agent.key, 0)
        worker = self._resources.fleet.get(agent.host)
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

    # --- creating ----------------------------------------------------------------------------

    def create(
        self,
        call: _Call,
        fields: Mapping[str, Any],
        code: bytes | None,
        made: Sequence[Any],
        on_conflict: str,
        *,
        token: Callable[[], Token],
        emit: Emit,
    ) -> dict[str, Any] | None:
        """Create agents, and give them places; None while they are being made.

        Raises
        ------
        InvalidRequestError, AgentExistsError, UnsatisfiableRequestError
        """
        if call in self._unready:
            return None
        spec = Spec.checked(fields)
        agents = [_checked_agent(each) for each in made]
        if len({key for key, _ in agents}) < len(agents):
            raise InvalidRequestError("an id is given once in a creation; got one twice")
        known = self._known.agents
        there = [key for key, _ in agents if key in known]
        if there and on_conflict != "existing":
            raise AgentExistsError(
                f"an id names one agent; {there[0].partition(':')[2]!r} is there already"
                + (f", and {len(there) - 1} more" if len(there) > 1 else "")
                + '; use another id, or on_conflict="existing"'
            )
        other = [key for key in there if known[key].spec.name != spec.name]
        if other:
            raise AgentExistsError(
                f"an existing agent is taken if it is of the same class; {other[0]!r} is a "
                f"{known[other[0]].spec.name}, not a {spec.name}; use another id"
            )
        if len(known) + len(agents) - len(there) > MAX_AGENTS:
            raise InvalidRequestError(f"there are at most {MAX_AGENTS:,} agents; stop some")
        if spec.fields["class"] not in self._known.codes and code is None:
            raise InvalidRequestError("a class that is new here is sent along")
        self._refuse_impossible(spec)
        new = [each for each in agents if each[0] not in known]
        if new:
            if spec.fields["class"] not in self._known.codes:
                emit(("code", spec.fields["class"], code))
            emit(("agents", dict(fields), call, new))
            self.place([key for key, _ in new], token, emit)
        unready = {
            key for key, _ in agents if not known[key].started and known[key].status not in OUTCOMES
        }
        if not unready:
            return {"created": len(new), "failed": []}
        self._unready[call] = unready
        for key in unready:
            self._creations.setdefault(key, []).append(call)
        return None

    def cancel(self, call: _Call) -> None:
        """Forget a creation that nobody waits for any more; its agents stay."""
        self._unready.pop(call, None)
        self._failures.pop(call, None)

    def _refuse_impossible(self, spec: Spec) -> None:
        fleet = self._resources.fleet
        if len(fleet) and not fleet.could_give(spec.amounts, spec.labels):
            raise UnsatisfiableRequestError(
                f"no worker could give {spec.amounts} for an agent"
                + (f" with the labels {sorted(spec.labels)}" if spec.labels else "")
                + " if it were idle; ask for less, or add larger workers"
            )

    def _is_made(self, keys: Iterable[str], emit: Emit, failure: Any = None) -> None:
        """Tell those who wait for agents that they are made, or cannot be."""
        for key in keys:
            for call in self._creations.pop(key, ()):
                unready = self._unready.get(call)
                if unready is None:
                    continue
                unready.discard(key)
                if failure is not None:
                    self._failures.setdefault(call, []).append([key, failure])
                if not unready:
                    del self._unready[call]
                    failed = self._failures.pop(call, [])
                    emit(("reply", *call, True, {"created": 0, "failed": failed}))

    # --- placing -----------------------------------------------------------------------------

    def place(
        self,
        keys: Iterable[str],
        token: Callable[[], Token],
        emit: Emit,
        except_of: Collection[str] = (),
    ) -> None:
        """Give agents places; those for which there is none wait."""
        groups: dict[str, list[str]] = {}
        taken: dict[str, int] = {}
        stranded: list[str] = []
        for key in keys:
            agent = self._known.agents[key]
            target = self._known.targets.get(key)
            found = self._resources.fleet.get(target) if target else None
            worker = (
                found
                if found is not None and found.state == "up"
                else self._placing.choose(agent, taken, except_of)
            )
            if worker is None:
                stranded.append(key)
                continue
            address = worker.address
            groups.setdefault(address, []).append(key)
            taken[address] = taken.get(address, 0) + 1
            if agent.spec.amounts != NOTHING:
                session = self._members.session_at(address)
                assert session is not None
                agent.lease = self._resources.give(
                    session, address, _KIND, agent.spec.amounts, agent.spec.labels, token, emit
                )
        if groups:
            incarnation = token()
            for address, some in groups.items():
                emit(("placed", address, "starting", "", incarnation, some))
        new = [key for key in stranded if key not in self._known.waiting]
        if new:
            reason = "for a worker that is up and has room"
            emit(("placed", "", "waiting", reason, NOWHERE, new))

    def settle(self, token: Callable[[], Token], emit: Emit) -> None:
        """Place those that wait, if something has changed since it was tried last."""
        if not self._is_settled:
            self._is_settled = True
            if self._known.waiting and self._resources.fleet.addresses:
                self.place(list(self._known.waiting), token, emit)

    def pass_time(self, now: float, token: Callable[[], Token], emit: Emit) -> None:
        """Place those whose former host can believe in its lease no more."""
        for address, (due, _) in list(self._known.fences.items()):
            if due <= now:
                self._lift(address, token, emit)

    def known_dead(self, address: str, token: Callable[[], Token], emit: Emit) -> None:
        """Take note that the process of a host has ended."""
        if address in self._known.fences:
            self._lift(address, token, emit)

    def _lift(self, address: str, token: Callable[[], Token], emit: Emit) -> None:
        _, fenced = self._known.fences.pop(address)
        keys = [key for key in fenced if self._is_fenced(key)]
        manual = [key for key in keys if self._known.agents[key].spec.failover == "manual"]
        if manual:
            emit(("held", address, manual))
        self.place([key for key in keys if key not in self._known.held], token, emit)

    def _is_fenced(self, key: str) -> bool:
        agent = self._known.agents.get(key)
        return agent is not None and agent.status == "waiting" and key not in self._known.waiting

    # --- hosts that go -----------------------------------------------------------------------

    def host_gone(self, address: str, fence: float, token: Callable[[], Token], emit: Emit) -> None:
        """Take the agents of a host that is gone elsewhere, each by its policy.

        Parameters
        ----------
        address : str
        fence : float
            Seconds for which it may still believe in its lease; 0.0 where it cannot.
        """
        self._loads.pop(address, None)
        keys = list(self._known.at.get(address, ()))
        if not keys:
            return
        lost, failed, manual, others = [], [], [], []
        for key in keys:
            agent = self._known.agents[key]
            limit = agent.spec.fields["max_restarts"]
            if agent.spec.failover == "none" and agent.started:
                lost.append(key)
            elif limit is not None and len(agent.restarts) >= limit:
                failed.append(key)
            elif agent.spec.failover == "manual" and agent.started and not fence:
                manual.append(key)
            else:
                others.append(key)
        if lost:
            reason = f'its worker {address} was lost, and its failover is "none"'
            emit(("placed", "", "lost", reason, NOWHERE, lost))
        if failed:
            reason = f"it was restarted as often as its policy allows; last, {address} was lost"
            emit(("placed", "", "failed", reason, NOWHERE, failed))
        if manual:
            emit(("held", address, manual))
        if others:
            limited = [
                key
                for key in others
                if self._known.agents[key].spec.fields["max_restarts"] is not None
            ]
            if limited:
                emit(("restarted", limited))
            if fence:
                emit(("fenced", address, fence, others))
            else:
                self.place(others, token, emit)

    def recover(
        self,
        address: str,
        keys: Sequence[str] | None,
        token: Callable[[], Token],
        emit: Emit,
    ) -> list[str]:
        """Place agents that wait for a request; gives their keys.

        Raises
        ------
        AgentNotFoundError
        InvalidRequestError
            Where one does not wait for it.
        """
        held = self._known.held
        if keys is None:
            keys = [key for key, lost in held.items() if lost == address]
        for key in keys:
            agent = self.get(key)
            if held.get(key) != address:
                raise InvalidRequestError(
                    f"what is recovered waits for it since {address} was lost; the agent {key!r} "
                    f"is {agent.status}{': ' * bool(agent.reason)}{agent.reason}"
                )
        self.place(keys, token, emit)
        return list(keys)

    def lose_what_was_in_memory(self, emit: Emit) -> None:
        """After a restart of the scheduler: what only the former one had is lost, and not fresh."""
        lost = [
            key
            for key, agent in self._known.agents.items()
            if agent.spec.persistence == "cluster_replicated"
            and agent.started
            and agent.status not in OUTCOMES
        ]
        if lost:
            reason = "its state was in the memory of a scheduler that is no more"
            emit(("placed", "", "lost", reason, NOWHERE, lost))

    # --- moves, ends -------------------------------------------------------------------------

    def move(self, keys: Iterable[str], target: str, emit: Emit) -> list[str]:
        """Have hosts let agents go; gives the keys of those that will.

        Raises
        ------
        AgentNotFoundError
        InvalidRequestError
        """
        worker = self._resources.fleet.get(target)
        if target and (worker is None or worker.state != "up"):
            raise InvalidRequestError(
                f"an agent moves to a worker that is up; {target!r} is "
                f"{worker.state if worker else 'no member'}; see members()"
            )
        groups: dict[str, list[str]] = {}
        for key in keys:
            agent = self.get(key)
            if agent.status in ("running", "starting") and agent.host != target:
                groups.setdefault(agent.host, []).append(key)
        for host, some in groups.items():
            emit(("moving", host, target, some))
        return [key for some in groups.values() for key in some]

    def keys_at(self, address: str) -> list[str]:
        """Keys of the agents at a host."""
        return list(self._known.at.get(address, ()))

    def end(self, keys: Iterable[str], reason: str, emit: Emit) -> int:
        """Stop agents, wherever they are; gives how many there were."""
        groups: dict[str, list[str]] = {}
        for key in keys:
            agent = self._known.agents.get(key)
            if agent is not None:
                groups.setdefault(agent.host, []).append(key)
        for host, some in groups.items():
            for key in some:
                self._free(self._known.agents[key], emit)
            emit(("ended", host, reason, some))
        return sum(map(len, groups.values()))

    def _free(self, agent: Agent, emit: Emit) -> None:
        if agent.lease is not None and self._resources.verify(agent.lease):
            emit(("free", agent.lease, "its agent left"))
        agent.lease = None

    # --- what hosts say ----------------------------------------------------------------------

    def commit(
        self,
        session: str,
        turns: Sequence[Any],
        token: Callable[[], Token],
        emit: Emit,
    ) -> list[tuple[int, str]]:
        """Take turns, in order; gives the places of those that do not count, and why.

        "fenced": the agent is not at this host, or not as this incarnation. "sender": the session
        that sent the message is not known to be alive, so nobody could tell a repetition.

        Raises
        ------
        SessionExpiredError
            Where the session is that of no host.
        """
        address = self._host_of(session)
        for turn in turns:
            _check_turn(turn)
        refused: list[tuple[int, str]] = []
        broken: set[str] = set()
        durable: list[Mapping[str, Any]] = []
        made: list[str] = []
        leaving: list[str] = []
        ended: list[str] = []
        known = self._known.agents
        for index, turn in enumerate(turns):
            key = turn["a"]
            agent = known.get(key)
            if (
                agent is None
                or agent.host != address
                or agent.incarnation != tuple(turn["i"])
                or key in broken
            ):
                refused.append((index, "fenced"))
                continue
            answered = turn.get("r")
            if answered is not None and not self._is_alive(answered[0]):
                refused.append((index, "sender"))
                broken.add(key)
                continue
            if agent.spec.persistence == "durable":
                durable.append(turn)
            else:
                if "t" in turn and agent.spec.persistence and not agent.started:
                    emit(("started", [key]))
                self._known.take(turn)
            if "t" in turn:
                made.append(key)
                agent.parcel = None
            if "m" in turn:
                leaving.append(key)
                agent.parcel = turn["m"]
                broken.add(key)
            elif "e" in turn:
                ended.append(key)
                broken.add(key)
        if durable:
            emit(("turns", durable))
        if made:
            self._is_made(made, emit)
        if ended:
            self.end(ended, "stopped", emit)
        if leaving:
            for key in leaving:
                self._free(known[key], emit)
            self.place(leaving, token, emit, except_of=(address,))
        return refused

    def _is_alive(self, sender: str) -> bool:
        if sender.startswith("agent:"):
            return sender[6:] in self._known.agents
        return self._sessions.is_open(sender)

    def _host_of(self, session: str) -> str:
        address = self._members.address_of(session)
        if address is None:
            raise SessionExpiredError(
                f"agents are hosted by members; {session} is the session of none (any more)"
            )
        return address

    def fail(
        self,
        session: str,
        failures: Sequence[Any],
        emit: Emit,
    ) -> None:
        """Take note of agents that a host could not make: (key, incarnation, error, words)."""
        address = self._host_of(session)
        for key, incarnation, payload, words in failures:
            agent = self._known.agents.get(key)
            if agent is None or agent.host != address or agent.incarnation != tuple(incarnation):
                continue
            if agent.started:
                self._free(agent, emit)
                emit(("placed", "", "failed", words, NOWHERE, [key]))
            else:
                self.end([key], "it could not be made", emit)
            self._is_made([key], emit, payload)

    def retake(
        self, session: str, keys: Iterable[str], token: Callable[[], Token], emit: Emit
    ) -> None:
        """Have the host of agents make them anew, from what was committed."""
        address = self._host_of(session)
        mine = self._known.at.get(address, ())
        some = [key for key in keys if key in mine]
        if some:
            emit(("placed", address, "starting", "", token(), some))

    def report(self, session: str, loads: Mapping[str, int]) -> None:
        """Take the lengths of the mailboxes at a host that are not empty."""
        self._loads[self._host_of(session)] = loads

    # --- the state ---------------------------------------------------------------------------

    def session_gone(self, session: str) -> None:
        """Forget who waits for agents to be made."""
        for call in [each for each in self._unready if each[0] == session]:
            self.cancel(call)

    def apply(self, event: Event, now: float) -> None:
        """Take what happened."""
        if event[0] in ("member", "free"):
            self._is_settled = False
        else:
            self._known.apply(event, now)

    def dump(self) -> Iterator[Event]:
        """Events that make the agents as they are now."""
        return self._known.dump()

    def validate(self) -> None:
        """Assert the invariants."""
        self._known.validate()
        for address, keys in self._known.at.items():
            for key in keys:
                assert self._known.agents[key].host == address


def _checked_agent(made: Any) -> tuple[str, bytes]:
    if isinstance(made, list | tuple) and len(made) == 2:
        key, args = made
        is_key = isinstance(key, str) and 2 <= len(key) <= 512 and key.isprintable() and ":" in key
        if is_key and isinstance(args, bytes):
            return key, args
    raise InvalidRequestError(
        f"an agent is a key of at most 512 printable characters and its arguments; got {made!r:.80}"
    )


def _check_turn(turn: Any) -> None:
    if not (
        isinstance(turn, dict)
        and isinstance(turn.get("a"), str)
        and isinstance(turn.get("i"), list | tuple)
        and isinstance(turn.get("s", {}), dict)
        and isinstance(turn.get("d", ()), list | tuple)
        and isinstance(turn.get("k", ()), list | tuple)
        and isinstance(turn.get("n", 0), int)
        and _is_answer(turn.get("r"))
        and all(
            isinstance(each, list | tuple) and len(each) == 5 and isinstance(each[0], int)
            for each in turn.get("o", ())
        )
    ):
        raise InvalidRequestError(f"a turn is a map of what it changed; got {turn!r:.120}")


def _is_answer(answer: Any) -> bool:
    return answer is None or (
        isinstance(answer, list | tuple)
        and len(answer) == 6
        and isinstance(answer[0], str)
        and isinstance(answer[1], int)
        and isinstance(answer[2], int)
        and (answer[4] is None or isinstance(answer[4], bytes))
    )
