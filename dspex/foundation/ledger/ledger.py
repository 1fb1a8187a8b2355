"""The ledger: all that the cluster agrees on, as one state machine.

Knows: calls, their numbers, turns, revisions. Must not know: clocks, journals, messages, Dask;
what an op does (`performing`).

Every step, a call or a tick, is decided at once and gives the events that it caused. They are
one entry of the journal, numbered by the ledger's revision. What a reply tells may be sent when
`Step.depends` is committed, and not before: until then a crash could take it back.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, final

from dspex.errors import DspexError, InvalidRequestError, SessionExpiredError
from dspex.foundation.ledger.events import Event
from dspex.foundation.ledger.ops import OPS, checked
from dspex.foundation.ledger.performing import PERFORMERS
from dspex.foundation.ledger.sessions import TICK
from dspex.foundation.ledger.turn import Turn
from dspex.foundation.ledger.wire import Call, error_payload, rebuilt_error

__all__ = ["Ledger", "Step"]


class Step(NamedTuple):
    """What a call or a tick did.

    Attributes
    ----------
    is_pending : bool
        Whether the call waits; its reply comes as a "reply" event of a later step.
    reply : Any or DspexError
    events : list of event
        To be journalled as entry number `revision`; none where nothing changed.
    revision : int
    depends : int
        The revision that must be committed before the reply leaves.
    """

    is_pending: bool
    reply: Any
    events: list[Event]
    revision: int
    depends: int


@final
class Ledger:
    """The state machine.

    Parameters
    ----------
    term : int
        Of the scheduler that runs it; the first half of every token.

    Examples
    --------
    >>> ledger = Ledger(term=1)
    >>> opened = {"kind": "client", "name": "me", "lease": 3.0}
    >>> ledger.handle("a", 1, Call(None, "session.open", opened), now=0.0).revision
    1
    >>> locked = {"namespace": "", "name": "x", "kind": "lock"}
    >>> ledger.handle("a", 1, Call(1, "locks.acquire", locked), now=0.0).reply["token"]
    (1, 1)
    """

    def __init__(self, *, term: int) -> None:
        self.term = term
        self._ticked = -math.inf
        self._turn = turn = Turn(term)
        self.sessions = turn.sessions
        self.members = turn.members
        self.records = turn.records
        self.resources = turn.resources
        self.locks = turn.locks
        self.rates = turn.rates
        self.agents = turn.agents

    @property
    def revision(self) -> int:
        """The number of the last entry."""
        return self._turn.revision

    # --- steps -----------------------------------------------------------------------------

    def handle(
        self,
        session: str,
        acked_below: int,
        call: Call,
        *,
        now: float,
        parked: Sequence[int] = (),
    ) -> Step:
        """Perform one call; an error that it deserves is its reply.

        Parameters
        ----------
        session : str
        acked_below : int
            The session has the replies to its calls of smaller numbers,
        parked : sequence of int
            but for those of these numbers, which wait.
        call : Call
        now : float
        """
        turn = self._turn
        turn.begin(now)
        is_pending = False
        reply: Any = None
        try:
            args = checked(call.op, call.number, call.args)
            if call.op not in PERFORMERS:
                raise InvalidRequestError(f"{call.op} is not an op of the ledger")
            if session in turn.orphans:
                raise SessionExpiredError(
                    "a worker joins a restarted scheduler as a new incarnation; nothing is done "
                    f"for its former session {session}; open a new one"
                )
            if OPS[call.op].changes:
                assert call.number is not None
                reply, is_pending = self._once(
                    session, call.number, call.op, args, acked_below, parked
                )
            else:
                if call.op != "session.renew":
                    self.sessions.touch(session, now)
                reply = PERFORMERS[call.op](turn, session, 0, args)
        except DspexError as error:
            assert not turn.events, "a call is refused before anything has happened"
            reply = error
        except RecursionError:
            assert not turn.events
            reply = InvalidRequestError(f"what {call.op:.80} was given is nested too deep")
        return self._end(reply, is_pending)

    def _once(
        self,
        session: str,
        number: int,
        op: str,
        args: Mapping[str, Any],
        acked_below: int,
        parked: Sequence[int],
    ) -> tuple[Any, bool]:
        """Perform a call that may have been performed before."""
        turn = self._turn
        stored = self.sessions.begin(session, number, acked_below, turn.now, parked)
        if stored is not None:
            return _reply(stored), False
        if (session, number) in turn.waiting:
            return None, True
        try:
            reply = PERFORMERS[op](turn, session, number, args)
        except DspexError as error:
            self.sessions.remember(session, number, is_ok=False, payload=error_payload(error))
            raise
        if reply is None:
            turn.waiting.add((session, number))
            turn.settle()
            stored = self.sessions.stored(session, number)
            return (None, True) if stored is None else (_reply(stored), False)
        if turn.events:
            turn.emit(("reply", session, number, True, reply))
        else:
            self.sessions.remember(session, number, is_ok=True, payload=reply)
        return reply, False

    def tick(self, now: float) -> Step:
        """Let time pass: what has run out ends, and what became free is granted."""
        turn = self._turn
        turn.begin(now)
        for session in self.sessions.expire(now):
            turn.end_session(session, "its lease ran out")
        self.members.judge(self.sessions.silence, turn.emit)
        # As with sessions: what had arrived by the tick before was handled since.
        self.records.expire(self._ticked, turn.emit)
        self._ticked = now
        self.rates.expire(now)
        self.agents.losses.pass_time(now, turn.token, turn.emit)
        turn.settle()
        return self._end(None, False)

    def worker_seen(self, address: str, name: str, host: str, now: float) -> Step:
        """Take note that Dask knows a worker."""
        self._turn.begin(now)
        self.members.seen(address, name, host, self._turn.emit)
        return self._end(None, False)

    def worker_closed(self, address: str, *, is_expected: bool, now: float) -> Step:
        """Take note that Dask has no connection to a worker any more."""
        turn = self._turn
        turn.begin(now)
        session = self.members.session_at(address)
        # A connection that closed is no proof that the process has ended.
        fence = 0.0 if session is None else self.sessions.lease(session) + TICK
        if is_expected:
            self.members.left(address, turn.emit)
        else:
            self.members.lost(address, turn.emit)
        if session is not None:
            words = "its worker left in order" if is_expected else "its worker's connection closed"
            turn.end_session(session, words)
        turn.end_worker(address, fence=fence)
        turn.settle()
        return self._end(None, False)

    def drain(self, address: str, now: float) -> Step:
        """Give a worker that is about to leave nothing new, and move its agents."""
        turn = self._turn
        turn.begin(now)
        if self.members.session_at(address) is not None:
            turn.drain(address)
        return self._end(None, False)

    def worker_dead(self, address: str, now: float) -> Step:
        """Take note that the process of a worker which was closed has ended for certain."""
        turn = self._turn
        turn.begin(now)
        self.agents.losses.known_dead(address, turn.token, turn.emit)
        return self._end(None, False)

    def set_quotas(self, quotas: Mapping[str, Mapping[str, float | None]], now: float) -> Step:
        """Set what the scheduler's configuration says of tenants."""
        self._turn.begin(now)
        for tenant, limits in quotas.items():
            self.resources.set_quota(tenant, limits, self._turn.emit)
        self._turn.settle()
        return self._end(None, False)

    def interrupted(self) -> Step:
        """After a step that an error of ours cut off: what had happened in it is told."""
        return self._end(None, False)

    def _end(self, reply: Any, is_pending: bool) -> Step:
        turn = self._turn
        if turn.events:
            turn.revision += 1
        depends = turn.revision if turn.depends is None else turn.depends
        return Step(is_pending, reply, turn.events, turn.revision, depends)

    # --- recovery --------------------------------------------------------------------------

    def replay(self, revision: int, events: list[Event], now: float) -> None:
        """Take a journalled step."""
        for event in events:
            self._turn.route(event, now)
        self._turn.revision = revision

    def recovered(self, now: float) -> Step:
        """After the last `replay`: the workers of the former scheduler are on their way out.

        Dask ends them; until their leases have run out they may go on with what they hold, so
        they keep it that long, and get nothing new.
        """
        self._turn.begin(now)
        self._turn.orphans = self.members.orphan(self._turn.emit)
        if self.revision:
            self.rates.restarted(now)
        self.agents.losses.lose_what_was_in_memory(self._turn.emit)
        return self._end(None, False)

    def dump(self) -> Iterator[Event]:
        """Events that make the state as it is now, however late they are taken."""
        return self._turn.dump()

    # --- reading ---------------------------------------------------------------------------

    def settled(self, session: str, seen: Iterable[int]) -> list[tuple[int, bool, Any]]:
        """Replies to calls of this session that had to wait; those it has seen are forgotten."""
        replies = self._turn.settled.get(session)
        if replies is None:
            return []
        for number in seen:
            replies.pop(number, None)
        if not replies:
            del self._turn.settled[session]
        return [(number, *reply) for number, reply in replies.items()]

    def validate(self) -> None:
        """Assert the invariants of all parts."""
        for part in self._turn.parts:
            part.validate()
        self.rates.validate()


def _reply(stored: tuple[bool, Any]) -> Any:
    is_ok, payload = stored
    return payload if is_ok else rebuilt_error(payload)
