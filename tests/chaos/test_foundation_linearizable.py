"""Real histories of the state store, of clients in several processes, over kills of the scheduler,
are put before the linearizability checker."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import textwrap
from collections.abc import Callable, Sequence
from contextlib import ExitStack

import pytest

import dspex
from dspex.testing.etcd import EtcdServers, needs_etcd
from dspex.testing.histories import UNKNOWN, Operation, read_histories
from dspex.testing.linearizability import check
from dspex.testing.models import Register
from dspex.testing.processes import SchedulerProcess

pytestmark = pytest.mark.chaos

SOURCE = str(pathlib.Path(dspex.__file__).parents[1])
CLIENTS = 3

# Each value is written once, so that a read says which write it saw.
CLIENT = textwrap.dedent("""
    import random, sys
    import dspex
    from dspex.errors import (
        SessionExpiredError, StateNotFoundError, UnavailableError, VersionConflictError,
    )
    from dspex.testing.histories import History
    from dspex.testing.models import CONFLICT

    address, path, name, count = sys.argv[1:]
    dice = random.Random(name)
    seen = {}
    with dspex.connect(address) as foundation, History(path, name) as history:
        store = foundation.state_store
        for number in range(int(count)):
            key, value = f"k{dice.randrange(4)}", f"{name}/{number}"
            op = dice.choice(["get", "get", "put", "compare_and_set", "compare_and_set", "delete"])
            args = {
                "put": (value,),
                "compare_and_set": (seen.get(key, 0), value),
            }.get(op, ())
            with history.calling(key, op, *args) as call:
                try:
                    if op == "get":
                        state = store.lookup(key, consistency="strong")
                        result = [state.value, state.version.number]
                        seen[key] = state.version.number
                    elif op == "delete":
                        store.delete(key)
                        result = True
                    elif op == "put":
                        result = store.put(key, value).number
                    else:
                        result = store.compare_and_set(key, *args).number
                except StateNotFoundError:
                    result = None if op == "get" else False
                    seen[key] = 0
                except VersionConflictError as error:
                    result = CONFLICT
                except (UnavailableError, SessionExpiredError):
                    continue  # nobody knows
                call.returned(result)
            if number % 20 == 0:
                print(number, flush=True)
""")


def run_clients(
    scheduler: SchedulerProcess,
    path: pathlib.Path,
    *,
    calls: int,
    kills: Sequence[Callable[[], object]],
) -> list[Operation]:
    """Have clients call, and kill somebody in their midst; gives their history."""
    every = calls // 20 // (len(kills) + 1)
    with ExitStack() as stack:
        clients = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", CLIENT, scheduler.address, str(path), name, str(calls)],
                    env={**os.environ, "PYTHONPATH": SOURCE},
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for name in "abcdef"[:CLIENTS]
        ]
        for client in clients:
            stack.callback(client.kill)
        leader = clients[0].stdout
        assert leader is not None
        for kill in kills:
            for _ in range(every):
                assert leader.readline()
            kill()
        for client in clients:
            client.communicate(timeout=100)
            assert client.returncode == 0
    return read_histories(path)


def check_history(history: list[Operation], *, calls: int) -> None:
    assert len(history) == calls * CLIENTS
    known = [operation for operation in history if operation.result is not UNKNOWN]
    # What is unknown explains anything: there must be little of it.
    assert len(known) > 0.9 * len(history)
    verdict = check(history, Register())
    assert verdict.ok, str(verdict)
    # A checker that says yes to anything would say yes to this too.
    first = next(op for op in known if op.op == "get" and op.result is not None)
    wrong = [op for op in history if op is not first]
    wrong.append(
        Operation(
            first.process,
            first.key,
            "get",
            (),
            ("never written", first.result[1]),
            first.called,
            first.returned,
        )
    )
    assert not check(wrong, Register()).ok


@pytest.mark.parametrize(
    ("calls", "kills"), [(200, 1), pytest.param(3000, 12, marks=pytest.mark.slow)]
)
def test_histories_are_linearizable_over_kills_of_the_scheduler(
    tmp_path: pathlib.Path, calls: int, kills: int
) -> None:
    with SchedulerProcess(f"sqlite:///{tmp_path}/journal.db") as scheduler:
        history = run_clients(
            scheduler, tmp_path / "history", calls=calls, kills=[scheduler.restart] * kills
        )
    check_history(history, calls=calls)


@needs_etcd
@pytest.mark.parametrize(
    ("calls", "rounds"), [(150, 1), pytest.param(2000, 4, marks=pytest.mark.slow)]
)
def test_histories_are_linearizable_over_kills_of_etcds_leader_and_of_the_scheduler(
    tmp_path: pathlib.Path, calls: int, rounds: int
) -> None:
    with EtcdServers(3) as etcd, SchedulerProcess(etcd.url("mine")) as scheduler:

        def kill_leader() -> None:
            leader = etcd.leader()
            etcd.kill(leader)
            etcd.restart(leader)

        history = run_clients(
            scheduler,
            tmp_path / "history",
            calls=calls,
            kills=[kill_leader, scheduler.restart] * rounds,
        )
    check_history(history, calls=calls)
