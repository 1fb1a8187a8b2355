"""A ledger with workers and agents, driven call by call, and its journal.

Knows: the ops of agents, members and sessions. Must not know: callers, servers, what a test is for.

After each step the ledger's invariants are asserted.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, final

from dspex.errors import AgentFailedError, DspexError
from dspex.foundation.ledger.agents.turns import pack_turn
from dspex.foundation.ledger.events import Event
from dspex.foundation.ledger.ledger import Ledger, Step
from dspex.foundation.ledger.sessions import TICK
from dspex.foundation.ledger.wire import Call, error_payload

__all__ = ["LEASE", "AgentsRun", "facts", "spec"]

LEASE = 3.0

CLASS = "c" * 64


def spec(**fields: Any) -> dict[str, Any]:
    """The fields of a creation.

    Examples
    --------
    >>> spec(placement="pack")["placement"]
    'pack'
    """
    return {
        "class": CLASS,
        "name": "C",
        "persistence": None,
        "failover": "automatic",
        "placement": "least_loaded",
        "worker": None,
        "same_as": None,
        "capabilities": [],
        "amounts": {},
        "labels": [],
        "max_restarts": None,
        "within": 60.0,
        "mailbox": 100,
        "overflow": "wait",
        **fields,
    }


def facts(ledger: Ledger) -> dict[str, Any]:
    """All of its agents that a scheduler which comes after it must find.

    What is kept in memory alone counts only in that it is there. When agents were restarted is left
    out: a journal does not say how long ago that was.
    """
    known: Any = ledger.agents._known
    found: dict[str, Any] = {"codes": dict(known.codes), "held": dict(known.held)}
    for key, agent in known.agents.items():
        status = agent.status
        found[key] = {
            "spec": dict(agent.spec.fields),
            "args": agent.args,
            "incarnation": agent.incarnation,
            "host": agent.host,
            "reason": agent.reason,
            "waits": key in known.waiting,
        }
        if agent.spec.persistence is not None:
            found[key]["started"] = agent.started
        if agent.spec.persistence != "durable":
            # That one was made anew is nothing to who has no part of its state.
            status = "running" if status == "starting" else status
        if agent.spec.persistence == "durable":
            found[key] |= {
                "state": agent.state or {},
                "dedup": sorted(agent.dedup.rows()) if agent.dedup else [],
                "outbox": sorted((agent.outbox or {}).values()),
                "sent": agent.sent,
            }
        found[key]["status"] = status
    return found


@final
class AgentsRun:
    """A ledger, its clock and its journal.

    Parameters
    ----------
    term : int
    journal : list of Step, optional
        Of the ledgers before it.

    Examples
    --------
    >>> run = AgentsRun()
    >>> run.worker("a")
    >>> run.client()
    >>> run.create(":x"), run.status(":x")
    (None, 'starting')
    >>> run.made(":x")
    >>> run.status(":x"), run.host(":x")
    ('running', 'a')
    """

    def __init__(self, term: int = 1, journal: list[Step] | None = None) -> None:
        self.ledger = Ledger(term=term)
        self.now = 1000.0 * term
        self.journal: list[Step] = []
        self.numbers: dict[str, int] = {}
        self.sessions: dict[str, str] = {}  # {address: session of the member there}
        self.alive: dict[str, None] = {}
        self.count = 0
        for step in journal or ():
            self.ledger.replay(step.revision, step.events, self.now)
            self.journal.append(step)
        if journal:
            self.keep(self.ledger.recovered(self.now))

    def keep(self, step: Step) -> Step:
        """Write a step into the journal."""
        if step.events:
            self.journal.append(step)
        self.ledger.validate()
        return step

    def step(self, session: str, op: str, **args: Any) -> Step:
        """Make a numbered call."""
        number = self.numbers[session] = self.numbers.get(session, 100_000 * self.ledger.term) + 1
        return self.keep(self.ledger.handle(session, 1, Call(number, op, args), now=self.now))

    def call(self, session: str, op: str, **args: Any) -> Any:
        """Make a numbered call; gives its reply, or raises it."""
        return _unpacked(self.step(session, op, **args))

    def ask(self, session: str, op: str, **args: Any) -> Any:
        """Make a call without a number."""
        step = self.ledger.handle(session, 1, Call(None, op, args), now=self.now)
        return _unpacked(self.keep(step))

    # --- who is there ------------------------------------------------------------------------

    def client(self, session: str = "client") -> None:
        """Open a session."""
        self.ask(session, "session.open", kind="client", name="n", lease=LEASE)
        self.alive[session] = None

    def worker(
        self,
        address: str,
        *,
        name: str = "",
        host: str = "h",
        labels: Iterable[str] = (),
        **capacity: float,
    ) -> None:
        """Have a worker join, with another session each time."""
        self.count += 1
        session = self.sessions[address] = f"{address}-{self.ledger.term}-{self.count}"
        self.ask(session, "session.open", kind="worker", name="n", lease=LEASE)
        self.alive[session] = None
        measured = {"cpu_cores": 4.0, "memory_gb": 8.0, "gpus": 0.0, **capacity}
        self.call(
            session,
            "members.join",
            address=address,
            name=name or f"name-{address}",
            host=host,
            capacity={**measured, "labels": list(labels)},
        )

    def close(self, address: str, *, is_expected: bool = False) -> Step:
        """Have the connection of a worker close."""
        self.alive.pop(self.sessions.get(address, ""), None)
        return self.keep(self.ledger.worker_closed(address, is_expected=is_expected, now=self.now))

    def dead(self, address: str) -> Step:
        """Have the process of a worker end."""
        return self.keep(self.ledger.worker_dead(address, self.now))

    def end(self, session: str) -> None:
        """Have a session close itself."""
        self.alive.pop(session, None)
        self.ask(session, "session.close", reason="a test")

    def run(self, seconds: float) -> list[Event]:
        """Let time pass, in which those who are alive renew their sessions."""
        events: list[Event] = []
        for tick in range(round(seconds / TICK)):
            self.now += TICK
            events += self.keep(self.ledger.tick(self.now)).events
            for session in list(self.alive) if tick % 3 == 0 else ():
                self.ask(session, "session.renew")
        return events

    # --- agents --------------------------------------------------------------------------------

    def create(
        self,
        *keys: str,
        session: str = "client",
        on_conflict: str = "error",
        **fields: Any,
    ) -> Any:
        """Create agents; None while the call waits for them."""
        return self.call(
            session,
            "agents.create",
            spec=spec(**fields),
            code=b"code",
            agents=[[key, b"args"] for key in keys],
            on_conflict=on_conflict,
        )

    def answers(self, session: str = "client") -> list[tuple[int, bool, Any]]:
        """Replies to calls that waited: (number, whether it succeeded, reply)."""
        return self.ledger.settled(session, [])

    def agent(self, key: str) -> Any:
        """What the ledger keeps of an agent."""
        return self.ledger.agents._known.agents.get(key)

    def host(self, key: str) -> str:
        """Where an agent is."""
        return str(self.agent(key).host)

    def status(self, key: str) -> str:
        """How it is."""
        return str(self.agent(key).status)

    def reason(self, key: str) -> str:
        """Why it is nowhere."""
        return str(self.agent(key).reason)

    def turn(self, key: str, **fields: Any) -> bytes:
        """A turn of an agent as it is now."""
        return pack_turn({"a": key, "i": self.agent(key).incarnation, **fields})

    def commit(self, address: str, *turns: bytes) -> Any:
        """Commit turns at a host; gives those that were refused, and why."""
        return self.call(self.sessions[address], "agents.commit", turns=list(turns))

    def made(self, *keys: str, **fields: Any) -> None:
        """Have the hosts of agents say that they are made."""
        for key in keys:
            assert self.commit(self.host(key), self.turn(key, t=1, **fields)) == []

    def fail(self, key: str, *, token: Any = None, address: str = "") -> None:
        """Have a host, its own if none is given, say that it could not make an agent."""
        error = error_payload(AgentFailedError("its constructor raised"))
        failure = [key, token or self.agent(key).incarnation, error, "it raised"]
        session = self.sessions[address or self.host(key)]
        assert self.call(session, "agents.fail", failures=[failure])

    def running(self, *keys: str, **fields: Any) -> None:
        """Create agents, and have them made."""
        self.create(*keys, **fields)
        self.made(*keys)

    # --- again ---------------------------------------------------------------------------------

    def replayed(self) -> Ledger:
        """Another ledger, made from the journal."""
        made = Ledger(term=self.ledger.term)
        for step in self.journal:
            made.replay(step.revision, step.events, self.now)
        made.validate()
        return made

    def restored(self) -> Ledger:
        """Another ledger, made from a snapshot."""
        made = Ledger(term=self.ledger.term)
        made.replay(self.ledger.revision, list(self.ledger.dump()), self.now)
        made.validate()
        return made

    def restarted(self) -> AgentsRun:
        """The next scheduler, with the journal of this one."""
        return AgentsRun(self.ledger.term + 1, list(self.journal))


def _unpacked(step: Step) -> Any:
    if isinstance(step.reply, DspexError):
        raise step.reply
    return step.reply
