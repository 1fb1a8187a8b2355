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
    AgentFailedError,
    InvalidRequestError,
    SessionExpiredError,
)
from dspex.foundation.agents.dedup import BY_KEY
from dspex.foundation.ledger.agents.balancing import Better, better_places
from dspex.foundation.ledger.agents.border import (
    checked_agents,
    checked_failure,
    refuse_taken,
)
from dspex.foundation.ledger.agents.creations import Creations
from dspex.foundation.ledger.agents.losses import Losses
from dspex.foundation.ledger.agents.placing import Placing
from dspex.foundation.ledger.agents.population import TAGS, Population
from dspex.foundation.ledger.agents.reading import Reading
from dspex.foundation.ledger.agents.record import NO_ROOM, NOWHERE, OUTCOMES, Agent, Spec
from dspex.foundation.ledger.agents.turns import checked_head, unpack_turn
from dspex.foundation.ledger.amounts import NOTHING
from dspex.foundation.ledger.events import Emit, Event, Token
from dspex.foundation.ledger.members import Members
from dspex.foundation.ledger.resources import Resources
from dspex.foundation.ledger.sessions import Sessions
from dspex.foundation.ledger.wire import error_payload

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

    tags = TAGS | {"member", "free"}

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
        self._is_followed = False  # whether any waits for another to be placed
        self._creations = Creations()
        self.reading = Reading(self._known, members, resources.fleet)
        self.losses = Losses(self._known, self.reading, self.place, self._never_made)

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
        if call in self._creations:
            return None
        spec = Spec.checked(fields)
        agents = checked_agents(made)
        known = self._known.agents
        there = {key: known[key].spec.name for key, _ in agents if key in known}
        refuse_taken(there, spec.name, is_welcome=on_conflict == "existing")
        if len(known) + len(agents) - len(there) > MAX_AGENTS:
            raise InvalidRequestError(f"there are at most {MAX_AGENTS:,} agents; stop some")
        if spec.fields["class"] not in self._known.codes and code is None:
            raise InvalidRequestError("a class that is new here is sent along")
        spec.refuse_impossible(self._resources.fleet)
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
            return {"failed": []}
        self._creations.wait(call, unready)
        return None

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
            worker = self._placing.at(agent, target) or self._placing.choose(
                agent, taken, except_of
            )
            if worker is None:
                stranded.append(key)
                self._is_followed |= agent.spec.fields["same_as"] is not None
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
        if (groups and self._is_followed) or (stranded and except_of):
            # Where one was placed another may follow; one that left may come back.
            self._is_settled = False
        new = [key for key in stranded if key not in self._known.waiting]
        if new:
            emit(("placed", "", "waiting", NO_ROOM, NOWHERE, new))

    def settle(self, token: Callable[[], Token], emit: Emit) -> None:
        """Place those that wait, if something has changed since it was tried last."""
        if not self._is_settled:
            self._is_settled, self._is_followed = True, False
            if self._known.waiting and self._resources.fleet.addresses:
                self.place(list(self._known.waiting), token, emit)

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
            agent = self.reading.get(key)
            if agent.status in ("running", "starting") and agent.host != target:
                groups.setdefault(agent.host, []).append(key)
        for host, some in groups.items():
            emit(("moving", host, target, some))
        return [key for some in groups.values() for key in some]

    def rebalance(self, most: int | None, emit: Emit, *, is_done: bool) -> list[Better]:
        """Find agents that would be better off elsewhere, and have them move, or not."""
        moves = better_places(self._known.agents, self._resources.fleet, most)
        for each in moves if is_done else ():
            emit(("moving", each.source, each.target, [each.key]))
        return moves

    def end(self, keys: Iterable[str], reason: str, emit: Emit) -> int:
        """Stop agents, wherever they are; gives how many there were."""
        groups: dict[str, list[str]] = {}
        for key in dict.fromkeys(keys):
            agent = self._known.agents.get(key)
            if agent is not None:
                groups.setdefault(agent.host, []).append(key)
        for host, some in groups.items():
            for key in some:
                self._free(self._known.agents[key], emit)
            emit(("ended", host, reason, some))
            self._never_made(some, reason, emit)
        return sum(map(len, groups.values()))

    def _never_made(self, keys: Sequence[str], words: str, emit: Emit) -> None:
        """Tell those who wait for agents, if any do, that they will not be made."""
        error = AgentFailedError(f"an agent is created when it was made; before that: {words}")
        self._creations.made(keys, emit, error_payload(error))

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
        heads: list[Any] = []  # one behind the other, or they were thousands of tuples
        for blob in turns:
            heads += checked_head(blob)
        address = self._host_of(session)
        refused: list[tuple[int, str]] = []
        broken: set[str] = set()
        durable: list[bytes] = []
        made: list[str] = []
        leaving: list[str] = []
        ended: list[str] = []
        known = self._known.agents
        for index, (key, term, n, sender, marks) in enumerate(zip(*[iter(heads)] * 5, strict=True)):
            agent = known.get(key)
            if agent is None or agent.host != address or agent.incarnation != (term, n):
                refused.append((index, "fenced"))
                continue
            if sender and not self._is_alive(sender):
                # All of them at once: for each that comes again the agent would be made anew.
                refused.append((index, "sender"))
                broken.add(key)
                continue
            if key in broken:
                refused.append((index, "fenced"))
                continue
            if agent.spec.persistence == "durable":
                durable.append(turns[index])
            else:
                if "t" in marks and agent.is_remembered and not agent.started:
                    emit(("started", [key]))
                self._known.take(unpack_turn(turns[index]))
            if not marks:
                continue
            if "t" in marks:
                made.append(key)
                agent.parcel = None
            if "m" in marks:
                leaving.append(key)
                agent.parcel = unpack_turn(turns[index])["m"]
                broken.add(key)
            elif "e" in marks:
                ended.append(key)
                broken.add(key)
        if durable:
            emit(("turns", durable))
        if made:
            self._creations.made(made, emit)
        if ended:
            self.end(ended, "stopped", emit)
        if leaving:
            for key in leaving:
                self._free(known[key], emit)
            self.place(leaving, token, emit, except_of=(address,))
        return refused

    def is_any_durable(self, turns: Any) -> bool:
        """Whether any of these turns is of an agent whose state is in the journal."""
        for blob in turns if isinstance(turns, list | tuple) else ():
            agent = self._known.agents.get(checked_head(blob)[0])
            if agent is not None and agent.spec.persistence == "durable":
                return True
        return False

    def _is_alive(self, sender: str) -> bool:
        if sender.startswith("agent:"):
            return sender[6:] in self._known.agents
        if sender.startswith(BY_KEY):
            return True
        return self._sessions.is_open(sender)

    def _host_of(self, session: str) -> str:
        address = self._members.address_of(session)
        if address is None:
            # Whoever makes calls must not take it for the end of a session that has not joined yet.
            raise SessionExpiredError(
                f"agents are hosted by members; {session} is the session of none (any more)",
                is_open=True,
            )
        return address

    def fail(
        self,
        session: str,
        failures: Sequence[Any],
        emit: Emit,
    ) -> None:
        """Take note of agents that a host could not make: (key, incarnation, error, words)."""
        checked = [checked_failure(each) for each in failures]
        address = self._host_of(session)
        for key, incarnation, payload, words in checked:
            agent = self._known.agents.get(key)
            if agent is None or agent.host != address or agent.incarnation != incarnation:
                continue
            self._creations.made([key], emit, payload)
            if agent.started:
                self._free(agent, emit)
                emit(("placed", "", "failed", words, NOWHERE, [key]))
            else:
                self.end([key], "it could not be made", emit)

    def retake(
        self, session: str, keys: Iterable[str], token: Callable[[], Token], emit: Emit
    ) -> None:
        """Have the host of agents make them anew, from what was committed."""
        address = self._host_of(session)
        mine = self._known.at.get(address, ())
        some = [key for key in dict.fromkeys(keys) if key in mine]
        worker = self._resources.fleet.get(address)
        if worker is not None and worker.state == "draining":
            for key in some:
                self._free(self._known.agents[key], emit)
            self.place(some, token, emit, except_of=(address,))
        elif some:
            emit(("placed", address, "starting", "", token(), some))

    def report(self, session: str, loads: Mapping[str, int]) -> None:
        """Take the lengths of the mailboxes at a host that are not empty."""
        self.reading.loads[self._host_of(session)] = loads

    # --- the state ---------------------------------------------------------------------------

    def cancel(self, call: _Call) -> None:
        """Forget a creation that nobody waits for any more; its agents stay."""
        self._creations.cancel(call)

    def session_gone(self, session: str) -> None:
        """Forget who waits for agents to be made."""
        self._creations.session_gone(session)

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
