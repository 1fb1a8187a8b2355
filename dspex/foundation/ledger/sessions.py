"""Sessions: who is believed to live, and which of its calls were answered how.

Knows: leases, the numbers of calls, the lag of the ledger's own loop. Must not know: what calls do.

A session lives while it is heard of. It runs out one lease after the ledger heard of it last, in
the ledger's *running* time: a tick that comes late shows that the loop stood still meanwhile, and
what stood still is not counted; nor is anything judged on that tick, because the renewals that
arrived meanwhile are still in the queue behind it. Every other tick judges by the instant of the
tick before it: what had arrived by then was handled in between, so whoever sends its renewals in
time is neither suspected nor lost, however the loop is held up. The first tick judges nobody: until
then the ledger read its journal and listened to no one.

The holder's side stops believing earlier: `HOLDER_SHARE` of the lease after it *asked* for the
last renewal that was granted. The rest is the margin for clocks that run apart and for an answer
that is on its way.

Replies are kept by the numbers of the calls, so that a repeated call is answered and not performed
again (RIFL: Lee et al., "Implementing linearizability at large scale and low latency", SOSP 2015),
until the session says that it has them. A refusal and a reply of a call that changed nothing are
kept too, or a late copy could take effect after its sender heard that it did not; but in memory
only, because no copy outlives the scheduler to which it was sent.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, final

from dspex.errors import InvalidRequestError, SessionExpiredError
from dspex.foundation.ledger.events import Emit, Event

__all__ = ["HOLDER_SHARE", "TICK", "Sessions"]

HOLDER_SHARE = 0.8
"""The share of a lease for which its holder believes in it, from when it asked."""

TICK = 0.2
"""Seconds between two ticks of a loop that is not held up."""

_LATE = 0.5
"""Seconds between two ticks from which the loop counts as held up."""

_LEASES = (0.2, 3600.0)
_MAX_SESSIONS = 100_000
_MAX_UNACKED = 10_000
_REMEMBERED = 10_000
"""Sessions that ended, and may not come back under their ids."""


class _Facts(NamedTuple):
    kind: str
    name: str
    lease: float


@final
class _Session:
    __slots__ = ("acked_below", "facts", "parked", "parked_told", "renewed", "replies")

    def __init__(self, facts: _Facts, renewed: float) -> None:
        self.facts = facts
        self.renewed = renewed  # in running time
        self.replies: dict[int, tuple[bool, Any]] = {}
        self.acked_below = 0
        self.parked: frozenset[int] = frozenset()  # below it, and not acknowledged
        self.parked_told: Sequence[int] = ()

    def acknowledge(self, below: int, parked: Sequence[int]) -> None:
        if below < self.acked_below or (below == self.acked_below and parked is self.parked_told):
            return  # sent earlier, or with the same request
        # What was acknowledged once does not wait any more.
        waits = frozenset(
            number for number in parked if number >= self.acked_below or number in self.parked
        )
        self.acked_below, self.parked, self.parked_told = below, waits, parked
        for old in [each for each in self.replies if each < below and each not in waits]:
            del self.replies[old]

    def is_acknowledged(self, number: int) -> bool:
        return number < self.acked_below and number not in self.parked


@final
class Sessions:
    """All sessions.

    Examples
    --------
    >>> sessions = Sessions()
    >>> emit = lambda event: sessions.apply(event, now=0.0)
    >>> sessions.open("a", "client", "me", 3.0, 0.0, emit)
    >>> [sessions.expire(0.2 * tick) for tick in (1, 14, 15, 16)]
    [[], [], [], []]
    >>> for tick in range(17, 40):
    ...     for session in sessions.expire(0.2 * tick):
    ...         print(round(0.2 * tick, 1), session)
    ...         sessions.close(session, "ran out", emit)
    5.8 a
    """

    tags = frozenset({"session", "acked", "gone", "reply"})

    def __init__(self) -> None:
        self._sessions: dict[str, _Session] = {}
        self._gone: OrderedDict[str, None] = OrderedDict()
        # (when it may have run out, in running time; a renewal since is found when it is due)
        self._due: list[tuple[float, str]] = []
        self._stood_still = 0.0
        self._last_tick: float | None = None
        self._judged = 0.0  # the instant by which is judged, in running time

    # --- reading ---------------------------------------------------------------------------

    @property
    def count(self) -> int:
        """How many are open."""
        return len(self._sessions)

    def is_open(self, session: str) -> bool:
        """Whether it is open."""
        return session in self._sessions

    def kind(self, session: str) -> str | None:
        """Of an open session: "client" or "worker"."""
        found = self._sessions.get(session)
        return None if found is None else found.facts.kind

    def lease(self, session: str) -> float:
        """Seconds of the lease of an open session."""
        return self._sessions[session].facts.lease

    def stored(self, session: str, number: int) -> tuple[bool, Any] | None:
        """(whether it succeeded, the reply) of a call that was performed."""
        found = self._sessions.get(session)
        return None if found is None else found.replies.get(number)

    def silence(self, session: str) -> float:
        """The share of its lease for which a session was not heard of; above 1.0: run out.

        As of the instant by which the last tick judged.
        """
        found = self._sessions.get(session)
        if found is None:
            return float("inf")
        return max(0.0, self._judged - found.renewed) / found.facts.lease

    # --- deciding --------------------------------------------------------------------------

    def open(
        self, session: str, kind: str, name: str, lease: float, now: float, emit: Emit
    ) -> None:
        """Begin a session; one that is open goes on.

        Raises
        ------
        InvalidRequestError
        SessionExpiredError
            Where it has ended: a session never comes back under its id.
        """
        if session in self._gone:
            raise SessionExpiredError(
                f"a session that ended does not come back; {session} did; open another"
            )
        if session in self._sessions:
            self.touch(session, now)
            return
        if kind not in ("client", "worker"):
            raise InvalidRequestError(f'a session is of kind "client" or "worker"; got {kind!r}')
        if not _LEASES[0] <= lease <= _LEASES[1]:
            raise InvalidRequestError(
                f"a lease has {_LEASES[0]:g} to {_LEASES[1]:g} seconds; got {lease!r}"
            )
        if len(self._sessions) >= _MAX_SESSIONS:
            raise InvalidRequestError(
                f"there are at most {_MAX_SESSIONS:,} sessions; close some, and connect again"
            )
        emit(("session", session, kind, name, lease))

    def touch(self, session: str, now: float) -> None:
        """Take note that a session was heard of, if it is open."""
        found = self._sessions.get(session)
        if found is not None:
            found.renewed = now - self._stood_still

    def renew(self, session: str, now: float) -> None:
        """Renew the lease.

        Raises
        ------
        SessionExpiredError
            Where it has run out: an expired lease is never renewed.
        """
        self._known(session)
        self.touch(session, now)

    def begin(
        self,
        session: str,
        number: int,
        acked_below: int,
        now: float,
        parked: Sequence[int] = (),
    ) -> tuple[bool, Any] | None:
        """Begin a call: gives what `stored` gives, None where it is to be performed.

        Parameters
        ----------
        session : str
        number : int
        acked_below : int
            The session has the replies to its calls of smaller numbers,
        now : float
        parked : sequence of int
            but for those of these numbers, which wait.

        Raises
        ------
        SessionExpiredError
        InvalidRequestError
            Where the session has said that it has the reply, or leaves too many unacknowledged.
        """
        found = self._known(session)
        self.touch(session, now)
        found.acknowledge(acked_below, parked)
        if found.is_acknowledged(number):
            raise InvalidRequestError(
                f"the reply to call {number} was acknowledged, so it is not kept; the session "
                f"acknowledged all below {found.acked_below}"
            )
        _refuse_many(found, number)
        return found.replies.get(number)

    def remember(self, session: str, number: int, *, is_ok: bool, payload: Any) -> None:
        """Keep the reply to a call that changed nothing, so that a late copy changes nothing.

        Raises
        ------
        InvalidRequestError
            Where the session leaves too many unacknowledged.
        """
        found = self._sessions.get(session)
        if found is not None and not found.is_acknowledged(number):
            _refuse_many(found, number)
            found.replies[number] = (is_ok, payload)

    def close(self, session: str, reason: str, emit: Emit) -> None:
        """End a session, if it is open."""
        if session in self._sessions:
            emit(("gone", session, reason))

    def expire(self, now: float) -> list[str]:
        """Take note of a tick; gives the sessions that have run out."""
        if self._last_tick is None:
            self._last_tick = now
            self._judged = now
            for session in self._sessions.values():
                session.renewed = now
            return []
        judged = self._last_tick - self._stood_still
        is_late = now - self._last_tick > _LATE
        if is_late:
            self._stood_still += now - self._last_tick - TICK
            running = now - self._stood_still
            for session in self._sessions.values():
                # What was heard of in between was stamped by a clock that had not stood still yet.
                session.renewed = min(session.renewed, running)
            # The same of those that were opened in between.
            self._due = [
                (session.renewed + session.facts.lease, name)
                for name, session in self._sessions.items()
            ]
            heapq.heapify(self._due)
        self._last_tick = now
        if is_late:
            return []
        self._judged = judged
        return self._run_out()

    def _run_out(self) -> list[str]:
        found = []
        while self._due and self._due[0][0] < self._judged:
            _, name = heapq.heappop(self._due)
            session = self._sessions.get(name)
            if session is None:
                continue
            ends = session.renewed + session.facts.lease
            # One that ran out stays due until it is closed.
            heapq.heappush(self._due, (max(ends, self._judged), name))
            if ends < self._judged:
                found.append(name)
        return found

    def _known(self, session: str) -> _Session:
        found = self._sessions.get(session)
        if found is None:
            what = "has ended" if session in self._gone else "is not known here"
            raise SessionExpiredError(
                f"a session is renewed before it runs out; {session} {what}; what it held is "
                "gone; open another"
            )
        return found

    # --- the state -------------------------------------------------------------------------

    def apply(self, event: Event, now: float) -> None:
        """Take what happened."""
        if event[0] == "reply":
            _, session, number, is_ok, payload = event
            if session in self._sessions:
                self._sessions[session].replies[number] = (is_ok, payload)
        elif event[0] == "session":
            _, session, kind, name, lease = event
            running = now - self._stood_still
            self._sessions[session] = _Session(_Facts(kind, name, lease), running)
            heapq.heappush(self._due, (running + lease, session))
        elif event[0] == "acked":
            _, session, below, parked = event
            self._sessions[session].acknowledge(below, tuple(parked))
        else:
            session = event[1]
            self._sessions.pop(session, None)
            self._gone[session] = None
            if len(self._gone) > _REMEMBERED:
                self._gone.popitem(last=False)

    def dump(self) -> Iterator[Event]:
        """Events that make the sessions as they are now."""
        copies = [
            (
                (name, *session.facts),
                ("acked", name, session.acked_below, sorted(session.parked)),
                list(session.replies.items()),
            )
            for name, session in self._sessions.items()
        ]
        gone = list(self._gone)

        def events() -> Iterator[Event]:
            for session in gone:
                yield ("gone", session, "ended earlier")
            for facts, acked, replies in copies:
                yield ("session", *facts)
                # A late copy of a call whose reply is not kept any more is not performed again.
                if acked[2]:
                    yield acked
                for number, (is_ok, payload) in replies:
                    yield ("reply", facts[0], number, is_ok, payload)

        return events()

    def validate(self) -> None:
        """Assert the invariants."""
        assert not self._gone.keys() & self._sessions.keys()
        assert {name for _, name in self._due} >= self._sessions.keys()
        assert len(self._gone) <= _REMEMBERED


def _refuse_many(session: _Session, number: int) -> None:
    if number not in session.replies and len(session.replies) >= _MAX_UNACKED:
        raise InvalidRequestError(
            f"a session leaves at most {_MAX_UNACKED:,} replies unacknowledged; send "
            "acked_below with each request"
        )
