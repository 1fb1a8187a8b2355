"""One turn of the ledger: the parts, what happened to them in it, and what follows from what.

Knows: all parts, and that the end of a session or a worker takes along what it held.
Must not know: ops, requests, who asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, final

from dspex.foundation.ledger.agents.agents import Agents
from dspex.foundation.ledger.events import Event, Part, Token
from dspex.foundation.ledger.locks import Locks
from dspex.foundation.ledger.members import Members
from dspex.foundation.ledger.rates import Rates
from dspex.foundation.ledger.records import Records
from dspex.foundation.ledger.resources import Resources
from dspex.foundation.ledger.sessions import Sessions

__all__ = ["Turn"]

_REVISIONS = 2**32
"""More than there are in one term, and over all terms versions stay below 2**53."""

_Call = tuple[str, int]
"""(session, number)"""


@final
class Turn:
    """The ledger's parts, and the turn that is under way.

    Attributes
    ----------
    revision : int
        Of the last turn that changed something.
    now : float
    events : list of event
        What happened in this turn so far.
    depends : int or None
        The revision that the reply needs to be committed; None: all there is.
    waiting : set of (session, number)
        Calls that will be answered in a later turn.
    settled : dict of session to dict of number to (whether it succeeded, reply)
        Those that were, until the session says that it has seen the reply.
    orphans : set of str
        Sessions of workers of a former scheduler, which may keep what they hold and not go on.
    """

    def __init__(self, term: int) -> None:
        self.term = term
        self.sessions = Sessions()
        self.members = Members()
        self.records = Records()
        self.resources = Resources()
        self.locks = Locks()
        self.agents = Agents(self.sessions, self.members, self.resources)
        self.rates = Rates()
        # Leases lie on workers, so in a snapshot members come first.
        self.parts: list[Part] = [
            self.sessions,
            self.members,
            self.records,
            self.resources,
            self.locks,
            self.agents,
        ]
        self._appliers: dict[str, list[Callable[[Event, float], None]]] = {}
        for part in self.parts:
            for tag in part.tags:
                self._appliers.setdefault(tag, []).append(part.apply)
        self._tokens = 0
        self.revision = 0
        self.now = 0.0
        self.events: list[Event] = []
        self.depends: int | None = None
        self.waiting: set[_Call] = set()
        self.settled: dict[str, dict[int, tuple[bool, Any]]] = {}
        self.orphans: set[str] = set()

    def begin(self, now: float) -> None:
        """Begin another turn."""
        self.now = now
        self.events = []
        self.depends = None

    def emit(self, event: Event) -> None:
        """Have something happen."""
        self.route(event, self.now)
        self.events.append(event)
        if event[0] == "reply" and (event[1], event[2]) in self.waiting:
            _, session, number, is_ok, payload = event
            self.waiting.discard((session, number))
            self.settled.setdefault(session, {})[number] = (is_ok, payload)

    def route(self, event: Event, now: float) -> None:
        """Tell an event to the parts that know its tag."""
        for apply in self._appliers.get(event[0], ()):
            apply(event, now)

    def token(self) -> Token:
        """Make a token, larger than all before."""
        self._tokens += 1
        return (self.term, self._tokens)

    def version_of(self, revision: int) -> int:
        """The version of what is written at a revision of this term.

        Versions of a term are larger than all of the terms before it. A crash takes back revisions
        that were told already where nobody waited for the journal, and gives them again; a version
        that was told is never another record's.
        """
        return (self.term - 1) * _REVISIONS + revision

    def revision_of(self, version: int) -> int:
        """The revision at which a version was written; 0 for those of former terms."""
        return max(0, version - (self.term - 1) * _REVISIONS)

    def dump(self) -> Iterator[Event]:
        """Events that make the state as it is now, however late they are taken."""
        dumps = [part.dump() for part in self.parts]
        return (event for dump in dumps for event in dump)

    # --- what follows from what ------------------------------------------------------------

    def settle(self) -> None:
        """Grant what became free."""
        self.resources.settle(self.now, self.token, self.emit)
        self.agents.settle(self.token, self.emit)

    def end_session(self, session: str, reason: str, *, fence: float = 0.0) -> None:
        """End a session, and all that it holds.

        Parameters
        ----------
        session, reason : str
        fence : float
            Seconds for which whoever has it may believe in it still; 0.0 where it has run out, or
            was given up.
        """
        address = self.members.address_of(session)
        if address is not None:
            self.members.lost(address, self.emit)
            self.end_worker(address, fence=fence)
        self.sessions.close(session, reason, self.emit)
        self.waiting = {each for each in self.waiting if each[0] != session}
        self.settled.pop(session, None)
        self.orphans.discard(session)
        self.records.owner_gone(session, reason, self.emit)
        self.resources.session_gone(session, self.emit)
        self.locks.session_gone(session, self.token, self.emit)
        self.rates.session_gone(session)
        self.agents.session_gone(session)

    def drain(self, address: str) -> None:
        """Give a member nothing new, and have its agents live elsewhere.

        Raises
        ------
        KeyNotFoundError
        """
        self.members.drain(address, self.emit)
        self.agents.move(self.agents.reading.keys_at(address), "", self.emit)

    def end_worker(self, address: str, *, fence: float = 0.0) -> None:
        """End what lies on a worker, or is tied to it."""
        self.resources.worker_gone(address, self.emit)
        self.agents.losses.host_gone(address, fence, self.now, self.token, self.emit)
        self.records.owner_gone(f"worker:{address}", "its worker left", self.emit)
