"""Threads for what may block: few while turns are short, more while some are stuck.

Knows: jobs, threads, how long one has been at it. Must not know: agents.

As long as turns are short one thread does them all, in a row: threads that take turns at Python's
lock would only be slower. When nothing got done for `STUCK_AFTER`, whoever watches wakes one more,
up to a bound, so that a slow turn delays none but those behind it in its own mailbox.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from contextvars import Context
from typing import Any, final

__all__ = ["STUCK_AFTER", "Pool"]

logger = logging.getLogger("dspex.agents")

STUCK_AFTER = 0.005
"""Seconds without progress after which another thread is woken."""


@final
class Pool:
    """Runs jobs.

    Parameters
    ----------
    most : int
        How many threads there may be.
    context : contextvars.Context, optional
        Each thread begins with a copy of it.

    Examples
    --------
    >>> done = threading.Event()
    >>> pool = Pool(2)
    >>> pool.submit(done.set)
    >>> done.wait(10)
    True
    >>> pool.close()
    """

    def __init__(self, most: int, *, context: Context | None = None) -> None:
        self._most = most
        self._context = Context() if context is None else context
        self._jobs: deque[tuple[Any, ...]] = deque()
        self._condition = threading.Condition(threading.Lock())
        self._awake = 0  # threads that are at work, or about to be
        self._asleep = 0
        self._threads: list[threading.Thread] = []
        self._done = self._seen = 0
        self._closed = False

    def submit(self, job: Callable[..., None], *arguments: Any) -> None:
        """Have a job done; it must not raise."""
        if self._closed:
            return
        self._jobs.append((job, *arguments))
        if self._awake == 0:
            self._wake()

    def watch(self) -> bool:
        """Wake one more thread where nothing was done since the last call; whether jobs wait."""
        if not self._jobs:
            self._seen = self._done
            return False
        if self._done == self._seen or self._awake == 0:
            self._wake()
        self._seen = self._done
        return True

    def _wake(self) -> None:
        with self._condition:
            if self._closed or self._awake >= self._most:
                return
            self._awake += 1
            if self._asleep:
                self._asleep -= 1
                self._condition.notify()
                return
            thread = threading.Thread(
                target=self._context.copy().run,
                args=(self._run,),
                name=f"dspex-agents-{len(self._threads)}",
                daemon=True,
            )
            self._threads.append(thread)
        thread.start()

    def _run(self) -> None:
        while True:
            try:
                job, *arguments = self._jobs.popleft()
            except IndexError:
                if not self._rest():
                    return
                continue
            try:
                job(*arguments)
            except Exception:
                logger.exception("a job of the agents' threads failed")
            self._done += 1

    def _rest(self) -> bool:
        """Sleep until there is something to do; False at the end."""
        with self._condition:
            if self._jobs:
                return True
            if self._closed:
                return False
            self._awake -= 1
            self._asleep += 1
            self._condition.wait()
            return True

    def close(self) -> None:
        """Let the threads end when they have done what they are at."""
        with self._condition:
            self._closed = True
            self._jobs.clear()
            self._condition.notify_all()
