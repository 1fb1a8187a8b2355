"""Group commit: what is appended while one write is under way goes with the next one.

Knows: a journal, one thread that writes to it, positions. Must not know: what entries mean.

Entries are numbered. `committed` only grows; whoever needs an entry to be kept waits for its
number. A journal that cannot be written now is tried again; until then nothing new is taken, and
who waits longer than `PATIENCE` hears `UnavailableError`. One that another scheduler owns is given
up for good.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import final

from dspex.errors import JournalError, JournalFencedError, UnavailableError
from dspex.foundation.ports import Journal

__all__ = ["Commits"]

logger = logging.getLogger("dspex.journal")

PATIENCE = 10.0
"""Seconds for which an entry is waited for."""

MAX_BATCH = 4 * 2**20
"""Bytes that are written at once, so that one large batch does not hold up all others."""

_RETRY_AFTER = (0.05, 0.1, 0.2, 0.5, 1.0)


@final
class Commits:
    """Appends entries to a journal, off the event loop where it is durable.

    Parameters
    ----------
    journal : Journal
        Open and loaded.
    committed : int
        The number of its last entry.
    on_commit : callable of int
        Called on the loop after the entries up to this number are kept.
    thread : ThreadPoolExecutor
        Of one thread, which alone uses the journal.
    """

    def __init__(
        self,
        journal: Journal,
        committed: int,
        on_commit: Callable[[int], None],
        thread: ThreadPoolExecutor,
    ) -> None:
        self._journal = journal
        self.committed = committed
        self._on_commit = on_commit
        self._thread = thread
        self._queue: deque[bytes] = deque()
        self._waiters: dict[int, set[asyncio.Future[None]]] = {}
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.fenced: JournalFencedError | None = None
        self.trouble: JournalError | None = None
        self.bytes_since_snapshot = 0
        self.batches = 0
        self.seconds = 0.0

    def start(self) -> None:
        """Begin to write."""
        if self._journal.durable:
            self._task = asyncio.create_task(self._run(), name="dspex-commits")

    def append(self, number: int, entry: bytes) -> None:
        """Take an entry; numbers follow each other."""
        self.bytes_since_snapshot += len(entry)
        if not self._journal.durable:
            self._journal.append(number, [entry])
            self._advance(number)
        elif self.fenced is None:
            self._queue.append(entry)
            self._wake.set()

    def check(self) -> None:
        """Raise UnavailableError where nothing new can be kept now."""
        if self.fenced is not None:
            raise self._given_up()
        if self.trouble is not None:
            raise UnavailableError(
                f"the journal {self._journal.url} cannot be written now ({self.trouble}); nothing "
                "was changed; mend it, and try again"
            )

    async def reach(self, number: int) -> None:
        """Wait until the entries up to `number` are kept.

        Raises
        ------
        UnavailableError
            Where that is not known in time.
        """
        if number <= self.committed:
            return
        if self.fenced is not None:
            raise self._given_up()
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiters = self._waiters.setdefault(number, set())
        waiters.add(future)
        try:
            async with asyncio.timeout(PATIENCE):
                await future
        except TimeoutError:
            if number <= self.committed:
                return  # at the same moment
            raise UnavailableError(
                f"the journal {self._journal.url} could not be written for {PATIENCE:g} s "
                f"({self.trouble or 'it does not answer'}); what was changed last takes effect "
                "when it can be; look before you call again"
            ) from None
        finally:
            waiters.discard(future)
            if not waiters and self._waiters.get(number) is waiters:
                del self._waiters[number]

    async def close(self) -> None:
        """Write what is queued, and end."""
        if self._task is None:
            return
        if self._queue and self.fenced is None and self.trouble is None:
            with suppress(UnavailableError):
                await self.reach(self.committed + len(self._queue))
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._task = None
        self._refuse(
            f"the scheduler closed before the journal {self._journal.url} had the change; whether "
            "it took effect is not known; look before you call again"
        )

    # --- the writer ------------------------------------------------------------------------

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            await self._wake.wait()
            batch = self._batch()
            first = self.committed + 1
            started = time.perf_counter()
            try:
                await loop.run_in_executor(self._thread, self._journal.append, first, batch)
            except JournalFencedError as error:
                self._give_up(error)
                return
            except Exception as error:
                self._fail(error)
                await asyncio.sleep(_RETRY_AFTER[min(failures, len(_RETRY_AFTER) - 1)])
                failures += 1
                continue
            self.seconds += time.perf_counter() - started
            self.batches += 1
            if failures:
                logger.warning("the journal %s can be written again", self._journal.url)
            failures, self.trouble = 0, None
            for _ in batch:
                self._queue.popleft()
            if not self._queue:
                self._wake.clear()
            self._advance(first + len(batch) - 1)

    def _batch(self) -> list[bytes]:
        batch: list[bytes] = []
        size = 0
        for entry in self._queue:
            size += len(entry)
            if batch and size > MAX_BATCH:
                break
            batch.append(entry)
        return batch

    def _advance(self, number: int) -> None:
        former, self.committed = self.committed, number
        try:
            self._on_commit(number)
        except Exception:
            logger.exception("what follows the commit of entry %d failed", number)
        if self._waiters:
            for each in range(former + 1, number + 1):
                for future in self._waiters.pop(each, ()):
                    if not future.done():
                        future.set_result(None)

    def _fail(self, error: Exception) -> None:
        if self.trouble is None:
            logger.error("the journal %s cannot be written: %s", self._journal.url, error)
        self.trouble = (
            error
            if isinstance(error, JournalError)
            else JournalError(f"{type(error).__name__}: {error}")
        )

    def _give_up(self, error: JournalFencedError) -> None:
        logger.error("the journal %s has another owner: %s", self._journal.url, error)
        self.fenced = error
        self._queue.clear()
        self._refuse(
            f"another scheduler owns the journal {self._journal.url}; whether the change took "
            "effect is not known; connect to that scheduler, and look"
        )

    def _given_up(self) -> UnavailableError:
        return UnavailableError(
            f"this scheduler does not own the journal {self._journal.url} any more "
            f"({self.fenced}); connect to the scheduler that does"
        )

    def _refuse(self, message: str) -> None:
        for waiters in self._waiters.values():
            for future in waiters:
                if not future.done():
                    future.set_exception(UnavailableError(message))
        self._waiters.clear()
