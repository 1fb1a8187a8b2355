"""Real histories of agents that are registers, called from several processes while their workers
are killed and paused, are put before the linearizability checker."""

from __future__ import annotations

import pathlib
import signal
import textwrap
from collections.abc import Callable, Sequence
from contextlib import ExitStack

import pytest

import dspex
from dspex.agents import create_agents
from dspex.foundation.handles.foundation import Foundation
from dspex.testing.agents import Cell
from dspex.testing.historians import check_registers, history_of
from dspex.testing.probe import wait_for
from dspex.testing.processes import SchedulerProcess, WorkerProcess

pytestmark = pytest.mark.chaos

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
    known: float,
) -> None:
    """Have clients call, harm somebody in their midst, and judge what they were told."""
    clients = [
        ["-c", CLIENT, address, str(path), name, str(calls), str(CELLS), delivery]
        for name in "abcdef"[:CLIENTS]
    ]
    history = history_of(clients, path, calls=calls, harms=harms)
    check_registers(history, count=calls * CLIENTS, known=known)


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
        run_clients(
            scheduler.address,
            tmp_path / "history",
            calls=calls,
            delivery="exactly_once",
            harms=harms,
            known=1.0,
        )


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
        run_clients(
            scheduler.address,
            tmp_path / "history",
            calls=2000,
            delivery="at_most_once",
            harms=[harmed.kill, harmed.pause] * 4,
            known=0.9,
        )
