"""Work on a loop that ends with whoever started it.

Knows: tasks of asyncio. Must not know: what they do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextvars import Context
from typing import Any, TypeVar, final

__all__ = ["Background"]

T = TypeVar("T")


@final
class Background:
    """Holds tasks, as a loop does not, until they are done.

    Parameters
    ----------
    context : contextvars.Context, optional
        In a copy of which each runs; None: of whoever starts it.

    Examples
    --------
    >>> async def work() -> int:
    ...     background = Background()
    ...     task = background.spawn(asyncio.sleep(0, 1))
    ...     hangs = background.spawn(asyncio.sleep(1e9))
    ...     first = await task
    ...     await background.close()
    ...     return first, hangs.cancelled()
    >>> asyncio.run(work())
    (1, True)
    """

    def __init__(self, context: Context | None = None) -> None:
        self._context = context
        self._tasks: set[asyncio.Task[Any]] = set()

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start work on the running loop."""
        context = None if self._context is None else self._context.copy()
        task = asyncio.get_running_loop().create_task(work, context=context)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self) -> None:
        """Cancel all of it, and wait until it has ended; not for a task that asks for this."""
        while tasks := self._tasks - {asyncio.current_task()}:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
