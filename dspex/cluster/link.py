"""The executor's side of the client: tasks go out, and what happened comes back as events.

Knows: the client, its event loop, how tasks are bound to workers. Must not know: evaluations,
chunks, what is done about an event (`executor`).

Coroutines run on the client's own loop and put what they find into one queue, so that the study's
thread never waits for a worker that hangs. An event is a tuple whose first item is its kind:
``("done", number)``, ``("results", numbers, {number: packed})``, ``("workers", {address: slots},
running, left_in_order, look)``, ``("facts", asked, {address: facts})``, ``("placed",)``,
``("begun", {number: whether})``.
"""

from __future__ import annotations

import asyncio
import contextvars
import queue
from collections.abc import Collection, Coroutine, Mapping, Sequence
from concurrent.futures import Future as ThreadFuture
from contextlib import suppress
from typing import Any, TypeAlias, final

from distributed import Client, Future

from dspex.cluster.placement import Placement
from dspex.cluster.tasks import begun, close_hosts
from dspex.cluster.versions import ask_workers

__all__ = ["Event", "Link"]

Event: TypeAlias = tuple[Any, ...]

LOOK_EVERY = 0.5
"""Seconds between two looks at who is there."""

_ANSWER_WITHIN = 10.0
_GATHERS_END_WITHIN = 1.0


@final
class Link:
    """A client that blocks, used without blocking."""

    def __init__(self, client: Client) -> None:
        self._client: Any = client
        self.token = ""  # names the study whose tasks these are
        self._tasks_made = 0
        self._there: set[str] = set()
        self.looks = 0  # that have begun
        self._look_soon = asyncio.Event()
        self._background: list[ThreadFuture[None]] = []
        self._gathers: set[asyncio.Task[Any]] = set()
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self.address = str(client.scheduler.address) if client.scheduler else "?"

    @property
    def status(self) -> str:
        """The client's: running, connecting, closing, closed."""
        return str(self._client.status)

    def stop(self) -> None:
        """End what runs in the background."""
        for task in self._background:
            task.cancel()

    def on_loop(self, work: Coroutine[Any, Any, Any]) -> ThreadFuture[Any]:
        """Run a coroutine on the client's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._client.loop.asyncio_loop)

    def begin(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run a coroutine on the client's loop while that runs, without waiting for it."""
        if self._client.loop.asyncio_loop.is_running():
            self.on_loop(work)
        else:
            work.close()

    def run_background(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine on the client's loop until `stop`."""
        self._background = [task for task in self._background if not task.done()]
        self._background.append(self.on_loop(work))

    async def look(self) -> tuple[dict[str, int], set[str]]:
        """Which workers there are, and which of them take work."""
        scheduler = self._client.scheduler
        # One after the other: a `gather` within a time limit complains on the terminal when the
        # study ends in the middle of it.
        async with asyncio.timeout(_ANSWER_WITHIN):
            everyone = await scheduler.ncores()
            running = await scheduler.ncores_running()
        self._there = set(everyone)
        return dict(everyone), set(running)

    async def watch(self) -> None:
        """Say again and again who is there."""
        while True:
            # More workers, longer answers: the scheduler should not notice us.
            with suppress(TimeoutError):
                async with asyncio.timeout(max(LOOK_EVERY, len(self._there) / 200)):
                    await self._look_soon.wait()
            self._look_soon.clear()
            self.looks += 1
            # While the scheduler is away `_check_scheduler` judges.
            with suppress(OSError, TimeoutError, AttributeError):
                before = self._there
                everyone, running = await self.look()
                in_order = {w for w in before - everyone.keys() if await self._left_in_order(w)}
                self.events.put(("workers", everyone, running, in_order, self.looks))

    def look_soon(self) -> None:
        """Have `watch` look at once."""
        self._client.loop.asyncio_loop.call_soon_threadsafe(self._look_soon.set)

    async def _left_in_order(self, worker: str) -> bool:
        """Whether a worker was retired or closed, so that nothing that it ran has killed it."""
        events = await asyncio.wait_for(self._client.scheduler.events(topic=worker), _ANSWER_WITHIN)
        return any(
            event.get("action") == "retired"
            or event.get("expected") is True
            or event.get("status") in ("closing_gracefully", "closing")
            for _, event in events
            if isinstance(event, Mapping)
        )

    async def ask(self, workers: Collection[str]) -> None:
        """Ask workers for their versions."""
        with suppress(OSError, TimeoutError):
            self.events.put(("facts", workers, await ask_workers(self._client, workers)))
            return
        self.events.put(("facts", workers, {}))

    async def place_on(self, placement: Placement, workers: Sequence[str]) -> None:
        """Put copies of the payload on workers."""
        try:
            for worker in workers:
                try:
                    await placement.place(worker)
                except (OSError, TimeoutError, KeyError):
                    # It has left, or hangs: the next look will say so, and not before.
                    await asyncio.sleep(LOOK_EVERY)
        finally:
            self.events.put(("placed",))

    async def gather(self, numbers: Sequence[int], futures: Sequence[Future[Any]]) -> None:
        """Fetch the results of these tasks."""
        this: Any = asyncio.current_task()
        self._gathers.add(this)
        try:
            # A result that was lost with its worker makes this wait until its chunk is given up.
            results = await self._client.gather(
                dict(zip(numbers, futures, strict=True)), errors="skip", asynchronous=True
            )
        finally:
            self._gathers.discard(this)
        self.events.put(("results", numbers, results))

    async def ask_begun(self, tasks: Sequence[tuple[int, str, str]]) -> None:
        """Ask workers which of these tasks they have begun: (number, address, key)."""
        found: dict[int, bool] = {}
        asked: dict[str, dict[int, str]] = {}
        for number, worker, key in tasks:
            asked.setdefault(worker, {})[number] = key

        async def ask(worker: str, keys: Mapping[int, str]) -> None:
            with suppress(OSError, TimeoutError):
                answers = await asyncio.wait_for(
                    self._client.run(
                        begun, list(keys.values()), workers=[worker], on_error="ignore"
                    ),
                    _ANSWER_WITHIN,
                )
                found.update(zip(keys, answers.get(worker, ()), strict=False))

        try:
            await asyncio.gather(*(ask(worker, keys) for worker, keys in asked.items()))
        finally:
            self.events.put(("begun", found))

    async def clean(
        self, futures: Sequence[Future[Any]], used: Mapping[str, Collection[str]]
    ) -> None:
        """Cancel tasks, and end the pools behind these anchors: {address: keys}."""
        if futures:
            await self._client.cancel(list(futures), asynchronous=True)
        if self._gathers:
            # Cancelled from outside, the client's own tasks would complain on the terminal.
            await asyncio.wait(set(self._gathers), timeout=_GATHERS_END_WITHIN)
        everyone, _ = await self.look()
        there = [worker for worker in used if worker in everyone]
        if there:
            keys = [key for worker in there for key in used[worker]]
            await self._client.run(close_hosts, keys, workers=there, on_error="ignore")

    def new_key(self) -> str:
        """Name a task; names begin with the study's token."""
        self._tasks_made += 1
        return f"dspex-{self.token}-{self._tasks_made}"

    def submit_task(self, key: str, function: Any, argument: Future[Any], worker: str) -> Any:
        """Submit a task that runs on this worker or nowhere."""
        # In a context of its own, so that a `dask.annotate` around the study does not reach it.
        return contextvars.Context().run(
            self._client.submit,
            function,
            argument,
            key=key,
            workers=[worker],
            allow_other_workers=False,
            pure=False,
            retries=0,
        )

    def cancel(self, futures: Sequence[Future[Any]]) -> None:
        """End tasks, without waiting."""
        if futures and self.status == "running":
            self.on_loop(self._client._cancel(futures))

    def report_when_done(self, future: Future[Any], number: int) -> None:
        """Put ``("done", number)`` among the events when this task has come to an end."""
        add: Any = future.add_done_callback
        add(lambda _: self.events.put(("done", number)))
