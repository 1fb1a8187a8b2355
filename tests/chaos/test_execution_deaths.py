"""Children hang, crash, are killed and orphaned: each is an outcome of its own trial alone."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import psutil
import pytest

from dspex.engine.ports import Job
from dspex.errors import ProgramLoadError
from dspex.execution.inprocess import InProcessExecutor
from dspex.execution.payload import Payload
from dspex.execution.pool import ChunkResult, EvaluatorPool
from dspex.study.records import Failed, Measured
from dspex.study.trial import TrialState
from dspex.testing.executors import evaluations
from dspex.testing.leaks import no_leaks
from dspex.testing.probe import Probe, probe_space, wait_for

pytestmark = pytest.mark.chaos

LONG = 60.0
MakePool = Callable[..., EvaluatorPool]


@pytest.fixture
def make_pool(tmp_path: pathlib.Path) -> Iterator[MakePool]:
    pools: list[EvaluatorPool] = []

    def make(program: Any = None, data: Any = None, **options: Any) -> EvaluatorPool:
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


def run(pool: EvaluatorPool, do: str, count: int = 1, *, x: float = 1.0) -> ChunkResult:
    return pool.run(evaluations(do, count, x=x), patience=LONG, is_wanted=lambda: True)


def fail(pool: EvaluatorPool, do: str, *, x: float = 1.0, limit: float | None = None) -> Failed:
    """Run a chunk whose third evaluation comes to a bad end."""
    chunk = evaluations("measure", 5)
    chunk[2:3] = evaluations(do, first=2, x=x, seconds_left=limit)
    result = pool.run(chunk, patience=LONG, is_wanted=lambda: True)
    first, second, third = result.outcomes
    assert isinstance(first, Measured)
    assert isinstance(second, Measured)
    assert isinstance(third, Failed)
    assert third.trial == 2
    assert third.started >= second.started
    assert result.unstarted == chunk[3:]
    again = pool.run(result.unstarted, patience=LONG, is_wanted=lambda: True)
    assert [type(outcome) for outcome in again.outcomes] == [Measured] * 2, "the slot serves again"
    return third


@pytest.mark.parametrize("do", ["loop", "sleep", "hang in C"])
def test_a_time_limit_ends_what_hangs(make_pool: MakePool, do: str) -> None:
    outcome = fail(make_pool(), do, limit=0.3)
    assert outcome.state is TrialState.TIMED_OUT
    assert outcome.error.kind == "timed out"
    assert "trial_timeout" in outcome.error.message
    assert "0.3 seconds" in outcome.error.message
    assert outcome.seconds >= 0.3


def test_a_stopped_process_is_out_of_time_too(make_pool: MakePool, tmp_path: pathlib.Path) -> None:
    pool = make_pool()
    entered = tmp_path / "entered-0-0"

    def stop() -> None:
        wait_for(entered.exists)
        os.kill(int(entered.read_text()), signal.SIGSTOP)

    thread = threading.Thread(target=stop)
    thread.start()
    result = pool.run(evaluations("gate", seconds_left=1.0), patience=LONG, is_wanted=lambda: True)
    thread.join()
    (outcome,) = result.outcomes
    assert isinstance(outcome, Failed)
    assert outcome.state is TrialState.TIMED_OUT


@pytest.mark.parametrize(
    ("do", "how", "hint"),
    [
        ("exit", "exited with code 3", "I am off"),
        ("crash", "signal 11 (SIGSEGV)", "native code"),
        ("kill myself", "signal 9 (SIGKILL)", "memory"),
    ],
)
def test_a_death_is_an_outcome_of_its_trial(
    make_pool: MakePool, do: str, how: str, hint: str
) -> None:
    outcome = fail(make_pool(), do)
    assert outcome.state is TrialState.FAILED
    assert outcome.error.kind == "child died"
    assert how in outcome.error.message
    assert hint in outcome.error.message
    assert not outcome.may_retry


def test_a_crash_tells_where(make_pool: MakePool) -> None:
    assert "_crash" in fail(make_pool(), "crash").error.traceback


def test_a_dead_childs_children_are_ended(make_pool: MakePool, tmp_path: pathlib.Path) -> None:
    outcome = fail(make_pool(), "leave a grandchild")
    assert "exited with code 7" in outcome.error.message
    grandchild = int((tmp_path / "entered-2-0").read_text())
    wait_for(lambda: not _runs(grandchild))


def test_a_neighbour_notices_nothing(make_pool: MakePool, tmp_path: pathlib.Path) -> None:
    pool = make_pool()
    with ThreadPoolExecutor(1) as threads:
        neighbour = threads.submit(run, pool, "gate")
        wait_for((tmp_path / "entered-0-0").exists)
        for do in ("crash", "exit"):
            fail(pool, do)
        (tmp_path / "release").touch()
        (outcome,) = neighbour.result().outcomes
    assert isinstance(outcome, Measured)


def test_memory_beyond_the_limit(make_pool: MakePool) -> None:
    outcome = fail(make_pool(memory_limit=250 << 20), "allocate", x=float(400 << 20))
    assert outcome.state is TrialState.FAILED
    assert outcome.error.kind == "memory limit"
    assert str(250 << 20) in outcome.error.message
    used = [int(word) for word in outcome.error.message.split() if word.isdigit()]
    assert max(used) > 250 << 20


@pytest.mark.skipif(sys.platform != "linux", reason="shared pages are not told apart")
def test_shared_data_does_not_count_as_memory(make_pool: MakePool) -> None:
    data = np.ones(32 << 20)  # 256 MiB
    pool = make_pool(data=data, memory_limit=200 << 20)
    for _ in range(2):
        (outcome,) = run(pool, "sum data").outcomes
        assert isinstance(outcome, Measured), outcome


def test_data_that_does_not_fit_is_a_broken_system(make_pool: MakePool) -> None:
    class Hoarder(Probe):  # type: ignore[misc]  # final for users, not for tests
        def prepare(self, data: Any) -> None:
            self.copy = bytes(1) * (400 << 20)
            time.sleep(600)

    with pytest.raises(ProgramLoadError, match="alone do not fit"):
        run(make_pool(Hoarder(), memory_limit=250 << 20), "measure")


def test_an_idle_child_may_be_killed(make_pool: MakePool) -> None:
    pool = make_pool()
    for _ in range(3):
        (outcome,) = run(pool, "pid").outcomes
        assert isinstance(outcome, Measured), "nobody is charged for it"
        os.kill(int(outcome.steps[0].score), signal.SIGKILL)


class DiesLoading(Probe):  # type: ignore[misc]  # final for users, not for tests
    """Is killed while it loads, as often as it is told."""

    def __init__(self, deaths: int) -> None:
        super().__init__()
        self.deaths = deaths

    def prepare(self, data: Any) -> None:
        super().prepare(data)
        for number in range(self.deaths):
            path = pathlib.Path(data) / f"death-{number}"
            if not path.exists():
                path.touch()
                os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture(autouse=True)
def _this_module_travels_by_value() -> Iterator[None]:
    import cloudpickle

    module = sys.modules[__name__]
    cloudpickle.register_pickle_by_value(module)
    yield
    cloudpickle.unregister_pickle_by_value(module)


def test_killed_while_loading_strikes_once(make_pool: MakePool) -> None:
    (outcome,) = run(make_pool(DiesLoading(1)), "measure").outcomes
    assert isinstance(outcome, Measured)


def test_killed_whenever_it_loads_is_a_broken_system(make_pool: MakePool) -> None:
    with pytest.raises(ProgramLoadError, match=r"2 processes ended.*SIGKILL"):
        run(make_pool(DiesLoading(5)), "measure")


def test_what_does_not_look_is_ended(make_pool: MakePool, tmp_path: pathlib.Path) -> None:
    pool = make_pool()
    chunk = evaluations("loop", 3)
    entered = tmp_path / "entered-0-0"
    result = pool.run(chunk, patience=LONG, is_wanted=lambda: not entered.exists())
    assert result == ChunkResult([], chunk)
    assert not _runs(int(entered.read_text()))


def test_ctrl_c_in_the_terminal_is_not_for_children(make_pool: MakePool) -> None:
    pool = make_pool()
    (outcome,) = run(pool, "pid").outcomes
    assert isinstance(outcome, Measured)
    pid = int(outcome.steps[0].score)
    assert os.getsid(pid) != os.getsid(0)
    os.kill(pid, signal.SIGINT)
    (outcome,) = run(pool, "pid").outcomes
    assert isinstance(outcome, Measured)
    assert outcome.steps[0].score == pid


def test_an_in_process_study_goes_on_after_a_hang(tmp_path: pathlib.Path) -> None:
    with no_leaks():
        executor = InProcessExecutor()
        executor.open(Job(program=Probe(), space=probe_space(), data=str(tmp_path), seed=1))
        batch = evaluations("measure", 4, seconds_left=LONG)
        batch[1:2] = evaluations("hang in C", first=1, seconds_left=0.3)
        executor.submit(batch)
        assert not executor.runs_here
        outcomes: list[Any] = []
        while len(outcomes) < 4:
            outcomes += executor.poll(0.2)
        executor.close()
    assert [type(outcome) for outcome in outcomes] == [Measured, Failed, Measured, Measured]


SCRIPT = """
import sys, threading
from dspex.engine.ports import Job
from dspex.execution.payload import Payload
from dspex.execution.pool import EvaluatorPool
from dspex.testing.executors import evaluations
from dspex.testing.probe import Probe, probe_space

directory, do, how = sys.argv[1:]
job = Job(program=Probe(), space=probe_space(), data=directory, seed=1)
pool = EvaluatorPool(Payload.of(job), directory=directory, worker="w")
arguments = dict(patience=60, is_wanted=lambda: True)
if how == "wait":
    pool.run(evaluations(do), **arguments)
else:
    print(pool.run(evaluations("pid"), **arguments).outcomes[0].steps[0].score, flush=True)
"""


def test_a_pool_that_nobody_closed_leaves_nothing(tmp_path: pathlib.Path) -> None:
    with no_leaks():
        job = Job(program=Probe(), space=probe_space(), data=None, seed=1)
        pool = EvaluatorPool(Payload.of(job), directory=str(tmp_path), worker="w")
        run(pool, "measure")
        del pool


def _script(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


@pytest.mark.parametrize("do", ["gate", "loop", "hang in C"])
def test_children_end_with_their_parent(tmp_path: pathlib.Path, do: str) -> None:
    with _script(str(tmp_path), do, "wait") as parent:
        entered = tmp_path / "entered-0-0"
        wait_for(entered.exists)
        child = int(entered.read_text())
        assert _runs(child)
        parent.kill()
    wait_for(lambda: not _runs(child))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["entered-0-0"], "no file is left"


def test_an_interpreter_that_ends_leaves_nothing(tmp_path: pathlib.Path) -> None:
    with _script(str(tmp_path), "", "end") as parent:
        output, _ = parent.communicate(timeout=60)
        assert parent.returncode == 0
    child = int(float(output))
    wait_for(lambda: not _runs(child))


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
