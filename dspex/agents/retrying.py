"""Calls that are made again after an error.

Knows: futures, the runtime's loop. Must not know: agents, what is called.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, final

from dspex.agents.answer import AgentFuture
from dspex.agents.settling import error_of, hand_on, settled
from dspex.cluster.agents.runtime import Runtime
from dspex.cluster.agents.turns import current_turn
from dspex.errors import InvalidArgumentError, UnavailableError

__all__ = ["RetryPolicy", "deadline_of", "retried"]


@final
@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """After which errors a call is made again, how often, and when.

    Parameters
    ----------
    attempts : int
        Calls in all, the first one included.
    backoff : float
        Seconds before the second one; 0 is allowed.
    factor : float
        By which each further wait is longer.
    most : float
        Seconds that no wait exceeds.
    retry_on : exception type, or tuple of them
        Of the agent's method or of dspex.

    Notes
    -----
    Each attempt is a call of its own: one that was cut off (`DeliveryError`) may have taken effect,
    and is made again all the same.

    Examples
    --------
    >>> list(RetryPolicy(attempts=5, backoff=1, most=5).waits())
    [1.0, 2.0, 4.0, 5.0]
    """

    attempts: int = 3
    backoff: float = 0.1
    factor: float = 2.0
    most: float = 10.0
    retry_on: type[BaseException] | tuple[type[BaseException], ...] = (Exception,)

    def __post_init__(self) -> None:
        attempts: Any = self.attempts
        if not isinstance(attempts, int) or isinstance(attempts, bool) or attempts < 1:
            raise InvalidArgumentError(f"attempts is a whole number from 1; got {attempts!r}")
        for name, least in (("backoff", 0.0), ("factor", 1.0), ("most", 0.0)):
            number: Any = getattr(self, name)
            if not isinstance(number, int | float) or not least <= number < math.inf:
                raise InvalidArgumentError(f"{name} is a number from {least:g}; got {number!r}")
        types: Any = self.retry_on
        types = types if isinstance(types, tuple) else (types,)
        if not all(isinstance(each, type) and issubclass(each, BaseException) for each in types):
            raise InvalidArgumentError(
                f"retry_on is an exception type or a tuple of them; got {self.retry_on!r}"
            )

    def waits(self) -> Iterator[float]:
        """Seconds before the second attempt, before the third, and so on."""
        wait = float(self.backoff)
        for _ in range(self.attempts - 1):
            yield min(wait, float(self.most))
            wait *= self.factor


def retried(
    first: AgentFuture,
    again: Callable[[float | None], AgentFuture],
    policy: RetryPolicy,
    runtime: Runtime,
    deadline: float | None,
) -> AgentFuture:
    """The answer of the last attempt.

    Parameters
    ----------
    first : AgentFuture
        The first attempt.
    again : callable
        Makes another one, which has so many seconds. It runs on the runtime's loop, in an empty
        context: other attempts are no part of a turn, because how many there are may differ when
        the turn is run again.
    deadline : float, optional
        Instant of the runtime's clock, for all attempts together.
    """

    async def attempt() -> None:
        future = first
        try:
            for wait in policy.waits():
                await settled(future)
                if future.cancelled():
                    break
                error = error_of(future)
                if error is None or not isinstance(error, policy.retry_on):
                    break
                del error  # it holds frames that hold what waits for it
                left = None if deadline is None else deadline - runtime.caller.now() - wait
                if left is not None and left <= 0:
                    break
                await asyncio.sleep(wait)
                future = again(left)
            await settled(future)
            hand_on(future, outer)
        except asyncio.CancelledError:
            outer.set_exception(
                UnavailableError(
                    f"this connection was closed while {first!r} was to be made again; whether it "
                    "took effect is not known; connect again"
                )
            )
            raise
        except Exception as error:
            outer.set_exception(error)

    def cancel() -> None:
        attempts.cancel()

    outer = AgentFuture(
        lambda done: done.result(), describe=first.description, cancel=cancel, loop=runtime.loop
    )
    work = attempt()
    try:
        attempts = contextvars.Context().run(asyncio.run_coroutine_threadsafe, work, runtime.loop)
    except RuntimeError:  # the loop is closed, and the first attempt has failed of it
        work.close()
        return first
    return outer


def deadline_of(runtime: Runtime, seconds: float | None) -> float | None:
    """The instant at which so many seconds are over, or the call that this code serves is late."""
    turn = current_turn()
    deadlines = [] if turn is None or turn.deadline is None else [turn.deadline]
    if seconds is not None:
        deadlines.append(runtime.caller.now() + seconds)
    return min(deadlines, default=None)
