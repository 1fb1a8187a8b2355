"""Calls that are made again, of agents in this process."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import dspex
from dspex.agents import Agent, AgentHandle, create_agent
from dspex.agents.retrying import RetryPolicy
from dspex.errors import (
    AgentNotFoundError,
    DeadlineError,
    InvalidArgumentError,
    UnavailableError,
)
from dspex.foundation import Foundation

AT_ONCE = RetryPolicy(attempts=3, backoff=0)
LATER = RetryPolicy(attempts=3, backoff=1e6, most=1e6)
calls: dict[str, int] = {}
gate = threading.Event()


class Shaky(Agent):
    """Counts what is undone, too."""

    def go(self, name: str, failures: int, error: type[Exception] = ValueError) -> int:
        calls[name] = calls.get(name, 0) + 1
        if calls[name] <= failures:
            raise error(f"failure {calls[name]}")
        self.state["done"] = self.state.get("done", 0) + 1
        return calls[name]

    def hold(self) -> None:
        assert gate.wait(60)

    async def ask(self, other: AgentHandle, name: str) -> int:
        found: int = await other.call("go", (name, 1), retry=AT_ONCE)
        self.state["found"] = found
        return found


@pytest.fixture
def foundation() -> Iterator[Foundation]:
    calls.clear()
    gate.clear()
    with dspex.connect("local") as foundation:
        yield foundation


@pytest.fixture
def shaky(foundation: Foundation) -> AgentHandle:
    return create_agent(Shaky, id="shaky", persistence="cluster_replicated", foundation=foundation)


def test_a_call_is_made_again_until_it_succeeds(shaky: AgentHandle) -> None:
    assert shaky.call("go", ("a", 2), retry=AT_ONCE).result(60) == 3
    assert shaky.state().result(60)["done"] == 1


def test_the_last_error_is_the_one(shaky: AgentHandle) -> None:
    future = shaky.call("go", ("a", 9), retry=AT_ONCE)
    with pytest.raises(ValueError, match="failure 3") as caught:
        future.result(60)
    assert "in the agent" in caught.value.__notes__[0]
    assert calls == {"a": 3}


def test_what_is_not_to_be_retried_is_not(shaky: AgentHandle) -> None:
    policy = RetryPolicy(attempts=5, backoff=0, retry_on=(KeyError, OSError))
    with pytest.raises(ValueError, match="failure 1"):
        shaky.call("go", ("a", 9), retry=policy).result(60)
    assert shaky.call("go", ("b", 2, KeyError), retry=policy).result(60) == 3
    assert calls == {"a": 1, "b": 3}


def test_errors_of_the_way_there_count_too(foundation: Foundation, shaky: AgentHandle) -> None:
    nobody = AgentHandle(":nobody", "Shaky", shaky._runtime)
    for policy in (AT_ONCE, RetryPolicy(attempts=1)):
        with pytest.raises(AgentNotFoundError):
            nobody.call("go", ("a", 0), retry=policy).result(60)


def test_a_success_is_not_opened_on_the_way(shaky: AgentHandle) -> None:
    assert shaky.call("go", ("a", 0), retry=AT_ONCE).result(60) == 1
    assert repr(shaky.call("go", ("b", 0), retry=AT_ONCE)).startswith("<AgentFuture shaky.go")


def test_a_deadline_bounds_all_attempts(shaky: AgentHandle) -> None:
    # The next attempt would be later than the deadline: its error is there at once.
    with pytest.raises(ValueError, match="failure 1"):
        shaky.call("go", ("a", 9), retry=LATER, timeout=1000).result(60)


def test_a_call_is_cancelled_while_it_waits_for_its_next_attempt(shaky: AgentHandle) -> None:
    future = shaky.call("go", ("a", 9), retry=LATER)
    shaky.call("go", ("b", 0)).result(60)  # after the first attempt
    assert not future.done()
    assert future.cancel()
    assert future.cancelled()
    assert calls == {"a": 1, "b": 1}


def test_a_connection_that_closes_ends_the_waiting() -> None:
    with dspex.connect("local") as foundation:
        shaky = create_agent(Shaky, foundation=foundation)
        future = shaky.call("go", ("closing", 9), retry=LATER)
        shaky.call("go", ("b", 0)).result(60)
    with pytest.raises(UnavailableError):
        future.result(60)


def test_in_an_agent_a_call_is_retried_too(foundation: Foundation, shaky: AgentHandle) -> None:
    other = create_agent(Shaky, id="other", persistence="cluster_replicated", foundation=foundation)
    assert other.ask(shaky, "a").result(60) == 2
    assert other.state().result(60) == {"found": 2}


def test_with_an_idempotency_key_it_is_retried_too(shaky: AgentHandle) -> None:
    for _ in range(2):
        again = shaky.call("go", ("a", 2), idempotency_key="k", retry=AT_ONCE)
        assert again.result(60) == 3
    assert calls == {"a": 3}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attempts": 0}, "attempts"),
        ({"attempts": True}, "attempts"),
        ({"backoff": -1}, "backoff"),
        ({"factor": 0.5}, "factor"),
        ({"most": float("inf")}, "most"),
        ({"retry_on": "ValueError"}, "retry_on"),
        ({"retry_on": (ValueError, 3)}, "retry_on"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        RetryPolicy(**options)


def test_a_policy_is_a_value() -> None:
    policy = RetryPolicy(attempts=2, retry_on=KeyError)
    assert pickle.loads(pickle.dumps(policy)) == policy
    assert list(RetryPolicy(attempts=1).waits()) == []
    assert list(RetryPolicy(attempts=3, backoff=20).waits()) == [10.0, 10.0]


def test_what_is_never_answered_ends_at_the_deadline(shaky: AgentHandle) -> None:
    held = shaky.hold()
    try:
        with pytest.raises(DeadlineError):
            shaky.call("go", ("a", 0), retry=AT_ONCE, timeout=0.05).result(60)
    finally:
        gate.set()
    held.result(60)
