"""Leases of studies on real clusters: what is held, who waits, what moves, what comes back."""

from __future__ import annotations

import os
import pathlib
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest
from distributed import Client

import dspex
from dspex.cluster import DaskExecutor, connect_cluster
from dspex.cluster.admission import LeaseRequest
from dspex.cluster.foundation.plugin import NAME
from dspex.engine.ports import CapacityChanged, Job, Lost, Notice, TrialEnded
from dspex.errors import QuotaExceededError, UnsatisfiableRequestError
from dspex.foundation import Foundation
from dspex.study.records import Measured
from dspex.testing.clusters import local_cluster
from dspex.testing.executors import collect, evaluations
from dspex.testing.probe import Probe, probe_space, wait_for
from dspex.testing.processes import SchedulerProcess, WorkerProcess

SPACE = {"x": dspex.Float(0, 1)}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with local_cluster(2, threads=2) as cluster:
        yield cluster


@pytest.fixture
def foundation(client: Any) -> Iterator[Foundation]:
    with dspex.connect(client) as foundation:
        yield foundation
        assert leased(foundation) == 0, "all that a study holds is given back"
        waiting: Any = foundation.status()["waiting"]
        assert waiting == 0


def leased(foundation: Foundation) -> int:
    return sum(int(each["leases"]) for each in foundation.resources.usage().values())


def job(gates: pathlib.Path, **changes: Any) -> Job:
    fields = {"program": Probe(), "space": probe_space(), "data": str(gates), "seed": 7}
    return Job(**{**fields, **changes})


def study(client: Any, program: Any = None, **options: Any) -> dspex.OptimizationResult:
    defaults = {
        "space": SPACE,
        "direction": "minimize",
        "trials": 20,
        "parallel_evaluations": 4,
        "progress": False,
        "cluster": client,
    }
    return dspex.optimize(program or (lambda params: params["x"]), **{**defaults, **options})


def a_moment(params: Any) -> float:
    time.sleep(0.05)
    return float(params["x"])


def most_at_once(results: Sequence[dspex.OptimizationResult]) -> int:
    """How many evaluations ran at once at most."""
    edges = [
        edge
        for result in results
        for trial in result.trials
        for edge in ((trial.started, 1), (trial.finished, -1))
    ]
    running = most = 0
    for _, change in sorted(edges):
        running += change
        most = max(most, running)
    return most


def test_one_lease_for_each_slot_and_all_come_back(
    client: Any, foundation: Foundation, tmp_path: pathlib.Path
) -> None:
    request = LeaseRequest(cpu_cores=2, memory_gb=0.5, tenant="me")
    with closing(DaskExecutor(client, request=request)) as executor:
        assert executor.open(job(tmp_path)) == CapacityChanged(workers=2, slots=2)
        for each in foundation.resources.usage("worker").values():
            assert (each["cpu_cores"], each["memory_gb"], each["leases"]) == (2.0, 0.5, 1)
        assert foundation.resources.usage("kind")["evaluation"]["leases"] == 2
        executor.submit(evaluations("measure", 20))
        assert len({each.worker for each in collect(executor, 20)}) == 2


def test_a_study_takes_no_more_than_it_can_use(client: Any, foundation: Foundation) -> None:
    held = []

    def look(event: object) -> None:
        held.append(leased(foundation))

    study(client, resources={"cpu_cores": 1}, parallel_evaluations=3, callbacks=[look])
    assert max(held) == 3


def test_an_evaluation_may_use_its_whole_cores(
    client: Any, foundation: Foundation, tmp_path: pathlib.Path
) -> None:
    for cores, threads in ((2.0, 2.0), (1.5, 1.0)):
        request = LeaseRequest(cpu_cores=cores)
        with closing(DaskExecutor(client, request=request)) as executor:
            executor.open(job(tmp_path, threads=request.threads))
            executor.submit(evaluations("environment", 1))
            (outcome,) = collect(executor, 1)
            assert isinstance(outcome, Measured)
            assert outcome.steps[-1].scores["OMP_NUM_THREADS"] == threads


def test_a_study_that_goes_on_with_other_threads_says_so(
    client: Any, foundation: Foundation, tmp_path: pathlib.Path
) -> None:
    kept = {"study": "threads", "storage": str(tmp_path / "store.db"), "seed": 1}
    study(client, resources={"cpu_cores": 2}, **kept)
    with pytest.warns(UserWarning, match="goes on with another blas_threads: recorded 2, given 1"):
        study(client, resources={"cpu_cores": 1}, trials=22, **kept)


@pytest.mark.parametrize("isolation", ["process", "thread"])
def test_two_studies_of_a_tenant_share_its_quota(
    client: Any, foundation: Foundation, isolation: Any
) -> None:
    foundation.resources.set_quota("shared", max_concurrent=1)

    def run(number: int) -> dspex.OptimizationResult:
        options = {"resources": {"cpu_cores": 1}} if number else {}
        return study(
            client.scheduler.address, a_moment, tenant="shared", isolation=isolation, **options
        )

    with ThreadPoolExecutor(2) as threads:
        results = list(threads.map(run, range(2)))
    foundation.resources.set_quota("shared")
    assert [len(result.trials) for result in results] == [20, 20]
    assert most_at_once(results) == 1


def test_a_study_waits_says_so_and_goes_on(
    client: Any, foundation: Foundation, tmp_path: pathlib.Path
) -> None:
    foundation.resources.set_quota("busy", max_concurrent=1)
    lease = foundation.resources.acquire("other work", cpu_cores=1, tenant="busy")
    request = LeaseRequest(tenant="busy", is_sized=False)
    with closing(DaskExecutor(client, request=request, worker_patience=0.5)) as executor:
        assert executor.open(job(tmp_path)).slots == 0
        executor.submit(evaluations("measure", 3))
        said: list[str] = []
        while not said:
            said += [each.message for each in executor.poll(0.1) if isinstance(each, Notice)]
        assert said == [
            "waiting for resources (1 cpu_cores an evaluation): tenant 'busy' has 1 of "
            "max_concurrent=1"
        ]
        lease.release()
        assert len(collect(executor, 3)) == 3
    foundation.resources.set_quota("busy")


def test_what_holds_the_cores_is_told(
    client: Any, foundation: Foundation, tmp_path: pathlib.Path
) -> None:
    leases = [foundation.resources.acquire("theirs", cpu_cores=2, tenant="them") for _ in range(2)]
    with closing(DaskExecutor(client, request=LeaseRequest(cpu_cores=1))) as executor:
        executor.open(job(tmp_path))
        said: list[str] = []
        while not said:
            said += [each.message for each in executor.poll(0.1) if isinstance(each, Notice)]
        assert "4 of 4 cpu_cores are leased; leases are held 2 by 'them'" in said[0]
    for lease in leases:
        lease.release()


def test_the_higher_priority_comes_first(
    client: Any, foundation: Foundation, tmp_path: pathlib.Path
) -> None:
    foundation.resources.set_quota("ranked", max_concurrent=1)
    lease = foundation.resources.acquire("other work", tenant="ranked")
    low = LeaseRequest(tenant="ranked", priority=1)
    high = LeaseRequest(tenant="ranked", priority=2)
    with (
        closing(DaskExecutor(client, request=low)) as first,
        closing(DaskExecutor(client, request=high)) as second,
    ):
        assert first.open(job(tmp_path)).slots == second.open(job(tmp_path)).slots == 0
        lease.release()
        wait_for(lambda: CapacityChanged(workers=2, slots=1) in second.poll(0.1))
        assert first._dispatcher.slots == 0
    foundation.resources.set_quota("ranked")


def test_what_can_never_be_had_is_raised(client: Any, foundation: Foundation) -> None:
    with pytest.raises(UnsatisfiableRequestError, match=r"64 cpu_cores.*2 that the study may use"):
        study(client, resources={"cpu_cores": 64})
    with pytest.raises(UnsatisfiableRequestError, match="with fast-disk"):
        study(client, resources={"labels": ["fast-disk"]})
    foundation.resources.set_quota("none", max_concurrent=0)
    with pytest.raises(QuotaExceededError, match=r"tenant 'none' may have at most.*set_quota"):
        study(client, tenant="none")
    foundation.resources.set_quota("none")


def test_only_workers_that_the_study_may_use_are_leased(
    client: Any, foundation: Foundation, tmp_path: pathlib.Path
) -> None:
    request = LeaseRequest(cpu_cores=1)
    with closing(DaskExecutor(client, max_workers=1, request=request)) as executor:
        assert executor.open(job(tmp_path)) == CapacityChanged(workers=1, slots=2)
        executor.submit(evaluations("measure", 10))
        (worker,) = {each.worker for each in collect(executor, 10)}
        usage = foundation.resources.usage("worker")
        assert {address: each["leases"] for address, each in usage.items()} == {
            address: 2 * (address == worker) for address in usage
        }


def test_the_result_is_the_same_with_and_without_leases(
    client: Any, foundation: Foundation
) -> None:
    def values(**options: Any) -> list[tuple[Any, ...]]:
        result = study(client, seed=5, parallel_evaluations=4, trials=30, strategy="tpe", **options)
        return [(trial.number, trial.params, trial.score) for trial in result.trials]

    foundation.resources.set_quota("narrow", max_concurrent=2)
    assert values() == values(resources={"cpu_cores": 2}) == values(tenant="narrow")
    foundation.resources.set_quota("narrow")


def test_without_resources_and_tenant_nothing_is_installed(
    cluster_of: Callable[[int], Any],
) -> None:
    def installed(dask_scheduler: Any) -> tuple[bool, bool]:
        return NAME in dask_scheduler.plugins, "dspex" in dask_scheduler.handlers

    client = cluster_of(1)
    study(client)
    assert client.run_on_scheduler(installed) == (False, False)
    study(client, tenant="me")
    assert client.run_on_scheduler(installed) == (True, True)


def test_an_embedded_cluster_has_workers_that_fit() -> None:
    result = study(None, resources={"cpu_cores": 2, "memory_gb": 0.5})
    assert (len(result.trials), result.n_failed) == (20, 0)


def test_ctrl_c_and_errors_give_everything_back(client: Any, foundation: Foundation) -> None:
    interrupted: list[object] = []

    def interrupt(event: object) -> None:
        if isinstance(event, TrialEnded) and not interrupted and leased(foundation):
            interrupted.append(event)
            signal.raise_signal(signal.SIGINT)

    result = study(client, a_moment, tenant="me", trials=10_000, callbacks=[interrupt])
    assert result.stop_reason == "interrupted"
    assert leased(foundation) == 0

    def fail(params: Any) -> float:
        raise ValueError("on purpose")

    with pytest.raises(dspex.errors.AllTrialsFailedError):
        study(client, fail, tenant="me", trials=20)


@pytest.mark.chaos
def test_a_killed_worker_moves_its_lease_and_the_study_ends_complete(
    cluster_of: Callable[[int], Any], tmp_path: pathlib.Path
) -> None:
    client = cluster_of(2)
    with dspex.connect(client) as foundation:
        foundation.resources.set_quota("moving", max_concurrent=1)
        pids = client.run(os.getpid)
        request = LeaseRequest(tenant="moving")
        with closing(DaskExecutor(client, request=request)) as executor:
            executor.open(job(tmp_path))
            executor.submit(evaluations("gate", 4))
            wait_for(lambda: (executor.poll(0.1), list(tmp_path.glob("entered-*")))[1])
            (held,) = [w for w, n in foundation.resources.usage().items() if n["leases"]]
            os.kill(pids[held], signal.SIGKILL)
            outcomes = collect(executor, 1)
            assert [type(each) for each in outcomes] == [Lost]
            (tmp_path / "release").touch()
            executor.submit(evaluations("gate", 1))
            measured = collect(executor, 4)
            assert all(isinstance(each, Measured) for each in measured)
            assert held not in {each.worker for each in measured}
            assert leased(foundation) == 1
        assert leased(foundation) == 0


@pytest.mark.chaos
def test_a_frozen_worker_loses_its_lease_and_what_it_ran_is_done_elsewhere(
    cluster_of: Callable[[int], Any], tmp_path: pathlib.Path
) -> None:
    client = cluster_of(2)
    with dspex.connect(client) as foundation:
        foundation.resources.set_quota("frozen", max_concurrent=1)
        pids = client.run(os.getpid)
        with closing(DaskExecutor(client, request=LeaseRequest(tenant="frozen"))) as executor:
            executor.open(job(tmp_path))
            executor.submit(evaluations("gate", 2))
            wait_for(lambda: (executor.poll(0.1), list(tmp_path.glob("entered-*")))[1])
            (held,) = [w for w, n in foundation.resources.usage().items() if n["leases"]]
            os.kill(pids[held], signal.SIGSTOP)
            try:
                (tmp_path / "release").touch()
                outcomes = collect(executor, 2)
                assert [type(each) for each in outcomes] == [Measured, Measured]
                assert held not in {each.worker for each in outcomes}
            finally:
                os.kill(pids[held], signal.SIGCONT)
        assert leased(foundation) == 0


@pytest.mark.chaos
def test_a_session_that_ran_out_costs_its_leases_and_gets_new_ones(
    cluster_of: Callable[[int], Any], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dspex.cluster.gatekeeper.SESSION_LEASE", 1.0)
    client = cluster_of(1)
    make: Any = Client
    with (
        dspex.connect(client) as foundation,
        make(client.scheduler.address, set_as_default=False) as own,  # with a loop of its own
        closing(DaskExecutor(own, request=LeaseRequest(cpu_cores=1))) as executor,
    ):
        executor.open(job(tmp_path))
        executor.submit(evaluations("gate", 1))
        wait_for(lambda: (executor.poll(0.1), list(tmp_path.glob("entered-*")))[1])
        let_go = threading.Event()
        own.loop.asyncio_loop.call_soon_threadsafe(let_go.wait, 60)
        wait_for(lambda: leased(foundation) == 0)
        theirs = foundation.resources.acquire("theirs", cpu_cores=1)
        let_go.set()
        wait_for(lambda: executor.poll(0.1) is None or not executor._futures)
        assert executor._dispatcher.slots == 0
        theirs.release()
        (tmp_path / "release").touch()
        assert [type(each) for each in collect(executor, 1)] == [Measured]
        assert leased(foundation) == 1


@pytest.mark.chaos
@pytest.mark.slow  # the client's own pauses between attempts
@pytest.mark.parametrize("has_journal", [False, True])
def test_a_scheduler_that_comes_back_gives_leases_again(
    tmp_path: pathlib.Path, has_journal: bool
) -> None:
    journal = f"sqlite:///{tmp_path / 'journal.db'}" if has_journal else None
    with (
        SchedulerProcess(journal) as scheduler,
        WorkerProcess(scheduler.address) as worker,
        connect_cluster(scheduler.address, cluster_nodes=1) as connection,
    ):
        request = LeaseRequest(cpu_cores=1)
        with closing(DaskExecutor(connection.client, request=request)) as executor:
            executor.open(job(tmp_path))
            executor.submit(evaluations("gate"))
            wait_for(lambda: (executor.poll(0.1), list(tmp_path.glob("entered-*")))[1])
            scheduler.kill()
            wait_for(lambda: any(isinstance(each, Notice) for each in executor.poll(0.1)))
            worker.wait()
            scheduler.start()
            scheduler.wait_until_up()
            (tmp_path / "release").touch()
            with WorkerProcess(scheduler.address):
                assert [type(each) for each in collect(executor, 1)] == [Measured]
                executor.close()
                with dspex.connect(scheduler.address) as foundation:
                    assert leased(foundation) == 0
