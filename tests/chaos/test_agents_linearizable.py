"""Real histories of agents that are registers, called from several processes while their workers
are killed and paused, are put before the linearizability checker."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Sequence
from contextlib import ExitStack

import pytest

import dspex
from dspex.agents import create_agents
from dspex.foundation.handles.foundation import Foundation
from dspex.testing.agents import Cell
from dspex.testing.histories import UNKNOWN, Operation, read_histories
from dspex.testing.linearizability import check
from dspex.testing.models import Register
from dspex.testing.probe import wait_for
from dspex.testing.processes import SchedulerProcess, WorkerProcess

pytestmark = pytest.mark.chaos

SOURCE = str(pathlib.Path(dspex.__file__).parents[1])
CLIENTS = 3
CELLS = 4

# Each value is written once, so that a read says which write it saw.
CLIENT = textwrap.dedent("""
    import random, sys
    import dspex
    from dspex.agents import get_agent
    from dspex.errors import DeliveryError
    from dspex.testing.histories import History

    address, path, name, count, cells, delivery = sys.argv[1:]
    dice = random.Random(name)
    seen = {}
    with dspex.connect(address) as foundation, History(path, name) as history:
        agents = [get_agent(f"k{n}", foundation=foundation) for n in range(int(cells))]
        for number in range(int(count)):
            agent, value = dice.choice(agents), f"{name}/{number}"
            op = dice.choice(["get", "put", "compare_and_set", "compare_and_set"])
            args = {
                "put": (value,),
                "compare_and_set": (seen.get(agent.id, 0), value),
            }.get(op, ())
            with history.calling(agent.id, op, *args) as call:
                try:
                    result = agent.call(op, args, delivery=delivery).result(90)
                except DeliveryError:
                    continue  # nobody knows
                call.returned(result)
            if op == "get":
                seen[agent.id] = result[1] if result else 0
            elif isinstance(result, int):
                seen[agent.id] = result
            if number % 20 == 0:
                print(number, flush=True)
""")


def run_clients(
    address: str,
    path: pathlib.Path,
    *,
    calls: int,
    delivery: str,
    harms: Sequence[Callable[[], object]],
) -> list[Operation]:
    """Have clients call, and harm somebody in their midst; gives their history."""
    every = calls // 20 // (len(harms) + 1)
    arguments = [address, str(path)]
    with ExitStack() as stack:
        clients = [
            stack.enter_context(
                subprocess.Popen(
                    [
                        *(sys.executable, "-c", CLIENT, *arguments, name),
                        *(str(calls), str(CELLS), delivery),
                    ],
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
        for harm in harms:
            for _ in range(every):
                assert leader.readline()
            harm()
        for client in clients:
            client.communicate(timeout=100)
            assert client.returncode == 0
    return read_histories(path)


def check_history(history: list[Operation], *, calls: int, is_known: bool) -> None:
    assert len(history) == calls * CLIENTS
    known = [operation for operation in history if operation.result is not UNKNOWN]
    # What is unknown explains anything: there must be little of it.
    assert len(known) >= (len(history) if is_known else 0.9 * len(history))
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


class Harmed:
    """Workers of which one after the other is killed, or paused for longer than its lease."""

    def __init__(self, foundation: Foundation, workers: Sequence[WorkerProcess]) -> None:
        self._foundation = foundation
        self._workers = list(workers)
        self._at = 0

    def _up(self) -> int:
        return sum(member.state == "up" for member in self._foundation.members())

    def _next(self) -> WorkerProcess:
        self._at += 1
        return self._workers[self._at % len(self._workers)]

    def kill(self) -> None:
        worker = self._next()
        worker.kill()
        worker.start()

    def pause(self) -> None:
        wait_for(lambda: self._up() == len(self._workers))
        worker = self._next()
        worker.send(signal.SIGSTOP)
        wait_for(lambda: self._up() == len(self._workers) - 1)
        worker.send(signal.SIGCONT)


LONG_FORM = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.mark.parametrize(
    ("persistence", "calls", "rounds"),
    [
        ("cluster_replicated", 300, 1),
        pytest.param("cluster_replicated", 3000, 4, marks=LONG_FORM),
        pytest.param("durable", 3000, 4, marks=LONG_FORM),
    ],
)
def test_histories_are_linearizable_over_kills_and_pauses_of_workers(
    tmp_path: pathlib.Path, persistence: str, calls: int, rounds: int
) -> None:
    variables = {"DASK_DSPEX__LEASE": "1.0"}
    with ExitStack() as stack:
        scheduler = stack.enter_context(
            SchedulerProcess(f"sqlite:///{tmp_path}/journal.db", variables=variables)
        )
        workers = [stack.enter_context(WorkerProcess(scheduler.address)) for _ in range(3)]
        foundation = stack.enter_context(dspex.connect(scheduler.address))
        harmed = Harmed(foundation, workers)
        wait_for(lambda: harmed._up() == len(workers))
        specs = [{"cls": Cell, "id": f"k{n}", "persistence": persistence} for n in range(CELLS)]
        create_agents(specs, foundation=foundation)
        harms = [harmed.kill, harmed.pause] * rounds
        if persistence == "durable":

            def restart() -> None:
                scheduler.kill()
                for worker in workers:
                    if worker.is_alive():
                        worker.kill()
                scheduler.start()
                scheduler.wait_until_up()
                for worker in workers:
                    worker.start()

            harms.append(restart)
        history = run_clients(
            scheduler.address,
            tmp_path / "history",
            calls=calls,
            delivery="exactly_once",
            harms=harms,
        )
    check_history(history, calls=calls, is_known=True)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_calls_at_most_once_are_linearizable_where_what_is_not_known_may_have_happened(
    tmp_path: pathlib.Path,
) -> None:
    variables = {"DASK_DSPEX__LEASE": "1.0"}
    with ExitStack() as stack:
        scheduler = stack.enter_context(SchedulerProcess(variables=variables))
        workers = [stack.enter_context(WorkerProcess(scheduler.address)) for _ in range(3)]
        foundation = stack.enter_context(dspex.connect(scheduler.address))
        harmed = Harmed(foundation, workers)
        wait_for(lambda: harmed._up() == len(workers))
        specs = [
            {"cls": Cell, "id": f"k{n}", "persistence": "cluster_replicated"} for n in range(CELLS)
        ]
        create_agents(specs, foundation=foundation)
        history = run_clients(
            scheduler.address,
            tmp_path / "history",
            calls=2000,
            delivery="at_most_once",
            harms=[harmed.kill, harmed.pause] * 4,
        )
    check_history(history, calls=2000, is_known=False)
