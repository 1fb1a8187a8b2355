"""A bank: accounts are agents, and money goes from one to another exactly once, whoever dies."""

from __future__ import annotations

import itertools
import pathlib
import random
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import psutil
import pytest

import dspex
from dspex.agents import AgentHandle, create_agents, gather
from dspex.cluster.agents.runtime import runtime_of
from dspex.foundation.handles.foundation import Foundation
from dspex.testing.agents_accounts import Account
from dspex.testing.probe import wait_for
from dspex.testing.processes import SchedulerProcess, WorkerProcess

pytestmark = pytest.mark.chaos

ACCOUNTS = 100
TELLERS = 3
FIRST = 1_000
LONG = 90


class Bank:
    """Tellers who transfer money, and write down what was acknowledged.

    Each uses a connection of its own, which is a session of its own.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._work, args=(n,)) for n in range(TELLERS)]
        self._errors: list[BaseException] = []
        self.acknowledged: list[tuple[str, str, str, int]] = []

    def _work(self, teller: int) -> None:
        try:
            with dspex.connect(self._address) as foundation:
                self._transfer(teller, foundation)
        except BaseException as error:
            self._errors.append(error)

    def _transfer(self, teller: int, foundation: Foundation) -> None:
        dice = random.Random(teller)
        runtime = runtime_of(foundation)
        for number in itertools.count():
            if self._ended.is_set():
                return
            wanted = []
            for each in range(dice.randrange(1, 20)):
                source, target = dice.sample(range(ACCOUNTS), 2)
                op = f"{teller}/{number}/{each}"
                wanted.append((op, f"account-{source}", f"account-{target}", dice.randrange(50)))
            calls = [
                AgentHandle(f":{source}", "Account", runtime).transfer(op, amount, target)
                for op, source, target, amount in wanted
            ]
            answers: Any = gather(calls, timeout=LONG)
            assert answers == [op for op, *_ in wanted]
            self.acknowledged += wanted

    @contextmanager
    def open(self) -> Iterator[Bank]:
        for thread in self._threads:
            thread.start()
        try:
            yield self
        finally:
            self._ended.set()
            for thread in self._threads:
                thread.join()
        self.check()

    def check(self) -> None:
        if self._errors:
            raise self._errors[0]

    def go_on(self, transfers: int = 100) -> None:
        """Wait until so many more are acknowledged."""
        before = len(self.acknowledged)

        def are_done() -> bool:
            self.check()
            return len(self.acknowledged) >= before + transfers

        wait_for(are_done, seconds=LONG)


def audit(agents: Sequence[AgentHandle], bank: Bank) -> None:
    """Money is conserved, and every transfer is there once, on both sides."""

    def books() -> list[tuple[str, int, list[Any]]]:
        found: list[tuple[str, int, list[Any]]] = gather(
            [agent.read("audit") for agent in agents], timeout=LONG
        )
        return found

    # What was withdrawn last may be on its way still.
    wait_for(lambda: sum(balance for _, balance, _ in books()) == FIRST * ACCOUNTS)
    entries: Counter[tuple[str, str, int]] = Counter()
    for agent, (_, balance, log) in zip(agents, books(), strict=True):
        assert balance == FIRST + sum(amount for _, amount in log)
        entries.update((agent.id, op, amount) for op, amount in log)
    assert set(entries.values()) <= {1}, "one took effect twice"
    wanted = set()
    for op, source, target, amount in bank.acknowledged:
        name = f"{op}>{target}"
        wanted |= {(source, name, -amount), (target, name, amount)}
    assert len(bank.acknowledged) > 200
    assert set(entries) == wanted


@contextmanager
def site(folder: pathlib.Path, *, nanny: bool) -> Iterator[tuple[Any, ...]]:
    variables = {"DASK_DSPEX__LEASE": "1.0"}
    with ExitStack() as stack:
        scheduler = stack.enter_context(
            SchedulerProcess(f"sqlite:///{folder}/journal.db", variables=variables)
        )
        workers = [
            stack.enter_context(WorkerProcess(scheduler.address, nanny=nanny)) for _ in range(3)
        ]
        foundation = stack.enter_context(dspex.connect(scheduler.address))
        wait_for(lambda: len(up(foundation)) == 3)
        yield scheduler, workers, foundation


def up(foundation: Foundation) -> list[str]:
    return [member.address for member in foundation.members() if member.state == "up"]


def opened(foundation: Foundation) -> list[AgentHandle]:
    specs = [
        {"cls": Account, "id": f"account-{n}", "args": (FIRST,), "persistence": "durable"}
        for n in range(ACCOUNTS)
    ]
    return create_agents(specs, foundation=foundation)


def restart_scheduler(scheduler: SchedulerProcess, workers: Sequence[WorkerProcess]) -> None:
    scheduler.kill()
    for worker in workers:
        if worker.is_alive():
            worker.kill()
    scheduler.start()
    scheduler.wait_until_up()
    for worker in workers:
        worker.start()


def test_money_is_conserved_over_a_kill_and_a_restart_of_the_scheduler(
    tmp_path: pathlib.Path,
) -> None:
    with site(tmp_path, nanny=False) as (scheduler, workers, foundation):
        agents = opened(foundation)
        with Bank(scheduler.address).open() as bank:
            bank.go_on()
            workers[0].kill()
            bank.go_on()
            restart_scheduler(scheduler, workers)
            bank.go_on()
            workers[1].kill()
            bank.go_on()
        audit(agents, bank)


def kill_process(nanny: WorkerProcess) -> None:
    """Kill the worker of a nanny, which starts it again."""
    for child in psutil.Process(nanny.pid).children():
        if "spawn_main" in " ".join(child.cmdline()):
            child.kill()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_money_is_conserved_over_everything(tmp_path: pathlib.Path) -> None:
    dice = random.Random(1)
    with site(tmp_path, nanny=True) as (scheduler, workers, foundation):
        agents = opened(foundation)
        with Bank(scheduler.address).open() as bank:
            bank.go_on()
            for number in range(30):
                kill_process(dice.choice(workers))
                bank.go_on()
                wait_for(lambda: len(up(foundation)) == len(workers))
                foundation.rebalance()
                bank.go_on()
                if number % 10 == 3:
                    assert len(foundation.rolling_restart()) == len(workers)
                    wait_for(lambda: len(up(foundation)) == len(workers))
                elif number % 10 == 7:
                    restart_scheduler(scheduler, workers)
                    bank.go_on()
                    wait_for(lambda: len(up(foundation)) == len(workers))
        audit(agents, bank)
