"""Futures of agents and of Dask: mixed in one wait, and the one made into the other."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import operator
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from distributed import Client, Event, Future, LocalCluster

from dspex.agents.futures import AgentFuture, as_completed, gather, wait
from dspex.cluster.agents import as_dask as module
from dspex.errors import (
    AgentRaisedError,
    InvalidArgumentError,
    NotPicklableError,
    WorkerLostError,
)

LONG = 30


def fail(message: str) -> None:
    raise LookupError(message)


def arrivals(dask_worker: Any) -> list[str]:
    return [name for place, name in module._arrivals if place == dask_worker.address]


def eventually(holds: Callable[[], Any]) -> Any:
    """What must become true by itself; polled, because nothing announces it."""
    ends = time.monotonic() + LONG
    while time.monotonic() < ends:
        found = holds()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError("it did not become true")


def place_of(client: Client, key: str) -> str:
    """The worker where the task that stands for an answer waits."""
    places: dict[str, list[str]] = eventually(
        lambda: {w: n for w, n in client.run(arrivals).items() if key in n}
    )
    return next(iter(places))


class Unpicklable(Exception):
    def __init__(self) -> None:
        super().__init__("why")
        self.lock = threading.Lock()


class TestMixed:
    def test_gather_keeps_order_and_nesting(self, client: Client) -> None:
        mine = AgentFuture(int)
        theirs = client.map(operator.neg, range(3))
        thread = threading.Thread(target=lambda: mine.set_result("7"))
        thread.start()
        assert gather(mine, [theirs[2], mine], *theirs, timeout=LONG) == [7, [-2, 7], 0, -1, -2]
        thread.join()

    def test_gather_raises_the_first_error_or_gives_all(self, client: Client) -> None:
        never, good = AgentFuture(), client.submit(operator.neg, 1)
        bad = client.submit(fail, "theirs")
        with pytest.raises(LookupError, match="theirs"):
            gather(never, good, bad, timeout=LONG)
        never.set_exception(KeyError("mine"))
        mine, one, theirs = gather(never, good, bad, return_exceptions=True)
        assert isinstance(mine, KeyError)
        assert one == -1
        assert isinstance(theirs, LookupError)

    def test_what_dask_cancelled_is_cancelled(self, client: Client) -> None:
        event = Event(client=client)
        theirs = client.submit(event.wait, pure=False)
        theirs.cancel()
        with pytest.raises(concurrent.futures.CancelledError):
            gather(AgentFuture(), theirs, timeout=LONG)
        event.set()

    def test_a_timeout(self, client: Client) -> None:
        event = Event(client=client)
        theirs = client.submit(event.wait, pure=False)
        with pytest.raises(TimeoutError, match=r"2 of 2 answers did not come"):
            gather(AgentFuture(), theirs, timeout="10ms")
        event.set()
        assert gather(theirs, timeout=LONG) == [True]

    def test_wait_and_as_completed(self, client: Client) -> None:
        never, theirs = AgentFuture(), client.submit(operator.neg, 1)
        done, not_done = wait([never, theirs], return_when="FIRST_COMPLETED", timeout=LONG)
        assert (done, not_done) == ({theirs}, {never})
        bad = client.submit(fail, "x")
        assert bad in wait([never, bad], return_when="FIRST_EXCEPTION", timeout=LONG).done
        in_order = iter(as_completed([never, theirs], timeout=LONG))
        assert next(in_order) is theirs
        never.set_result(1)
        assert next(in_order) is never

    def test_inside_a_task(self, client: Client) -> None:
        def ask() -> Any:
            from distributed import worker_client

            mine = AgentFuture()
            thread = threading.Timer(0.01, mine.set_result, [1])
            thread.start()
            with worker_client() as inner:
                return gather(mine, inner.submit(operator.neg, 5), timeout=LONG)

        assert client.submit(ask, pure=False).result(LONG) == [1, -5]

    @pytest.mark.parametrize("asynchronous", [False, True])
    def test_in_async_code(self, cluster: Any, asynchronous: bool) -> None:
        async def ask(client: Any) -> None:
            mine = AgentFuture(int)
            theirs, bad = client.submit(operator.neg, 1), client.submit(fail, "x")
            asyncio.get_running_loop().call_soon(mine.set_result, "7")
            assert await gather(theirs, [mine], timeout=LONG) == [-1, [7]]
            with pytest.raises(LookupError):
                await gather(AgentFuture(), bad, timeout=LONG)
            assert (await wait([theirs, mine], timeout=LONG)).not_done == set()
            found = {each async for each in as_completed([theirs, mine, bad], timeout=LONG)}
            assert found == {theirs, mine, bad}
            later = AgentFuture()
            stands_for_it = later.as_dask(client)
            later.set_result(9)
            assert await gather(client.submit(operator.neg, stands_for_it)) == [-9]

        async def with_its_own() -> None:
            async with Client(
                cluster.scheduler_address, asynchronous=True, set_as_default=False
            ) as client:
                await ask(client)

        if asynchronous:
            asyncio.run(with_its_own())
        else:
            with Client(cluster, set_as_default=False) as client:
                asyncio.run(ask(client))


class TestAsDask:
    def test_a_task_depends_on_it(self, client: Client) -> None:
        mine = AgentFuture(int)
        # Nobody holds the Dask future but the task that depends on it.
        negated = client.submit(operator.neg, mine.as_dask(client))
        gc.collect()
        assert not negated.done()
        threading.Thread(target=mine.set_result, args=["3"]).start()
        assert negated.result(LONG) == -3

    def test_one_that_is_done_already_and_two_of_one(self, client: Client) -> None:
        mine = AgentFuture()
        mine.set_result(bytes(3_000_000))
        one, two = mine.as_dask(client), mine.as_dask(client)
        assert one.key != two.key
        assert [len(each) for each in client.gather([one, two])] == [3_000_000] * 2

    def test_errors(self, client: Client) -> None:
        mine, locked, value = AgentFuture(), AgentFuture(), AgentFuture()
        given_up = AgentFuture()
        theirs = [each.as_dask(client) for each in (mine, locked, value, given_up)]
        mine.set_exception(LookupError("mine"))
        locked.set_exception(Unpicklable())
        value.set_result(threading.Lock())
        given_up.cancel()
        with pytest.raises(LookupError, match="mine"):
            theirs[0].result(LONG)
        with pytest.raises(AgentRaisedError, match="Unpicklable: why"):
            theirs[1].result(LONG)
        with pytest.raises(NotPicklableError, match="an answer must be pickled"):
            theirs[2].result(LONG)
        with pytest.raises(concurrent.futures.CancelledError):
            theirs[3].result(LONG)

    def test_it_holds_no_slot(self, client: Client) -> None:
        slots = sum(client.nthreads().values())
        mine = [AgentFuture() for _ in range(5 * slots)]
        theirs = [each.as_dask(client) for each in mine]
        for each in theirs:
            place_of(client, each.key)
        assert client.gather(client.map(operator.neg, range(9), pure=False)) == [
            -n for n in range(9)
        ]
        for n, each in enumerate(mine):
            each.set_result(n)
        assert client.gather(theirs) == list(range(5 * slots))

    def test_one_that_nobody_wants_leaves_its_worker(self, client: Client) -> None:
        mine = AgentFuture()
        theirs = mine.as_dask(client)
        key = theirs.key
        place_of(client, key)
        del theirs
        eventually(lambda: not any(key in names for names in client.run(arrivals).values()))
        mine.set_result(1)
        assert mine.result() == 1

    def test_it_leaves_with_its_client(self, cluster: Any, client: Client) -> None:
        mine = AgentFuture()
        with Client(cluster, set_as_default=False) as other:
            theirs = mine.as_dask(other)
            place_of(client, theirs.key)
        eventually(lambda: not any(theirs.key in n for n in client.run(arrivals).values()))
        mine.set_result(1)  # its callback finds a closed client

    def test_without_a_client(self) -> None:
        with pytest.raises(InvalidArgumentError, match=r"pass as_dask\(client\)"):
            AgentFuture().as_dask()

    def test_the_current_client_is_taken(self, cluster: Any) -> None:
        mine = AgentFuture()
        mine.set_result(4)
        with Client(cluster):
            assert mine.as_dask().result(LONG) == 4

    def test_nothing_is_kept(self, client: Client) -> None:
        mine = AgentFuture()
        theirs = mine.as_dask(client)
        mine.set_result(1)
        assert theirs.result(LONG) == 1
        courier = module._courier_of(client)
        eventually(lambda: not courier._expected)
        del theirs
        eventually(lambda: gc.collect() is not None and not courier._held)
        del mine
        eventually(lambda: gc.collect() is not None and not courier._brought)


def kill(client: Client, place: str) -> None:
    os.kill(client.run(os.getpid, workers=[place])[place], signal.SIGKILL)
    eventually(lambda: place not in client.scheduler_info(n_workers=-1)["workers"])


class TestLostWorker:
    @pytest.mark.parametrize("is_answered_first", [False, True])
    def test_the_answer_is_brought_again(
        self, cluster_of: Callable[[int], Client], is_answered_first: bool
    ) -> None:
        client = cluster_of(2)
        mine = AgentFuture()
        theirs = mine.as_dask(client)
        place = place_of(client, theirs.key)
        if is_answered_first:
            mine.set_result(1)
            assert theirs.result(LONG) == 1
            del mine  # the Dask future is enough
            gc.collect()
        kill(client, place)
        if not is_answered_first:
            place_of(client, theirs.key)
            mine.set_result(1)
        assert client.submit(operator.neg, theirs).result(LONG) == -1

    def test_an_answer_that_is_nowhere_is_an_error(
        self, cluster_of: Callable[[int], Client]
    ) -> None:
        client = cluster_of(2)
        mine = AgentFuture()
        mine.set_result(1)
        theirs = mine.as_dask(client)
        assert theirs.result(LONG) == 1
        copy: Any = Future(theirs.key, client)
        [place] = client.who_has([theirs])[theirs.key]
        courier = module._courier_of(client)
        del mine, theirs
        eventually(lambda: gc.collect() is not None and not courier._brought)
        kill(client, place)
        with pytest.raises(WorkerLostError, match="is nowhere else"):
            client.submit(operator.neg, copy).result(LONG)


def test_in_a_cluster_of_threads() -> None:
    with (
        LocalCluster(2, processes=False, dashboard_address=None) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        mine = AgentFuture()
        theirs = mine.as_dask(client)
        mine.set_result(1)
        assert theirs.result(LONG) == 1
