"""Calls that are on their way, and what comes back.

Knows: the fields. Must not know: how a call travels.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Protocol, final

from dspex.errors import DspexError
from dspex.foundation.agents.messages import Message

__all__ = ["AUTO", "Answer", "Messages", "NotSentError", "Request"]

AUTO = 3
"""Exactly once where the receiver keeps its state, else at most once."""


class NotSentError(OSError):
    """A flight that has not left: its host could not be connected to."""


class Messages(Protocol):
    """What is needed of the way to other agents."""

    def deliver(
        self,
        target: str,
        method: str,
        args: bytes,
        *,
        sender: str,
        number: int,
        done: Callable[[DspexError | None], None],
    ) -> None:
        """Send a message of an agent; `done` hears when it has had its effect, or never will.

        Exactly once with a sender; without one as often as `AUTO` says.
        """


@final
class Answer:
    """What came back, as it came: decoded in the thread of whoever asks."""

    __slots__ = ("is_ok", "payload")

    def __init__(self, is_ok: bool, payload: bytes) -> None:
        self.is_ok = is_ok
        self.payload = payload


@final
class Request:
    """A call on its way.

    Parameters
    ----------
    key : str
    method : str
    args : bytes
    flags : int
        Delivery (`AUTO` too), `CAST`, `CONTROL`.
    future : Future, optional
        Gets an `Answer` or an error.
    done : callable, optional
        Called in place of it, with an error or None, on the loop.
    timeout : float, optional
        Seconds.
    sender, number, below
        Of an agent that sends exactly once; else this session numbers it.
    """

    __slots__ = (
        "args",
        "below",
        "deadline",
        "done",
        "flags",
        "future",
        "key",
        "message",
        "method",
        "number",
        "on_cancel",
        "sender",
        "timeout",
        "timer",
    )

    def __init__(
        self,
        key: str,
        method: str,
        args: bytes,
        flags: int,
        *,
        future: Future[Any] | None = None,
        done: Callable[[Any], None] | None = None,
        timeout: float | None = None,
        sender: str = "",
        number: int = 0,
        below: int = 0,
    ) -> None:
        self.key = key
        self.method = method
        self.args = args
        self.flags = flags
        self.future = future
        self.done = done
        self.timeout = timeout
        self.deadline: float | None = None
        self.sender = sender
        self.number = number
        self.below = below
        self.message: Message | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.on_cancel: Callable[[Request], None] | None = None

    def cancel(self) -> None:
        """Wait for it no longer; from any thread."""
        if self.on_cancel is not None:
            self.on_cancel(self)
