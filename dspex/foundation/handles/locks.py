"""Locks and elections, as a user holds them.

Knows: one name, and what this object holds of it. Must not know: who else waits.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, ClassVar, NamedTuple, NoReturn, Self, final

from dspex.foundation.handles.claim import Claim
from dspex.foundation.handles.holding import (
    Seconds,
    not_held,
    plain_seconds,
    refuse_pickling,
    sync_only,
    token_of,
)
from dspex.foundation.ledger.events import Token
from dspex.foundation.ports import Bridge, Caller

__all__ = ["Election", "Leader", "Lock"]


class _Contended:
    """A name that one holder has at a time, and what this object holds of it."""

    _kind: ClassVar[str]
    _what: ClassVar[str]

    def __init__(
        self,
        caller: Caller,
        bridge: Bridge,
        *,
        namespace: str,
        name: str,
        seconds: Seconds = plain_seconds,
    ) -> None:
        self._bridge = bridge
        self._seconds = seconds
        self._claim = Claim(caller, namespace, name, self._kind, f"{self._what} {name!r}")

    @property
    def name(self) -> str:
        """Its name."""
        return self._claim.name

    @property
    def _token(self) -> Token | None:
        holding = self._claim.holding
        return None if holding is None else holding.token

    def check(self) -> None:
        """Ask whether this object holds it.

        Raises
        ------
        LeaseExpiredError
        """
        return self._bridge.run(self._claim.check())

    async def _take(self, timeout: float | None) -> Token:
        return await self._claim.take(timeout)

    async def _give(self) -> None:
        await self._claim.give()

    def __enter__(self) -> Self:
        sync_only(self._bridge)
        self._bridge.run(self._take(None))
        return self

    def __exit__(self, *exc: object) -> None:
        self._bridge.run(self._give())

    async def __aenter__(self) -> Self:
        await self._take(None)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._give()

    def __reduce__(self) -> NoReturn:
        refuse_pickling(self)


@final
class Lock(_Contended):
    """A lock that one holder in the whole cluster has at a time, in the order they asked.

    A context manager. Not reentrant: a second `acquire` waits for the first's `release`, in this
    process too. It ends with this process's session; a holder that was stopped for longer does
    not know that yet, so what the lock guards should refuse tokens older than the newest it saw.

    Parameters
    ----------
    caller : Caller
    bridge : Bridge
    namespace, name : str
    seconds : callable
        Reads timeouts as users write them.

    Examples
    --------
    >>> import dspex
    >>> with dspex.connect("local") as foundation:
    ...     lock = foundation.lock("rebuild")
    ...     with lock:
    ...         lock.is_held
    ...     lock.is_held
    True
    False
    """

    _kind = "lock"
    _what = "the lock"

    @property
    def token(self) -> Token | None:
        """The fencing token, (term, n), larger than every earlier holder's; None: not held."""
        return self._token

    @property
    def is_held(self) -> bool:
        """Whether this object holds it, as far as this process can know without asking."""
        return self._claim.is_held

    def acquire(self, timeout: float | str | None = None) -> Token:
        """Wait for the lock.

        Parameters
        ----------
        timeout : float or str, optional
            Seconds, or a string such as "2m"; None waits as long as it takes.

        Returns
        -------
        (int, int)
            The fencing token.

        Raises
        ------
        LockTimeoutError
        """
        return self._bridge.run(self._take(self._seconds("timeout", timeout)))

    def release(self) -> None:
        """Give it back.

        Raises
        ------
        LeaseExpiredError
            Where it is not held: what was done under it may not have been alone.
        """
        return self._bridge.run(self._give())

    async def _give(self) -> None:
        holding = self._claim.holding
        if not await self._claim.give():
            raise not_held(self._claim.what) if holding is None else holding.lost()

    def __repr__(self) -> str:
        return f"<Lock {self.name!r}{', held' if self.is_held else ''}>"


class Leader(NamedTuple):
    """Who leads.

    Attributes
    ----------
    session : str
        The leader's session.
    term : (int, int)
        Grows with every change of leader.
    """

    session: str
    term: Token


@final
class Election(_Contended):
    """An election that one session in the whole cluster has won at a time.

    A context manager, too: it campaigns, and resigns at the end.

    Parameters
    ----------
    caller : Caller
    bridge : Bridge
    namespace, name : str
    seconds : callable
        Reads timeouts as users write them.

    Examples
    --------
    >>> import dspex
    >>> with dspex.connect("local") as foundation:
    ...     election = foundation.elect("coordinator")
    ...     term = election.campaign()
    ...     election.is_leader, election.leader().term == term
    ...     election.resign()
    (True, True)
    """

    _kind = "leader"
    _what = "the leadership of"

    @property
    def term(self) -> Token | None:
        """The term in which this object leads; None: it does not."""
        return self._token

    @property
    def is_leader(self) -> bool:
        """Whether this object leads, as far as this process can know without asking."""
        return self._claim.is_held

    def campaign(self, timeout: float | str | None = None) -> Token:
        """Wait until this process leads.

        Parameters
        ----------
        timeout : float or str, optional
            Seconds, or a string such as "2m"; None waits as long as it takes.

        Returns
        -------
        (int, int)
            The term.

        Raises
        ------
        LockTimeoutError
        """
        return self._bridge.run(self._take(self._seconds("timeout", timeout)))

    async def _take(self, timeout: float | None) -> Token:
        holding = self._claim.holding
        if holding is not None and holding.is_held:
            return holding.token
        return await self._claim.take(timeout)

    def resign(self) -> None:
        """Lead no longer; the next that campaigns does. May be called twice."""
        return self._bridge.run(self._give())

    def leader(self) -> Leader | None:
        """Who leads now; None: nobody.

        Returns
        -------
        Leader or None
        """
        return self._bridge.run(self._leader())

    async def _leader(self) -> Leader | None:
        held = await self._claim.holder()
        return None if held is None else Leader(*held)

    def watch(self) -> Any:
        """Who leads, now and after each change; None while nobody does.

        Returns
        -------
        iterator of Leader or None
            For ``for`` and ``async for``; `close` ends it.
        """
        return self._bridge.iterate(self._watch)

    async def _watch(self) -> AsyncIterator[Leader | None]:
        place = (self._claim.namespace, self._claim.name)
        told: Leader | None = None
        is_first = True
        async for event in self._claim.caller.follow_events({"lock", "unlock"}):
            if event[0] == "reset":
                leader = await self._leader()
            elif (event[1], event[2]) != place:
                continue
            elif event[0] == "lock":
                leader = Leader(event[4], token_of(event[3]))
            elif told is None or told.term != token_of(event[3]):
                continue  # the end of a term before
            else:
                leader = None
            if told is not None and leader is not None and leader.term < told.term:
                continue  # `leader` was asked after this had happened
            if is_first or leader != told:
                is_first, told = False, leader
                yield leader

    def __repr__(self) -> str:
        return f"<Election {self.name!r}{', leading' if self.is_leader else ''}>"
