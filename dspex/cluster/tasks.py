"""What runs on the workers.

Knows: the current worker, its evaluator pool. Must not know: the client's side.

The scheduler unpickles the functions of a task graph, and dspex is not installed there. So the
graph holds `operator.methodcaller` and bytes alone, and the methods that it calls are those of
objects which live on workers only: `PlacedPayload.open` makes an `Anchor`, `Anchor.run` evaluates.

An anchor is the result of a task that is bound to its worker, held by the client alone. While the
scheduler keeps it there, the pool behind it is needed; when the client goes, in order or by
SIGKILL, the scheduler drops its keys, and a thread that watches for this ends the pool.

The pools lie in a module-level registry because an anchor may be pickled (spilled to disk, moved)
and processes may not, and because `close_hosts` must reach them without any task.
"""

from __future__ import annotations

import asyncio
import pickle
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, final

from distributed import Worker, get_worker
from distributed.worker import thread_state  # type: ignore[attr-defined]

from dspex.engine.ports import Evaluation
from dspex.errors import ProgramLoadError
from dspex.execution.evaluation import evaluate
from dspex.execution.payload import LoadedJob, Payload
from dspex.execution.pool import ChunkResult, EvaluatorPool
from dspex.study.measurement import Measurement
from dspex.study.records import Failed, Measured

__all__ = ["Anchor", "PlacedPayload", "begun", "close_hosts", "pack_chunk", "unpack_result"]

PATIENCE = 0.2
"""Seconds after which a chunk starts nothing more and hands over what it has."""

_LOOK_EVERY = 0.5
_WANTED_STATES = frozenset({"executing", "long-running"})
_BEGUN_STATES = _WANTED_STATES | {"memory", "error"}

_hosts: dict[str, _Host] = {}
_hosts_lock = threading.Lock()


# --- wire forms: tuples and dicts, because pickling frozen dataclasses costs ten times as much ----

Fields: TypeAlias = tuple[Any, ...]


def pack_chunk(evaluations: Sequence[Evaluation]) -> bytes:
    """Evaluations as bytes that Dask does not look into."""
    return pickle.dumps(
        [(e.trial, e.fold, e.attempt, dict(e.params), e.seconds_left) for e in evaluations], 5
    )


def _pack_result(result: ChunkResult, seconds: float) -> bytes:
    outcomes = [each if isinstance(each, Failed) else _to_fields(each) for each in result.outcomes]
    unstarted = [(each.trial, each.fold, each.attempt) for each in result.unstarted]
    return pickle.dumps((outcomes, unstarted, seconds), 5)


def _to_fields(outcome: Measured) -> Fields:
    steps = [
        dict(step.scores)
        if step.cost is None and step.feedback is None and not step.constraints
        else (dict(step.scores), step.cost, step.feedback, dict(step.constraints))
        for step in outcome.steps
    ]
    return (
        outcome.trial,
        outcome.fold,
        outcome.attempt,
        steps,
        outcome.worker,
        outcome.started,
        outcome.seconds,
    )


def _from_fields(fields: Fields) -> Measured:
    trial, fold, attempt, steps, worker, started, seconds = fields
    return Measured(
        trial=trial,
        fold=fold,
        attempt=attempt,
        steps=tuple(
            Measurement.of_checked(step)
            if isinstance(step, dict)
            else Measurement(step[0], cost=step[1], feedback=step[2], constraints=step[3])
            for step in steps
        ),
        worker=worker,
        started=started,
        seconds=seconds,
    )


def unpack_result(
    packed: bytes,
) -> tuple[list[Measured | Failed], list[tuple[int, int, int]], float]:
    """Outcomes, keys of what was not started, seconds on the worker."""
    outcomes, unstarted, seconds = pickle.loads(packed)
    return (
        [each if isinstance(each, Failed) else _from_fields(each) for each in outcomes],
        unstarted,
        seconds,
    )


# --- hosts ---------------------------------------------------------------------------------


@final
class _Host:
    """One study on one worker."""

    def __init__(self, key: str, worker: Worker, payload: Payload, isolation: str) -> None:
        self.key = key
        self.worker = worker
        self._pool: EvaluatorPool | None = None
        self._loaded: LoadedJob | None = None
        if isolation == "process":
            directory = worker.local_directory or tempfile.gettempdir()
            self._pool = EvaluatorPool(payload, directory=directory, worker=worker.address)
        else:
            self._loaded = _load(payload, worker.address)

    @property
    def is_needed(self) -> bool:
        # A worker that closes waits for its threads; what they do for us, nobody will ever see.
        is_open = self.worker.status.name not in ("closing", "closed")
        return is_open and self.key in self.worker.state.tasks

    def run(self, evaluations: Sequence[Evaluation], is_wanted: Callable[[], bool]) -> ChunkResult:
        if self._pool is not None:
            return self._pool.run(evaluations, patience=PATIENCE, is_wanted=is_wanted)
        return self._run_here(evaluations, is_wanted)

    def _run_here(
        self, evaluations: Sequence[Evaluation], is_wanted: Callable[[], bool]
    ) -> ChunkResult:
        assert self._loaded is not None
        deadline = time.monotonic() + PATIENCE
        outcomes: list[Measured | Failed] = []
        for each in evaluations:
            if outcomes and time.monotonic() > deadline:
                break
            outcomes.append(
                evaluate(
                    self._loaded.program,
                    self._loaded.space,
                    each,
                    seed=self._loaded.seed,
                    retry_on=self._loaded.retry_on,
                    worker=self.worker.address,
                    should_stop=lambda: not is_wanted(),
                    # SystemExit in a worker's thread is the program's failure too.
                    passes=(),
                    seed_globals=False,
                )
            )
        return ChunkResult(outcomes, list(evaluations[len(outcomes) :]))

    def close(self) -> None:
        if self._pool is not None:
            self._pool.close()


def _load(payload: Payload, worker: str) -> LoadedJob:
    try:
        return payload.load()
    except Exception as error:
        raise ProgramLoadError(
            f"the program and its data must load on every worker; on {worker} they do not "
            f"({type(error).__name__}: {error}); make what they import available there"
        ) from error


def _watch_hosts() -> None:
    while True:
        time.sleep(_LOOK_EVERY)
        with _hosts_lock:
            idle = [key for key, host in _hosts.items() if not host.is_needed]
            ended = [_hosts.pop(key) for key in idle]
            is_last = not _hosts
        for host in ended:
            host.close()
        if is_last:
            return


def _add_host(host: _Host) -> None:
    with _hosts_lock:
        is_first = not _hosts
        _hosts[host.key] = host
    if is_first:
        threading.Thread(target=_watch_hosts, name="dspex-watch-hosts", daemon=True).start()


async def close_hosts(keys: Sequence[str]) -> None:
    """End pools; run by the client on the workers that it used."""
    with _hosts_lock:
        ended = [_hosts.pop(key) for key in keys if key in _hosts]
    for host in ended:
        await asyncio.to_thread(host.close)


async def begun(keys: Sequence[str], dask_worker: Worker) -> list[bool]:
    """Whether this worker has begun these tasks; run by the client. One it never saw it has not."""
    tasks = dask_worker.state.tasks
    return [key in tasks and tasks[key].state in _BEGUN_STATES for key in keys]


# --- what the graph calls ------------------------------------------------------------------


@final
class PlacedPayload:
    """A payload in a worker's memory."""

    __slots__ = ("payload",)

    def __init__(self, payload: Payload) -> None:
        self.payload = payload

    def __sizeof__(self) -> int:
        return self.payload.nbytes

    def __reduce__(self) -> tuple[Any, ...]:
        return PlacedPayload, (self.payload,)

    def open(self, isolation: str) -> Anchor:
        """Make the worker ready for evaluations; a task of Dask."""
        key = thread_state.key
        _add_host(_Host(key, get_worker(), self.payload, isolation))
        return Anchor(key)


@final
class Anchor:
    """Stands for the pool of one study on one worker."""

    __slots__ = ("key",)

    def __init__(self, key: str) -> None:
        self.key = key

    def __reduce__(self) -> tuple[Any, ...]:
        return Anchor, (self.key,)

    def run(self, chunk: bytes) -> bytes | None:
        """Evaluate a chunk; a task of Dask. None says that there is no pool here any more."""
        with _hosts_lock:
            host = _hosts.get(self.key)
        if host is None:
            return None
        task, tasks = thread_state.key, host.worker.state.tasks

        def is_wanted() -> bool:
            state = tasks.get(task)
            return state is not None and state.state in _WANTED_STATES

        started = time.perf_counter()
        try:
            result = host.run([Evaluation(*fields) for fields in pickle.loads(chunk)], is_wanted)
        except RuntimeError:
            # Closed under our hands: when the client is gone, or when the anchor was moved.
            with _hosts_lock:
                if self.key in _hosts:
                    raise
            return None
        return _pack_result(result, time.perf_counter() - started)
