"""Waiting that serves sync and async code with one body.

Knows: threads, asyncio, futures of the standard library. Must not know: who is waited for.

What must be waited for is a flow: a generator that yields one `concurrent.futures.Future` after the
other and is sent whether it came in time. One driver blocks, the other awaits. The shape is that of
`httpx.Auth.auth_flow`.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import time
from collections.abc import Generator
from contextlib import closing
from typing import Any, TypeAlias, TypeVar

from dspex.agents.waiting import is_on_loop

__all__ = ["Flow", "end_of", "is_done_by", "run_flow", "will_be_done_by"]

T = TypeVar("T")

Flow: TypeAlias = Generator["concurrent.futures.Future[Any]", bool, T]


def run_flow(flow: Flow[T], seconds: float | None) -> Any:
    """Do what it does, within so many seconds; on a running loop give it to be awaited."""
    ends = end_of(seconds)
    return _awaiting(flow, ends) if is_on_loop() else _blocking(flow, ends)


def _blocking(flow: Flow[T], ends: float | None) -> T:
    with closing(flow):
        try:
            future = next(flow)
            while True:
                future = flow.send(is_done_by(future, ends))
        except StopIteration as stop:
            result: T = stop.value
            return result


async def _awaiting(flow: Flow[T], ends: float | None) -> T:
    with closing(flow):
        try:
            future = next(flow)
            while True:
                future = flow.send(await will_be_done_by(future, ends))
        except StopIteration as stop:
            result: T = stop.value
            return result


def end_of(seconds: float | None) -> float | None:
    """The instant at which so many seconds are over; None: never."""
    return None if seconds is None else time.monotonic() + seconds


def _left(ends: float | None) -> float | None:
    return None if ends is None else max(0.0, ends - time.monotonic())


def is_done_by(future: concurrent.futures.Future[Any], ends: float | None) -> bool:
    """Block until it is done, but not beyond that instant."""
    return bool(concurrent.futures.wait([future], _left(ends)).done)


async def will_be_done_by(future: concurrent.futures.Future[Any], ends: float | None) -> bool:
    """The same, on a loop."""
    if not future.done():
        await asyncio.wait([asyncio.wrap_future(future)], timeout=_left(ends))
    return future.done()
