"""Members: the workers of the cluster, and what is believed of each.

Knows: states and what may follow on which, incarnations. Must not know: Dask, clocks, what members
are used for.

::

    Dask knows it      its session opens      silent for 2/3 of its lease
        joining  ───────────▶  up  ◀──────────────────────▶  suspected
                               │ ▲                               │
                        drain  ▼ │ undrain                       │
                            draining                             │
    out of any of these: lost (silent for a lease, connection gone, process dead), left (in order)

What is silent is not suspected while it is draining, and lost with its session. After a restart of
the scheduler the members of the former one are suspected and never up again.

A worker that joins again, after it was stopped or cut off, is another incarnation: a larger
token, by which what the former one still sends is refused.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, final

from dspex.errors import InvalidRequestError, KeyNotFoundError
from dspex.foundation.ledger.events import Emit, Event, Token

__all__ = ["SUSPECTED_AFTER", "TRANSITIONS", "Members"]

SUSPECTED_AFTER = 2 / 3
"""The share of a lease after which a silent member is suspected."""

TRANSITIONS: Mapping[str | None, frozenset[str]] = {
    None: frozenset({"joining", "up"}),
    "joining": frozenset({"up", "lost", "left"}),
    "up": frozenset({"suspected", "draining", "lost", "left"}),
    "suspected": frozenset({"up", "draining", "lost", "left"}),
    "draining": frozenset({"up", "lost", "left"}),
}
"""{state: what may follow}; lost and left are the end of an incarnation."""

_NOBODY: Token = (0, 0)
_REMEMBERED = 100


class _Member(NamedTuple):
    """The fields of a "member" event."""

    address: str
    incarnation: Token
    session: str
    name: str
    host: str
    state: str
    capacity: Mapping[str, Any]


@final
class Members:
    """All members that are there.

    Examples
    --------
    >>> members = Members()
    >>> emit = lambda event: members.apply(event, now=0.0)
    >>> members.join("tcp://a:1", "s", "a", "host", {"cpu_cores": 2.0}, (1, 1), emit)
    >>> members.judge(lambda session: 0.7, emit)
    >>> [member["state"] for member in members.everyone()]
    ['suspected']
    >>> members.lost("tcp://a:1", emit)
    >>> members.everyone()
    []
    """

    tags = frozenset({"member"})

    def __init__(self) -> None:
        self._members: dict[str, _Member] = {}
        self._addresses: dict[str, str] = {}  # {session: address}
        self._orphans: set[str] = set()  # sessions of members of a former scheduler
        self._former: deque[_Member] = deque(maxlen=_REMEMBERED)

    # --- reading ---------------------------------------------------------------------------

    def get(self, address: str) -> Mapping[str, Any] | None:
        """Find a member."""
        found = self._members.get(address)
        return None if found is None else found._asdict()

    def everyone(self) -> list[dict[str, Any]]:
        """All that are there, in the order in which they came."""
        return [member._asdict() for member in self._members.values()]

    def former(self) -> list[dict[str, Any]]:
        """Those that were lost or left last."""
        return [member._asdict() for member in self._former]

    def session_at(self, address: str) -> str | None:
        """The session of the member at an address; None where there is none, or none yet."""
        found = self._members.get(address)
        return found.session if found is not None and found.session else None

    def address_of(self, session: str) -> str | None:
        """Where the member of a session is."""
        return self._addresses.get(session)

    def is_current(self, address: str, incarnation: Token) -> bool:
        """Whether this incarnation is the one that is there: what others send is refused."""
        found = self._members.get(address)
        return found is not None and found.incarnation == incarnation

    # --- deciding --------------------------------------------------------------------------

    def seen(self, address: str, name: str, host: str, emit: Emit) -> None:
        """Take note of a worker that Dask knows and that has no session yet."""
        if address not in self._members:
            emit(("member", address, _NOBODY, "", name, host, "joining", {}))

    def join(
        self,
        address: str,
        session: str,
        name: str,
        host: str,
        capacity: Mapping[str, Any],
        incarnation: Token,
        emit: Emit,
    ) -> None:
        """Let a worker be up, as a new incarnation; the former one at its address is lost.

        Raises
        ------
        InvalidRequestError
            Where the capacity is none, or the session is a member elsewhere.
        """
        checked = self.checked(address, session, capacity)
        if self.session_at(address) is not None:
            self.lost(address, emit)
        emit(("member", address, incarnation, session, name, host, "up", checked))

    def checked(self, address: str, session: str, capacity: Mapping[str, Any]) -> dict[str, Any]:
        """The capacity with which a session may join at an address.

        Raises
        ------
        InvalidRequestError
        """
        elsewhere = self._addresses.get(session, address)
        if elsewhere != address:
            raise InvalidRequestError(
                f"a session is a member at one address; {session} is at {elsewhere!r}, and asked "
                f"to join at {address!r}; leave first, or open another session"
            )
        return _checked_capacity(capacity)

    def judge(self, silence: Callable[[str], float], emit: Emit) -> None:
        """Suspect the silent, and trust again who was heard of.

        Parameters
        ----------
        silence : callable
            Session to the share of its lease for which it was not heard of.
        """
        for member in list(self._members.values()):
            if member.state == "up" and silence(member.session) > SUSPECTED_AFTER:
                self._to(member.address, "suspected", emit)
            elif (
                member.state == "suspected"
                and member.session not in self._orphans
                and silence(member.session) <= SUSPECTED_AFTER
            ):
                self._to(member.address, "up", emit)

    def drain(self, address: str, emit: Emit) -> None:
        """Give a member nothing new.

        Raises
        ------
        KeyNotFoundError
        """
        if self._known(address).state != "draining":
            self._to(address, "draining", emit)

    def undrain(self, address: str, emit: Emit) -> None:
        """Give it something new again.

        Raises
        ------
        KeyNotFoundError
        InvalidRequestError
            Where it is on its way out.
        """
        member = self._known(address)
        if member.session in self._orphans:
            raise InvalidRequestError(
                f"a worker of a former scheduler is given nothing new; {address!r} is one; wait "
                "until it has joined again"
            )
        if member.state == "draining":
            self._to(address, "up", emit)

    def lost(self, address: str, emit: Emit) -> None:
        """Give a member up, if it is there."""
        if address in self._members:
            self._to(address, "lost", emit)

    def left(self, address: str, emit: Emit) -> None:
        """Take note that a member went in order, if it is there."""
        if address in self._members:
            self._to(address, "left", emit)

    def orphan(self, emit: Emit) -> set[str]:
        """Suspect all, after a restart of the scheduler; gives their sessions.

        Those that had none yet are gone.
        """
        for member in list(self._members.values()):
            if member.state == "joining":
                self._to(member.address, "lost", emit)
            elif member.state == "up":
                self._to(member.address, "suspected", emit)
        self._orphans = set(self._addresses)
        return set(self._orphans)

    def _to(self, address: str, state: str, emit: Emit) -> None:
        emit(("member", *self._members[address]._replace(state=state)))

    def _known(self, address: str) -> _Member:
        found = self._members.get(address)
        if found is None or found.state == "joining":
            raise KeyNotFoundError(
                f"there is no member at {address!r}; members() lists them", key=address
            )
        return found

    # --- the state -------------------------------------------------------------------------

    def apply(self, event: Event, now: float) -> None:
        """Take what happened."""
        _, address, (term, n), session, name, host, state, capacity = event
        before = self._members.get(address)
        assert state in TRANSITIONS[None if before is None else before.state], (
            f"{address} cannot go from {before and before.state} to {state}"
        )
        assert before is None or before.incarnation in ((term, n), _NOBODY), (
            f"{address} is of incarnation {before.incarnation}, not {(term, n)}"
        )
        member = _Member(address, (term, n), session, name, host, state, capacity)
        if before is not None:
            self._addresses.pop(before.session, None)
        if state in ("lost", "left"):
            self._members.pop(address, None)
            self._orphans.discard(session)
            self._former.append(member)
            return
        self._members[address] = member
        if session:
            self._addresses[session] = address

    def dump(self) -> Iterator[Event]:
        """Events that make the members as they are now."""
        events: list[Event] = []
        for member in self._members.values():
            if member.state not in TRANSITIONS[None]:
                # A snapshot is read by the table too: nobody begins as suspected or draining.
                events.append(("member", *member._replace(state="up")))
            events.append(("member", *member))
        return iter(events)

    def validate(self) -> None:
        """Assert the invariants."""
        assert self._addresses == {
            member.session: address for address, member in self._members.items() if member.session
        }
        assert self._orphans <= self._addresses.keys()
        for member in self._members.values():
            assert member.state in TRANSITIONS
            assert (member.session == "") == (member.state == "joining")


def _checked_capacity(capacity: Mapping[str, Any]) -> dict[str, Any]:
    amounts = {name: capacity.get(name, 0.0) for name in ("cpu_cores", "memory_gb", "gpus")}
    labels = capacity.get("labels", [])
    if not all(
        isinstance(value, int | float) and 0 <= value < float("inf") for value in amounts.values()
    ) or not (isinstance(labels, list | tuple) and all(isinstance(each, str) for each in labels)):
        raise InvalidRequestError(
            "a capacity has finite cpu_cores, memory_gb and gpus from 0, and labels; got "
            f"{dict(capacity)!r:.200}"
        )
    return {**amounts, "labels": list(labels)}
