"""The in-process executor leaves the user's process as it was, and can be interrupted."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from dspex.engine.ports import Evaluation, Job
from dspex.errors import ProgramLoadError
from dspex.execution.inprocess import WORKER, InProcessExecutor
from dspex.programs.base import RunningTrial
from dspex.space import Float, Space

SPACE = Space({"x": Float(0.0, 100.0)})


class Program:
    """Counts its calls; interrupted in the one that it is told."""

    def __init__(self, interrupted_in: int = -1) -> None:
        self.interrupted_in = interrupted_in
        self.calls = 0
        self.threads: set[int] = set()

    def space(self) -> Space | None:
        return SPACE

    def prepare(self, data: Any) -> None:
        if data == "bad":
            raise ValueError("bad data")

    def evaluate(self, params: Mapping[str, Any], trial: RunningTrial) -> Any:
        self.calls += 1
        self.threads.update(lib["num_threads"] for lib in threadpool_info())
        random.random()
        np.random.random()
        if self.calls == self.interrupted_in:
            raise KeyboardInterrupt
        return params["x"]

    def finish(self, params: Mapping[str, Any]) -> Any:
        return None


def opened(program: Program, data: Any = None) -> InProcessExecutor:
    executor = InProcessExecutor()
    executor.open(Job(program=program, space=SPACE, data=data, seed=1))
    return executor


def chunk(count: int) -> list[Evaluation]:
    return [Evaluation(number, 0, 0, {"x": float(number)}) for number in range(count)]


def drain(executor: InProcessExecutor, outcomes: list[Any]) -> None:
    while arrived := executor.poll(0.0):
        outcomes += arrived


def test_the_users_generators_are_put_back() -> None:
    random.seed(1)
    np.random.seed(1)
    expected = random.random(), np.random.random()
    random.seed(1)
    np.random.seed(1)
    executor = opened(Program())
    executor.submit(chunk(3))
    drain(executor, [])
    executor.close()
    executor.close()
    assert (random.random(), np.random.random()) == expected


def test_one_thread_while_it_evaluates() -> None:
    np.linalg.norm(np.eye(2) @ np.eye(2))  # the library is loaded
    before = threadpool_info()
    program = Program()
    executor = opened(program)
    executor.submit(chunk(1))
    executor.poll(0.0)
    executor.close()
    assert program.threads <= {1}
    assert threadpool_info() == before


def test_an_interrupt_loses_nothing() -> None:
    program = Program(interrupted_in=3)
    executor = opened(program)
    assert executor.runs_here
    executor.submit(chunk(5))
    outcomes: list[Any] = []
    with pytest.raises(KeyboardInterrupt):
        drain(executor, outcomes)
    drain(executor, outcomes)
    executor.close()
    assert [outcome.trial for outcome in outcomes] == [0, 1, 2, 3, 4]
    assert {outcome.worker for outcome in outcomes} == {WORKER}


def test_a_program_that_refuses_its_data_is_a_broken_system() -> None:
    executor = opened(Program(), data="bad")
    with pytest.raises(ProgramLoadError, match="ValueError: bad data"):
        executor.submit(chunk(1))
    executor.close()


def test_an_idle_poll_waits_and_finds_nothing() -> None:
    executor = opened(Program())
    assert executor.poll(0.0) == []
    executor.close()
