"""How a flight leaves: straight, by way of the scheduler, or not at all."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dspex.cluster.agents import reaching
from dspex.cluster.agents.reaching import Reach
from dspex.cluster.agents.requests import NotSentError
from dspex.testing.ledgers import run

THERE = "tcp://there:1"


class Pool:
    """Connections to one worker, which can be had or not."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_cut = False
        self.tried: list[float] = []
        monkeypatch.setattr(reaching, "send_recv", self.send_recv)

    async def connect(self, address: str, timeout: float) -> Any:
        self.tried.append(timeout)
        if self.is_cut:
            raise OSError("cut")
        return self

    async def send_recv(self, comm: Any, op: str, blob: bytes) -> bytes:
        return b"straight"

    def reuse(self, address: str, comm: Any) -> None: ...


async def by_way_of(address: str, blob: bytes) -> bytes:
    return b"by way of the scheduler"


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Pool:
    return Pool(monkeypatch)


def test_a_worker_that_was_never_reached_is_reached_by_another_way(pool: Pool) -> None:
    async def work() -> None:
        reach = Reach(pool, by_way_of=by_way_of)
        pool.is_cut = True
        assert await reach.send(THERE, b"") == b"by way of the scheduler"
        assert await reach.send(THERE, b"") == b"by way of the scheduler"
        assert len(pool.tried) == 1, "it is not tried each time"

    run(work())


def test_a_worker_that_was_reached_may_be_dead_at_first(pool: Pool) -> None:
    async def work() -> None:
        reach = Reach(pool, by_way_of=by_way_of)
        assert await reach.send(THERE, b"") == b"straight"
        pool.is_cut = True
        for _ in range(2):
            with pytest.raises(NotSentError, match="cannot be connected to"):
                await reach.send(THERE, b"")
        assert await reach.send(THERE, b"") == b"by way of the scheduler"
        assert pool.tried[1:] == [1.0, 2.0, 4.0]

    run(work())


def test_with_no_other_way_it_is_tried_longer_each_time(pool: Pool) -> None:
    async def work() -> None:
        reach = Reach(pool)
        pool.is_cut = True
        for _ in range(7):
            with pytest.raises(NotSentError):
                await reach.send(THERE, b"")
        assert pool.tried == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
        pool.is_cut = False
        assert await reach.send(THERE, b"") == b"straight"
        pool.is_cut = True
        with pytest.raises(NotSentError):
            await reach.send(THERE, b"")
        assert pool.tried[-1] == 1.0

    run(work())


def test_who_waits_for_a_connection_no_longer_knows_that_nothing_left(
    monkeypatch: pytest.MonkeyPatch, pool: Pool
) -> None:
    async def hang(address: str, timeout: float) -> Any:
        await asyncio.Event().wait()

    async def work() -> None:
        monkeypatch.setattr(pool, "connect", hang)
        sending = asyncio.create_task(Reach(pool).send(THERE, b""))
        await asyncio.sleep(0)
        sending.cancel()
        with pytest.raises(NotSentError, match="in time"):
            await sending

    run(work())
