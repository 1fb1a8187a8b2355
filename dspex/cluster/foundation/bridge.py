"""One method for sync and async code: a loop, and two ways to wait for what runs on it.

Knows: asyncio loops, threads, that a fork has neither. Must not know: what the work does.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import CancelledError as Cancelled
from concurrent.futures import Future as ThreadFuture
from contextlib import suppress
from typing import Any, Generic, NoReturn, TypeVar, final

from dspex.errors import InvalidArgumentError, NotPicklableError, UnavailableError

__all__ = ["LoopBridge", "LoopThread", "Stream"]

T = TypeVar("T")


@final
class LoopBridge:
    """Runs work on one loop.

    Parameters
    ----------
    loop : asyncio.AbstractEventLoop
        Running, in another thread unless `asynchronous`.
    asynchronous : bool
        Whether the user lives on that loop, and awaits.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, *, asynchronous: bool) -> None:
        self.loop = loop
        self._asynchronous = asynchronous
        self._process = os.getpid()

    def __reduce__(self) -> NoReturn:
        raise NotPicklableError(
            "what dspex.connect gives stays in its process, as its session does; call "
            "dspex.connect in the other process"
        )

    @property
    def asynchronous(self) -> bool:
        """Whether the user awaits what methods return."""
        return self._asynchronous

    @property
    def is_forked(self) -> bool:
        """Whether this is a copy in a fork of the process, which has no such loop."""
        return os.getpid() != self._process

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for the work; in async code give the work, to be awaited."""
        if self._asynchronous:
            return work  # type: ignore[return-value]  # one signature for both kinds of code
        if _running_loop() is self.loop:
            work.close()
            raise InvalidArgumentError(
                "a call that blocks was made on the loop that must answer it; connect with an "
                "asynchronous Client, and await the call"
            )
        future = self.submit(work)
        try:
            return future.result()
        except Cancelled:
            raise _ended() from None
        except BaseException:
            future.cancel()  # Ctrl-C: nobody waits any more
            raise

    def iterate(self, make: Callable[[], AsyncIterator[T]]) -> Stream[T]:
        """Something that works with ``for`` and with ``async for``."""
        return Stream(self, make)

    def spawn(self, work: Coroutine[Any, Any, Any]) -> Callable[[], None]:
        """Start work in the background; gives what ends it."""
        future = self.submit(work)

        def stop() -> None:
            future.cancel()

        return stop

    def submit(self, work: Coroutine[Any, Any, T]) -> ThreadFuture[T]:
        """Start work from any thread; UnavailableError where the loop has ended."""
        if self.is_forked:
            work.close()
            raise UnavailableError(
                "a connection to the foundation does not survive a fork; call dspex.connect in "
                "the new process"
            )
        try:
            if self.loop.is_running():
                return asyncio.run_coroutine_threadsafe(work, self.loop)
        except RuntimeError:  # it was closed meanwhile
            pass
        work.close()
        raise _ended()


@final
class Stream(Generic[T]):
    """An endless sequence that arrives; for ``for``, or for ``async for`` on the loop.

    A context manager; `close` ends it, in another thread too. Whoever stops waiting for the next
    item (a timeout, Ctrl-C) may ask again, and misses nothing.
    """

    def __init__(self, bridge: LoopBridge, make: Callable[[], AsyncIterator[T]]) -> None:
        self._bridge = bridge
        self._source = make()
        self._coming: asyncio.Task[T] | None = None
        self._turn = asyncio.Lock()
        self._closed = False

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        if self._bridge.asynchronous:
            raise InvalidArgumentError("in async code this is iterated with `async for`")
        try:
            return self._bridge.run(self._next())
        except StopAsyncIteration:
            raise StopIteration from None

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        return await self._next()

    async def _next(self) -> T:
        async with self._turn:
            if self._closed:
                raise StopAsyncIteration
            coming = self._coming
            if coming is None:
                coming = self._coming = asyncio.get_running_loop().create_task(self._one())
            try:
                # Whoever waits may be cancelled; a generator that is would be at its end.
                return await asyncio.shield(coming)
            except asyncio.CancelledError:
                if self._closed:
                    raise StopAsyncIteration from None
                raise
            finally:
                if coming.done():
                    self._coming = None

    async def _one(self) -> T:
        return await anext(self._source)

    def close(self) -> Any:
        """End it; may be called twice."""
        if self._bridge.asynchronous:
            return self._end()
        with suppress(UnavailableError):  # then it has ended already
            self._bridge.run(self._end())
        return None

    async def _end(self) -> None:
        self._closed = True
        coming, self._coming = self._coming, None
        if coming is not None:
            coming.cancel()
            await asyncio.wait([coming])
        end: Any = getattr(self._source, "aclose", None)
        if end is not None:
            await end()

    def __enter__(self) -> Stream[T]:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    async def __aenter__(self) -> Stream[T]:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._end()


def _ended() -> UnavailableError:
    return UnavailableError(
        "this connection to the foundation is closed, or its client is; connect again"
    )


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


@final
class LoopThread:
    """A loop of one's own, in a thread that ends with the process."""

    def __init__(self, name: str) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name=name, daemon=True)
        self._thread.start()

    async def _cancel_all(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.loop.shutdown_asyncgens()
        await self.loop.shutdown_default_executor()

    def stop(self) -> None:
        """End what runs on the loop, the loop and the thread; may be called twice."""
        if self.loop.is_closed():
            return
        asyncio.run_coroutine_threadsafe(self._cancel_all(), self.loop).result()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()
