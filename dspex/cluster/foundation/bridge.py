"""One method for sync and async code: a loop, and two ways to wait for what runs on it.

Knows: asyncio loops, threads. Must not know: what the work does.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import Future as ThreadFuture
from typing import Any, Generic, TypeVar, final

from dspex.errors import InvalidArgumentError, UnavailableError

__all__ = ["LoopBridge", "Stream"]

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

    @property
    def asynchronous(self) -> bool:
        """Whether the user awaits what methods return."""
        return self._asynchronous

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
        if not self.loop.is_running():
            work.close()
            raise UnavailableError(
                "this connection to the foundation is closed, and so is its client; connect again"
            )
        return asyncio.run_coroutine_threadsafe(work, self.loop)


@final
class Stream(Generic[T]):
    """An endless sequence that arrives; for ``for``, or for ``async for`` on the loop.

    A context manager; `close` ends it, in another thread too.
    """

    def __init__(self, bridge: LoopBridge, make: Callable[[], AsyncIterator[T]]) -> None:
        self._bridge = bridge
        self._source = make()
        self._waiting: ThreadFuture[T] | None = None
        self._closed = False

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        if self._bridge.asynchronous:
            raise InvalidArgumentError("in async code this is iterated with `async for`")
        if self._closed:
            raise StopIteration
        try:
            self._waiting = self._bridge.submit(self._next())
            return self._waiting.result()
        except StopAsyncIteration:
            raise StopIteration from None
        except BaseException:
            if self._closed:
                raise StopIteration from None
            self._waiting.cancel() if self._waiting is not None else None
            raise

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        if self._closed:
            raise StopAsyncIteration
        return await self._next()

    async def _next(self) -> T:
        return await anext(self._source)

    def close(self) -> Any:
        """End it; may be called twice."""
        if self._closed:
            return self._bridge.run(_nothing()) if self._bridge.asynchronous else None
        self._closed = True
        if self._waiting is not None:
            self._waiting.cancel()
        return self._bridge.run(self._end())

    async def _end(self) -> None:
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
        self._closed = True
        await self._end()


async def _nothing() -> None:
    """Do nothing."""


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

    def stop(self) -> None:
        """End what runs on the loop, the loop and the thread."""
        asyncio.run_coroutine_threadsafe(self._cancel_all(), self.loop).result()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()
