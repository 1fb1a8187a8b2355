"""Who meets SIGTERM, and where it goes then."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from distributed._signals import wait_for_signals

from dspex.cluster.foundation.terminating import Termination
from dspex.testing.ledgers import run


class Worker:
    """One that is asked to leave, and its scheduler."""

    address = "tcp://here:1"

    def __init__(self, *, nanny: str | None = None, error: Exception | None = None) -> None:
        self.nanny = nanny
        self.error = error
        self.asked = self.closed = 0
        self.may_leave = asyncio.Event()
        self.scheduler = self

    async def ncores(self, workers: list[str]) -> None:
        assert workers == [self.address]
        if self.error is not None:
            raise self.error

    async def retire_workers(self, workers: list[str], **options: bool) -> None:
        assert workers == [self.address]
        assert options == {"close_workers": False, "remove": True}
        self.asked += 1
        await self.may_leave.wait()

    async def close(self, *, executor_wait: bool, reason: str) -> None:
        assert not executor_wait
        assert self.may_leave.is_set()
        self.closed += 1


@pytest.fixture(autouse=True)
def handler() -> Iterator[None]:
    former = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, former)


async def process() -> asyncio.Task[int]:
    """What a ``dask worker`` waits for."""
    waiting = asyncio.create_task(wait_for_signals())
    await asyncio.sleep(0)
    return waiting


def termination_of(worker: Any) -> Termination:
    termination = Termination(worker)
    termination.open()
    return termination


def told() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_a_worker_leaves_before_its_process_ends() -> None:
    async def work() -> None:
        waiting, worker = await process(), Worker()
        termination_of(worker)
        told()
        while not worker.asked:
            await asyncio.sleep(0)
        assert not waiting.done()
        worker.may_leave.set()
        assert await waiting == signal.SIGTERM
        assert (worker.asked, worker.closed) == (1, 1)

    run(work())


def test_one_that_cannot_leave_ends_all_the_same() -> None:
    async def work() -> None:
        waiting, worker = await process(), Worker(error=OSError("no scheduler"))
        termination_of(worker)
        told()
        assert await waiting == signal.SIGTERM
        assert (worker.asked, worker.closed) == (0, 0)

    run(work())


def test_a_second_signal_ends_it_at_once() -> None:
    async def work() -> None:
        waiting, worker = await process(), Worker()
        termination = termination_of(worker)
        told()
        while not worker.asked:
            await asyncio.sleep(0)
        told()
        assert await waiting == signal.SIGTERM
        worker.may_leave.set()
        assert termination._leaving is not None
        await termination._leaving

    run(work())


def test_a_worker_that_has_closed_is_out_of_the_way() -> None:
    async def work() -> None:
        waiting, worker = await process(), Worker()
        termination_of(worker).close()
        told()
        assert await waiting == signal.SIGTERM
        assert not worker.asked

    run(work())


def test_under_a_nanny_the_signal_is_the_nannys() -> None:
    async def work() -> None:
        waiting, worker = await process(), Worker(nanny="tcp://127.0.0.1:1")
        termination_of(worker)
        told()
        assert await waiting == signal.SIGTERM
        assert not worker.asked

    run(work())


def test_the_handler_of_somebody_else_is_left_alone() -> None:
    def mine(signum: int, frame: object) -> None:
        raise AssertionError

    async def work() -> None:
        signal.signal(signal.SIGTERM, mine)
        termination_of(Worker()).close()
        assert signal.getsignal(signal.SIGTERM) is mine

    run(work())
