"""`dspex.connect` on real clusters: what it installs, on whom, and what it refuses."""

from __future__ import annotations

import asyncio
import os
import pathlib
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgpack
import pytest
from distributed import Client, get_task_stream

import dspex
from dspex.cluster.foundation import install as installing
from dspex.cluster.foundation.plugin import NAME
from dspex.cluster.foundation.shim import worker_plugin
from dspex.errors import (
    ClusterUnreachableError,
    InvalidArgumentError,
    InvalidRequestError,
    KeyExistsError,
    UnavailableError,
    VersionMismatchError,
)
from dspex.testing.clusters import local_cluster
from dspex.testing.probe import wait_for
from dspex.testing.processes import SchedulerProcess, WorkerProcess

SOURCE = str(pathlib.Path(dspex.__file__).parents[1])


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with local_cluster(2) as cluster:
        yield cluster


@pytest.mark.parametrize("kind", ["client", "address", "cluster"])
def test_a_client_an_address_and_a_cluster_object_are_connected_to(
    cluster: Any, client: Any, kind: str
) -> None:
    given = {"client": client, "address": cluster.scheduler_address, "cluster": cluster}[kind]
    with dspex.connect(given, namespace=kind) as foundation:
        foundation.registry.register("k", 1)
        assert foundation.registry.lookup("k").value == 1
        assert len(foundation.members()) == 2
    with pytest.raises(UnavailableError, match="closed"):
        foundation.registry.lookup("k")
    foundation.close()
    assert client.status == "running"


def test_a_study_runs_where_a_foundation_is_connected(client: Any) -> None:
    study: dict[str, Any] = {
        "space": {"x": dspex.Float(0, 1)},
        "direction": "minimize",
        "trials": 4,
    }
    with dspex.connect(client) as foundation, get_task_stream(client) as stream:
        result = dspex.optimize(square, cluster=foundation, **study)
    assert len(result.trials) == 4
    assert stream.data, "it ran on this client's cluster"
    with (
        dspex.connect("local") as local,
        pytest.raises(InvalidArgumentError, match="distributed=False"),
    ):
        dspex.optimize(square, cluster=local, **study)


def square(params: dict[str, float]) -> float:
    return params["x"] ** 2


def test_many_connect_at_once_and_share_one_foundation(cluster_of: Callable[[int], Any]) -> None:
    client = cluster_of(1)
    address = client.scheduler.address
    together = threading.Barrier(6)

    def connect(number: int) -> tuple[str, int]:
        together.wait(30)
        with dspex.connect(address) as foundation:
            foundation.registry.register(f"k{number}", number)
            return foundation.journal["identity"], foundation.status()["term"]

    with ThreadPoolExecutor(6) as threads:
        found = set(threads.map(connect, range(6)))
    assert len(found) == 1
    with dspex.connect(client) as foundation:
        assert len(foundation.registry) == 6
        assert len(foundation.members()) == 1


def test_later_workers_become_members(cluster_of: Callable[[int], Any]) -> None:
    client = cluster_of(1)
    with dspex.connect(client) as foundation, foundation.events() as events:
        client.cluster.scale(2)
        joined = [next(events), next(events)]
    assert [event.kind for event in joined] == ["joined", "joined"]
    assert joined[0].member.address != joined[1].member.address
    assert joined[0].member.incarnation < joined[1].member.incarnation


def test_async_code_awaits_the_same_names(cluster: Any) -> None:
    async def work() -> None:
        make: Any = Client
        async with make(cluster.scheduler_address, asynchronous=True) as client:
            connecting: Any = dspex.connect(client, namespace="async")
            foundation = await connecting
            async with foundation:
                await foundation.registry.register("k", 1)
                entry = await foundation.registry.lookup("k")
                assert entry.value == 1
                assert len(await foundation.members()) == 2
                async with foundation.lock("l") as lock:
                    assert lock.is_held
                async with await foundation.resources.acquire("fit", cpu_cores=1) as lease:
                    assert lease.worker in {m.address for m in await foundation.members()}
                async for event in foundation.events():
                    assert event.kind == "joined"
                    break

    asyncio.run(work())


def test_inside_a_task_the_workers_client_serves(client: Any) -> None:
    def task() -> int:
        import dspex

        with dspex.connect(namespace="task") as foundation:
            foundation.registry.register("from a task", os.getpid())
            return os.getpid()

    with dspex.connect(client, namespace="task") as foundation:
        pid = client.submit(task, pure=False).result()
        assert foundation.registry.lookup("from a task").value == pid


def test_another_journal_than_the_running_one_is_refused(client: Any) -> None:
    with dspex.connect(client):
        pass
    with pytest.raises(InvalidArgumentError, match="a scheduler has one journal"):
        dspex.connect(client, journal="sqlite:///elsewhere.db")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lease": 0}, "lease is more than 0"),
        ({"namespace": "a:b"}, "namespace"),
        ({"registry_backend": "redis"}, "registry_backend is one of"),
        ({"registry_backend": 3}, "RegistryBackend protocol"),
        ({"journal": "redis://x"}, "journal"),
    ],
)
def test_what_cannot_be_is_refused_at_the_door(
    cluster_of: Callable[[int], Any], arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises((InvalidArgumentError, InvalidRequestError), match=message):
        dspex.connect("local", **arguments)


def test_nobody_at_the_address() -> None:
    with pytest.raises(ClusterUnreachableError):
        dspex.connect("tcp://127.0.0.1:9")


# --- versions ------------------------------------------------------------------------------


def test_a_worker_of_another_version_is_named_and_nothing_is_installed(
    cluster_of: Callable[[int], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = cluster_of(1)
    question = installing._QUESTION.replace('%d-%d" % PROTOCOLS', '7-9"')
    assert question != installing._QUESTION
    ours = eval(installing._QUESTION)
    monkeypatch.setattr(installing, "_QUESTION", question)
    monkeypatch.setattr(installing, "own_facts", lambda: ours)
    with pytest.raises(VersionMismatchError, match="speaks protocols 7-9 and not 1"):
        dspex.connect(client)
    plugins = client.run_on_scheduler(lambda dask_scheduler: list(dask_scheduler.plugins))
    assert NAME not in plugins


def test_a_worker_without_dspex_joins_dask_and_is_reported(tmp_path: pathlib.Path) -> None:
    hide = (
        "import importlib.util, sys\n"
        "class Hidden:\n"
        "    @staticmethod\n"
        "    def find_spec(name, *_):\n"
        "        if name.partition('.')[0] == 'dspex':\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Hidden)\n"
        "from distributed.cli.dask_worker import main; main()\n"
    )
    with SchedulerProcess() as scheduler, dspex.connect(scheduler.address) as foundation:
        stranger = subprocess.Popen(
            [sys.executable, "-c", hide, scheduler.address, "--no-nanny", "--no-dashboard"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": SOURCE},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            make: Any = Client
            with make(scheduler.address, set_as_default=False) as client:
                client.wait_for_workers(1, timeout=60)
                assert client.submit(sum, [1, 2]).result(timeout=60) == 3
                assert stranger.poll() is None
                (address,) = client.scheduler_info()["workers"]
            (member,) = foundation.members()
            assert (member.address, member.state) == (address, "joining")
            assert "install dspex there" in repr(foundation.status())
        finally:
            stranger.kill()
            stranger.wait()


def test_the_workers_plugin_unpickles_without_dspex() -> None:
    names: set[str] = set()

    class Listening(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            names.add(module)
            return super().find_class(module, name)

    import io

    Listening(io.BytesIO(worker_plugin(lease=3.0))).load()
    assert names == {"builtins"}


# --- the border ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"blob": None},
        {"blob": "text"},
        {"blob": b""},
        {"blob": b"\xc1"},
        {"blob": pickle.dumps(["a", "pickle"])},
        {"blob": msgpack.packb([1, "me", 0, "calls"])},
        {"blob": msgpack.packb([99, "me", 0, []])},
        {"blob": msgpack.packb([1, "me", 0, [[None, "no.such.op", {}]]])},
        {"blob": msgpack.packb([1, "me", 0, [[1, "records.commit", {"collection": 7}]]])},
        {"blob": b"\x91" * 100_000},
        {"unknown": 1},
    ],
)
def test_whatever_is_sent_gets_an_error_and_harms_nobody(client: Any, message: Any) -> None:
    with dspex.connect(client, namespace="border") as foundation:
        answer = client.sync(client.scheduler.dspex, **message)
        replies = msgpack.unpackb(answer)[4]
        assert [reply[0] for reply in replies] == [1]
        assert replies[0][1][0] in ("InvalidRequestError", "SessionExpiredError")
        foundation.registry.register("still", "here", on_conflict="replace")
        assert len(foundation.members()) == 2


def test_errors_come_back_as_they_were_raised(client: Any) -> None:
    with dspex.connect(client, namespace="errors") as foundation:
        foundation.registry.register("k", 1)
        with pytest.raises(KeyExistsError, match="the key 'k' is taken") as caught:
            foundation.registry.register("k", 2)
        assert pickle.loads(pickle.dumps(caught.value)).key == "k"


def test_a_client_that_cannot_reach_workers_is_served(tmp_path: pathlib.Path) -> None:
    # The worker says that it lives where nobody listens: only its own connections work.
    with SchedulerProcess() as scheduler:
        options = (
            "--listen-address",
            "tcp://127.0.0.1:0",
            "--contact-address",
            "tcp://127.0.0.1:9",
        )
        worker = WorkerProcess(scheduler.address, options=options)
        with worker, dspex.connect(scheduler.address) as foundation:
            events = foundation.events()
            assert next(events).kind == "joined"
            with foundation.resources.acquire("fit", cpu_cores=1) as lease:
                assert lease.worker == "tcp://127.0.0.1:9"
            foundation.registry.register("k", 1)
            assert foundation.registry.lookup("k", consistency="eventual").value == 1


# --- the current client, the embedded cluster ------------------------------------------------


def test_without_anything_an_embedded_cluster_is_started_and_ended() -> None:
    with dspex.connect() as foundation:
        members = foundation.members()
        assert members
        address = foundation._where
    with pytest.raises(ClusterUnreachableError):
        dspex.connect(address)


def test_status_audit_and_drain_tell_and_do(client: Any) -> None:
    with dspex.connect(client, namespace="operations") as foundation:
        foundation.registry.register("audited", 1)
        assert any("r:operations/audited" in line[3] for line in foundation.audit())
        status = foundation.status()
        assert "journal   memory" in repr(status)
        assert dict(status)["journal"]["durable"] is False
        first, second = foundation.members()
        foundation.drain(first)
        with foundation.resources.acquire("fit", cpu_cores=1) as lease:
            assert lease.worker == second.address
        assert {m.state for m in foundation.members()} == {"up", "draining"}
        foundation.drain(first.address, undo=True)
        wait_for(lambda: {m.state for m in foundation.members()} == {"up"})


def test_callbacks_hear_of_members(client: Any) -> None:
    heard = threading.Event()
    with dspex.connect(client) as foundation:
        stop = foundation.subscribe(lambda event: heard.set())
        assert heard.wait(30)
        stop()
