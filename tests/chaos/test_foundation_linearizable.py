"""Real histories of the state store, of clients in several processes, over kills of the scheduler,
are put before the linearizability checker."""

from __future__ import annotations

import pathlib
import textwrap
from collections.abc import Callable, Sequence

import pytest

from dspex.testing.etcd import EtcdServers, needs_etcd
from dspex.testing.historians import check_registers, history_of
from dspex.testing.processes import SchedulerProcess

pytestmark = pytest.mark.chaos

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
) -> None:
    """Have clients call, kill somebody in their midst, and judge what they were told."""
    clients = [
        ["-c", CLIENT, scheduler.address, str(path), name, str(calls)]
        for name in "abcdef"[:CLIENTS]
    ]
    history = history_of(clients, path, calls=calls, harms=kills)
    check_registers(history, count=calls * CLIENTS)


@pytest.mark.parametrize(
    ("calls", "kills"), [(200, 1), pytest.param(3000, 12, marks=pytest.mark.slow)]
)
def test_histories_are_linearizable_over_kills_of_the_scheduler(
    tmp_path: pathlib.Path, calls: int, kills: int
) -> None:
    with SchedulerProcess(f"sqlite:///{tmp_path}/journal.db") as scheduler:
        run_clients(scheduler, tmp_path / "history", calls=calls, kills=[scheduler.restart] * kills)


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

        run_clients(
            scheduler,
            tmp_path / "history",
            calls=calls,
            kills=[kill_leader, scheduler.restart] * rounds,
        )
