"""The evaluator children of one process for one study.

Knows: which child is free, and when a chunk may be given to another.
Must not know: Dask; how a child is spoken to (`process`).

Each call of `EvaluatorPool.run` borrows one child and gives it back, last in first out, so that
warm children are used again; as many children exist as calls ran at once. They outlive neither
this process (by a closed pipe, on Linux also by the kernel's word) nor the pool.
"""

from __future__ import annotations

import os
import queue
import sys
import tempfile
import threading
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import final

from dspex.engine.ports import Evaluation
from dspex.errors import InvalidArgumentError, ProgramLoadError
from dspex.execution.chunk import ChunkResult
from dspex.execution.payload import Payload
from dspex.execution.process import EvaluatorChild, NeverBegunError

__all__ = ["ChunkResult", "EvaluatorPool"]

# Bad luck (the kernel killed a child while it was loading) strikes once.
_STARTS = 2
_CLOSE_SECONDS = 10.0


@final
class EvaluatorPool:
    """Evaluates chunks in child processes that can be ended for real.

    Parameters
    ----------
    payload : Payload
        Written to one file, which has no name and vanishes with the last process that has it open.
    directory : str
        Where that file's blocks lie; made where it does not exist.
    worker : str
        The name that outcomes carry.

    Raises
    ------
    InvalidArgumentError
        On Windows.
    ProgramLoadError
        Where the payload does not fit into the directory.

    Examples
    --------
    >>> from dspex.engine.ports import Job
    >>> from dspex.space import Float, Space
    >>> class Square:
    ...     def prepare(self, data):
    ...         pass
    ...
    ...     def evaluate(self, params, trial):
    ...         return params["x"] ** 2
    >>> job = Job(program=Square(), space=Space({"x": Float(-1, 1)}), data=None, seed=1)
    >>> chunk = [Evaluation(0, 0, 0, {"x": 0.5}), Evaluation(1, 0, 0, {"x": 1.0})]
    >>> with EvaluatorPool(Payload.of(job), directory=tempfile.gettempdir(), worker="w") as pool:
    ...     result = pool.run(chunk, patience=60, is_wanted=lambda: True)
    >>> [outcome.steps[-1].score for outcome in result.outcomes]
    [0.25, 1.0]
    """

    def __init__(self, payload: Payload, *, directory: str, worker: str) -> None:
        if sys.platform == "win32":
            raise InvalidArgumentError(
                'isolation="process" needs POSIX pipes and signals; this is Windows; '
                'pass isolation="thread" (without trial_timeout and memory_limit), or use WSL'
            )
        self._worker = worker
        self._memory_limit = payload.memory_limit
        self._threads = payload.threads
        self._data = _written(payload, directory)
        self._changed = threading.Condition()
        self._idle: list[EvaluatorChild] = []
        self._busy: set[EvaluatorChild] = set()
        self._calls = 0
        self._is_closed = False
        self._starter = _Starter()
        self._owner = os.getpid()
        # Also where nobody closes the pool, at the end of the interpreter.
        self._at_exit = weakref.finalize(
            self, _end_all, self._owner, self._starter, self._data, self._idle, self._busy
        )

    def run(
        self,
        evaluations: Sequence[Evaluation],
        *,
        patience: float = 0.2,
        is_wanted: Callable[[], bool],
    ) -> ChunkResult:
        """Evaluate a chunk, in order, in one child; from any number of threads at once.

        Parameters
        ----------
        evaluations : sequence of Evaluation
            Each ends when its ``seconds_left`` are over, counted from its own start.
        patience : float, default 0.2
            Seconds after which no further evaluation is started; at least one is.
        is_wanted : callable
            Asked about four times a second. When it says no, the program is told to stop
            (``trial.should_stop()``) and ended one second later.

        Returns
        -------
        ChunkResult

        Raises
        ------
        ProgramLoadError
            Where the program or its data cannot be loaded in a child.
        """
        with self._changed:
            self._check_open()
            self._calls += 1
        try:
            return self._run(evaluations, patience, is_wanted)
        finally:
            with self._changed:
                self._calls -= 1
                self._changed.notify_all()

    def _run(
        self, evaluations: Sequence[Evaluation], patience: float, is_wanted: Callable[[], bool]
    ) -> ChunkResult:
        def is_still_wanted() -> bool:
            return not self._is_closed and is_wanted()

        ends: list[str] = []
        while len(ends) < _STARTS:
            if not evaluations or not is_still_wanted():
                return ChunkResult([], list(evaluations))
            child, is_new = self._borrow()
            is_usable = False
            try:
                result = child.run(evaluations, patience, is_still_wanted)
                is_usable = True
                return result
            except NeverBegunError as end:
                # An idle child may be killed at any time; only new ones count as tries.
                if is_new:
                    ends.append(str(end))
            finally:
                self._give_back(child, is_usable and child.is_alive)
        raise ProgramLoadError(
            f"the program and its data must load in an evaluator process on {self._worker}; "
            f"{len(ends)} processes ended before they were ready; the last: {ends[-1]}"
        )

    def close(self) -> None:
        """End all children, also busy ones, and wait for them; may be called twice."""
        with self._changed:
            if self._is_closed or os.getpid() != self._owner:
                return
            self._is_closed = True
            idle, self._idle[:] = list(self._idle), []
            for child in self._busy:
                child.kill()
        for child in idle:
            child.close()
        with self._changed:
            self._changed.wait_for(lambda: self._calls == 0, timeout=_CLOSE_SECONDS)
        self._at_exit()

    def __enter__(self) -> EvaluatorPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else f"{len(self._busy)} busy, {len(self._idle)} idle"
        return f"<EvaluatorPool of {self._worker}: {state}>"

    # --- children --------------------------------------------------------------------------

    def _check_open(self) -> None:
        if self._is_closed:
            raise RuntimeError("a closed EvaluatorPool runs nothing; make a new one")
        if os.getpid() != self._owner:
            raise RuntimeError(
                f"an EvaluatorPool is used in the process that made it; it was made in "
                f"{self._owner}, this is {os.getpid()}; make one here"
            )

    def _borrow(self) -> tuple[EvaluatorChild, bool]:
        with self._changed:
            if self._idle:
                child = self._idle.pop()
                self._busy.add(child)
                return child, False
        made = self._starter.start(
            lambda: EvaluatorChild(
                self._data,
                worker=self._worker,
                memory_limit=self._memory_limit,
                threads=self._threads,
            )
        )
        try:
            child = made.result()
        except OSError as error:
            raise ProgramLoadError(
                f"evaluations need a process of their own; {sys.executable} could not be started "
                f"on {self._worker} ({error}); raise the limits of processes and open files there"
            ) from error
        except BaseException:  # an interrupt; the child may come all the same
            made.add_done_callback(_close_unclaimed)
            raise
        with self._changed:
            self._busy.add(child)
            if self._is_closed:
                child.kill()
        return child, True

    def _give_back(self, child: EvaluatorChild, is_usable: bool) -> None:
        with self._changed:
            self._busy.discard(child)
            if is_usable and not self._is_closed:
                self._idle.append(child)
                return
        child.close()


def _close_unclaimed(made: Future[EvaluatorChild]) -> None:
    if not made.cancelled() and made.exception() is None:
        made.result().close()


def _written(payload: Payload, directory: str) -> int:
    """Open a file without a name, and write the payload to it."""
    try:
        os.makedirs(directory, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory) as file:
            payload.write(file)
            return os.dup(file.fileno())
    except OSError as error:
        raise ProgramLoadError(
            f"a worker keeps the program and the data in a file for its evaluator processes; "
            f"{payload.nbytes} bytes could not be written to {directory} ({error}); free some "
            "space there, or give the workers another local directory"
        ) from error


def _end_all(
    owner: int,
    starter: _Starter,
    data: int,
    idle: list[EvaluatorChild],
    busy: set[EvaluatorChild],
) -> None:
    # A fork inherits the exit handlers, but neither the children nor the thread.
    if os.getpid() != owner:
        return
    for child in idle:
        child.close()
    for child in list(busy):  # its pipes belong to the thread that runs it
        child.kill()
    starter.close()
    os.close(data)


@final
class _Starter:
    """A thread that makes all children of a pool, and lives as long as they may.

    On Linux a child dies with the *thread* that started it, and threads that call `run` come and
    go. An executor of the standard library would end its threads before the interpreter has
    waited for others, whose evaluations may still run; a daemon thread stays until the very end.
    """

    def __init__(self) -> None:
        self._asked: queue.SimpleQueue[
            tuple[Future[EvaluatorChild], Callable[[], EvaluatorChild]] | None
        ] = queue.SimpleQueue()
        self._thread = threading.Thread(
            target=_start_children, args=(self._asked,), name="dspex-starter", daemon=True
        )
        self._thread.start()

    def start(self, make: Callable[[], EvaluatorChild]) -> Future[EvaluatorChild]:
        made: Future[EvaluatorChild] = Future()
        self._asked.put((made, make))
        return made

    def close(self) -> None:
        self._asked.put(None)
        self._thread.join()


def _start_children(
    asked: queue.SimpleQueue[tuple[Future[EvaluatorChild], Callable[[], EvaluatorChild]] | None],
) -> None:
    while (request := asked.get()) is not None:
        made, make = request
        try:
            made.set_result(make())
        except BaseException as error:  # for the thread that asked
            made.set_exception(error)
        # A thread that waits for the next request must not keep the last one's pool alive.
        del request, made, make
