"""The Dask executor: performs on a cluster what the dispatcher plans.

Knows: the client, futures, which workers there are. Must not know: strategies, logs.

One thread uses it (that of the study); the client's event loop only puts what happened into a
queue. Nothing is installed on the scheduler (but the foundation, where leases are asked for), and
nothing touched that is not ours (G10): the keys of our tasks begin with the study's token, and what
we leave on a worker is one pool, which ends with its anchor (`tasks`).
"""

from __future__ import annotations

import asyncio
import queue
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, final

from distributed import Client, Future
from distributed.scheduler import KilledWorker

from dspex.cluster.admission import LeaseRequest
from dspex.cluster.anchors import Anchors
from dspex.cluster.demand import Demand
from dspex.cluster.dispatch import Chunk, Dispatcher
from dspex.cluster.doubts import Doubts
from dspex.cluster.gatekeeper import Gatekeeper
from dspex.cluster.link import LOOK_EVERY, Link
from dspex.cluster.members import Members
from dspex.cluster.patience import Patience, scheduler_lost
from dspex.cluster.placement import Placement
from dspex.cluster.recall import Recall
from dspex.cluster.slots import Slots
from dspex.cluster.tasks import unpack_result
from dspex.cluster.versions import ask_workers
from dspex.engine.ports import CapacityChanged, Evaluation, Job, Notice, Outcome
from dspex.errors import ClusterError, ClusterLostError
from dspex.execution.payload import Payload

__all__ = ["DaskExecutor"]

WORKER_PATIENCE = 300.0
_GRACE = 1.0
_CLOSE_TIMEOUT = 15.0
_CLEAN_WITHIN = 10.0
_CANCELLED_IN_A_ROW = 20


@final
class DaskExecutor:
    """Evaluates on the workers of a Dask cluster.

    Parameters
    ----------
    client : distributed.Client
        A client that blocks; it stays open.
    max_workers : int, optional
        How many workers to use at most; those chosen first are kept, and replaced when they leave.
    worker_patience : float, default 300
        Seconds without any worker after which `poll` raises.
    request : LeaseRequest, optional
        What each evaluation needs a lease of; None: no leases, and no foundation.
    most : int, optional
        How many evaluations the study can run at once.
    """

    runs_here = False

    def __init__(
        self,
        client: Client,
        *,
        max_workers: int | None = None,
        worker_patience: float = WORKER_PATIENCE,
        request: LeaseRequest | None = None,
        most: int | None = None,
    ) -> None:
        self._client = client
        self._link = Link(client)
        self._address = self._link.address
        wanted = str(request or "")
        self._patience = Patience(seconds=worker_patience, address=self._address, wanted=wanted)
        self._gate = request and Gatekeeper(client, request, self._link.events.put, most)
        self._slots = Slots(is_leased=request is not None)
        self._vanished, self._unleased = Doubts(), Doubts()
        self._refusal: Exception | None = None
        self._members = Members(max_workers)
        self._dispatcher = Dispatcher()
        self._recall = Recall()
        self._demand = Demand(client)
        self._events = self._link.events
        self._outbox: list[Outcome | CapacityChanged | Notice] = []
        self._futures: dict[int, Future[Any]] = {}
        self._anchors = Anchors(self._link)
        self._ending: dict[int, float] = {}
        self._placement: Placement | None = None
        self._placing = False
        self._cancelled_in_a_row = 0
        self._capacity: CapacityChanged | None = None
        self._lost_since: float | None = None
        self._closed = False

    # --- the port --------------------------------------------------------------------------

    def open(self, job: Job) -> CapacityChanged:
        """Check the versions, place the program and the data."""
        payload = Payload.of(job)
        self._anchors.isolation = job.isolation
        self._link.token = payload.token
        self._placement = Placement(self._client, payload)
        try:
            everyone, running = self._link.on_loop(self._link.look()).result()
            facts = self._link.on_loop(ask_workers(self._client, everyone)).result()
        except (OSError, TimeoutError) as error:
            raise ClusterLostError(
                f"the scheduler at {self._address} must answer; it did not ({error})"
            ) from error
        self._members.saw(everyone, running)
        self._facts(everyone, facts)
        self._members.refuse_unfit()
        if self._gate is not None:
            self._link.on_loop(self._gate.open()).result()
            self._take_events(0.0)
            if self._refusal is not None:
                raise self._refusal
        assert self._capacity is not None
        self._outbox = [each for each in self._outbox if isinstance(each, Notice)]
        workers = self._placement.lacks(list(self._members.usable()))
        self._link.on_loop(self._link.place_on(self._placement, workers)).result()
        self._link.run_background(self._link.watch())
        return self._capacity

    def submit(self, evaluations: Sequence[Evaluation]) -> None:
        """Queue evaluations."""
        self._dispatcher.add(evaluations)
        self._dispatch()

    def cancel(self, trials: Collection[int]) -> None:
        """Forget the evaluations of these trials; running ones are ended."""
        ended, partly = self._dispatcher.cancel(trials)
        self._end(chunk.number for chunk in ended)
        for chunk in partly:
            # Short ones are over before they could be ended; a hanging one gets no more than this.
            self._ending.setdefault(chunk.number, time.monotonic() + _GRACE)

    def poll(self, timeout: float) -> list[Outcome | CapacityChanged | Notice]:
        """Wait up to ``timeout`` seconds for something to happen, and say what happened."""
        deadline = time.monotonic() + timeout
        while True:
            self._check_scheduler()
            self._end_overdue()
            self._place()
            self._dispatch()
            self._look_for_stuck_chunks()
            left = deadline - time.monotonic()
            if self._outbox or (left <= 0 and self._events.empty()):
                break
            self._take_events(min(max(left, 0.0), LOOK_EVERY))
            self._check_patience()
        out, self._outbox = self._outbox, []
        return out

    def close(self) -> None:
        """End all work of this study and nothing else."""
        if self._closed:
            return
        self._closed = True
        self._link.stop()
        if self._link.status == "running":
            # On the loop it goes on to its end, also where Ctrl-C tears us away from here.
            ending = self._link.on_loop(self._clean(list(self._futures.values())))
            with suppress(OSError, TimeoutError):
                ending.result(_CLOSE_TIMEOUT)
        elif self._gate is not None:
            self._link.begin(self._gate.close())
        self._futures.clear()
        self._anchors.forget()
        self._demand.forget()
        if self._placement is not None:
            self._placement.forget()

    async def _clean(self, futures: Sequence[Future[Any]]) -> None:
        try:
            async with asyncio.timeout(_CLEAN_WITHIN):
                await self._link.clean(futures, self._anchors.used)
        finally:
            if self._gate is not None:
                await self._gate.close()

    def __repr__(self) -> str:
        return (
            f"<DaskExecutor at {self._address}: {self._dispatcher.workers} workers, "
            f"{len(self._futures)} chunks in hand, {self._dispatcher.waiting} waiting>"
        )

    # --- what happened ---------------------------------------------------------------------

    def _take_events(self, timeout: float) -> None:
        finished: list[int] = []
        with suppress(queue.Empty):
            event = self._events.get(timeout=timeout) if timeout > 0 else self._events.get_nowait()
            while True:
                kind, *rest = event
                if kind == "done":
                    self._chunk_done(rest[0], finished)
                elif kind == "results":
                    self._results(*rest)
                elif kind == "workers":
                    self._workers(*rest)
                elif kind == "facts":
                    self._facts(*rest)
                elif kind == "begun":
                    self._take_back(rest[0])
                elif kind == "placed":
                    self._placing = False
                elif kind == "leases":
                    self._leases(*rest)
                elif kind == "said":
                    self._outbox.append(Notice(message=rest[0]))
                elif kind == "refused":
                    self._refusal = rest[0]
                event = self._events.get_nowait()
        if finished:
            self._link.on_loop(self._link.gather(finished, [self._futures[n] for n in finished]))

    # Dropping the last reference to a future releases its key.

    def _chunk_done(self, number: int, finished: list[int]) -> None:
        future = self._futures.get(number)
        if future is None:
            return
        if future.status == "finished":
            finished.append(number)
        elif future.status == "error":
            explain: Any = future.exception
            self._chunk_failed(number, explain())
        else:
            self._chunk_vanished(number)

    def _results(self, numbers: Sequence[int], results: dict[int, bytes | None]) -> None:
        for number in numbers:
            if number not in self._futures:
                continue
            chunk = self._dispatcher.chunks[number]
            packed = results.get(number)
            if packed is None:
                self._chunk_vanished(number)
                continue
            self._futures.pop(number, None)
            self._cancelled_in_a_row = 0
            outcomes, unstarted, seconds = unpack_result(packed)
            self._dispatcher.finished(number, len(outcomes), unstarted, seconds)
            gone = chunk.forgotten
            self._outbox.extend(
                each for each in outcomes if (each.trial, each.fold, each.attempt) not in gone
            )

    def _chunk_failed(self, number: int, error: BaseException | None) -> None:
        chunk = self._dispatcher.chunks[number]
        self._futures.pop(number, None)
        if isinstance(error, KilledWorker):
            self._charge(chunk, str(error))
            return
        self._dispatcher.returned(number)
        raise error or ClusterError(f"a task failed on {chunk.worker} without saying why")

    def _chunk_vanished(self, number: int) -> None:
        """Its key is gone: the payload or the anchor was lost, or somebody cancelled it."""
        self._futures.pop(number, None)
        self._anchors.drop(self._dispatcher.chunks[number].worker)
        self._vanished.add(number, look=self._link.looks)
        self._link.look_soon()

    def _chunk_cancelled(self, chunk: Chunk) -> None:
        """It vanished, and its worker is there."""
        number = chunk.number
        self._cancelled_in_a_row += 1
        if self._cancelled_in_a_row > _CANCELLED_IN_A_ROW:
            self._cancelled_in_a_row = 0
            self._charge(chunk, "its task was cancelled on the cluster, again and again")
        else:
            self._dispatcher.returned(number)

    def _charge(self, chunk: Chunk, reason: str) -> None:
        lost = self._dispatcher.lost(chunk.number, reason)
        if lost is not None:
            self._outbox.append(lost)

    def _workers(
        self, everyone: dict[str, int], running: set[str], in_order: set[str], look: int
    ) -> None:
        for worker, was_running in self._members.saw(everyone, running).items():
            self._worker_left(worker, is_lost=was_running and worker not in in_order)
        for number in self._vanished.looked(look):
            if number in self._dispatcher.chunks:
                self._chunk_cancelled(self._dispatcher.chunks[number])
        self._end(self._unleased.looked(look))
        unknown = self._members.unknown()
        if unknown:
            self._members.asked(unknown)
            self._link.run_background(self._link.ask(unknown))
        self._update_capacity()
        self._demand.follow(self._dispatcher, self._link.token)

    def _worker_left(self, worker: str, *, is_lost: bool) -> None:
        self._anchors.left(worker)
        gone = [chunk for chunk in self._dispatcher.chunks.values() if chunk.worker == worker]
        self._cancel_futures(gone)
        for chunk in gone:
            if is_lost:
                self._charge(chunk, f"the worker {worker} was lost")
            else:
                # It was retiring or paused, so nothing that it ran has killed it.
                self._dispatcher.returned(chunk.number)

    def _facts(self, asked: Collection[str], facts: dict[str, Any]) -> None:
        for worker in asked:
            found = self._members.judge(worker, facts.get(worker))
            if found:
                self._outbox.append(
                    Notice(message=f"worker {worker} is left unused: {', '.join(found)}")
                )
        self._update_capacity()

    def _leases(self, slots: Mapping[str, int], held: Mapping[str, int], able: int) -> None:
        self._slots.leased(slots, able=able)
        beyond = [chunk.number for chunk in self._dispatcher.beyond(held)]
        self._unleased.only(beyond, look=self._link.looks)
        if beyond:
            self._link.look_soon()
        self._update_capacity()

    def _update_capacity(self) -> None:
        usable = self._members.usable()
        if self._gate is not None:
            self._gate.see(usable, self._members.unusable(), self._dispatcher.in_hand)
        slots = self._slots.on(usable)
        self._dispatcher.set_workers(slots, usable)
        capacity = CapacityChanged(workers=len(usable), slots=sum(slots.values()))
        if capacity != self._capacity:
            self._capacity = capacity
            self._outbox.append(capacity)

    # --- patience --------------------------------------------------------------------------

    def _check_patience(self) -> None:
        # What has arrived is delivered before anything is raised.
        if self._lost_since is None and not self._outbox:
            if self._refusal is not None:
                raise self._refusal
            able = self._slots.able(self._members.usable())
            said = self._patience.look(able, now=time.monotonic())
            if said:
                self._outbox.append(Notice(message=said))

    def _check_scheduler(self) -> None:
        status = self._link.status
        if status == "running":
            if self._lost_since is not None:
                self._lost_since = None
                self._outbox.append(Notice(message=f"the scheduler at {self._address} is back"))
            return
        if self._lost_since is None:
            self._lost_since = time.monotonic()
            self._take_events(0.0)
            self._scheduler_lost()
        if status in ("closing", "closed") and not self._outbox:
            raise scheduler_lost(self._address)

    def _scheduler_lost(self) -> None:
        # Its workers die with it, so nothing of what was in hand will ever come.
        self._futures.clear()
        for number in list(self._dispatcher.chunks):
            self._dispatcher.returned(number)
        self._anchors.forget()
        self._anchors.used.clear()
        self._demand.forget()
        if self._placement is not None:
            self._placement.forget()
        self._members.saw({}, set())
        self._update_capacity()
        if self._link.status not in ("closing", "closed"):
            self._outbox.append(
                Notice(message=f"lost the scheduler at {self._address}; waiting for it")
            )

    # --- work ------------------------------------------------------------------------------

    def _place(self) -> None:
        if self._placing or self._lost_since is not None or self._placement is None:
            return
        workers = self._placement.lacks(list(self._members.usable()))
        if workers:
            self._placing = True
            self._link.run_background(self._link.place_on(self._placement, workers))

    def _dispatch(self) -> None:
        if self._lost_since is not None or not self._dispatcher.waiting:
            return
        assert self._placement is not None
        has_copy = self._placement.copy is not None
        ready = self._members.usable().keys() if has_copy else self._anchors.workers
        avoided = self._recall.avoided(now=time.monotonic())
        for chunk in self._dispatcher.assign(ready, avoided):
            self._send(chunk, self._placement)

    def _look_for_stuck_chunks(self) -> None:
        now = time.monotonic()
        if self._lost_since is None and self._dispatcher.has_idle(self._recall.avoided(now=now)):
            chunks, futures = self._dispatcher.chunks, self._futures
            numbers = self._recall.to_ask(futures, now=now)
            if numbers:
                asked = [(n, chunks[n].worker, str(futures[n].key)) for n in numbers]
                self._link.run_background(self._link.ask_begun(asked))

    def _take_back(self, is_begun: dict[int, bool]) -> None:
        for number in self._recall.answered(is_begun):
            if number in self._futures and self._futures[number].status == "pending":
                chunk = self._dispatcher.chunks[number]
                self._recall.avoid(chunk.worker, now=time.monotonic())
                self._end([number])

    def _send(self, chunk: Chunk, placement: Placement) -> None:
        likely = self._slots.on(self._members.usable())
        future = self._anchors.run(chunk, lambda worker: placement.copy_for(worker, likely))
        self._futures[chunk.number] = future
        self._recall.sent(chunk.number, now=time.monotonic())
        self._link.report_when_done(future, chunk.number)

    def _end(self, numbers: Iterable[int]) -> None:
        chunks = self._dispatcher.chunks
        ended = [chunks[number] for number in numbers if number in chunks]
        self._cancel_futures(ended)
        for chunk in ended:
            self._dispatcher.returned(chunk.number)

    def _end_overdue(self) -> None:
        if self._ending:
            now = time.monotonic()
            overdue = [number for number, at in self._ending.items() if at <= now]
            for number in overdue:
                del self._ending[number]
            self._end(overdue)

    def _cancel_futures(self, chunks: Sequence[Chunk]) -> None:
        futures = [f for chunk in chunks if (f := self._futures.pop(chunk.number, None))]
        self._link.cancel(futures)
