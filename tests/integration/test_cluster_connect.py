"""From scripts and to schedulers: what a user may call a cluster, and what is said otherwise."""

from __future__ import annotations

import multiprocessing.process
import os
import pathlib
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import numpy as np
import pytest
from distributed import Client

import dspex
from dspex.cluster import DaskExecutor, connect_cluster, is_inside_task
from dspex.engine.ports import Job
from dspex.errors import (
    ClusterError,
    ClusterUnreachableError,
    InvalidArgumentError,
    NoWorkersError,
)
from dspex.study.records import Measured
from dspex.testing.executors import collect, evaluations
from dspex.testing.probe import Probe, probe_space, wait_for

SOURCE = str(pathlib.Path(dspex.__file__).parents[1])


def test_a_script_without_a_guard_runs_once_also_when_a_worker_restarts(
    tmp_path: pathlib.Path,
) -> None:
    script = """
        import os, signal
        print("once")
        from dspex.cluster import connect_cluster
        def double(x):
            return 2 * x
        with connect_cluster(cluster_nodes=1) as connection:
            client = connection.client
            assert client.submit(double, 4).result() == 8
            (pid,) = client.run(os.getpid).values()
            os.kill(pid, signal.SIGKILL)
            while pid in client.run(os.getpid, on_error="ignore").values():
                pass
            print(client.submit(double, 5).result())
    """
    (tmp_path / "script.py").write_text(textwrap.dedent(script))
    ended = subprocess.run(
        [sys.executable, "-W", "error", "script.py"],
        env={**os.environ, "PYTHONPATH": SOURCE},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ended.stdout, ended.stderr, ended.returncode) == ("once\n10\n", "", 0)


@pytest.fixture
def mute() -> Iterator[str]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield f"tcp://127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize("address", ["nonsense", "tcp://host:no-port", "what://host:1"])
def test_a_bad_address_is_refused_by_name(address: str) -> None:
    with pytest.raises(ClusterUnreachableError, match=address), connect_cluster(address):
        pass


def test_nobody_there_and_somebody_else_there(mute: str) -> None:
    def attempt(address: str) -> None:
        with connect_cluster(address):
            pass

    addresses = ["tcp://127.0.0.1:9", mute]
    with ThreadPoolExecutor(2) as threads:
        for address, attempted in [(a, threads.submit(attempt, a)) for a in addresses]:
            with pytest.raises(ClusterUnreachableError, match=f"{address}.*dask scheduler"):
                attempted.result()


def test_what_is_no_cluster_and_too_few_workers(client: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="int"), connect_cluster(3):
        pass
    with (
        pytest.raises(InvalidArgumentError, match="cluster_nodes=0"),
        connect_cluster(client, cluster_nodes=0),
    ):
        pass
    told: list[str] = []
    with (
        pytest.raises(NoWorkersError, match="cluster_nodes=5"),
        connect_cluster(client, cluster_nodes=5, timeout=0.2, notify=told.append),
    ):
        pass
    assert told == ["waiting for 5 workers; 2 are there"]


def test_at_most_so_many_workers_are_used(client: Any, tmp_path: pathlib.Path) -> None:
    with (
        connect_cluster(client, cluster_nodes=1) as connection,
        closing(DaskExecutor(client, max_workers=connection.max_workers)) as executor,
    ):
        assert executor.open(job(tmp_path)).workers == 1
        executor.submit(evaluations("measure", 30))
        assert len({each.worker for each in collect(executor, 30)}) == 1


def job(gates: pathlib.Path) -> Job:
    return Job(program=Probe(), space=probe_space(), data=str(gates), seed=7)


def test_nothing_is_left_and_the_tasks_of_others_run_through(
    client: Any, cluster: Any, tmp_path: pathlib.Path
) -> None:
    make_client: Any = Client
    with make_client(cluster, set_as_default=False) as other:
        theirs = other.submit(wait_for_file, str(tmp_path / "go"), key="theirs")
        with closing(DaskExecutor(client)) as executor:
            executor.open(job(tmp_path))
            executor.submit(evaluations("measure", 50))
            collect(executor, 50)
            executor.submit(evaluations("loop", 3))
            wait_for((tmp_path / "entered-0-0").exists)
        wait_for(lambda: not any(client.run(count_children).values()))
        (tmp_path / "go").touch()
        assert theirs.result(timeout=20) == "gone through"
        wait_for(lambda: {key for keys in client.has_what().values() for key in keys} == {"theirs"})


def wait_for_file(path: str) -> str:
    import os
    import time

    while not os.path.exists(path):
        time.sleep(0.01)
    return "gone through"


def count_children() -> int:
    import psutil

    return len(psutil.Process().children())


def test_a_task_knows_that_it_is_one(client: Any) -> None:
    assert not is_inside_task()
    assert client.submit(is_inside_task, pure=False).result(timeout=20)


def test_canary_private_api_of_dask(client: Any) -> None:
    """What `dspex.cluster` uses of distributed without a promise."""

    def state_of_own_task() -> str:
        from distributed import worker

        module: Any = worker

        return str(module.get_worker().state.tasks[module.thread_state.key].state)

    from distributed import scheduler
    from distributed.nanny import Nanny, WorkerProcess

    assert client.submit(state_of_own_task, pure=False).result(timeout=20) == "executing"
    assert callable(client._cancel)
    assert callable(client.rpc)
    assert client.loop.asyncio_loop.is_running()
    assert {"ncores", "ncores_running"} <= set(client.cluster.scheduler.handlers)
    assert issubclass(scheduler.KilledWorker, Exception)
    import inspect

    assert "Dask Worker process (from Nanny)" in inspect.getsource(WorkerProcess.start)
    assert inspect.iscoroutinefunction(Nanny.instantiate)

    from distributed import worker
    from distributed.cli import dask_worker

    # `Termination` knows the handler by its module, and `get_worker` what a turn's context holds.
    assert "from distributed._signals import wait_for_signals" in inspect.getsource(dask_worker)
    assert "_worker_cvar" in inspect.getsource(worker.get_worker)


def test_an_encrypted_cluster_needs_a_client_with_certificates() -> None:
    with (
        pytest.raises(ClusterUnreachableError, match="security="),
        connect_cluster("tls://127.0.0.1:9"),
    ):
        pass


def test_a_child_that_imports_the_script_starts_no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    process = multiprocessing.process.current_process()
    monkeypatch.setattr(process, "_inheriting", True, raising=False)
    with pytest.raises(ClusterError, match="__main__") as caught, connect_cluster(cluster_nodes=1):
        pass
    assert "\n" not in str(caught.value)


def test_data_reach_workers_that_the_client_cannot_reach(
    client: Any, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(address: str) -> Any:
        raise OSError(f"no way to {address}")

    monkeypatch.setattr(client, "rpc", refuse)
    monkeypatch.setattr("dspex.cluster.placement.SMALL", 1000)
    work = Job(program=Probe(), space=probe_space(), data=np.ones(10_000), seed=7)
    with closing(DaskExecutor(client)) as executor:
        executor.open(work)
        executor.submit(evaluations("sum data"))
        (outcome,) = collect(executor, 1)
        assert isinstance(outcome, Measured), outcome
        assert outcome.steps[-1].score == 10_000
