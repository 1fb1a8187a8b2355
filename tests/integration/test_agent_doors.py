"""The doors by which workers leave real clusters: who is asked first, who is told after."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import urllib.request
from collections.abc import Awaitable, Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import dask
import pytest
from distributed import Client, SchedulerPlugin
from distributed.core import Status

from dspex.cluster.agents.doors import Doors, addresses_of
from dspex.testing.clusters import local_cluster
from dspex.testing.probe import wait_for
from dspex.testing.processes import WorkerProcess


class Recording(SchedulerPlugin):
    """Opens the doors, and writes down what they say.

    A LocalCluster's scheduler runs in this process, so the tests read it from there.
    """

    name = "recording"

    async def start(self, scheduler: Any) -> None:
        self.scheduler = scheduler
        self.left: list[list[str]] = []
        self.dead: list[str] = []
        self.told: list[str] = []
        self.asked = 0
        self.is_needed = True
        self.on_leave: Callable[[Sequence[str]], Awaitable[None]] | None = None
        unregister = scheduler.handlers["unregister"]

        async def telling(address: str, **options: Any) -> Any:
            answer = await unregister(address=address, **options)
            self.told.append(address)
            return answer

        scheduler.handlers["unregister"] = telling
        self.doors = Doors(scheduler, leave=self.leave, died=self.dead.append, is_needed=self.needs)
        self.doors.open()
        self.doors.open()

    async def leave(self, addresses: Sequence[str]) -> None:
        assert all(address in self.scheduler.workers for address in addresses)
        self.left.append(sorted(addresses))
        if self.on_leave is not None:
            await self.on_leave(addresses)

    def needs(self) -> bool:
        self.asked += 1
        return self.is_needed


class Host:
    """An actor, which keeps its worker from being retired."""


def opened(cluster: Any) -> Recording:
    """Open the doors of a cluster through a client, as a user's would be."""
    make: Any = Client
    with make(cluster, set_as_default=False) as client:
        client.register_plugin(Recording())
    recording: Recording = cluster.scheduler.plugins["recording"]
    return recording


@pytest.fixture(scope="module")
def harmed() -> Iterator[Any]:
    """Enough workers for all tests here, of which each ends one at most."""
    routes = dask.config.get("distributed.scheduler.http.routes")
    routes = [*routes, "distributed.http.scheduler.api"]
    with dask.config.set({"distributed.scheduler.http.routes": routes}), local_cluster(9) as found:
        opened(found)
        yield found


@pytest.fixture
def doors(harmed: Any) -> Recording:
    recording: Recording = harmed.scheduler.plugins["recording"]
    recording.left.clear()
    recording.dead.clear()
    recording.told.clear()
    recording.on_leave = None
    return recording


@pytest.fixture
def client(harmed: Any) -> Iterator[Any]:
    make: Any = Client
    with make(harmed, set_as_default=False) as client:
        yield client


@pytest.fixture
def worker(doors: Recording) -> str:
    """The address of a worker that a test may end."""
    found: list[str] = []

    def look() -> list[str]:
        found[:] = doors.scheduler.workers
        return found

    wait_for(look)  # one that was killed comes back
    return found[0]


def by_address(client: Any, address: str) -> Any:
    return client.retire_workers([address])


def by_name(client: Any, address: str) -> Any:
    return client.retire_workers(names=[client.cluster.scheduler.workers[address].name])


def by_choice(client: Any, address: str) -> Any:
    return client.retire_workers(n=1, attribute="address")


def by_method(client: Any, address: str) -> Any:
    async def retire(dask_scheduler: Any) -> Any:
        return await dask_scheduler.retire_workers([address], close_workers=True)

    return client.run_on_scheduler(retire)


def by_http(client: Any, address: str) -> Any:
    port = client.cluster.scheduler.http_server.port
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/api/v1/retire_workers",
        data=json.dumps({"workers": [address]}).encode(),
        method="POST",
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


@pytest.mark.parametrize("retire", [by_address, by_name, by_choice, by_method, by_http])
def test_who_is_retired_is_asked_to_leave_once(
    client: Any, doors: Recording, worker: str, retire: Callable[[Any, str], Any]
) -> None:
    retired = retire(client, worker)
    assert len(retired) == 1
    assert doors.left == [list(retired)]
    if retire is not by_choice:
        assert list(retired) == [worker]
    assert not set(retired) & set(doors.scheduler.workers)
    assert doors.dead == []


def test_who_retires_nobody_asks_nobody(client: Any, doors: Recording) -> None:
    assert client.retire_workers([]) == {}
    assert client.retire_workers(["tcp://127.0.0.1:9", "nobody"]) == {}
    assert client.retire_workers(n=0) == {}
    with pytest.raises(TypeError, match="mutually exclusive"):
        client.retire_workers(list(doors.scheduler.workers), names=[0])
    with pytest.raises(TypeError, match="mutually exclusive"):
        client.retire_workers(list(doors.scheduler.workers), n=1)
    assert doors.left == []


def test_a_worker_with_an_actor_is_retired_when_the_actor_leaves(
    client: Any, doors: Recording, worker: str, caplog: pytest.LogCaptureFixture
) -> None:
    future = client.submit(Host, actor=True, workers=[worker], pure=False)
    key = future.key
    wait_for(lambda: future.done())
    assert [task.key for task in doors.scheduler.workers[worker].actors] == [key]

    assert client.retire_workers([worker]) == {}, "the actor keeps it"

    async def refuse(addresses: Sequence[str]) -> None:
        raise RuntimeError("on purpose")

    doors.on_leave = refuse
    with caplog.at_level(logging.ERROR, "dspex.agents"):
        assert client.retire_workers([worker]) == {}, "Dask was asked nevertheless"
    assert f"agents did not leave {worker}" in caplog.text

    async def release(addresses: Sequence[str]) -> None:
        future.release()
        while key in doors.scheduler.tasks:
            await asyncio.sleep(0.001)

    doors.on_leave = release
    assert list(client.retire_workers([worker])) == [worker]
    assert doors.left == [[worker]] * 3


def test_one_worker_leaves_once_for_all_who_ask_at_the_same_time(
    client: Any, doors: Recording, worker: str
) -> None:
    async def ask() -> tuple[Any, Any]:
        gate = asyncio.Event()
        doors.on_leave = lambda addresses: wait(gate)
        scheduler = doors.scheduler
        first = asyncio.create_task(scheduler.handlers["retire_workers"](workers=[worker]))
        second = asyncio.create_task(scheduler.retire_workers([worker], close_workers=True))
        while not doors.left:
            await asyncio.sleep(0)
        assert worker in scheduler.workers
        gate.set()
        return await first, await second

    async def wait(gate: asyncio.Event) -> None:
        await gate.wait()

    first, second = client.cluster.sync(ask)
    assert worker in {**first, **second}
    assert doors.left == [[worker]]


def test_a_killed_workers_death_is_told(client: Any, doors: Recording, worker: str) -> None:
    (pid,) = client.run(os.getpid, workers=[worker]).values()
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: doors.dead)
    assert doors.dead == [worker]
    assert doors.left == []
    assert worker not in doors.scheduler.workers


def test_the_end_of_a_retired_worker_is_a_death_only_where_its_agents_had_not_left(
    client: Any, doors: Recording, worker: str
) -> None:
    async def refuse(addresses: Sequence[str]) -> None:
        raise RuntimeError("on purpose")

    async def say(stimulus: str) -> None:
        await doors.scheduler.handlers["unregister"](address=worker, stimulus_id=stimulus)

    doors.on_leave = refuse
    assert list(client.retire_workers([worker])) == [worker]
    client.cluster.sync(say, "worker-close-1")
    assert doors.dead == [], "no nanny says so"
    client.cluster.sync(say, "nanny-close-1")
    assert doors.dead == [worker]


def test_a_restart_by_a_client_is_a_death(client: Any, doors: Recording, worker: str) -> None:
    assert client.restart_workers([worker]) == {worker: "OK"}
    wait_for(lambda: doors.dead)
    assert doors.dead == [worker]
    assert doors.left == []


def test_a_lifetimes_end_is_asked_for_and_is_no_death(client: Any, doors: Recording) -> None:
    options = ("--lifetime", "1 s", "--lifetime-restart")
    before = set(doors.scheduler.workers)
    with WorkerProcess(client.scheduler.address, options=options, nanny=True):
        wait_for(lambda: doors.told)
        client.run_on_scheduler(lambda: None)
        ((first,), *_) = doors.left
        assert first not in before
        assert doors.told[0] == first
        assert doors.dead == []


def test_a_cluster_that_scales_asks_though_it_names_no_addresses() -> None:
    with local_cluster(3) as cluster:
        doors = opened(cluster)
        addresses = {ws.name: address for address, ws in doors.scheduler.workers.items()}
        cluster.scale(2)
        wait_for(lambda: len(doors.scheduler.workers) == 2)
        assert doors.left == [[addresses[2]]]
        adaptive = cluster.adapt(minimum=1, maximum=2, interval="10 ms", wait_count=1)
        wait_for(lambda: len(doors.scheduler.workers) == 1 and len(cluster.workers) == 1)
        adaptive.stop()
        (last,) = doors.scheduler.workers
        assert doors.left[1:] == [[({addresses[0], addresses[1]} - {last}).pop()]]
    assert doors.left[2:] == [[last]], "a cluster that closes retires all"
    assert doors.dead == []


def test_a_job_of_several_workers_is_found_by_its_name() -> None:
    names = ["job-1-0", "job-1-1", "job-10-0", "job-2", "job-2-0", 7]
    known = {f"tcp://h:{port}": SimpleNamespace(name=name) for port, name in enumerate(names)}
    assert addresses_of(known, ["job-1"]) == ["tcp://h:0", "tcp://h:1"]
    assert addresses_of(known, ["job-2"]) == ["tcp://h:3"]
    assert addresses_of(known, [7, "tcp://h:0", "7"]) == ["tcp://h:0", "tcp://h:5"]
    assert addresses_of(known, "tcp://h:7") == []


# --- an idle scheduler -----------------------------------------------------------------------


def test_a_scheduler_is_not_idle_while_it_is_needed() -> None:
    with local_cluster(0) as cluster:
        doors = opened(cluster)
        scheduler = doors.scheduler
        scheduler.idle_timeout = 1e-9
        before = doors.asked
        wait_for(lambda: doors.asked > before + 3)
        assert cluster.sync(cluster.scheduler_comm.check_idle) is None
        assert scheduler.status == Status.running
        doors.is_needed = False
        wait_for(lambda: scheduler.status == Status.closed)
        with dask.config.set({"distributed.comm.timeouts.connect": "10 ms"}):
            cluster.close()  # it looks for its scheduler


def test_doors_close_and_leave_what_others_wrapped() -> None:
    with local_cluster(0) as cluster:
        scheduler = cluster.scheduler
        handlers = scheduler.handlers
        originals = {name: handlers[name] for name in ("retire_workers", "check_idle")}
        doors = opened(cluster)

        async def work() -> None:
            assert handlers["retire_workers"].__name__ == "retire_workers"
            ours = handlers["check_idle"]

            def theirs() -> Any:
                return ours()

            handlers["check_idle"] = theirs
            doors.doors.close()
            doors.doors.close()
            assert handlers["retire_workers"] == originals["retire_workers"]
            assert scheduler.retire_workers == originals["retire_workers"]
            assert scheduler.periodic_callbacks["idle-timeout"].callback == scheduler.check_idle
            assert scheduler.check_idle == originals["check_idle"]
            assert handlers["check_idle"] is theirs
            asked = doors.asked
            theirs()
            assert doors.asked == asked, "the wrap that stays does nothing"
            doors.doors.open()
            handlers["check_idle"]()
            assert doors.asked == asked + 1

        cluster.sync(work)
