"""The embedded cluster: worker processes of one's own, for as long as a study runs.

Knows: how a `LocalCluster` starts in a script, in a notebook and beside other clusters, and how it
ends without a word on the terminal. Must not know: studies.

Dask starts workers by the *spawn* method of `multiprocessing`, which imports the parent's
``__main__`` in each child. A script without an ``if __name__ == "__main__"`` guard would thereby
start itself again in every worker. Our workers never need it: what is defined in ``__main__``
travels by value. So `UnguardedNanny` has the path of ``__main__`` left out of what its child is
told (`multiprocessing.spawn.get_preparation_data`), while it starts one and in no other moment.

Ctrl-C in a terminal goes to every process of the foreground group. The study answers it, in order;
workers must not even hear of it. They inherit the signal mask of the thread that starts them, so
that there is no moment in which one could be hit while it starts.
"""

from __future__ import annotations

import logging
import math
import multiprocessing.process
import multiprocessing.resource_tracker
import multiprocessing.spawn
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple, TypeVar, final

from dask.system import CPU_COUNT
from distributed import LocalCluster, Nanny
from distributed.system import MEMORY_LIMIT

from dspex.cluster.admission import LeaseRequest
from dspex.errors import ClusterError, InvalidArgumentError

__all__ = ["Shape", "UnguardedNanny", "shape_for", "start_embedded_cluster"]

_WORKER_PROCESS = "Dask Worker process (from Nanny)"
"""The name that `distributed.nanny.WorkerProcess` gives to its child."""

T = TypeVar("T")

_lock = threading.Lock()
_starting = 0
_original: Callable[[str], dict[str, Any]] = multiprocessing.spawn.get_preparation_data


def _preparation_data_without_main(name: str) -> dict[str, Any]:
    data = _original(name)
    if name == _WORKER_PROCESS:
        data.pop("init_main_from_path", None)
        data.pop("init_main_from_name", None)
    return data


@contextmanager
def _main_left_out() -> Iterator[None]:
    # Several nannies start at once, on the loops of several threads, so the last one restores.
    global _original, _starting
    spawn: Any = multiprocessing.spawn
    with _lock:
        _starting += 1
        if _starting == 1:
            _original = spawn.get_preparation_data
            spawn.get_preparation_data = _preparation_data_without_main
    try:
        yield
    finally:
        with _lock:
            _starting -= 1
            if _starting == 0:
                spawn.get_preparation_data = _original


@final
class UnguardedNanny(Nanny):
    """A nanny whose worker process does not import ``__main__``, at restarts neither."""

    async def instantiate(self) -> Any:
        """Start the worker process."""
        _be_deaf_to_interrupts()
        with _main_left_out():
            return await super().instantiate()


def _be_deaf_to_interrupts() -> None:
    """Block SIGINT in this thread, that of the cluster's loop, and in all that it starts."""
    # The main thread goes on hearing, and with it the process. On Windows there are no masks.
    if sys.platform != "win32" and threading.current_thread() is not threading.main_thread():
        # Where it is not there yet, the thread that needs it starts it, and unblocks SIGINT then.
        multiprocessing.resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


def _refuse_where_processes_cannot_start() -> None:
    process = multiprocessing.process.current_process()
    if getattr(process, "_inheriting", False):
        raise ClusterError(
            "a study cannot start while a child process is importing this script; "
            "put the call under `if __name__ == '__main__':`"
        )
    if process.daemon:
        raise ClusterError(
            "an embedded cluster starts processes, which a daemonic process "
            f"({process.name}) may not; pass distributed=False, or cluster=<an address>"
        )


class Shape(NamedTuple):
    """How the workers of an embedded cluster are made.

    Attributes
    ----------
    workers, threads : int
        How many processes, of how many threads each.
    memory : int or "auto"
        Bytes of each.
    """

    workers: int
    threads: int = 1
    memory: int | Literal["auto"] = "auto"


def shape_for(
    request: LeaseRequest | None,
    workers: int | None,
    *,
    cores: int = CPU_COUNT,
    memory: int = MEMORY_LIMIT,
) -> Shape:
    """Workers each of which can give what is requested; as many as the machine has, if not told.

    Parameters
    ----------
    request : LeaseRequest or None
    workers : int or None
        How many the user wants.
    cores, memory : int
        What the machine has; bytes.

    Raises
    ------
    InvalidArgumentError
        Where the machine does not have it.

    Examples
    --------
    >>> from dspex.cluster.admission import LeaseRequest
    >>> two_cores = LeaseRequest(cpu_cores=2, memory_gb=4)
    >>> shape_for(two_cores, None, cores=8, memory=16 * 10**9)
    Shape(workers=4, threads=2, memory=4000000000)
    >>> shape_for(two_cores, 5, cores=8, memory=16 * 10**9)
    Traceback (most recent call last):
        ...
    dspex.errors.InvalidArgumentError: an embedded cluster of 5 workers that each give ...
    """
    if request is None or not request.is_sized:
        return Shape(cores if workers is None else workers)
    if request.gpus or request.labels:
        raise InvalidArgumentError(
            f"an embedded cluster has no gpus and no labels; got resources of {request}; pass "
            "cluster=<a cluster whose workers have them>"
        )
    threads = math.ceil(request.cpu_cores)
    each = request.memory_gb * 1e9
    fitting = min(cores // threads, int(memory // each) if each else cores)
    count = max(1, fitting) if workers is None else workers
    if count > fitting:
        raise InvalidArgumentError(
            f"an embedded cluster of {count} worker{'s' * (count > 1)} that each give {request} "
            f"needs more than this machine has: {cores} cores and {memory / 1e9:.1f} GB; ask for "
            "less, or pass cluster=<a larger one>"
        )
    return Shape(count, threads, memory // count)


@contextmanager
def start_embedded_cluster(shape: Shape | None = None) -> Iterator[LocalCluster]:
    """Start worker processes on this machine, and end them afterwards.

    Parameters
    ----------
    shape : Shape, optional
        One worker of one thread for each core by default.

    Raises
    ------
    InvalidArgumentError
        Where there would be no worker.
    ClusterError
        Where the processes do not start.
    """
    made = Shape(CPU_COUNT) if shape is None else shape
    count = made.workers
    if count < 1:
        raise InvalidArgumentError(
            f"an embedded cluster has at least one worker; got cluster_nodes={count}; "
            "pass 1 or more"
        )
    _refuse_where_processes_cannot_start()
    starting = _in_a_thread(lambda: _start(made))
    try:
        cluster = starting.result()
    except KeyboardInterrupt:
        # A cluster that is half there cannot be ended. Whoever cannot wait interrupts once more.
        _in_a_thread(starting.result().close).result()
        raise
    except (OSError, RuntimeError) as error:
        raise ClusterError(
            f"an embedded cluster of {count} worker processes could not start ({_root(error)}); "
            "pass distributed=False to work in this process, or cluster=<an address>"
        ) from error
    try:
        yield cluster
    finally:
        closing = _in_a_thread(cluster.close)
        try:
            closing.result()
        except KeyboardInterrupt:
            closing.result()
            raise


def _start(shape: Shape) -> LocalCluster:
    start: Any = LocalCluster
    cluster: LocalCluster = start(
        n_workers=shape.workers,
        threads_per_worker=shape.threads,
        memory_limit=shape.memory,
        worker_class=UnguardedNanny,
        # Workers that end while others still talk to them log errors that mean nothing to
        # people; what matters reaches them as outcomes and notices.
        silence_logs=logging.CRITICAL,
        # No dashboard; its server takes a free port, because a second study may run beside.
        dashboard_address=None,
        scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
    )
    return cluster


def _in_a_thread(work: Callable[[], T]) -> Future[T]:
    """Have work done that Ctrl-C, which is raised in the main thread, must not tear in two."""
    done: Future[T] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:  # for the thread that waits
            done.set_exception(error)

    threading.Thread(target=run, name="dspex-embedded-cluster", daemon=True).start()
    return done


def _root(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {error}"
