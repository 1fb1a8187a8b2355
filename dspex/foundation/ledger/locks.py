"""Locks and leadership: one holder for each name, the others in a line.

Knows: who holds which name with which token, who waits for it since when.
Must not know: clocks, how a session is found to be gone.

A leader is the holder of a lock of kind "leader"; its term is the token. Tokens grow with every
grant, so what is guarded can refuse an older holder that does not know yet that it lost.
A session that asks twice waits for itself: two tasks of one process exclude each other too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeAlias, final

from dspex.errors import InvalidRequestError, ResourceExhaustedError
from dspex.foundation.ledger.events import Emit, Event, Token

__all__ = ["MAX_WAITING", "LockHeld", "Locks"]

MAX_WAITING = 10_000

_KINDS = ("lock", "leader")

_Name: TypeAlias = tuple[str, str]  # namespace, name
_Call: TypeAlias = tuple[str, int]  # session, number


class LockHeld(NamedTuple):
    """A name that is held."""

    token: Token
    session: str
    kind: str


@final
class Locks:
    """The part of the ledger that grants names.

    Examples
    --------
    >>> locks = Locks()
    >>> emit = lambda event: locks.apply(event, 0.0)
    >>> locks.acquire("me", 1, "", "x", "lock", token=lambda: (1, 1), emit=emit)["token"]
    (1, 1)
    >>> locks.acquire("you", 1, "", "x", "lock", token=lambda: (1, 2), emit=emit)
    >>> locks.release("me", "", "x", (1, 1), token=lambda: (1, 2), emit=emit)
    True
    >>> locks.holder("", "x")["session"]
    'you'
    """

    tags = frozenset({"lock", "unlock"})

    def __init__(self) -> None:
        self._held: dict[_Name, LockHeld] = {}
        self._names: dict[Token, _Name] = {}
        self._by_session: dict[str, dict[Token, None]] = {}
        self._lines: dict[_Name, deque[_Call]] = {}
        self._waiting: dict[_Call, _Name] = {}

    # --- what happened -------------------------------------------------------------------

    def apply(self, event: Event, now: float) -> None:
        """Take what happened."""
        if event[0] == "lock":
            _, namespace, name, (term, n), session, kind = event
            held = LockHeld((term, n), session, kind)
            self._held[namespace, name] = held
            self._names[held.token] = (namespace, name)
            self._by_session.setdefault(session, {})[held.token] = None
        elif event[0] == "unlock":
            _, namespace, name, _, _ = event
            held = self._held.pop((namespace, name))
            del self._names[held.token]
            tokens = self._by_session[held.session]
            del tokens[held.token]
            if not tokens:
                del self._by_session[held.session]

    def dump(self) -> Iterator[Event]:
        """Events that make the state."""
        return (
            ("lock", namespace, name, held.token, held.session, held.kind)
            for (namespace, name), held in tuple(self._held.items())
        )

    # --- what is decided -----------------------------------------------------------------

    def acquire(
        self,
        session: str,
        number: int,
        namespace: str,
        name: str,
        kind: str,
        *,
        token: Callable[[], Token],
        emit: Emit,
    ) -> dict[str, Any] | None:
        """Grant a name, or have the call wait in its line; None where it waits.

        Raises
        ------
        InvalidRequestError
            For an unknown kind, and where the name is in use as the other kind.
        ResourceExhaustedError
            Where too many wait.
        """
        if kind not in _KINDS:
            raise InvalidRequestError(f'a lock is a "lock" or a "leader"; got {kind!r:.80}')
        if (session, number) in self._waiting:
            return None
        held = self._held.get((namespace, name))
        if held is None:
            return self._grant((namespace, name), session, kind, token, emit)
        if held.kind != kind:
            raise InvalidRequestError(
                f"a name is a lock or an election, not both at once; {name!r} is in use as a "
                f"{held.kind}; use another name"
            )
        if len(self._waiting) >= MAX_WAITING:
            raise ResourceExhaustedError(
                f"at most {MAX_WAITING:,} calls wait for locks at once, and so many do; try later",
                waiting=len(self._waiting),
            )
        self._waiting[session, number] = (namespace, name)
        self._lines.setdefault((namespace, name), deque()).append((session, number))
        return None

    def release(
        self,
        session: str,
        namespace: str,
        name: str,
        held_token: Token,
        *,
        token: Callable[[], Token],
        emit: Emit,
    ) -> bool:
        """Give a name back and grant it to the next in line; False where it was over already.

        Raises
        ------
        InvalidRequestError
            Where it is another session's.
        """
        held = self._held.get((namespace, name))
        if held is None or held.token != held_token:
            return False
        if held.session != session:
            raise InvalidRequestError(
                f"a lock is given back by the session that holds it; {name!r} is held by "
                f"{held.session}, asked by {session}"
            )
        emit(("unlock", namespace, name, held_token, "released"))
        self._next((namespace, name), held.kind, token, emit)
        return True

    def cancel(self, session: str, number: int) -> bool:
        """Withdraw a call that waits; False where it does not."""
        name = self._waiting.pop((session, number), None)
        if name is None:
            return False
        line = self._lines[name]
        line.remove((session, number))
        if not line:
            del self._lines[name]
        return True

    def session_gone(self, session: str, token: Callable[[], Token], emit: Emit) -> None:
        """Free all that a session holds, and withdraw what it waits for."""
        for other, number in tuple(self._waiting):
            if other == session:
                self.cancel(session, number)
        for held_token in tuple(self._by_session.get(session, ())):
            name = self._names[held_token]
            kind = self._held[name].kind
            emit(("unlock", *name, held_token, "session gone"))
            self._next(name, kind, token, emit)

    def _next(self, name: _Name, kind: str, token: Callable[[], Token], emit: Emit) -> None:
        line = self._lines.get(name)
        if not line:
            return
        session, number = line.popleft()
        del self._waiting[session, number]
        if not line:
            del self._lines[name]
        granted = self._grant(name, session, kind, token, emit)
        emit(("reply", session, number, True, granted))

    def _grant(
        self,
        name: _Name,
        session: str,
        kind: str,
        token: Callable[[], Token],
        emit: Emit,
    ) -> dict[str, Any]:
        new = token()
        emit(("lock", *name, new, session, kind))
        return {"token": new}

    # --- what is asked -------------------------------------------------------------------

    def holder(self, namespace: str, name: str) -> dict[str, Any] | None:
        """Who holds a name: its "session", "token" and "kind"; None where nobody does."""
        held = self._held.get((namespace, name))
        return None if held is None else held._asdict()

    def verify(self, token: Token) -> bool:
        """Whether a name is held with this token."""
        return token in self._names

    def held(self) -> dict[tuple[str, str], LockHeld]:
        """All that is held, by namespace and name, a copy."""
        return dict(self._held)

    def waiting(self) -> list[dict[str, Any]]:
        """Who waits, each name's line in order."""
        return [
            {"namespace": namespace, "name": name, "session": session, "number": number}
            for (namespace, name), line in self._lines.items()
            for session, number in line
        ]

    def validate(self) -> None:
        """Assert the invariants."""
        assert self._names == {held.token: name for name, held in self._held.items()}
        by_session: dict[str, set[Token]] = {}
        for held in self._held.values():
            by_session.setdefault(held.session, set()).add(held.token)
        assert by_session == {each: set(tokens) for each, tokens in self._by_session.items()}
        assert self._waiting == {call: name for name, line in self._lines.items() for call in line}
        assert all(self._lines.values()), "nobody waits in an empty line"
        assert self._lines.keys() <= self._held.keys(), "nobody waits for a name that is free"
