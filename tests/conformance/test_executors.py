"""Every executor that needs no cluster keeps the contract of the port."""

from __future__ import annotations

import contextlib

from dspex.engine.ports import Executor
from dspex.execution.inprocess import InProcessExecutor
from dspex.testing.executors import ExecutorSuite, IsolatingExecutorSuite


class TestInProcess(ExecutorSuite):
    def executor(self) -> contextlib.AbstractContextManager[Executor]:
        return contextlib.closing(InProcessExecutor())


class TestInProcessWithLimits(IsolatingExecutorSuite):
    memory_limit = 2 << 30

    def executor(self) -> contextlib.AbstractContextManager[Executor]:
        return contextlib.closing(InProcessExecutor())
