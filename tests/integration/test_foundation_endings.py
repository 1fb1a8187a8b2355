"""How connections end: in order, by Ctrl-C, with their client, in forks; and what is left then."""

from __future__ import annotations

import asyncio
import gc
import os
import pathlib
import pickle
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import cloudpickle
import pytest
from distributed import Client

import dspex
from dspex.cluster.foundation import connecting
from dspex.cluster.foundation.bridge import LoopBridge
from dspex.cluster.foundation.calls import LedgerCaller
from dspex.errors import (
    InvalidArgumentError,
    JournalCorruptError,
    KeyNotFoundError,
    NotPicklableError,
    UnavailableError,
)
from dspex.foundation import Foundation
from dspex.storage.journals.sqlite import SqliteJournal
from dspex.testing.clusters import local_cluster
from dspex.testing.probe import wait_for

PACKAGE = pathlib.Path(dspex.__file__).parent


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with local_cluster(1) as cluster:
        yield cluster


def tasks_on(client: Any) -> set[str]:
    """What runs on a client's loop of ours: Dask's own may lie in a folder that is called dspex."""

    def is_ours(task: asyncio.Task[Any]) -> bool:
        code: Any = getattr(task.get_coro(), "cr_code", None)
        return code is not None and pathlib.Path(code.co_filename).is_relative_to(PACKAGE)

    async def tasks() -> set[str]:
        await asyncio.sleep(0)  # what was cancelled last
        return {repr(task) for task in asyncio.all_tasks() if is_ours(task)}

    return asyncio.run_coroutine_threadsafe(tasks(), client.loop.asyncio_loop).result(30)


def sessions(foundation: Foundation) -> int:
    return int(foundation.status()["sessions"])


def test_closing_leaves_nothing_on_the_clients_loop(client: Any) -> None:
    with dspex.connect(client) as observer:
        before, tasks = sessions(observer), tasks_on(client)
        foundation = dspex.connect(client, namespace="endings")
        foundation.registry.register("k", 1)
        assert foundation.registry.lookup("k", consistency="eventual").value == 1
        store = foundation.state_store
        store.put("k", 1, consistency="eventual")
        assert store.lookup("k", consistency="eventual").value == 1
        foundation.subscribe(lambda event: None)
        watching, events = foundation.registry.watch("*"), foundation.events()
        next(watching), next(events)
        lock = foundation.lock("l")
        lock.acquire()
        heard: list[BaseException] = []

        def wait() -> None:
            try:
                foundation.lock("l").acquire()
            except UnavailableError as error:
                heard.append(error)

        waiting = threading.Thread(target=wait)
        waiting.start()
        wait_for(lambda: observer.status()["waiting"] == 1)
        assert tasks_on(client) > tasks
        foundation.close()
        waiting.join(30)
        assert "closed" in str(heard[0])
        wait_for(lambda: tasks_on(client) == tasks)
        assert sessions(observer) == before
        assert not lock.is_held
        for use in (lambda: next(events), lambda: foundation.registry.lookup("k"), lock.acquire):
            with pytest.raises((UnavailableError, StopIteration)):
                use()


def test_a_client_that_was_closed_before_is_told_and_closing_is_quiet(cluster: Any) -> None:
    make: Any = Client
    client = make(cluster, set_as_default=False)
    with dspex.connect(client) as foundation:
        foundation.registry.register("closed", 1, on_conflict="replace")
        lock = foundation.lock("l")
        lock.acquire()
        client.close()
        for use in (
            lambda: foundation.registry.lookup("closed"),
            foundation.lock("m").acquire,
            lock.release,
        ):
            with pytest.raises(UnavailableError, match="connect again"):
                use()
    foundation.close()
    assert not lock.is_held
    with pytest.raises(InvalidArgumentError, match="must be connected"):
        dspex.connect(client)


def test_an_asynchronous_client_that_was_closed_before_is_told_too(cluster: Any) -> None:
    async def work() -> None:
        make: Any = Client
        client = await make(cluster.scheduler_address, asynchronous=True, set_as_default=False)
        connecting: Any = dspex.connect(client)
        foundation = await connecting
        async with foundation.lock("l"):
            pass
        await client.close()
        with pytest.raises(UnavailableError, match="client of this connection"):
            await foundation.registry.register("k", 1)
        await foundation.close()
        left = [task for task in asyncio.all_tasks() if "dspex" in repr(task.get_coro())]
        assert left == [asyncio.current_task()] or not left

    asyncio.run(work())


def test_nothing_of_a_foundation_leaves_its_process(client: Any) -> None:
    with dspex.connect(client) as foundation, foundation.events() as events:
        lock = foundation.lock("l")
        for each in (
            foundation,
            foundation.registry,
            foundation.state_store,
            foundation.resources,
            lock,
            foundation.elect("e"),
            foundation.resources.rate_limit("r", per_second=1.0),
            events,
        ):
            for dumps in (pickle.dumps, cloudpickle.dumps):
                with pytest.raises(NotPicklableError, match="other process"):
                    dumps(each)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_has_no_connection_and_harms_none(client: Any) -> None:
    with dspex.connect(client) as foundation:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                with foundation:
                    foundation.registry.lookup("k")
            except UnavailableError as error:
                os.write(writing, str(error).encode())
            finally:
                os._exit(0)
        os.close(writing)
        with os.fdopen(reading) as said:
            assert "does not survive a fork" in said.read()
        os.waitpid(child, 0)
        with pytest.raises(KeyNotFoundError):
            foundation.registry.lookup("absent")


def test_a_foundation_that_nobody_holds_any_more_is_closed(client: Any) -> None:
    with dspex.connect(client) as observer:
        before, tasks = sessions(observer), tasks_on(client)
        registry = dspex.connect(client, namespace="dropped").registry
        gc.collect()
        registry.register("k", 1, on_conflict="replace")  # its connection is held by it
        assert sessions(observer) == before + 1
        del registry
        gc.collect()
        wait_for(lambda: sessions(observer) == before)
        wait_for(lambda: tasks_on(client) == tasks)
    assert client.status == "running"


def test_a_dropped_connection_to_an_address_ends_its_client_too(cluster: Any, client: Any) -> None:
    def clients() -> int:
        found: int = client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.clients))
        return found

    before = clients()
    registry = dspex.connect(cluster.scheduler_address).registry
    gc.collect()
    assert registry.list_keys() is not None
    assert clients() > before
    del registry
    gc.collect()
    wait_for(lambda: clients() == before)


# --- Ctrl-C --------------------------------------------------------------------------------


def interrupt_when(event: threading.Event) -> None:
    def interrupt() -> None:
        event.wait(30)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()


@pytest.mark.parametrize("when", ["while it installs", "while it opens", "when all is done"])
def test_a_connect_that_is_interrupted_leaves_nothing(
    client: Any, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    with dspex.connect(client) as observer:
        before, tasks = sessions(observer), tasks_on(client)
        entered = threading.Event()

        async def hang(*args: Any, **kwargs: Any) -> None:
            entered.set()
            await asyncio.Event().wait()

        if when == "while it installs":
            monkeypatch.setattr(connecting, "install", hang)
        elif when == "while it opens":
            start = LedgerCaller.start

            async def start_and_hang(caller: Any) -> None:
                await start(caller)
                await hang()

            monkeypatch.setattr(LedgerCaller, "start", start_and_hang)
        else:
            run = LoopBridge.run

            def run_and_be_interrupted(bridge: Any, work: Any) -> Any:
                result = run(bridge, work)
                if isinstance(result, Foundation):
                    raise KeyboardInterrupt
                return result

            monkeypatch.setattr(LoopBridge, "run", run_and_be_interrupted)
        if when != "when all is done":
            interrupt_when(entered)
        with pytest.raises(KeyboardInterrupt):
            dspex.connect(client)
        monkeypatch.undo()
        wait_for(lambda: tasks_on(client) == tasks)
        assert sessions(observer) == before
        with dspex.connect(client) as foundation:
            assert foundation.members()


def test_a_second_ctrl_c_while_closing_still_ends_the_embedded_cluster(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with dspex.connect(lease=1.0) as foundation:
        address = foundation._where
        caller: Any = foundation._caller

        async def close(*args: Any) -> None:
            raise KeyboardInterrupt

        run = LoopBridge.run

        def interrupted(bridge: Any, work: Any) -> Any:
            if "_close" in repr(work):
                work.close()
                raise KeyboardInterrupt
            return run(bridge, work)

        monkeypatch.setattr(LoopBridge, "run", interrupted)
        with pytest.raises(KeyboardInterrupt):
            foundation.close()
        monkeypatch.undo()
        assert caller.session
        with pytest.raises(ConnectionError):
            dspex.connect(address)


# --- schedulers that cannot start it, or start anew -----------------------------------------


def test_a_journal_that_cannot_be_opened_is_told_and_another_one_may_be_tried(
    cluster_of: Callable[[int], Any], tmp_path: pathlib.Path
) -> None:
    client = cluster_of(1)
    url = f"sqlite:///{tmp_path}/journal.db"
    journal = SqliteJournal(tmp_path / "journal.db")
    journal.open()
    journal.append(1, [b"no entry of a ledger"])
    journal.close()
    for _ in range(2):  # the first one has let go of it
        with pytest.raises(JournalCorruptError):
            dspex.connect(client, journal=url)
    with pytest.raises(InvalidArgumentError, match="journal"):
        dspex.connect(client, journal="redis://nowhere")
    with dspex.connect(client, journal=f"sqlite:///{tmp_path}/other.db") as foundation:
        foundation.registry.register("k", 1)
        assert [member.state for member in foundation.members()] == ["up"]
    with dspex.connect(client) as foundation:
        assert foundation.registry.lookup("k").value == 1


def test_a_journal_by_a_relative_path_is_known_again(
    cluster_of: Callable[[int], Any], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    client = cluster_of(1)
    for url in ("sqlite:///journal.db", "sqlite:///journal.db", f"sqlite:///{tmp_path}/journal.db"):
        with dspex.connect(client, journal=url) as foundation:
            assert foundation.journal["url"] == f"sqlite:///{tmp_path}/journal.db"
    with pytest.raises(InvalidArgumentError, match="a scheduler has one journal"):
        dspex.connect(client, journal="sqlite:///another.db")


def test_a_restart_of_all_workers_lets_them_join_again(cluster_of: Callable[[int], Any]) -> None:
    client = cluster_of(1)
    with dspex.connect(client) as foundation, foundation.events() as events:
        first = next(events).member
        foundation.registry.register("k", 1)
        client.restart()
        # A worker that has the time to say so drains first.
        told = [event for event in (next(events), next(events)) if event.kind != "draining"]
        told += [next(events) for _ in range(2 - len(told))]
        assert told[0].kind in ("lost", "left")
        assert told[1].kind == "joined"
        assert told[1].member.incarnation > first.incarnation
        assert foundation.registry.lookup("k").value == 1


def test_the_first_connect_may_come_from_a_task_on_a_worker_of_one_thread(
    cluster_of: Callable[[int], Any],
) -> None:
    client = cluster_of(1)

    def task() -> int:
        import dspex

        with dspex.connect() as foundation, foundation.lock("l"):
            foundation.registry.register("k", 1)
            return len(foundation.members())

    assert client.submit(task, pure=False).result(60) == 1
    with dspex.connect(client) as foundation:
        assert foundation.registry.lookup("k").value == 1


def test_namespaces_of_one_process_do_not_see_each_other(client: Any) -> None:
    with (
        dspex.connect(client, namespace="a") as first,
        dspex.connect(client, namespace="b") as second,
        dspex.connect(client, namespace="a") as third,
    ):
        assert len({first.session, second.session, third.session}) == 3
        first.registry.register("only a", 1)
        first.state_store.put("only a", 1)
        assert "only a" in third.registry
        assert "only a" not in second.registry
        assert second.state_store.keys("only") == []
        with first.lock("l"), second.lock("l") as held:
            assert held.is_held
            with pytest.raises(TimeoutError):
                third.lock("l").acquire(timeout=0.05)


@pytest.mark.parametrize("cluster", [3, object(), "not an address"])
def test_what_is_no_cluster_is_refused(cluster: Any) -> None:
    with pytest.raises((InvalidArgumentError, ConnectionError), match="cluster"):
        dspex.connect(cluster)
