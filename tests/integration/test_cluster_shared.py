"""On a cluster that others use, or that is not as it should be: work goes where it can be done."""

from __future__ import annotations

import asyncio
import gc
import os
import pathlib
import signal
import time
from contextlib import closing
from typing import Any

import dask
import pytest
from distributed import Client, LocalCluster

import dspex
from dspex.cluster import DaskExecutor, versions
from dspex.cluster.link import Link
from dspex.engine.ports import Job, Notice, Progressed
from dspex.errors import InvalidArgumentError, NoWorkersError
from dspex.study.records import Measured
from dspex.testing.executors import collect, evaluations
from dspex.testing.probe import Probe, probe_space, wait_for


def job(gates: pathlib.Path, **changes: Any) -> Job:
    fields = {"program": Probe(), "space": probe_space(), "data": str(gates), "seed": 7}
    return Job(**{**fields, **changes})


def hold_a_thread(directory: str, number: int) -> None:
    here = pathlib.Path(directory)
    (here / f"held-{number}").touch()
    while not (here / "let-go").exists():
        time.sleep(0.01)


@pytest.mark.parametrize("is_warm", [True, False])
def test_what_lies_behind_the_tasks_of_others_is_done_elsewhere(
    client: Any, tmp_path: pathlib.Path, is_warm: bool
) -> None:
    with closing(DaskExecutor(client)) as executor:
        executor.open(job(tmp_path))
        if is_warm:
            executor.submit(evaluations("measure", 20))
            collect(executor, 20)
        held, free = client.nthreads()
        theirs = [
            client.submit(hold_a_thread, str(tmp_path), n, workers=[held], pure=False)
            for n in range(2)
        ]
        wait_for(lambda: all((tmp_path / f"held-{n}").exists() for n in range(2)))
        executor.submit(evaluations("measure", 4, first=20))
        assert {each.worker for each in collect(executor, 4)} == {free}
        assert {each.status for each in theirs} == {"pending"}
        (tmp_path / "let-go").touch()
        client.gather(theirs)


def optimize_within(params: Any) -> float:
    inner = dspex.optimize(
        lambda p: p["y"] ** 2 + params["x"],
        space={"y": dspex.Float(-1, 1)},
        direction="minimize",
        trials=5,
        parallel_evaluations=1,
        progress=False,
    )
    assert {trial.worker for trial in inner.trials} == {"in-process"}
    return inner.best_score


@pytest.mark.parametrize("isolation", ["process", "thread"])
def test_a_study_within_a_trial_runs_in_its_process(client: Any, isolation: Any) -> None:
    result = dspex.optimize(
        optimize_within,
        space={"x": dspex.Float(0, 1)},
        direction="minimize",
        trials=2,
        parallel_evaluations=1,
        isolation=isolation,
        cluster=client,
        progress=False,
        max_failures=0,
    )
    assert result.n_failed == 0


def test_in_threads_the_global_generators_are_left_alone(
    client: Any, tmp_path: pathlib.Path
) -> None:
    with closing(DaskExecutor(client, max_workers=1)) as executor:
        executor.open(job(tmp_path, isolation="thread"))
        drawn: list[float] = []
        for first in (0, 0):  # the same trial twice, one after the other
            executor.submit(evaluations("globals", first=first))
            (outcome,) = collect(executor, 1)
            assert isinstance(outcome, Measured), outcome
            drawn.append(outcome.steps[-1].scores["numpy"])
    assert drawn[0] != drawn[1]


def test_a_worker_that_hangs_is_named_and_left_unused(
    cluster_of: Any, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = cluster_of(2)
    monkeypatch.setattr(versions, "ANSWER_WITHIN", 1.0)
    (frozen, pid), (other, _) = client.run(os.getpid).items()
    os.kill(pid, signal.SIGSTOP)
    try:
        with closing(DaskExecutor(client)) as executor:
            assert executor.open(job(tmp_path)).workers == 1
            said = [each.message for each in executor.poll(0.0) if isinstance(each, Notice)]
            assert len(said) == 1
            assert frozen in said[0]
            assert "does not answer" in said[0]
            executor.submit(evaluations("measure", 5))
            assert {each.worker for each in collect(executor, 5)} == {other}
            os.kill(pid, signal.SIGCONT)
            wait_for(lambda: executor.poll(0.1) and executor._dispatcher.workers == 2)
    finally:
        os.kill(pid, signal.SIGCONT)


def study(client: Any, **options: Any) -> dspex.OptimizationResult:
    return dspex.optimize(
        lambda params: params["x"],
        space={"x": dspex.Float(0, 1)},
        direction="minimize",
        trials=5,
        parallel_evaluations=1,
        progress=False,
        cluster=client,
        **options,
    )


def test_too_few_workers_are_waited_for_until_the_timeout(client: Any) -> None:
    with pytest.raises(NoWorkersError, match=r"cluster_nodes=9 .* within 0.2 s"):
        study(client, cluster_nodes=9, timeout=0.2)


def test_from_asynchronous_code() -> None:
    make: Any = Client

    async def main() -> None:
        async with make(
            n_workers=1, processes=False, asynchronous=True, dashboard_address=":0"
        ) as client:
            with pytest.raises(InvalidArgumentError, match="to_thread") as caught:
                study(client)
            assert "\n" not in str(caught.value)
            result = await asyncio.to_thread(study, client.scheduler.address)
            assert len(result.trials) == 5

    asyncio.run(main())


def test_from_a_running_loop_and_with_annotations_around(client: Any) -> None:
    async def main() -> int:
        annotate: Any = dask.annotate  # type: ignore[attr-defined]
        with annotate(resources={"GPU": 1}, workers=["nowhere"]):
            return len(study(client).trials)

    assert asyncio.run(main()) == 5


def test_from_within_a_task(client: Any) -> None:
    def task() -> set[Any]:
        return {trial.worker for trial in study(None).trials}

    assert client.submit(task, pure=False).result(timeout=60) == {"in-process"}


def a_while(params: Any) -> float:
    time.sleep(0.05)
    return float(params["x"])


def test_a_cluster_that_adapts_starts_workers_for_what_waits() -> None:
    make: Any = LocalCluster
    seen: list[int] = []

    def look(event: object) -> None:
        if isinstance(event, Progressed):
            seen.append(event.progress.workers)

    with make(
        n_workers=0, threads_per_worker=1, processes=False, dashboard_address=":0"
    ) as cluster:
        cluster.adapt(minimum=0, maximum=2, interval="50ms", target_duration="100ms")
        result = dspex.optimize(
            a_while,
            space={"x": dspex.Float(0, 1)},
            direction="minimize",
            trials=60,
            parallel_evaluations=8,
            isolation="thread",
            progress=False,
            callbacks=[look],
            cluster=cluster,
        )
    assert (len(result.trials), result.n_failed) == (60, 0)
    assert max(seen) == 2


def test_results_in_flight_at_the_end_are_dropped_without_a_word(
    client: Any, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gathered: list[int] = []
    gather = Link.gather

    def gather_noted(link: Link, *arguments: Any) -> Any:
        gathered.append(1)
        return gather(link, *arguments)

    monkeypatch.setattr(Link, "gather", gather_noted)
    said: list[Any] = []
    loop = client.loop.asyncio_loop
    loop.call_soon_threadsafe(loop.set_exception_handler, lambda _, context: said.append(context))
    try:
        for rounds in range(1, 6):
            with closing(DaskExecutor(client)) as executor:
                executor.open(job(tmp_path))
                executor.submit(evaluations("measure", 40))
                while len(gathered) < rounds:  # and not a moment longer
                    executor.poll(0.0)
            gathered[rounds:] = []
        gc.collect()  # a task says what it was not asked when it is collected
        client.run(int)
    finally:
        loop.call_soon_threadsafe(loop.set_exception_handler, None)
    assert said == []
