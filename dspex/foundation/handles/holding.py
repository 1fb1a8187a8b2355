"""Something of the cluster that this process holds until its session ends.

Knows: a token, the session under which it was given. Must not know: what is held.

Whether it is held is answered without asking anybody, by the session's lease: the ledger ends
nothing of a session before that is over on this clock. What the ledger ends for another reason (a
lease whose worker left) only `check` sees.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn, TypeAlias, final

from dspex.errors import InvalidArgumentError, LeaseExpiredError, NotPicklableError
from dspex.foundation.ledger.events import Token
from dspex.foundation.ports import Bridge, Caller

__all__ = [
    "Holding",
    "Seconds",
    "not_held",
    "plain_seconds",
    "refuse_pickling",
    "sync_only",
    "token_of",
]

Seconds: TypeAlias = Callable[[str, Any], float | None]
"""Seconds from what a user wrote for an argument of this name; None stays None."""


def plain_seconds(name: str, value: Any) -> float | None:
    """Seconds from a number.

    Raises
    ------
    InvalidArgumentError

    Examples
    --------
    >>> plain_seconds("timeout", 2)
    2.0
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise InvalidArgumentError(f"{name} is more than 0 seconds; got {value!r}")
    return float(value)


def token_of(wire: Any) -> Token:
    """A token as it came over the wire."""
    term, n = wire
    return int(term), int(n)


def sync_only(bridge: Bridge) -> None:
    """Refuse ``with`` where leaving it would have to be awaited.

    Raises
    ------
    InvalidArgumentError
    """
    if bridge.asynchronous:
        raise InvalidArgumentError("in async code this is entered with `async with`")


def refuse_pickling(what: object) -> NoReturn:
    """Refuse to send to another process what this one holds.

    Raises
    ------
    NotPicklableError
    """
    raise NotPicklableError(
        f"what a process holds stays with it, because it ends with its session; got {what!r}; "
        "send its token, or acquire in the other process"
    )


@final
class Holding:
    """One token, and whether it still counts.

    Parameters
    ----------
    caller : Caller
    token : Token
    what : str
        For errors.
    """

    __slots__ = ("_caller", "is_over", "session", "token", "what")

    def __init__(self, caller: Caller, token: Token, what: str) -> None:
        self._caller = caller
        self.token = token
        self.what = what
        self.session = caller.session
        self.is_over = False

    @property
    def is_held(self) -> bool:
        """Whether it is held, as far as this process can know by itself."""
        caller = self._caller
        return (
            not self.is_over
            and caller.session == self.session
            and caller.now() < caller.lease_ends()
        )

    async def check(self) -> None:
        """Ask the ledger.

        Raises
        ------
        LeaseExpiredError
        """
        if (
            self.is_over
            or self._caller.session != self.session
            or not await self._caller.read("resources.verify", token=list(self.token))
        ):
            raise self.lost()

    def lost(self) -> LeaseExpiredError:
        """The error that says that it is not held any more."""
        if self.is_over:
            return not_held(self.what)
        return LeaseExpiredError(
            f"{self.what} with token {self.token} is lost: its session, or its worker, ended; what "
            "was done since may not have been alone; acquire again, and have what it guards "
            "refuse older tokens"
        )


def not_held(what: str) -> LeaseExpiredError:
    """The error for what was never acquired, or was given back."""
    return LeaseExpiredError(
        f"{what} is not held by this object: it was not acquired, or was given back; acquire first"
    )
