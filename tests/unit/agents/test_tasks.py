"""Tasks in parts, given to agents in this process."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

import dspex
from dspex.agents import Agent, AgentHandle, coordinating, create_agent, create_agents
from dspex.agents.task_result import TaskResult
from dspex.agents.tasks import distribute_task
from dspex.errors import (
    AgentNotFoundError,
    DeadlineError,
    InvalidArgumentError,
    TaskFailedError,
    UnsupportedGuaranteeError,
)
from dspex.foundation import Foundation
from dspex.testing.probe import wait_for

gates: dict[str, threading.Event] = {}
entered: list[str] = []


class Doer(Agent):
    """Does what a part says."""

    def __init__(self, cost: Any = 1.0) -> None:
        self._cost = cost

    def on_task(self, part: Any) -> Any:
        self.state["done"] = [*self.state.get("done", []), part]
        if part == f"not {self.id}" or part == "nobody":
            raise ValueError(f"{self.id} will not")
        if isinstance(part, str) and part in gates:
            entered.append(self.id)
            assert gates[part].wait(60)
        return sum(part) if isinstance(part, list | range) else (part, self.id)

    def bid(self, part: Any) -> Any:
        if self._cost == "raise":
            raise ValueError("no bid")
        return self._cost

    def done(self) -> list[Any]:
        return list(self.state.get("done", []))


class Boss(Agent):
    """Coordinates, and distributes."""

    async def have_done(self, workers: Sequence[Any], task: Any, **options: Any) -> Any:
        result = await distribute_task(None, workers, task, **options)  # type: ignore[misc]
        self.state["results"] = result.results
        return result.results

    def have_done_sync(self, workers: Sequence[Any], task: Any, **options: Any) -> Any:
        return distribute_task(None, workers, task, **options).results

    def by_myself(self, workers: Sequence[Any]) -> Any:
        return distribute_task(self.id, workers, "x")

    def renew(self) -> None:
        self.state = {"mine": 1}

    def without_driver(self) -> bool:
        """Be as one that lives on elsewhere: what is not kept is gone."""
        drivers = list(self._drivers.values())
        self._drivers.clear()
        for driver in drivers:
            driver.stop()
        return bool(drivers)


class Plain:
    """No Agent."""

    def on_task(self, part: Any) -> Any:
        return part


KEPT: dict[str, Any] = {"persistence": "cluster_replicated"}


@pytest.fixture
def foundation() -> Iterator[Foundation]:
    gates.clear()
    entered.clear()
    with dspex.connect("local") as foundation:
        yield foundation
        for gate in gates.values():
            gate.set()


@pytest.fixture
def doers(foundation: Foundation) -> list[AgentHandle]:
    specs = [{"cls": Doer, "id": f"doer-{n}", **KEPT} for n in range(3)]
    return create_agents(specs, foundation=foundation)


@pytest.fixture
def boss(foundation: Foundation) -> AgentHandle:
    return create_agent(Boss, id="boss", foundation=foundation, **KEPT)


@pytest.fixture(params=["caller", "coordinator"])
def owner(request: pytest.FixtureRequest, boss: AgentHandle) -> AgentHandle | None:
    return None if request.param == "caller" else boss


def listed(task: Sequence[Any]) -> list[Any]:
    return list(task)


# --- who gets what -------------------------------------------------------------------------------


def test_parts_come_back_in_their_order(owner: Any, doers: list[AgentHandle]) -> None:
    result = distribute_task(owner, doers, range(10), split=4, assign="round_robin")
    assert result == TaskResult(
        results=[3, 12, 13, 17],
        assigned={0: "doer-0", 1: "doer-1", 2: "doer-2", 3: "doer-0"},
        attempts=dict.fromkeys(range(4), 1),
    )
    assert repr(result) == "<TaskResult: 4 of 4 parts done by 3 workers in 4 attempts>"


def test_a_whole_task_is_one_part(owner: Any, doers: list[AgentHandle]) -> None:
    result = distribute_task(owner, [each.id for each in doers], {"a": 1})
    assert result.results == [({"a": 1}, "doer-0")]


def test_no_parts_are_done_at_once(owner: Any, doers: list[AgentHandle]) -> None:
    assert distribute_task(owner, doers, [], split=3).results == []


def test_who_has_least_before_it_gets_the_next(foundation: Foundation, doers: Any) -> None:
    gates["hold"] = threading.Event()
    held = [doers[0].on_task("hold") for _ in range(4)]
    # How much waits is told now and then.
    wait_for(lambda: doers[0].status()["load"] == 3)
    result = distribute_task(None, doers, "abcd", split=listed)
    assert [result.assigned[n] for n in range(4)] == ["doer-1", "doer-2"] * 2
    gates["hold"].set()
    assert [each.result(60) for each in held] == [("hold", "doer-0")] * 4


def test_the_same_part_goes_to_the_same_worker(owner: Any, doers: list[AgentHandle]) -> None:
    first = distribute_task(owner, doers, "abcdefgh", split=listed, assign="consistent_hash")
    again = distribute_task(owner, doers[::-1], "hgfedcba", split=listed, assign="consistent_hash")
    assert first.results == again.results[::-1]
    assert len(set(first.assigned.values())) > 1


def test_a_broadcast_goes_to_all(owner: Any, doers: list[AgentHandle]) -> None:
    result = distribute_task(owner, doers, "news", assign="broadcast")
    assert result.results == {each.id: ("news", each.id) for each in doers}
    assert result.assigned == {each.id: each.id for each in doers}
    refused = distribute_task(owner, doers, "not doer-1", assign="broadcast", on_failure="skip")
    assert refused.results["doer-1"] is None
    assert list(refused.failed) == ["doer-1"]
    with pytest.raises(TaskFailedError, match="doer-1 will not") as caught:
        distribute_task(owner, doers, "not doer-1", assign="broadcast")
    assert caught.value.result.results["doer-2"] == ("not doer-1", "doer-2")


def auction(foundation: Foundation, *costs: Any) -> list[AgentHandle]:
    specs = [
        {"cls": Doer, "args": (cost,), "id": f"bidder-{n}", **KEPT} for n, cost in enumerate(costs)
    ]
    return create_agents(specs, foundation=foundation)


def test_the_lowest_bid_wins(owner: Any, foundation: Foundation) -> None:
    bidders = auction(foundation, 3, "raise", 2, None, 2.0, float("-inf"))
    plain = create_agent(Plain, id="plain", foundation=foundation)
    result = distribute_task(owner, [*bidders, plain, "nobody"], "xy", split=2, assign="auction")
    assert result.assigned == {0: "bidder-2", 1: "bidder-2"}
    refused = distribute_task(owner, bidders, "not bidder-2", assign="auction")
    assert refused.assigned == {0: "bidder-4"}
    assert refused.attempts == {0: 2}


def test_where_nobody_bids_nobody_gets_it(owner: Any, foundation: Foundation) -> None:
    bidders = auction(foundation, None, "raise")
    with pytest.raises(TaskFailedError, match="none did for 0") as caught:
        distribute_task(owner, bidders, "x", assign="auction")
    assert caught.value.causes == {}
    assert caught.value.result.attempts == {0: 0}
    skipped = distribute_task(owner, bidders, "x", assign="auction", on_failure="skip")
    assert isinstance(skipped.failed[0], TaskFailedError)


def test_a_callable_chooses(owner: Any, doers: list[AgentHandle]) -> None:
    def choose(part: str, workers: Sequence[AgentHandle]) -> Any:
        return workers[-1] if part == "a" else workers[0].id

    result = distribute_task(owner, doers, ["a", "b", "not doer-0"], split=listed, assign=choose)
    assert result.assigned == {0: "doer-2", 1: "doer-0", 2: "doer-1"}
    with pytest.raises(InvalidArgumentError, match="one of the workers"):
        distribute_task(owner, doers, "x", assign=lambda part, workers: "somebody")

    def fail_at_last(part: str, workers: Sequence[AgentHandle]) -> Any:
        return {3: workers[0]}[len(workers)]

    with pytest.raises(KeyError):
        distribute_task(owner, doers, "nobody", assign=fail_at_last)


# --- failures ------------------------------------------------------------------------------------


def test_a_part_that_fails_goes_to_another(owner: Any, doers: list[AgentHandle]) -> None:
    parts = ["a", "not doer-1", "c"]
    result = distribute_task(owner, doers, parts, split=listed, assign="round_robin")
    assert result.results == [("a", "doer-0"), ("not doer-1", "doer-2"), ("c", "doer-2")]
    assert result.attempts == {0: 1, 1: 2, 2: 1}
    assert doers[1].done().result(60) == []


def test_each_worker_tries_once_and_the_error_has_all_causes(
    owner: Any, doers: list[AgentHandle]
) -> None:
    with pytest.raises(TaskFailedError, match="doer-1: ValueError: doer-1 will not") as caught:
        distribute_task(owner, doers, ["a", "nobody"], split=listed)
    assert {name: str(error) for name, error in caught.value.causes.items()} == {
        f"doer-{n}": f"doer-{n} will not" for n in range(3)
    }
    assert caught.value.result.results[0] == ("a", "doer-0")
    assert caught.value.result.attempts == {0: 1, 1: 3}
    copy = pickle.loads(pickle.dumps(caught.value))
    assert list(copy.causes) == list(caught.value.causes)
    assert "in the agent" in "".join(caught.value.causes["doer-0"].__notes__)


def test_the_first_failure_may_end_it(owner: Any, doers: list[AgentHandle]) -> None:
    gates["hold"] = threading.Event()
    with pytest.raises(TaskFailedError, match="doer-1 will not") as caught:
        distribute_task(
            owner,
            doers,
            ["hold", "not doer-1"],
            split=listed,
            assign="round_robin",
            on_failure="raise",
        )
    assert isinstance(caught.value.__cause__, ValueError)
    assert caught.value.result.results == [None, None]
    assert list(caught.value.result.failed) == [1]


def test_what_fails_may_be_left_out(owner: Any, doers: list[AgentHandle]) -> None:
    parts = ["a", "not doer-1", "c"]
    result = distribute_task(
        owner, doers, parts, split=listed, assign="round_robin", on_failure="skip"
    )
    assert result.results == [("a", "doer-0"), None, ("c", "doer-2")]
    assert isinstance(result.failed[1], ValueError)
    assert "failed: 1 (ValueError: doer-1 will not)" in repr(result)


def test_who_is_not_there_is_passed_over(
    owner: Any, foundation: Foundation, doers: list[AgentHandle]
) -> None:
    doers[0].stop().result(60)
    chosen = distribute_task(owner, doers, "abc", split=listed)
    assert set(chosen.assigned.values()) == {"doer-1", "doer-2"}
    assert chosen.attempts == dict.fromkeys(range(3), 1)
    given = distribute_task(owner, doers, "abc", split=listed, assign="round_robin")
    assert given.assigned == {0: "doer-1", 1: "doer-1", 2: "doer-2"}
    assert given.attempts == {0: 2, 1: 1, 2: 1}
    with pytest.raises(TaskFailedError) as caught:
        distribute_task(owner, ["nobody"], "x")
    assert isinstance(caught.value.causes["nobody"], AgentNotFoundError)


def test_plain_classes_are_workers_too(owner: Any, foundation: Foundation) -> None:
    plain = create_agent(Plain, foundation=foundation)
    assert distribute_task(owner, [plain], "x").results == ["x"]
    deaf = create_agent(dict, foundation=foundation)
    with pytest.raises(TaskFailedError, match="on_task"):
        distribute_task(owner, [deaf], "x")


def test_a_stopped_worker_hands_its_part_on(owner: Any, doers: list[AgentHandle]) -> None:
    gates["hold"] = threading.Event()
    results: list[TaskResult] = []
    thread = threading.Thread(
        target=lambda: results.append(
            distribute_task(owner, doers, ["hold", "b"], split=listed, assign="round_robin")
        )
    )
    thread.start()
    wait_for(lambda: entered == ["doer-0"])
    doers[0].stop(drain=False).result(60)
    wait_for(lambda: entered == ["doer-0", "doer-1"])
    gates["hold"].set()
    thread.join(60)
    assert results[0].results == [("hold", "doer-1"), ("b", "doer-1")]
    assert results[0].attempts == {0: 2, 1: 1}


def test_what_is_late_is_an_error_or_left_out(owner: Any, doers: list[AgentHandle]) -> None:
    gates["hold"] = threading.Event()
    options: dict[str, Any] = {"split": listed, "assign": "round_robin", "timeout": 2.0}
    with pytest.raises(DeadlineError, match=r"in the [12]\.\d+ s") as caught:
        distribute_task(owner, doers, ["hold", "b"], **options)
    assert vars(caught.value)["result"].results == [None, ("b", "doer-1")]
    result = distribute_task(owner, doers, ["hold", "b"], on_failure="skip", **options)
    assert result.results == [None, ("b", "doer-1")]
    assert isinstance(result.failed[0], DeadlineError)


# --- at the door ---------------------------------------------------------------------------------


def test_wrong_arguments_are_refused_at_the_door(
    foundation: Foundation, doers: list[AgentHandle], boss: AgentHandle
) -> None:
    for options, message in (
        ({"assign": "best"}, "assign is one of"),
        ({"on_failure": "ignore"}, "on_failure is one of"),
        ({"assign": "broadcast", "split": 2}, "the whole task"),
        ({"split": -1}, "split is"),
        ({"timeout": -1}, "timeout"),
    ):
        with pytest.raises(InvalidArgumentError, match=message):
            distribute_task(None, doers, "abc", **options)
    with pytest.raises(InvalidArgumentError, match="at least one worker"):
        distribute_task(boss, [], "x")
    with pytest.raises(InvalidArgumentError, match="handle or its id"):
        distribute_task(7, doers, "x")
    with pytest.raises(InvalidArgumentError, match="coordinator=None"):
        boss.by_myself(doers).result(60)


def test_a_coordinator_keeps_its_state(foundation: Foundation, doers: list[AgentHandle]) -> None:
    with pytest.raises(UnsupportedGuaranteeError, match="keeps its state"):
        distribute_task(create_agent(Boss, foundation=foundation), doers, "x")
    plain = create_agent(Plain, id="plain", foundation=foundation, **KEPT)
    with pytest.raises(InvalidArgumentError, match=r"'plain' is no dspex\.agents\.Agent"):
        distribute_task(plain, doers, "x")
    with pytest.raises(AgentNotFoundError):
        distribute_task("nobody", doers, "x")


# --- in agents -----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["have_done", "have_done_sync"])
def test_an_agent_distributes(method: str, boss: AgentHandle, doers: list[AgentHandle]) -> None:
    ids = [each.id for each in doers]
    future = boss.call(method, (ids, range(10)), {"split": 2, "assign": "round_robin"})
    assert future.result(60) == [10, 35]


def test_an_agent_has_no_longer_than_its_caller(boss: AgentHandle, doers: list[Any]) -> None:
    gates["hold"] = threading.Event()
    future = boss.call("have_done", (doers, "hold"), timeout=0.5)
    with pytest.raises(DeadlineError):
        future.result(60)


# --- what a coordinator keeps --------------------------------------------------------------------


def in_the_background(boss: AgentHandle, doers: list[AgentHandle], parts: Any) -> Any:
    results: list[Any] = []

    def work() -> None:
        results.append(distribute_task(boss, doers, parts, split=listed, assign="round_robin"))

    thread = threading.Thread(target=work)
    thread.start()
    return thread, results


def kept(boss: AgentHandle) -> dict[str, Any]:
    state: dict[str, Any] = boss.state().result(60)
    return {key: value for key, value in state.items() if key.startswith("dspex:")}


def test_a_coordinator_serves_others_meanwhile_and_keeps_nothing_after(
    boss: AgentHandle, doers: list[AgentHandle]
) -> None:
    gates["hold"] = threading.Event()
    thread, results = in_the_background(boss, doers, ["hold", "b"])
    wait_for(lambda: entered)
    boss.renew().result(60)
    assert boss.state().result(60)["mine"] == 1
    assert kept(boss)
    gates["hold"].set()
    thread.join(60)
    assert results[0].results == [("hold", "doer-0"), ("b", "doer-1")]
    wait_for(lambda: not kept(boss))
    assert boss.state().result(60) == {"mine": 1}


def test_who_goes_on_repeats_nothing(boss: AgentHandle, doers: list[AgentHandle]) -> None:
    gates["hold"] = threading.Event()
    thread, results = in_the_background(boss, doers, ["hold", "b", "c"])
    wait_for(lambda: entered)
    wait_for(lambda: sum(key.endswith((":1", ":2")) for key in kept(boss)) == 2)
    for _ in range(3):
        wait_for(lambda: boss.without_driver().result(60))
    gates["hold"].set()
    thread.join(60)
    assert results[0].results == [("hold", "doer-0"), ("b", "doer-1"), ("c", "doer-2")]
    assert entered == ["doer-0"]
    assert [each.done().result(60) for each in doers] == [["hold"], ["b"], ["c"]]


def test_a_task_goes_on_when_its_caller_is_gone(
    boss: AgentHandle, doers: list[AgentHandle], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coordinating, "TEND_EVERY", 0.01)
    monkeypatch.setattr(coordinating, "FORGET_AFTER", 0.01)
    from dspex.agents.tasks import _chosen, _Owned
    from dspex.agents.working import Plan
    from dspex.cluster.agents.resident import dumps

    runtime = boss._reached()
    workers = tuple((each._key, each._name) for each in doers)
    plan = Plan(workers=workers, parts=(dumps((("x",), {})),), loads={})
    owned = _Owned(boss)
    plan = runtime.run(_chosen(plan, runtime))
    owned._step("begin", dumps(plan)).result(60)
    wait_for(lambda: doers[0].done().result(60) == ["x"])
    wait_for(lambda: not kept(boss))
    assert owned._step("ask").result(60) == "unknown"


def test_nobody_else_calls_it(boss: AgentHandle) -> None:
    with pytest.raises(InvalidArgumentError, match="distribute_task"):
        boss.coordinate_task("dance").result(60)
    with pytest.raises(InvalidArgumentError, match="distribute_task"):
        Boss().coordinate_task("tend")
