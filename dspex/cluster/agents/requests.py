"""Calls that are on their way, and what comes back.

Knows: the fields. Must not know: how a call travels.
"""

from __future__ import annotations

import asyncio
import pickle
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Protocol, final

from dspex.errors import AgentRaisedError, DspexError
from dspex.foundation.agents.messages import CANCEL, CAST

__all__ = ["AUTO", "Cast", "Messages", "NotSentError", "Raised", "Request", "Withdrawal"]

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
class Raised:
    """The error of an agent's method, as it came: decoded in the thread of whoever asks."""

    __slots__ = ("payload",)

    def __init__(self, payload: bytes) -> None:
        self.payload = payload

    def as_error(self) -> DspexError:
        """What somebody hears who did not call."""
        try:
            error, told = pickle.loads(self.payload)
            words = f"{type(error).__name__}: {error}"
        except Exception as unreadable:
            words, told = f"what cannot be read here ({type(unreadable).__name__})", ""
        made = AgentRaisedError(f"the agent's method raised {words}")
        made.add_note(told)
        return made


class Request(ABC):
    """A call on its way, and who hears of it.

    Parameters
    ----------
    key : str
    method : str
    args : bytes
    flags : int
        Delivery (`AUTO` until it is on its way), `CAST`, `CONTROL`.

    Attributes
    ----------
    mid : int
        Its number as a message; 0 as long as it is not on its way.
    sender, number, below
        Of an agent that sends exactly once; else this session numbers it.
    left : float or None
        Seconds until its deadline, when it was put on its way.
    timeout : float or None
        Seconds.
    is_withdrawn : bool
        Whether it was on its way, and is not waited for any more.

    Notes
    -----
    It is sent as a message itself (`MessageLike`): there is no other object of it.
    """

    mid: int
    key: str
    flags: int
    sender: str
    number: int
    below: int
    left: float | None
    method: str
    args: bytes

    # What few calls have costs the others nothing.
    timeout: float | None = None
    deadline: float | None = None
    timer: asyncio.TimerHandle | None = None
    is_withdrawn = False

    def _address(self, key: str, method: str, args: bytes, flags: int) -> None:
        self.mid = 0
        self.key = key
        self.flags = flags
        self.sender = ""
        self.number = self.below = 0
        self.left = None
        self.method = method
        self.args = args

    @abstractmethod
    def cancelled(self) -> bool:
        """Whether nobody waits for it any more."""

    @abstractmethod
    def answer(self, payload: bytes | None) -> None:
        """Take what the method returned, as it came."""

    @abstractmethod
    def fail(self, error: Raised | DspexError) -> None:
        """Take what it raised, or why there is no answer."""


@final
class Cast(Request):
    """A call of which is heard whether it had its effect.

    Parameters
    ----------
    done : callable
        Called on the loop, with an error or None.
    """

    def __init__(
        self,
        key: str,
        method: str,
        args: bytes,
        flags: int,
        done: Callable[[DspexError | None], None],
    ) -> None:
        self._address(key, method, args, flags | CAST)
        self.done = done

    def cancelled(self) -> bool:
        """It goes on in any case."""
        return False

    def answer(self, payload: bytes | None) -> None:
        """Tell that it had its effect."""
        self.done(None)

    def fail(self, error: Raised | DspexError) -> None:
        """Tell why it had none."""
        self.done(error.as_error() if isinstance(error, Raised) else error)


@final
class Withdrawal(Request):
    """Has a host drop a call that has not begun; of which nobody hears.

    Parameters
    ----------
    request : Request
    """

    def __init__(self, request: Request) -> None:
        self._address(request.key, "", b"", CANCEL | CAST)
        self.number = request.mid

    def cancelled(self) -> bool:
        """It goes on in any case."""
        return False

    def answer(self, payload: bytes | None) -> None:
        """Do nothing."""

    def fail(self, error: Raised | DspexError) -> None:
        """Do nothing."""
