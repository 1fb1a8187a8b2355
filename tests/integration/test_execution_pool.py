"""Chunks run in real child processes: shared data, clean protocol, nothing left behind."""

from __future__ import annotations

import logging
import multiprocessing
import os
import pathlib
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from dspex.engine.ports import Evaluation, Job
from dspex.errors import InvalidArgumentError, ProgramLoadError
from dspex.execution.payload import Payload
from dspex.execution.pool import ChunkResult, EvaluatorPool
from dspex.programs.base import Program
from dspex.space import Choice, Float, Space
from dspex.study.measurement import Measurement
from dspex.study.records import Failed, Measured
from dspex.testing.executors import evaluations
from dspex.testing.leaks import no_leaks
from dspex.testing.probe import Probe, probe_space, wait_for

MakePool = Callable[..., EvaluatorPool]
LONG = 60.0


@pytest.fixture
def make_pool(tmp_path: pathlib.Path) -> Iterator[MakePool]:
    pools: list[EvaluatorPool] = []

    def make(program: Program | None = None, data: Any = None, **options: Any) -> EvaluatorPool:
        job = Job(
            program=program or Probe(),
            space=probe_space(),
            data=str(tmp_path) if data is None else data,
            seed=7,
            **options,
        )
        pools.append(EvaluatorPool(Payload.of(job), directory=str(tmp_path / "w"), worker="w1"))
        return pools[-1]

    with no_leaks():
        yield make
        for pool in pools:
            pool.close()
            pool.close()
    assert not list((tmp_path / "w").iterdir())


def run(pool: EvaluatorPool, do: str, count: int = 1, *, x: float = 1.0) -> ChunkResult:
    return pool.run(evaluations(do, count, x=x), patience=LONG, is_wanted=lambda: True)


def score(pool: EvaluatorPool, do: str) -> float:
    (outcome,) = run(pool, do).outcomes
    assert isinstance(outcome, Measured), outcome
    return outcome.steps[-1].score


def test_a_chunk_is_measured_in_order_by_the_worker_named(make_pool: MakePool) -> None:
    result = run(make_pool(), "measure", 20)
    assert result.unstarted == []
    assert [outcome.trial for outcome in result.outcomes] == list(range(20))
    assert {outcome.worker for outcome in result.outcomes} == {"w1"}


def test_a_warm_child_is_used_again(make_pool: MakePool) -> None:
    pool = make_pool()
    assert score(pool, "pid") == score(pool, "pid") != os.getpid()
    assert "0 busy, 1 idle" in repr(pool)


def test_calls_at_once_have_a_child_each(make_pool: MakePool, tmp_path: pathlib.Path) -> None:
    pool = make_pool()
    with ThreadPoolExecutor(3) as threads:
        calls = [
            threads.submit(
                pool.run, evaluations("gate", first=n), patience=LONG, is_wanted=lambda: True
            )
            for n in range(3)
        ]
        entered = [tmp_path / f"entered-{n}-0" for n in range(3)]
        wait_for(lambda: all(path.exists() for path in entered))
        (tmp_path / "release").touch()
        assert all(isinstance(call.result().outcomes[0], Measured) for call in calls)
    assert len({path.read_text() for path in entered}) == 3


def test_data_is_read_only_and_mapped(make_pool: MakePool) -> None:
    pool = make_pool(data=np.ones(1000))
    assert score(pool, "sum data") == 1000.0
    (outcome,) = run(pool, "write data").outcomes
    assert isinstance(outcome, Failed)
    assert "read-only" in outcome.error.message


def test_one_blas_thread_and_one_order_of_sets(make_pool: MakePool) -> None:
    (outcome,) = run(make_pool(), "environment").outcomes
    assert isinstance(outcome, Measured), outcome
    assert dict(outcome.steps[-1].scores) == {"OMP_NUM_THREADS": 1, "PYTHONHASHSEED": 0}


def test_output_disturbs_nothing_and_is_logged(
    make_pool: MakePool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="dspex.programs.output"):
        result = run(make_pool(), "print", 3)
    assert [type(outcome) for outcome in result.outcomes] == [Measured] * 3
    assert "spam spam" in caplog.text
    assert "eggs eggs" in caplog.text


@pytest.mark.parametrize("do", ["leave", "interrupt"])
def test_leaving_is_a_failure_and_the_child_goes_on(make_pool: MakePool, do: str) -> None:
    pool = make_pool()
    before = score(pool, "pid")
    (outcome,) = run(pool, do).outcomes
    assert isinstance(outcome, Failed)
    assert outcome.error.kind in {"SystemExit", "KeyboardInterrupt"}
    assert score(pool, "pid") == before


def test_a_forked_copy_of_the_program_does_not_answer(make_pool: MakePool) -> None:
    result = run(make_pool(), "fork and come back", 3, x=5.0)
    assert [type(outcome) for outcome in result.outcomes] == [Measured] * 3
    assert all(o.steps[-1].score == 5.0 for o in result.outcomes if isinstance(o, Measured))


def test_patience_leaves_the_rest_unstarted(make_pool: MakePool) -> None:
    chunk = evaluations("measure", 5)
    result = make_pool().run(chunk, patience=0.0, is_wanted=lambda: True)
    assert [outcome.trial for outcome in result.outcomes] == [0]
    assert result.unstarted == chunk[1:]


def test_nothing_is_started_that_nobody_wants(make_pool: MakePool) -> None:
    chunk = evaluations("measure", 5)
    pool = make_pool()
    assert pool.run(chunk, is_wanted=lambda: False) == ChunkResult([], chunk)
    assert pool.run([], is_wanted=lambda: True) == ChunkResult([], [])
    assert "0 busy, 0 idle" in repr(pool)


def test_a_program_that_looks_is_told_to_stop(make_pool: MakePool, tmp_path: pathlib.Path) -> None:
    pool = make_pool()
    chunk = evaluations("gate", 2)
    entered = tmp_path / "entered-0-0"
    result = pool.run(chunk, patience=LONG, is_wanted=lambda: not entered.exists())
    (outcome,) = result.outcomes
    assert isinstance(outcome, Measured)
    assert outcome.steps[-1].score == -1.0
    assert result.unstarted == chunk[1:]
    assert score(pool, "pid") == float(entered.read_text()), "the child lives on"


def test_messages_larger_than_any_pipe(tmp_path: pathlib.Path) -> None:
    class Echo:
        def space(self) -> Space | None:
            return None

        def prepare(self, data: Any) -> None:
            pass

        def evaluate(self, params: Any, trial: Any) -> Measurement:
            return Measurement(1.0, feedback=params["text"])

        def finish(self, params: Any) -> Any:
            return None

    text = "x" * 3_000_000
    space = Space({"text": Choice(["", text])})
    job = Job(program=Echo(), space=space, data=None, seed=1)
    with EvaluatorPool(Payload.of(job), directory=str(tmp_path), worker="w") as pool:
        chunk = [Evaluation(n, 0, 0, {"text": text}) for n in range(2)]
        result = pool.run(chunk, patience=LONG, is_wanted=lambda: True)
    assert [type(outcome) for outcome in result.outcomes] == [Measured] * 2
    for outcome in result.outcomes:
        assert isinstance(outcome, Measured)
        assert outcome.steps[0].feedback == text


def test_modules_that_this_process_can_import_can_be_imported_there(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "module_of_a_user.py").write_text(
        "class Program:\n"
        "    def prepare(self, data): pass\n"
        "    def evaluate(self, params, trial):\n"
        "        import os\n"
        "        return {'is_set': 'PYTHONPATH' in os.environ, 'x': params['x']}\n"
    )
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    import module_of_a_user  # type: ignore[import-not-found]

    space = Space({"x": Float(0, 1)})
    job = Job(program=module_of_a_user.Program(), space=space, data=None, seed=1)
    with EvaluatorPool(Payload.of(job), directory=str(tmp_path), worker="w") as pool:
        result = pool.run([Evaluation(0, 0, 0, {"x": 0.5})], is_wanted=lambda: True)
    (outcome,) = result.outcomes
    assert isinstance(outcome, Measured), outcome
    assert dict(outcome.steps[0].scores) == {"is_set": 0.0, "x": 0.5}


class Refusing:
    """Raises where it is told to."""

    def __init__(self, where: str) -> None:
        self.where = where

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self.where == "unpickle":
            raise RuntimeError("I do not travel")

    def space(self) -> Space | None:
        return None

    def prepare(self, data: Any) -> None:
        if self.where == "prepare":
            raise RuntimeError("I do not like this data")
        if self.where == "leave":
            sys.exit("I leave")

    def evaluate(self, params: Any, trial: Any) -> Any:
        return 1.0

    def finish(self, params: Any) -> Any:
        return None


@pytest.fixture(autouse=True)
def _this_module_travels_by_value() -> Iterator[None]:
    import cloudpickle

    module = sys.modules[__name__]
    cloudpickle.register_pickle_by_value(module)
    yield
    cloudpickle.unregister_pickle_by_value(module)


@pytest.mark.parametrize(
    ("where", "words"), [("unpickle", "not travel"), ("prepare", "this data"), ("leave", "I leave")]
)
def test_what_cannot_be_loaded_is_a_broken_system(
    make_pool: MakePool, where: str, words: str
) -> None:
    pool = make_pool(Refusing(where))
    for _ in range(2):
        with pytest.raises(ProgramLoadError, match=words) as caught:
            run(pool, "measure")
        assert "Traceback" in str(caught.value)
        assert "w1" in str(caught.value)


def test_a_directory_that_cannot_be_written(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").touch()
    job = Job(program=Probe(), space=probe_space(), data=None, seed=1)
    with no_leaks(), pytest.raises(ProgramLoadError, match="bytes could not be written"):
        EvaluatorPool(Payload.of(job), directory=str(tmp_path / "file"), worker="w")


def test_a_process_that_cannot_be_started(
    make_pool: MakePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = make_pool()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", "/no/such/python")
        with no_leaks(), pytest.raises(ProgramLoadError, match="/no/such/python could not be"):
            run(pool, "measure")
    assert score(pool, "measure") == 1.0


def test_a_closed_pool_runs_nothing(make_pool: MakePool) -> None:
    pool = make_pool()
    pool.close()
    with pytest.raises(RuntimeError, match="closed"):
        run(pool, "measure")
    assert "closed" in repr(pool)


def test_close_ends_what_runs(make_pool: MakePool, tmp_path: pathlib.Path) -> None:
    pool = make_pool()
    chunk = evaluations("loop", 2)
    with ThreadPoolExecutor(1) as threads:
        call = threads.submit(pool.run, chunk, patience=LONG, is_wanted=lambda: True)
        wait_for((tmp_path / "entered-0-0").exists)
        pool.close()
        assert call.result() == ChunkResult([], chunk), "nobody is charged"


def test_windows_is_told_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    payload = Payload.of(Job(program=Probe(), space=probe_space(), data=None, seed=1))
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(InvalidArgumentError, match='isolation="thread"'):
        EvaluatorPool(payload, directory=str(tmp_path), worker="w")


def _in_a_fork(pool: EvaluatorPool, answers: Any) -> None:
    try:
        run(pool, "measure")
    except RuntimeError as error:
        answers.put(str(error))
    pool.close()


@pytest.mark.skipif(sys.platform != "linux", reason="forks freely")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_fork_neither_uses_nor_harms_the_pool(make_pool: MakePool) -> None:
    pool = make_pool()
    before = score(pool, "pid")
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    fork = context.Process(target=_in_a_fork, args=(pool, answers))
    fork.start()
    assert "in the process that made it" in answers.get()
    fork.join()
    assert fork.exitcode == 0
    assert score(pool, "pid") == before
    answers.close()
    fork.close()


def test_threads_that_come_and_go_take_no_child_with_them(make_pool: MakePool) -> None:
    pool = make_pool()
    pids: list[float] = []
    for _ in range(2):
        thread = threading.Thread(target=lambda: pids.append(score(pool, "pid")))
        thread.start()
        thread.join()
    assert pids[0] == pids[1]
