"""Tasks in parts on a real cluster, of which workers are killed in the middle."""

from __future__ import annotations

import os
import pathlib
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from distributed import Client

import dspex
from dspex.agents import Agent, AgentHandle, Placement, create_agent, create_agents
from dspex.agents.bridge import coordinate_agents
from dspex.agents.task_result import TaskResult
from dspex.agents.tasks import distribute_task
from dspex.errors import AgentLostError, DeliveryError, TaskFailedError
from dspex.foundation import Foundation
from dspex.testing.clusters import local_cluster
from dspex.testing.probe import wait_for

pytestmark = pytest.mark.chaos

KEPT: dict[str, Any] = {"persistence": "cluster_replicated"}


def made_here() -> Any:
    """Classes that travel by value: a test's module is not there on a worker."""

    class Doer(Agent):
        def __init__(self, folder: str, cost: float | None = None) -> None:
            self._folder = pathlib.Path(folder)
            self._cost = cost

        def pid(self) -> int:
            return os.getpid()

        def on_task(self, part: str) -> tuple[str, str]:
            with (self._folder / "log").open("a") as log:
                log.write(f"{part} {self.id}\n")
            while part.startswith("hold") and not (self._folder / "release").exists():
                time.sleep(0.005)
            self.state["parts"] = [*self.state.get("parts", []), part]
            return part, self.id

        def parts(self) -> list[str]:
            return list(self.state.get("parts", []))

        def bid(self, part: str) -> float | None:
            return self._cost

        def on_message(self, message: Any, sender: Any) -> Any:
            self.state["letters"] = [*self.state.get("letters", []), (message, sender.id)]
            return self.state["letters"]

        async def distribute(self, workers: Sequence[str], parts: Sequence[str]) -> Any:
            result = await distribute_task(None, workers, parts, split=list)  # type: ignore[misc]
            return result.results

        def write_to(self, other: str) -> None:
            coordinate_agents(self.id, other, "a letter")

    return Doer


@pytest.fixture
def foundation() -> Iterator[Foundation]:
    make: Any = Client
    with (
        local_cluster(3) as cluster,
        make(cluster, set_as_default=False) as client,
        dspex.connect(client) as foundation,
    ):
        yield foundation


@pytest.fixture
def doers(foundation: Foundation, tmp_path: pathlib.Path) -> Callable[..., list[AgentHandle]]:
    """Make three, one on each worker."""

    def make(**options: Any) -> list[AgentHandle]:
        places = sorted(each.address for each in foundation.members())
        specs = [
            {
                "cls": made_here(),
                "args": (str(tmp_path), [3.0, None, 2.0][n]),
                "id": f"doer-{n}",
                "placement": Placement.pinned(places[n]),
                **options,
            }
            for n in range(3)
        ]
        return create_agents(specs, foundation=foundation)

    return make


def log_of(folder: pathlib.Path) -> list[str]:
    log = folder / "log"
    return log.read_text().splitlines() if log.exists() else []


def kill(agent: AgentHandle) -> None:
    os.kill(agent.pid().result(60), signal.SIGKILL)


class InTheBackground:
    """A task that another thread waits for."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._outcome: list[TaskResult | Exception] = []
        self._thread = threading.Thread(target=self._run, args=(args, options))
        self._thread.start()

    def _run(self, args: Any, options: Any) -> None:
        try:
            self._outcome.append(distribute_task(*args, **options))
        except Exception as error:
            self._outcome.append(error)

    def result(self) -> TaskResult:
        self._thread.join(100)
        (outcome,) = self._outcome
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


PARTS = ["hold a", "hold b", "c", "d"]


def killed_while_busy(
    coordinator: Any, agents: list[AgentHandle], folder: pathlib.Path, **options: Any
) -> TaskResult:
    """Kill the worker of doer-1 while that is at a part."""
    pid = agents[1].pid().result(60)
    task = InTheBackground(coordinator, agents, PARTS, split=list, assign="round_robin", **options)
    wait_for(lambda: {"hold a doer-0", "hold b doer-1", "c doer-2"} <= set(log_of(folder)))
    os.kill(pid, signal.SIGKILL)
    if options.get("on_failure") != "raise":
        wait_for(lambda: sum(line.startswith("hold b") for line in log_of(folder)) == 2)
    (folder / "release").touch()
    return task.result()


@pytest.mark.parametrize("coordinated", [False, True])
def test_the_part_of_a_killed_worker_goes_to_another(
    foundation: Foundation,
    doers: Callable[..., list[AgentHandle]],
    tmp_path: pathlib.Path,
    coordinated: bool,
) -> None:
    agents = doers(failover="none")
    boss = None
    if coordinated:
        boss = create_agent(
            made_here(),
            args=(str(tmp_path),),
            placement=Placement.same_as("doer-0"),
            foundation=foundation,
            **KEPT,
        )
    result = killed_while_busy(boss, agents, tmp_path)
    assert [part for part, _ in result.results] == PARTS
    assert result.failed == {}
    assert result.attempts == {0: 1, 1: 2, 2: 1, 3: 1}
    assert result.assigned[1] != "doer-1"


def test_the_loss_of_a_worker_may_be_an_error(
    doers: Callable[..., list[AgentHandle]], tmp_path: pathlib.Path
) -> None:
    agents = doers(failover="none")
    with pytest.raises(TaskFailedError) as caught:
        killed_while_busy(None, agents, tmp_path, on_failure="raise")
    assert isinstance(caught.value.causes["doer-1"], DeliveryError | AgentLostError)


def test_a_kept_agent_goes_on_with_its_part_elsewhere(
    foundation: Foundation, tmp_path: pathlib.Path
) -> None:
    options = {"placement": "spread", **KEPT}
    specs = [
        {"cls": made_here(), "args": (str(tmp_path),), "id": f"doer-{n}", **options}
        for n in range(3)
    ]
    agents = create_agents(specs, foundation=foundation)
    result = killed_while_busy(None, agents, tmp_path)
    assert result.assigned == {0: "doer-0", 1: "doer-1", 2: "doer-2", 3: "doer-0"}
    assert set(result.attempts.values()) == {1}
    assert agents[1].parts().result(60) == ["hold b"]


def test_an_auction_and_a_broadcast(doers: Callable[..., list[AgentHandle]]) -> None:
    agents = doers(**KEPT)
    sold = distribute_task(None, agents, ["x", "y"], split=list, assign="auction")
    assert sold.assigned == {0: "doer-2", 1: "doer-2"}
    assert sold.results == [("x", "doer-2"), ("y", "doer-2")]
    news = distribute_task(None, agents, "news", assign="broadcast")
    assert news.results == {each.id: ("news", each.id) for each in agents}


def test_a_coordinator_that_is_killed_goes_on_and_repeats_nothing(
    foundation: Foundation, doers: Callable[..., list[AgentHandle]], tmp_path: pathlib.Path
) -> None:
    agents = doers(**KEPT)
    boss = create_agent(
        made_here(), args=(str(tmp_path),), id="boss", foundation=foundation, **KEPT
    )
    third = agents[2].worker
    boss.migrate(third).result(60)
    wait_for(lambda: boss.worker == third)
    parts = ["hold a", "b", "c", "d"]
    task = InTheBackground("boss", agents[:2], parts, split=list, assign="round_robin")
    keys = ":0", ":1", ":2", ":3"

    def kept() -> int:
        return sum(key.endswith(keys) for key in boss.state().result(60))

    # "c" waits behind "hold a", in the same mailbox.
    wait_for(lambda: log_of(tmp_path)[:1] and kept() == 2)
    kill(boss)
    wait_for(lambda: boss.worker not in ("", third))
    assert kept() == 2, "what was kept survives"
    (tmp_path / "release").touch()
    result = task.result()
    assert [part for part, _ in result.results] == parts
    assert set(result.attempts.values()) == {1}
    assert Counter(log_of(tmp_path)) == Counter(
        ["hold a doer-0", "b doer-1", "c doer-0", "d doer-1"]
    )
    assert agents[0].parts().result(60) == ["hold a", "c"]
    assert agents[1].parts().result(60) == ["b", "d"]
    wait_for(lambda: not boss.state().result(60))


def test_an_agent_on_a_worker_distributes_and_writes_letters(
    doers: Callable[..., list[AgentHandle]],
) -> None:
    agents = doers(**KEPT)
    ids = [each.id for each in agents[1:]]
    parts = ["a", "b", "c"]
    assert [part for part, _ in agents[0].distribute(ids, parts).result(60)] == parts
    agents[0].write_to("doer-1").result(60)
    wait_for(lambda: "letters" in agents[1].state().result(60))
    reply = coordinate_agents("doer-2", "doer-1", "another", reply=True)
    assert reply.result(60) == [("a letter", "doer-0"), ("another", "doer-2")]
