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
from collections.abc import Collection, Iterator, Sequence
from typing import TypeAlias, final

import numpy as np

from dspex.engine.ports import CapacityChanged, Evaluation, Job, Notice, Outcome
from dspex.errors import ProgramLoadError
from dspex.execution.evaluation import evaluate
from dspex.execution.payload import Payload
from dspex.execution.pool import EvaluatorPool
from dspex.study.records import Failed, Measured

__all__ = ["InProcessExecutor"]

WORKER = "in-process"
"""The name of this worker in records."""

# How long one poll evaluates: short enough to see Ctrl-C and progress, long enough for a batch.
_SLICE = 0.05
_LARGEST_CHUNK = 64

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
        self._child: _ChildThread | None = None
        # Not before it is known that no child is needed: data in the program would travel twice.
        self._is_prepared = False
        self._restore = contextlib.ExitStack()

    @property
    def runs_here(self) -> bool:
        """Whether evaluations run in the thread that polls."""
        return self._child is None

    def open(self, job: Job) -> CapacityChanged:
        """Take the job.

        Raises
        ------
        NotPicklableError
            Where a memory limit asks for a child, and the program or the data cannot travel.
        """
        self._job = job
        if job.memory_limit is not None:
            self._start_child([])
        return CapacityChanged(workers=1, slots=1)

    def submit(self, evaluations: Sequence[Evaluation]) -> None:
        """Queue evaluations; the first with a time limit moves all to a child.

        Raises
        ------
        NotPicklableError
            Where a time limit asks for a child, and the program or the data cannot travel.
        ProgramLoadError
            Where the program refuses its data.
        """
        if self._child is not None:
            self._child.submit(evaluations)
            return
        if any(each.seconds_left is not None for each in evaluations):
            self._start_child(evaluations)
            return
        if not self._is_prepared:
            self._prepare()
        for each in evaluations:
            heapq.heappush(self._queue, (each.trial, each.fold, each.attempt, each))

    def cancel(self, trials: Collection[int]) -> None:
        """Forget these trials; one that runs in a child is ended."""
        if self._child is not None:
            self._child.cancel(trials)
            return
        self._queue = [each for each in self._queue if each[0] not in trials]
        heapq.heapify(self._queue)

    def poll(self, timeout: float) -> list[Outcome | CapacityChanged | Notice]:
        """Evaluate for a moment, at least one evaluation.

        An interrupt loses nothing: outcomes come with the next poll, and the evaluation that was
        interrupted stays queued.
        """
        if self._child is not None:
            return [*self._child.poll(timeout)]
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
            # In this order an interrupt in between loses an outcome, and never doubles one.
            heapq.heappop(self._queue)
            self._outcomes.append(outcome)
            if time.monotonic() >= end:
                break
        outcomes, self._outcomes = self._outcomes, []
        return [*outcomes]

    def close(self) -> None:
        """Drop what is queued, end the child, put this process back as it was."""
        self._queue.clear()
        if self._child is not None:
            self._child.close()
        self._restore.close()

    def _prepare(self) -> None:
        assert self._job is not None, "opened before anything is submitted"
        self._restore.enter_context(_as_a_worker())
        try:
            self._job.program.prepare(self._job.data)
        except Exception as error:
            raise ProgramLoadError(
                f"a program takes its data before it is evaluated; it raised "
                f"{type(error).__name__}: {error}; see its own traceback above"
            ) from error
        self._is_prepared = True

    def _start_child(self, evaluations: Sequence[Evaluation]) -> None:
        assert self._job is not None, "opened before anything is submitted"
        self._child = _ChildThread(Payload.of(self._job))
        waiting, self._queue = [each[-1] for each in self._queue], []
        self._child.submit([*waiting, *evaluations])


@contextlib.contextmanager
def _as_a_worker() -> Iterator[None]:
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
        self._size = 1
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
                # A cancelled trial is ended with its chunk: only quick ones share one.
                is_quick = not result.unstarted and _spent(result.outcomes) < _SLICE / 2
                self._size = min(2 * self._size, _LARGEST_CHUNK) if is_quick else 1
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
            size = min(self._size, len(self._queue))
            chunk = [heapq.heappop(self._queue)[-1] for _ in range(size)]
            self._wanted = {each.trial for each in chunk}
            return chunk


def _spent(outcomes: Sequence[Measured | Failed]) -> float:
    return sum(outcome.seconds for outcome in outcomes)
