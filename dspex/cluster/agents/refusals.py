"""What a caller hears where no answer comes: the rule, the values, the remedy.

Knows: words. Must not know: when each is said.
"""

from __future__ import annotations

from typing import Any

from dspex.cluster.agents.requests import Request
from dspex.errors import (
    AgentFailedError,
    AgentLostError,
    AgentNotFoundError,
    DeadlineError,
    DeliveryError,
    DspexError,
    MailboxFullError,
    StateNotFoundError,
    UnavailableError,
    UnsupportedGuaranteeError,
)
from dspex.foundation.agents.messages import MessageLike
from dspex.foundation.ledger.wire import rebuilt_error

__all__ = [
    "closed_error",
    "crowded_error",
    "cut_off_error",
    "deadline_error",
    "not_found_error",
    "not_once_error",
    "outcome_error",
    "told_error",
]


def told_error(payload: Any) -> DspexError:
    """What a host gave as its reason; readable also where the host is of another version."""
    try:
        return rebuilt_error(payload)
    except Exception as error:
        return DeliveryError(
            f"a host refuses a call with a reason; this one cannot be read here ({error!r}): "
            f"{payload!r:.200}; whether the call took effect is not known; use the same version of "
            "dspex on both sides"
        )


def cut_off_error(address: str, message: MessageLike, error: BaseException | None) -> DeliveryError:
    """Of a message that is sent at most once, and of which no answer came."""
    return DeliveryError(
        f"the worker {address} was lost, or was not sure of its lease, while {message.method} was "
        f"on its way at most once ({error!r}); whether it took effect is not known; look, and call "
        "again where it did not"
    )


def crowded_error(most: int) -> MailboxFullError:
    """Of a call on a loop on which too many are under way."""
    return MailboxFullError(
        f"at most {most:,} calls of a process are under way at once; await some of them before "
        "more are made"
    )


def deadline_error(request: Request, words: str) -> DeadlineError:
    """Of a call that was not answered in time."""
    return DeadlineError(
        f"{request.method} of {request.key.partition(':')[2]!r} was not answered within "
        f"{request.timeout:g} s; {words}; allow more time, or look at the agent's status()"
    )


def not_found_error(key: str) -> AgentNotFoundError:
    """Of a call to an agent that is not there."""
    return AgentNotFoundError(
        f"there is no agent {key.partition(':')[2]!r} (any more); list_agents() lists those there "
        "are"
    )


def closed_error() -> UnavailableError:
    """Of a call on a connection that is closed."""
    return UnavailableError(
        "this connection to the foundation is closed; whether a call under way took effect is not "
        "known; connect again"
    )


def not_once_error(key: str) -> UnsupportedGuaranteeError:
    """Of exactly once to an agent that keeps nothing."""
    return UnsupportedGuaranteeError(
        f"exactly_once needs a receiver that keeps its state; {key.partition(':')[2]!r} has no "
        'persistence; create it with persistence="cluster_replicated" or "durable", or use '
        'delivery="at_least_once"'
    )


def outcome_error(key: str, status: str, reason: str, persistence: str | None) -> DspexError:
    """Of a call to an agent that answers no more."""
    name = key.partition(":")[2]
    if status == "failed":
        return AgentFailedError(
            f"the agent {name!r} answers no more: {reason}; mend it, stop it, and create it again"
        )
    if persistence == "cluster_replicated" and "memory" in reason:
        return StateNotFoundError(
            f"the agent {name!r} is lost: {reason}; stop it and create it again, and use "
            'persistence="durable" for what must outlive the scheduler'
        )
    return AgentLostError(f"the agent {name!r} is lost: {reason}; stop it and create it again")
