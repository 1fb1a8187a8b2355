"""An executor without a cluster: evaluations run here, one at a time.

Knows: the queue, and what this process must be like while programs run in it.
Must not know: how an evaluation or a child works (`evaluation`, `pool`).

Two ways. Without limits a program runs in the thread that polls: nothing is copied, prints and
debuggers work, and a tiny evaluation costs microseconds. With ``trial_timeout`` or
``memory_limit`` it runs in one evaluator child, fed by a thread, so that the limits are real.
"""

from __future__ import annotations

import contextlib
import heapq
import queue
import random
import tempfile
import threading
import time
from collections.abc import Collection, Sequence
from typing import Any, TypeAlias, final

import numpy as np

from dspex.engine.ports import CapacityChanged, Evaluation, Job, Notice, Outcome
from dspex.execution.evaluation import evaluate
from dspex.execution.payload import Payload
from dspex.execution.pool import EvaluatorPool

__all__ = ["InProcessExecutor"]

WORKER = "in-process"
"""The name of this worker in records."""

# How long one poll evaluates: short enough to see Ctrl-C and progress, long enough for a batch.
_SLICE = 0.05
_CHUNK = 16

_Queued: TypeAlias = tuple[int, int, int, Evaluation]


@final
class InProcessExecutor:
    """Runs evaluations in this process, without Dask.

    Notes
    -----
    The program shares its data with the caller, and must not change it. While the executor is
    open, BLAS and OpenMP use one thread, as in a cluster's evaluator processes, so that scores
    are the same (G2); the global random generators are put back by `close`.

    Examples
    --------
    >>> from dspex.space import Float, Space
    >>> class Square:
    ...     def prepare(self, data):
    ...         pass
    ...
    ...     def evaluate(self, params, trial):
    ...         return params["x"] ** 2
    >>> executor = InProcessExecutor()
    >>> job = Job(program=Square(), space=Space({"x": Float(-1, 1)}), data=None, seed=1)
    >>> executor.open(job)
    CapacityChanged(workers=1, slots=1)
    >>> executor.submit([Evaluation(0, 0, 0, {"x": 0.5})])
    >>> [outcome.steps[-1].score for outcome in executor.poll(timeout=1)]
    [0.25]
    >>> executor.close()
    """

    def __init__(self) -> None:
        self._job: Job | None = None
        self._queue: list[_Queued] = []
        self._outcomes: list[Outcome] = []
        self._children: _ChildThread | None = None
        self._restore = contextlib.ExitStack()

    @property
    def runs_here(self) -> bool:
        """Whether evaluations run in the thread that polls."""
        return self._children is None

    def open(self, job: Job) -> CapacityChanged:
        """Take the job; nothing is copied unless it has a memory limit."""
        self._job = job
        if job.memory_limit is not None:
            self._start_children()
        else:
            self._restore.enter_context(_as_a_worker())
            job.program.prepare(job.data)
        return CapacityChanged(workers=1, slots=1)

    def submit(self, evaluations: Sequence[Evaluation]) -> None:
        """Queue evaluations; the first with a time limit moves all to a child."""
        if self._children is None and any(e.seconds_left is not None for e in evaluations):
            self._start_children()
        if self._children is not None:
            self._children.submit(evaluations)
            return
        for each in evaluations:
            heapq.heappush(self._queue, (each.trial, each.fold, each.attempt, each))

    def cancel(self, trials: Collection[int]) -> None:
        """Forget these trials; one that runs in a child is ended."""
        if self._children is not None:
            self._children.cancel(trials)
            return
        self._queue = [each for each in self._queue if each[0] not in trials]
        heapq.heapify(self._queue)

    def poll(self, timeout: float) -> list[Outcome | CapacityChanged | Notice]:
        """Evaluate for a moment, at least one evaluation.

        An interrupt loses nothing: outcomes come with the next poll, and the evaluation that was
        interrupted stays queued.
        """
        if self._children is not None:
            return [*self._children.poll(timeout)]
        if not self._queue:
            # Nothing can happen here on its own; a caller that loops must not spin.
            time.sleep(timeout)
            return []
        job = self._job
        assert job is not None, "opened before anything is submitted"
        end = time.monotonic() + _SLICE
        while self._queue:
            outcome = evaluate(
                job.program,
                job.space,
                self._queue[0][-1],
                seed=job.seed,
                retry_on=job.retry_on,
                worker=WORKER,
            )
            self._outcomes.append(outcome)
            heapq.heappop(self._queue)
            if time.monotonic() >= end:
                break
        outcomes, self._outcomes = self._outcomes, []
        return [*outcomes]

    def close(self) -> None:
        """Drop what is queued, end the child, put this process back as it was."""
        self._queue.clear()
        if self._children is not None:
            self._children.close()
        self._restore.close()

    def _start_children(self) -> None:
        assert self._job is not None, "opened before anything is submitted"
        self._children = _ChildThread(Payload.of(self._job))
        waiting, self._queue = [each[-1] for each in self._queue], []
        self._children.submit(waiting)


@contextlib.contextmanager
def _as_a_worker() -> Any:
    """Make this process like an evaluator child: one BLAS thread; and put it back."""
    from threadpoolctl import threadpool_limits

    python_state, numpy_state = random.getstate(), np.random.get_state()
    try:
        with threadpool_limits(limits=1):
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)


@final
class _ChildThread:
    """One evaluator child, and the thread that feeds it."""

    def __init__(self, payload: Payload) -> None:
        self._pool = EvaluatorPool(payload, directory=tempfile.gettempdir(), worker=WORKER)
        self._arrived: queue.SimpleQueue[list[Outcome] | Exception] = queue.SimpleQueue()
        self._changed = threading.Condition()
        self._queue: list[_Queued] = []
        self._wanted: set[int] = set()  # of the chunk that runs
        self._is_closed = False
        self._thread = threading.Thread(target=self._feed, name="dspex-in-process", daemon=True)
        self._thread.start()

    def submit(self, evaluations: Sequence[Evaluation]) -> None:
        with self._changed:
            for each in evaluations:
                heapq.heappush(self._queue, (each.trial, each.fold, each.attempt, each))
            self._changed.notify()

    def cancel(self, trials: Collection[int]) -> None:
        with self._changed:
            self._queue = [each for each in self._queue if each[0] not in trials]
            heapq.heapify(self._queue)
            self._wanted.difference_update(trials)

    def poll(self, timeout: float) -> list[Outcome]:
        outcomes: list[Outcome] = []
        try:
            arrived = self._arrived.get(timeout=timeout)
            while True:
                if isinstance(arrived, Exception):
                    raise arrived
                outcomes += arrived
                arrived = self._arrived.get_nowait()
        except queue.Empty:
            return outcomes

    def close(self) -> None:
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._pool.close()
        self._thread.join()

    def _feed(self) -> None:
        while chunk := self._next_chunk():
            try:
                result = self._pool.run(
                    chunk, patience=_SLICE, is_wanted=lambda: bool(self._wanted)
                )
            except Exception as error:  # for the thread that polls
                if not self._is_closed:
                    self._arrived.put(error)
                return
            with self._changed:
                for each in result.unstarted:
                    if each.trial in self._wanted:
                        heapq.heappush(self._queue, (each.trial, each.fold, each.attempt, each))
            if result.outcomes:
                self._arrived.put([*result.outcomes])

    def _next_chunk(self) -> list[Evaluation]:
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._is_closed)
            if self._is_closed:
                return []
            size = min(_CHUNK, len(self._queue))
            chunk = [heapq.heappop(self._queue)[-1] for _ in range(size)]
            self._wanted = {each.trial for each in chunk}
            return chunk
