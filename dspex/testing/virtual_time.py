"""An asyncio loop in virtual time, and processes on it that can be paused and can die.

Knows: timers, tasks, contexts. Must not know: what runs on it.

The clock stands still while anything can run and jumps to the next timer when nothing can, so that
a run takes no longer than its code, and is the same each time. There are no sockets and no threads:
what would run in a thread runs in place, and takes the time that `VirtualLoop.work_takes` says.

A process is a context: whatever is started in it belongs to it, and stops between two steps when it
is paused or dies, without a word to anybody, as a real one does.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import itertools
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, final

__all__ = ["NothingToDoError", "Process", "VirtualLoop"]

T = TypeVar("T")

_owner: contextvars.ContextVar[Process | None] = contextvars.ContextVar(
    "dspex_virtual_process", default=None
)

_LOOK_BACK = 1e-9
"""Seconds by which a sum of floats may miss the instant of a timer."""


class NothingToDoError(RuntimeError):
    """Everybody waits for something that never comes."""


class _Future(asyncio.Future[Any]):
    """Lies in a set where its number says: by its place in memory each run would be another."""

    number = -1

    def __hash__(self) -> int:
        return self.number


class _Task(asyncio.Task[Any]):
    """As `_Future`."""

    def __init__(self, *args: Any, number: int, **options: Any) -> None:
        self.number = number
        super().__init__(*args, **options)

    def __hash__(self) -> int:
        return self.number


@final
class Process:
    """Tasks and timers that stop together.

    Parameters
    ----------
    loop : VirtualLoop
    name : str

    Attributes
    ----------
    is_dead : bool
    tasks : dict of Task to None
        Those that were started by `spawn`, and go on.

    Examples
    --------
    >>> loop = VirtualLoop()
    >>> process, heard = Process(loop, "one"), []
    >>> async def speak():
    ...     while True:
    ...         heard.append(loop.time())
    ...         await asyncio.sleep(1.0)
    >>> _ = process.spawn(speak())
    >>> loop.run_until_complete(asyncio.sleep(1.5))
    >>> process.die()
    >>> loop.run_until_complete(asyncio.sleep(10.0))
    >>> heard
    [0.0, 1.0]
    >>> loop.end()
    """

    def __init__(self, loop: VirtualLoop, name: str) -> None:
        self.name = name
        self.is_dead = False
        self._loop = loop
        self.tasks: dict[asyncio.Task[Any], None] = {}
        self._is_paused = False
        self._kept: deque[asyncio.Handle] = deque()
        self._context = contextvars.copy_context()
        self._context.run(_owner.set, self)
        loop.processes.append(self)

    def __repr__(self) -> str:
        return f"<Process {self.name}{' (dead)' if self.is_dead else ''}>"

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start a task of this process."""
        task = self._loop.create_task(work, context=self._context.copy())
        self.tasks[task] = None
        task.add_done_callback(self.tasks.pop)
        return task

    def run(self, function: Callable[..., T], *args: Any) -> T:
        """Call a function as part of this process, now."""
        return self._context.copy().run(function, *args)

    def pause(self) -> None:
        """Stop it, until `go_on`."""
        self._is_paused = True

    def go_on(self) -> None:
        """Let it do all that became due meanwhile."""
        self._is_paused = False
        if not self.is_dead:
            self._loop.give_back(self._kept)

    def die(self) -> None:
        """Let it do nothing any more."""
        self.is_dead = True

    def keeps(self, handle: asyncio.Handle) -> bool:
        """Keep back what it may not do now; gives whether it does."""
        if self._is_paused or self.is_dead:
            self._kept.append(handle)
            return True
        return False


@final
class VirtualLoop(asyncio.BaseEventLoop):
    """The loop.

    Attributes
    ----------
    work_takes : callable
        Gives the seconds that work takes which would run in a thread.
    processes : list of Process
        All there ever were.
    nobody : contextvars.Context
        Of what belongs to no process.
    steps : int
        How many were taken so far.

    Examples
    --------
    >>> loop = VirtualLoop()
    >>> loop.run_until_complete(asyncio.sleep(3600.0, "an hour later"))
    'an hour later'
    >>> loop.time()
    3600.0
    >>> loop.end()
    """

    _ready: deque[asyncio.Handle]
    _scheduled: list[asyncio.TimerHandle]

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self.work_takes: Callable[[], float] = lambda: 0.0
        self.processes: list[Process] = []
        self.nobody = contextvars.copy_context()
        self.steps = 0
        self._made = itertools.count()
        self.set_task_factory(self._new_task)

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._now

    def run_in_executor(  # type: ignore[override]  # it is a future, as the base class says
        self, executor: Any, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        """Do the work in place, after the time that it takes."""
        future: asyncio.Future[T] = self.create_future()

        def work() -> None:
            if future.cancelled():
                return
            try:
                future.set_result(func(*args))
            except Exception as error:
                future.set_exception(error)

        seconds = self.work_takes()
        if seconds > 0.0:
            self.call_later(seconds, work)
        else:
            work()
        return future

    def create_future(self) -> asyncio.Future[Any]:
        """Make a future."""
        future = _Future(loop=self)
        future.number = next(self._made)
        return future

    def _new_task(
        self, loop: asyncio.AbstractEventLoop, work: Any, **options: Any
    ) -> asyncio.Task[Any]:
        return _Task(work, loop=loop, number=next(self._made), **options)

    # --- how it runs -------------------------------------------------------------------------

    def _run_once(self) -> None:
        """Let all that is ready take a step, and time pass where nothing is."""
        scheduled = self._scheduled
        while scheduled and scheduled[0].cancelled():
            heapq.heappop(scheduled)
        if not self._ready:
            if not scheduled:
                raise NothingToDoError("nothing is under way, and nothing will be")
            self._now = max(self._now, scheduled[0].when())
        while scheduled and scheduled[0].when() <= self._now + _LOOK_BACK:
            self._ready.append(heapq.heappop(scheduled))
        for _ in range(len(self._ready)):
            handle = self._ready.popleft()
            if handle.cancelled():
                continue
            context: contextvars.Context = handle._context  # type: ignore[attr-defined]
            process = context.get(_owner)
            if process is None or not process.keeps(handle):
                self.steps += 1
                handle._run()

    def give_back(self, handles: deque[asyncio.Handle]) -> None:
        """Have what was kept back run now."""
        self._ready.extend(handles)
        handles.clear()

    def _write_to_self(self) -> None:
        """Do nothing: nobody sleeps in this loop who would have to be woken."""

    def end(self) -> None:
        """Cancel whatever is left, of the dead too, and close."""
        for process in self.processes:
            process.is_dead = False
            process.go_on()
        for _ in range(20):
            tasks = asyncio.all_tasks(self)
            if not tasks:
                break
            for task in tasks:
                task.cancel()
            self.run_until_complete(asyncio.sleep(0.0))
        self.run_until_complete(self.shutdown_asyncgens())
        self._scheduled.clear()
        self.close()
