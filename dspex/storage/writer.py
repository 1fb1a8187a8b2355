"""A thread that writes, so that the thread that appends never waits for a disk.

Knows: queues, threads, group commit. Must not know: SQLite, what a record is made of.

`append` queues and returns; the writer takes everything that is queued and writes it as one
batch, so that the slower the disk is, the larger the batches are. An error of the writer's is
raised by the next call, and by every call after it.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TypeAlias, final

from dspex.errors import StorageError
from dspex.study.records import Record

__all__ = ["Write", "Writer"]

Write: TypeAlias = Callable[[list[Record]], None]
"""Makes one batch durable; an empty one is a sign of life."""

GATHER_SECONDS = 0.01
"""Commits are this far apart while nobody waits for one: each costs more than what it carries."""

LIMIT = 65_536
"""Records that may wait; `append` blocks beyond."""


@final
class Writer:
    """Owns the thread and the queue before it.

    Parameters
    ----------
    session : callable
        Gives a context manager of a `Write`; entered and left in the writer's thread.
    idle_seconds : float
        How long the writer may be silent before it writes an empty batch.
    """

    def __init__(
        self, session: Callable[[], AbstractContextManager[Write]], *, idle_seconds: float
    ) -> None:
        self._session = session
        self._idle_seconds = idle_seconds
        self._pid = os.getpid()
        self._changed = threading.Condition()
        self._queue: list[Record] = []
        self._appended = 0
        self._kept = 0
        self._hurry = False
        self._closing = False
        self._error: Exception | None = None
        # A daemon, so that a log that nobody closed does not keep the interpreter from ending;
        # atexit then closes it in order.
        self._thread = threading.Thread(target=self._run, name="dspex-log", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def append(self, records: Sequence[Record]) -> None:
        """Queue records; blocks only while the queue is full."""
        self.check()
        with self._changed:
            self._changed.wait_for(lambda: len(self._queue) < LIMIT or self._error)
            if self._error is not None:
                raise self._error
            was_empty = not self._queue
            self._queue.extend(records)
            self._appended += len(records)
            # In between the writer sleeps on purpose, to gather.
            if was_empty or len(self._queue) >= LIMIT:
                self._changed.notify_all()

    def sync(self) -> None:
        """Wait until everything appended is kept."""
        self.check()
        with self._changed:
            target = self._appended
            self._hurry = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._kept >= target or self._error)
            if self._error is not None:
                raise self._error

    def close(self) -> None:
        """Write what is queued and end the thread; may be called twice."""
        # After a fork the thread, and what it holds open, belong to the parent.
        if self._pid != os.getpid():
            return
        with self._changed:
            first = not self._closing
            self._closing = True
            self._changed.notify_all()
        self._thread.join()
        atexit.unregister(self.close)
        if first and self._error is not None:
            raise self._error

    def check(self) -> None:
        """Raise what stands against using this writer."""
        if self._pid != os.getpid():
            raise StorageError(
                f"a log belongs to the process that opened it, {self._pid}; this is its fork "
                f"{os.getpid()}; open logs after forking"
            )
        if self._error is not None:
            raise self._error
        if self._closing:
            raise StorageError("a closed log is not used any more; open it again with open_log")

    def _run(self) -> None:
        try:
            with self._session() as write:
                while (batch := self._take()) is not None:
                    write(batch)
                    with self._changed:
                        self._kept += len(batch)
                        self._changed.notify_all()
        except Exception as error:
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _take(self) -> list[Record] | None:
        """Everything queued; nothing after a silence; None at the end."""
        gather_until = time.monotonic() + GATHER_SECONDS
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closing, self._idle_seconds)
            self._changed.wait_for(
                lambda: self._hurry or self._closing or len(self._queue) >= LIMIT,
                gather_until - time.monotonic(),
            )
            if self._closing and not self._queue:
                return None
            batch, self._queue = self._queue, []
            self._hurry = False
            return batch
