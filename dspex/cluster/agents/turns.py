"""The turn that is under way: whose it is, what it has sent, which timers it has set.

Knows: context variables. Must not know: hosts, handles.

What a turn sends by `cast` leaves when the turn is committed, in one entry with its changes; one
that raises sends nothing. What it calls and waits for leaves at once, numbered so that a turn which
is run again after a crash makes the same calls under the same numbers.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, final

__all__ = ["Timer", "TurnContext", "current_turn"]

_current: contextvars.ContextVar[TurnContext | None] = contextvars.ContextVar(
    "dspex_turn", default=None
)


current_turn: Callable[[], TurnContext | None] = _current.get
"""The turn that this code is part of."""

Outgoing = tuple[int, str, str, bytes, str]
"""(number, target, method, args, key of the sender)"""


class Timer(NamedTuple):
    """A call that an agent makes to itself.

    Attributes
    ----------
    seconds : float
    method : str
    args : bytes
    repeats : bool
    """

    seconds: float
    method: str
    args: bytes
    repeats: bool


_NONE: Mapping[str, Timer | None] = MappingProxyType({})


@final
class TurnContext:
    """One turn.

    Attributes
    ----------
    key : str
        Of the agent.
    runtime : Any
        Through which it reaches others.
    deadline : float or None
        Instant of the host's clock; carried along to what it calls.
    incarnation : tuple of (term, n)
        Grows each time that the agent is placed: a fencing token for what is outside.
    is_kept : bool
        Whether the agent keeps its state, and with it the count of what it sent.
    outgoing : sequence of `Outgoing`
    sent : int
        The number of the last message of this agent.
    timers : dict of str to Timer or None
    """

    __slots__ = (
        "base",
        "deadline",
        "incarnation",
        "is_kept",
        "key",
        "outgoing",
        "runtime",
        "sender",
        "sent",
        "timers",
    )

    def __init__(
        self,
        key: str,
        runtime: Any,
        sent: int,
        deadline: float | None,
        sender: str = "",
        *,
        is_kept: bool = False,
        incarnation: tuple[int, int] = (0, 0),
    ) -> None:
        self.key = key
        self.runtime = runtime
        self.deadline = deadline
        self.base = self.sent = sent
        self.sender = sender
        self.is_kept = is_kept
        self.incarnation = incarnation
        # Most turns send nothing and set no timer.
        self.outgoing: list[Outgoing] | tuple[()] = ()
        self.timers: Mapping[str, Timer | None] = _NONE

    def number(self) -> int:
        """The next number of a message of this agent; 0 where it could not go on counting."""
        if not self.is_kept:
            return 0
        self.sent += 1
        return self.sent

    def undo(self) -> None:
        """Send nothing of what was to be sent."""
        self.outgoing = ()
        self.timers = _NONE

    def send(self, target: str, method: str, args: bytes) -> None:
        """Send a message when this turn is committed."""
        if not self.outgoing:
            self.outgoing = []
        self.outgoing.append((self.number(), target, method, args, self.key))

    def set_timer(self, name: str, timer: Timer | None) -> None:
        """Set a timer, or end one, when this turn is committed."""
        self.timers = {**self.timers, name: timer}

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function as part of this turn."""
        token = _current.set(self)
        try:
            return function(*args, **kwargs)
        finally:
            _current.reset(token)

    async def call_async(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Await a function as part of this turn."""
        token = _current.set(self)
        try:
            return await function(*args, **kwargs)
        finally:
            _current.reset(token)
