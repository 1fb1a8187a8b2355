"""Workers, clients and schedulers are killed at chosen moments, and a study's work is not lost."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

import psutil
import pytest
from distributed import Client

import dspex
from dspex.cluster import DaskExecutor, connect_cluster
from dspex.engine.ports import CapacityChanged, Evaluation, Job, Lost, Notice, Outcome
from dspex.errors import ClusterLostError, NoWorkersError, VersionMismatchError
from dspex.study.records import Measured
from dspex.testing.executors import collect, evaluations
from dspex.testing.probe import Probe, probe_space, wait_for

pytestmark = pytest.mark.chaos

SOURCE = str(pathlib.Path(dspex.__file__).parents[1])

# A process in which dspex is not installed, also where the tests run in an environment that has it.
HIDE_DSPEX = """
import importlib.util, sys
class Hidden:
    @staticmethod
    def find_spec(name, *_):
        if name.partition(".")[0] == "dspex":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Hidden)
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, *_: None if name == "dspex" else real(name, *_)
"""


def job(gates: pathlib.Path, **changes: Any) -> Job:
    fields = {"program": Probe(), "space": probe_space(), "data": str(gates), "seed": 7}
    return Job(**{**fields, **changes})


def outcomes_until(
    executor: DaskExecutor, done: Callable[[list[Outcome]], object]
) -> list[Outcome]:
    found: list[Outcome] = []

    def is_done() -> object:
        arrived = executor.poll(0.05)
        found.extend(each for each in arrived if not isinstance(each, CapacityChanged | Notice))
        return done(found)

    wait_for(is_done)
    return found


def poll_on(executor: DaskExecutor, notices: list[str]) -> None:
    while True:
        notices += [each.message for each in executor.poll(0.1) if isinstance(each, Notice)]


@contextmanager
def dask(role: str, *arguments: str, with_dspex: bool = True) -> Iterator[subprocess.Popen[str]]:
    """A scheduler or a worker of its own process, without a nanny."""
    start = f"from distributed.cli.{role} import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", start if with_dspex else HIDE_DSPEX + start, *arguments],
        env={**os.environ, "PYTHONPATH": SOURCE},
        cwd="/",
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def scheduler(tmp_path: pathlib.Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A scheduler in whose process dspex cannot be imported."""
    file = tmp_path / "scheduler.json"
    options = ("--scheduler-file", str(file), "--port", "0", "--no-dashboard")
    with dask("dask_scheduler", "--host", "127.0.0.1", *options, with_dspex=False) as process:
        wait_for(file.exists)
        wait_for(lambda: file.read_text().endswith("}"))
        yield process, json.loads(file.read_text())["address"]


def worker(address: str, directory: pathlib.Path, *, with_dspex: bool = True) -> Any:
    options = ("--no-nanny", "--nthreads", "1", "--no-dashboard", "--local-directory")
    return dask("dask_worker", address, *options, str(directory), with_dspex=with_dspex)


def entered_pid(gates: pathlib.Path, trial: int = 0) -> int:
    path = gates / f"entered-{trial}-0"
    wait_for(path.exists)
    return int(path.read_text())


def test_evaluations_of_a_killed_worker_are_reported_lost_and_work_goes_on(
    cluster_of: Callable[[int], Client], tmp_path: pathlib.Path
) -> None:
    with closing(DaskExecutor(cluster_of(2))) as executor:
        executor.open(job(tmp_path))
        executor.submit(evaluations("gate", 2))
        children = [entered_pid(tmp_path, trial) for trial in (0, 1)]
        worker_of_0 = psutil.Process(children[0]).parent()
        assert worker_of_0 is not None
        worker_of_0.kill()
        (lost,) = outcomes_until(executor, lambda found: found)
        assert isinstance(lost, Lost)
        assert lost.trial == 0
        wait_for(lambda: not psutil.pid_exists(children[0]), seconds=5)
        (tmp_path / "release").touch()
        executor.submit([Evaluation(0, 0, 1, {"do": "measure", "x": 1.0})])
        assert {(each.trial, each.attempt) for each in collect(executor, 2)} == {(0, 1), (1, 0)}


def test_a_retired_workers_evaluations_run_again_and_are_not_counted_as_lost(
    cluster_of: Callable[[int], Client], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So far apart that no look sees it retiring.
    monkeypatch.setattr("dspex.cluster.link.LOOK_EVERY", 3.0)
    client: Any = cluster_of(2)
    with closing(DaskExecutor(client)) as executor:
        executor.open(job(tmp_path))
        executor.submit(evaluations("gate", 2))
        children = [entered_pid(tmp_path, trial) for trial in (0, 1)]
        worker_of_0 = psutil.Process(children[0]).parent()
        assert worker_of_0 is not None
        (retired,) = (w for w, pid in client.run(os.getpid).items() if pid == worker_of_0.pid)
        client.retire_workers([retired], close_workers=True, remove=True)
        wait_for(lambda: not psutil.pid_exists(children[0]))
        (tmp_path / "release").touch()
        assert {type(each) for each in collect(executor, 2)} == {Measured}


def test_all_workers_killed_at_once_take_the_payload_with_them_and_it_is_placed_again(
    cluster_of: Callable[[int], Client], tmp_path: pathlib.Path
) -> None:
    client: Any = cluster_of(2)
    with closing(DaskExecutor(client)) as executor:
        executor.open(job(tmp_path))
        executor.submit(evaluations("measure", 10))
        collect(executor, 10)
        for pid in client.run(os.getpid).values():
            os.kill(pid, signal.SIGKILL)
        executor.submit(evaluations("measure", 30, first=10))
        found = outcomes_until(
            executor,
            lambda found: (
                len({o.trial for o in found if isinstance(o, Measured)})
                + len({o.trial for o in found if isinstance(o, Lost)})
                >= 30
            ),
        )
        assert {outcome.trial for outcome in found} == set(range(10, 40))
        assert sum(isinstance(outcome, Lost) for outcome in found) <= 4


def test_a_poison_in_thread_mode_is_charged_itself(
    cluster_of: Callable[[int], Client], tmp_path: pathlib.Path
) -> None:
    with closing(DaskExecutor(cluster_of(2))) as executor:
        executor.open(job(tmp_path, isolation="thread"))
        executor.submit(evaluations("measure", 20))
        collect(executor, 20)
        batch = evaluations("measure", 30, first=20)
        batch[10] = Evaluation(30, 0, 0, {"do": "kill myself", "x": 1.0})
        executor.submit(batch)
        lost: list[int] = []
        measured: set[int] = set()
        wanted = set(range(20, 50)) - {30}

        def is_done() -> bool:
            for each in executor.poll(0.05):
                if isinstance(each, Lost):
                    lost.append(each.trial)
                    if each.trial != 30:
                        again = {"do": "measure", "x": 1.0}
                        executor.submit([Evaluation(each.trial, 0, each.attempt + 1, again)])
                elif isinstance(each, Measured):
                    measured.add(each.trial)
            return 30 in lost and measured == wanted

        wait_for(is_done)
        assert lost.count(30) == 1


def test_children_end_within_five_seconds_of_their_clients_death(
    cluster_of: Callable[[int], Client], tmp_path: pathlib.Path
) -> None:
    client: Any = cluster_of(2)
    script = f"""
        from dspex.cluster import DaskExecutor
        from distributed import Client
        from dspex.engine.ports import Job
        from dspex.testing.executors import evaluations, collect
        from dspex.testing.probe import Probe, probe_space
        executor = DaskExecutor(Client({client.scheduler.address!r}))
        executor.open(Job(program=Probe(), space=probe_space(), data={str(tmp_path)!r}, seed=1))
        executor.submit(evaluations("measure", 40))
        collect(executor, 40)
        executor.submit(evaluations("loop"))
        while True:
            executor.poll(1.0)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        env={**os.environ, "PYTHONPATH": SOURCE},
        cwd=tmp_path,
    )
    try:
        entered_pid(tmp_path)
        workers = [psutil.Process(pid) for pid in client.run(os.getpid).values()]
        assert any(each.children() for each in workers)
    finally:
        process.kill()
        process.wait()
    wait_for(lambda: not any(each.children() for each in workers), seconds=5)
    wait_for(lambda: not any(client.has_what().values()))


def test_a_killed_scheduler_is_said_once_and_what_was_measured_is_delivered(
    tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with (
        scheduler(tmp_path) as (process, address),
        worker(address, tmp_path),
        connect_cluster(address, cluster_nodes=1) as connection,
        closing(DaskExecutor(connection.client)) as executor,
    ):
        client: Any = connection.client
        client._timeout = 1.0  # patience of a test
        executor.open(job(tmp_path))
        executor.submit(evaluations("measure", 5))
        collect(executor, 5)
        executor.submit(evaluations("gate"))
        entered_pid(tmp_path)
        process.kill()
        notices: list[str] = []
        with pytest.raises(ClusterLostError, match="storage="):
            poll_on(executor, notices)
        assert "distributed.client" not in capfd.readouterr().err
        assert len([each for each in notices if "lost the scheduler" in each]) == 1


@pytest.mark.slow  # the client's own pauses between attempts
def test_a_scheduler_that_comes_back_is_worked_on(tmp_path: pathlib.Path) -> None:
    with (
        scheduler(tmp_path) as (process, address),
        worker(address, tmp_path / "1"),
        connect_cluster(address, cluster_nodes=1) as connection,
        closing(DaskExecutor(connection.client)) as executor,
    ):
        executor.open(job(tmp_path))
        executor.submit(evaluations("gate"))
        entered_pid(tmp_path)
        process.kill()
        process.wait()
        (tmp_path / "release").touch()
        port = address.rpartition(":")[2]
        options = ("--host", "127.0.0.1", "--port", port, "--no-dashboard")
        with dask("dask_scheduler", *options), worker(address, tmp_path / "2"):
            assert [type(each) for each in collect(executor, 1)] == [Measured]


def test_neither_scheduler_nor_unused_workers_need_dspex(tmp_path: pathlib.Path) -> None:
    with (
        scheduler(tmp_path) as (_, address),
        worker(address, tmp_path),
        connect_cluster(address, cluster_nodes=1) as connection,
        closing(DaskExecutor(connection.client)) as executor,
    ):
        executor.open(job(tmp_path))
        with worker(address, tmp_path, with_dspex=False):
            said: list[str] = []

            def is_said() -> bool:
                arrived = executor.poll(0.05)
                said.extend(e.message for e in arrived if isinstance(e, Notice))
                return any("no dspex" in each for each in said)

            wait_for(is_said)
            executor.submit(evaluations("measure", 20))
            assert len({each.worker for each in collect(executor, 20)}) == 1
            late: Any = DaskExecutor(connection.client)
            with closing(late), pytest.raises(VersionMismatchError, match="no dspex"):
                late.open(job(tmp_path))


def test_without_workers_a_study_waits_and_says_so(tmp_path: pathlib.Path) -> None:
    with (
        scheduler(tmp_path) as (_, address),
        connect_cluster(address) as connection,
        closing(DaskExecutor(connection.client)) as executor,
    ):
        assert executor.open(job(tmp_path)).slots == 0
        executor.submit(evaluations("measure"))
        said: Sequence[Any] = executor.poll(5.0)
        assert ["no workers" in each.message for each in said] == [True]
        with worker(address, tmp_path):
            collect(executor, 1)


def test_without_workers_for_too_long_a_study_ends(tmp_path: pathlib.Path) -> None:
    with (
        scheduler(tmp_path) as (_, address),
        connect_cluster(address) as connection,
        closing(DaskExecutor(connection.client, worker_patience=0.2)) as executor,
    ):
        executor.open(job(tmp_path))
        with pytest.raises(NoWorkersError, match="storage="):
            poll_on(executor, [])
