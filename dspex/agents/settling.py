"""What became of a call, looked at without opening the answer, and handed on.

Knows: futures of agents, loops. Must not know: what is called.

An answer is opened in the thread of whoever asks for it, never on the loop that passes it along.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from dspex.agents.answer import AgentFuture
from dspex.cluster.agents.requests import Raised

__all__ = ["chained", "error_of", "hand_on", "raw_of", "settled"]


async def settled(future: AgentFuture) -> None:
    """Wait until it is done, on whichever loop; a wait that is cancelled cancels the call."""
    if future.done():
        return
    loop = asyncio.get_running_loop()
    waiter: asyncio.Future[None] = loop.create_future()

    def wake(_: object) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(_set, waiter)

    unsubscribe = future.subscribe(wake)
    try:
        await waiter
    except asyncio.CancelledError:
        with suppress(RuntimeError):
            future.cancel()
        raise
    finally:
        unsubscribe()


def _set(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def raw_of(future: AgentFuture) -> Any:
    """What a future that is done was filled with: a pickled result, a `Raised`, an error."""
    # Of the base class: those of AgentFuture open the answer.
    error = concurrent.futures.Future.exception(future, 0)
    return concurrent.futures.Future.result(future, 0) if error is None else error


def error_of(future: AgentFuture) -> BaseException | None:
    """The error of a future that is done; a result is not opened."""
    raw = raw_of(future)
    if isinstance(raw, Raised):
        return future.exception(0)
    return raw if isinstance(raw, BaseException) else None


def hand_on(done: AgentFuture, to: AgentFuture) -> None:
    """Fill a future, whose ``decode`` is given one that is done, with what became of that."""
    if done.cancelled():
        to.cancel()
    elif isinstance(error := raw_of(done), BaseException):
        to.set_exception(error)
    else:
        to.set_result(done)


def chained(inner: AgentFuture, decode: Callable[[AgentFuture], Any]) -> AgentFuture:
    """A future that ends with another one, and makes its own result of it.

    Parameters
    ----------
    inner : AgentFuture
    decode : callable
        Given `inner` when that has an answer, in the thread of whoever asks.

    Examples
    --------
    >>> inner = AgentFuture()
    >>> outer = chained(inner, lambda inner: inner.result() + 1)
    >>> inner.set_result(1)
    >>> outer.result()
    2
    """

    def cancel() -> None:
        inner.cancel()

    outer = AgentFuture(decode, describe=inner.description, cancel=cancel, loop=inner.loop)
    inner.subscribe(lambda done: hand_on(done, outer))
    return outer
