"""The scheduler, workers and clients of a foundation are killed and paused; nothing acknowledged
is lost, and nobody acts on what is not its own any more."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from distributed import Client

import dspex
from dspex.errors import LeaseExpiredError, UnavailableError
from dspex.storage.journals.sqlite import SqliteJournal
from dspex.testing.probe import wait_for
from dspex.testing.processes import SchedulerProcess, WorkerProcess

pytestmark = pytest.mark.chaos

SOURCE = str(pathlib.Path(dspex.__file__).parents[1])


@pytest.fixture
def scheduler(tmp_path: pathlib.Path) -> Iterator[SchedulerProcess]:
    with SchedulerProcess(f"sqlite:///{tmp_path}/journal.db") as scheduler:
        yield scheduler


@contextmanager
def script(source: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A client in a process of its own, which says what it does line by line."""
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(source), *arguments],
        env={**os.environ, "PYTHONPATH": SOURCE},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def line(process: subprocess.Popen[str]) -> Any:
    assert process.stdout is not None
    said = process.stdout.readline()
    assert said, "the process ended without a word"
    return json.loads(said)


def say(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdin is not None
    process.stdin.write(word + "\n")
    process.stdin.flush()


def wait_for_more(acknowledged: dict[str, int], count: int) -> None:
    before = len(acknowledged)
    wait_for(lambda: len(acknowledged) > before + count)


WRITER = """
    import json, sys, dspex
    foundation = dspex.connect(sys.argv[1])
    store = foundation.state_store
    number = 0
    while True:
        number += 1
        version = store.put(f"{sys.argv[2]}/{number}", number)
        print(json.dumps([number, version.number]), flush=True)
"""


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_a_killed_scheduler_keeps_every_acknowledged_put(
    scheduler: SchedulerProcess, kills: int
) -> None:
    acknowledged: dict[str, int] = {}
    listeners: list[threading.Thread] = []
    with ExitStack() as stack:
        writers = [
            stack.enter_context(script(WRITER, scheduler.address, str(each))) for each in range(3)
        ]

        def listen(name: int, process: subprocess.Popen[str]) -> None:
            assert process.stdout is not None
            for said in process.stdout:
                if said.endswith("\n"):
                    number, version = json.loads(said)
                    acknowledged[f"{name}/{number}"] = version

        for name, process in enumerate(writers):
            listeners.append(threading.Thread(target=listen, args=(name, process)))
            listeners[-1].start()
        for kill in range(kills):
            wait_for_more(acknowledged, 30 + 7 * kill)
            scheduler.restart()
        wait_for_more(acknowledged, 30)
    for listener in listeners:
        listener.join()
    with dspex.connect(scheduler.address) as foundation:
        assert foundation.status()["term"] == kills + 1
        store = foundation.state_store
        there = {key: store.lookup(key) for key in store.keys("")}
    assert acknowledged.keys() <= there.keys()
    for key, version in acknowledged.items():
        assert there[key].version.number == version
        assert there[key].value == int(key.partition("/")[2])
    # At most the one call of each writer that was under way may be there without an answer.
    assert len(there) - len(acknowledged) <= 3


def test_a_lock_outlives_the_scheduler_and_goes_to_nobody_else(
    scheduler: SchedulerProcess,
) -> None:
    holder = """
        import json, sys, dspex
        foundation = dspex.connect(sys.argv[1])
        with foundation.lock("one") as lock:
            print(json.dumps(lock.token), flush=True)
            sys.stdin.readline()
            lock.check()
            print(json.dumps("still mine"), flush=True)
        print(json.dumps("released"), flush=True)
        sys.stdin.readline()
    """
    with script(holder, scheduler.address) as first, script(holder, scheduler.address) as second:
        holders: dict[int, Any] = {}
        tokens = []
        # Whoever says a token has it; the other one waits, over the restart too.
        for process in (first, second):
            thread = threading.Thread(
                target=lambda process=process: holders.setdefault(process.pid, line(process)),
                daemon=True,
            )
            thread.start()
        wait_for(lambda: len(holders) == 1)
        owner, other = (first, second) if first.pid in holders else (second, first)
        tokens.append(holders[owner.pid])
        with dspex.connect(scheduler.address) as foundation:
            wait_for(lambda: foundation.status()["waiting"] == 1)
        scheduler.restart()
        with dspex.connect(scheduler.address) as foundation:
            wait_for(lambda: foundation.status()["term"] == 2)
            assert len(holders) == 1
            say(owner, "go on")
            assert line(owner) == "still mine"
            assert line(owner) == "released"
            wait_for(lambda: len(holders) == 2)
            tokens.append(holders[other.pid])
    assert tokens[0][0] == 1
    assert tokens[1][0] == 2
    assert tokens[0] < tokens[1]


def test_a_paused_holder_finds_its_lock_gone_and_its_token_refused() -> None:
    holder = """
        import json, sys, dspex
        foundation = dspex.connect(sys.argv[1], lease=1.0)
        lock = foundation.lock("one")
        lock.acquire()
        print(json.dumps(lock.token), flush=True)
        sys.stdin.readline()
        held = lock.is_held
        try:
            lock.check()
            print(json.dumps([held, "mine"]), flush=True)
        except Exception as error:
            print(json.dumps([held, type(error).__name__]), flush=True)
    """
    with (
        SchedulerProcess() as scheduler,
        script(holder, scheduler.address) as paused,
        dspex.connect(scheduler.address, lease=1.0) as foundation,
    ):
        token = line(paused)
        os.kill(paused.pid, signal.SIGSTOP)
        with foundation.lock("one") as lock:
            assert lock.token is not None
            assert lock.token > tuple(token)
            os.kill(paused.pid, signal.SIGCONT)
            say(paused, "go on")
            assert line(paused) == [False, "LeaseExpiredError"]
            lock.check()


def test_a_killed_holder_frees_its_lease_and_its_entries_within_a_lease() -> None:
    holder = """
        import json, sys, dspex
        foundation = dspex.connect(sys.argv[1], lease=1.0)
        lease = foundation.resources.acquire("fit", cpu_cores=1)
        foundation.registry.register("tied", 1, tied_to="client")
        print(json.dumps(lease.worker), flush=True)
        sys.stdin.readline()
    """
    with (
        SchedulerProcess() as scheduler,
        WorkerProcess(scheduler.address),
        dspex.connect(scheduler.address) as foundation,
        script(holder, scheduler.address) as process,
    ):
        worker = line(process)
        process.kill()
        with foundation.resources.acquire("fit", cpu_cores=1) as lease:
            assert lease.worker == worker
        assert "tied" not in foundation.registry


def test_a_paused_worker_is_suspected_lost_and_comes_back_as_another_incarnation() -> None:
    variables = {"DASK_DSPEX__LEASE": "1.0"}
    with (
        SchedulerProcess(variables=variables) as scheduler,
        WorkerProcess(scheduler.address) as worker,
        dspex.connect(scheduler.address) as foundation,
        foundation.events() as events,
    ):
        joined = next(events)
        assert joined.kind == "joined"
        lease = foundation.resources.acquire("fit", cpu_cores=1)
        foundation.registry.register("tied", 1, tied_to=joined.member.address)
        worker.send(signal.SIGSTOP)
        assert [next(events).kind, next(events).kind] == ["suspected", "lost"]
        assert foundation.resources.usage("worker") == {}
        with pytest.raises(LeaseExpiredError):
            lease.check()
        assert "tied" not in foundation.registry
        worker.send(signal.SIGCONT)
        again = next(events)
        assert again.kind == "joined"
        assert again.member.address == joined.member.address
        assert again.member.incarnation > joined.member.incarnation


def test_a_killed_worker_is_lost_at_once_by_its_closed_connection() -> None:
    variables = {"DASK_DSPEX__LEASE": "600"}
    with (
        SchedulerProcess(variables=variables) as scheduler,
        WorkerProcess(scheduler.address) as worker,
        dspex.connect(scheduler.address) as foundation,
        foundation.events() as events,
    ):
        assert next(events).kind == "joined"
        worker.kill()
        # Its lease has ten minutes to go.
        assert next(events).kind == "lost"


def test_a_worker_that_is_retired_leaves_in_order() -> None:
    with (
        SchedulerProcess() as scheduler,
        WorkerProcess(scheduler.address) as worker,
        dspex.connect(scheduler.address) as foundation,
        foundation.events() as events,
    ):
        assert next(events).kind == "joined"
        make: Any = Client
        with make(scheduler.address, set_as_default=False) as client:
            client.retire_workers(list(client.scheduler_info()["workers"]))
        assert [next(events).kind, next(events).kind] == ["draining", "left"]
        worker.wait()


@pytest.mark.parametrize("nanny", [True, False])
def test_a_worker_that_is_told_to_end_leaves_in_order(nanny: bool) -> None:
    with (
        SchedulerProcess() as scheduler,
        WorkerProcess(scheduler.address, nanny=nanny) as worker,
        dspex.connect(scheduler.address) as foundation,
        foundation.events() as events,
    ):
        assert next(events).kind == "joined"
        worker.send(signal.SIGTERM)
        assert [next(events).kind, next(events).kind] == ["draining", "left"]
        worker.wait()


def test_a_stalled_scheduler_loses_nobody() -> None:
    variables = {"DASK_DSPEX__LEASE": "0.5"}

    def stall() -> None:
        import time

        time.sleep(3.0)

    with (
        SchedulerProcess(variables=variables) as scheduler,
        WorkerProcess(scheduler.address),
        WorkerProcess(scheduler.address),
        dspex.connect(scheduler.address, lease=0.5) as foundation,
        foundation.events() as events,
    ):
        joined = {next(events).member.address, next(events).member.address}
        session = foundation.session
        make: Any = Client
        with make(scheduler.address, set_as_default=False) as client:
            client.run_on_scheduler(stall)
        assert {m.address for m in foundation.members()} == joined
        assert foundation.session == session
        assert not [line for line in foundation.audit(1000) if "lost" in line[3]]


def test_a_scheduler_whose_journal_was_taken_over_answers_nothing_any_more(
    scheduler: SchedulerProcess, tmp_path: pathlib.Path
) -> None:
    with dspex.connect(scheduler.address) as foundation:
        foundation.state_store.put("k", 1)
        usurper = SqliteJournal(tmp_path / "journal.db", takeover=True)
        usurper.open()
        try:
            with pytest.raises(UnavailableError, match="does not own the journal"):
                foundation.state_store.lookup("k", consistency="strong")
            with pytest.raises(UnavailableError):
                foundation.state_store.put("k", 2)
        finally:
            usurper.close()
