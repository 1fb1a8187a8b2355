"""Messages from agents to agents, in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

import dspex
from dspex.agents import Agent, AgentHandle, create_agent, gather
from dspex.agents.bridge import coordinate_agents
from dspex.errors import (
    AgentNotFoundError,
    InvalidArgumentError,
    UnsupportedGuaranteeError,
)
from dspex.foundation import Foundation
from dspex.testing.probe import wait_for


class Clerk(Agent):
    """Keeps its letters, and may pass them on."""

    def on_message(self, message: Any, sender: AgentHandle | None) -> Any:
        if message == "raise":
            raise ValueError("not this one")
        self.state["letters"] = [*self.state.get("letters", []), (message, sender)]
        return len(self.state["letters"])

    def pass_on(self, to: Any, message: Any, *, fails: bool = False, **options: Any) -> bool:
        future = coordinate_agents(self.id, to, message, **options)
        self.state["passed"] = self.state.get("passed", 0) + 1
        is_done = future.done()
        if fails:
            raise RuntimeError("after the message")
        return is_done

    async def ask(self, to: Any, message: Any) -> Any:
        return await coordinate_agents(self.id, to, message, reply=True)

    def letters(self) -> list[Any]:
        return list(self.state.get("letters", []))


class Deaf(Agent):
    """Takes no messages."""

    def help(self) -> None:
        """Do nothing."""


class Broken(Agent):
    """Has an error of its own that looks like a missing method."""

    def on_message(self, message: Any, sender: Any) -> Any:
        return object().on_massage  # type: ignore[attr-defined]


@pytest.fixture
def foundation() -> Iterator[Foundation]:
    with dspex.connect("local") as foundation:
        yield foundation


@pytest.fixture
def clerks(foundation: Foundation) -> list[AgentHandle]:
    options: dict[str, Any] = {"persistence": "cluster_replicated", "foundation": foundation}
    return [create_agent(Clerk, id=f"clerk-{n}", **options) for n in range(2)]


def test_a_message_of_a_user_has_no_sender(clerks: list[AgentHandle]) -> None:
    clerk = clerks[0]
    for sender in (None, "client"):
        future = coordinate_agents(sender, clerk, "letter")
        assert future.result(60) is None
    assert clerk.letters().result(60) == [("letter", None)] * 2


def test_the_sender_comes_as_a_handle_and_the_reply_goes_to_the_caller(
    clerks: list[AgentHandle],
) -> None:
    boss, clerk = clerks
    assert coordinate_agents(boss, clerk, {"a": 1}, reply=True).result(60) == 1
    assert coordinate_agents(boss.id, clerk.id, {"a": 2}, reply=True).result(60) == 2
    assert clerk.letters().result(60) == [({"a": 1}, boss), ({"a": 2}, boss)]


@pytest.mark.parametrize("delivery", ["auto", "at_most_once", "at_least_once", "exactly_once"])
@pytest.mark.parametrize("reply", [True, False])
def test_every_delivery_gives_a_future(
    clerks: list[AgentHandle], delivery: str, reply: bool
) -> None:
    boss, clerk = clerks
    options: dict[str, Any] = {"delivery": delivery, "reply": reply}
    future = coordinate_agents(boss, clerk, "letter", timeout="1 minute", **options)
    assert future.result(60) == (1 if reply else None)
    assert "clerk-1.on_message" in repr(future)


def test_errors_are_those_of_the_future(foundation: Foundation, clerks: list[AgentHandle]) -> None:
    boss, clerk = clerks
    with pytest.raises(ValueError, match="not this one"):
        coordinate_agents(boss, clerk, "raise").result(60)
    with pytest.raises(AgentNotFoundError):
        coordinate_agents(boss, "nobody", "letter").result(60)
    fleeting = create_agent(Clerk, foundation=foundation)
    with pytest.raises(UnsupportedGuaranteeError, match="exactly_once"):
        coordinate_agents(boss, fleeting, "letter", delivery="exactly_once").result(60)
    deaf = create_agent(Deaf, id="deaf", foundation=foundation)
    future = coordinate_agents(boss, deaf, "letter")
    with pytest.raises(InvalidArgumentError, match=r"on_message.*'deaf' has no such method"):
        future.result(60)
    broken = create_agent(Broken, foundation=foundation)
    with pytest.raises(AttributeError, match="on_massage"):
        coordinate_agents(boss, broken, "letter").result(60)


def test_wrong_arguments_are_refused_at_the_door(clerks: list[AgentHandle]) -> None:
    boss, clerk = clerks
    with pytest.raises(InvalidArgumentError, match="handle or its id"):
        coordinate_agents(boss, 7, "letter")
    with pytest.raises(InvalidArgumentError, match="handle or its id"):
        coordinate_agents("", clerk, "letter")
    with pytest.raises(InvalidArgumentError, match="delivery"):
        coordinate_agents(boss, clerk, "letter", delivery="twice")


def test_in_an_agent_a_message_leaves_with_the_commit(clerks: list[AgentHandle]) -> None:
    boss, clerk = clerks
    assert boss.pass_on(clerk, "letter").result(60) is True
    wait_for(lambda: clerk.letters().result(60))
    with pytest.raises(RuntimeError, match="after the message"):
        boss.pass_on(clerk, "never", fails=True).result(60)
    assert boss.pass_on(clerk.id, "last").result(60) is True
    wait_for(lambda: len(clerk.letters().result(60)) == 2)
    assert clerk.letters().result(60) == [("letter", boss), ("last", boss)]
    with pytest.raises(InvalidArgumentError, match="leave it out"):
        boss.pass_on(clerk, "letter", timeout=3).result(60)


def test_in_an_agent_an_answer_can_be_awaited(clerks: list[AgentHandle]) -> None:
    boss, clerk = clerks
    assert gather([boss.ask(clerk, n) for n in range(3)], timeout=60) == [1, 2, 3]
    assert clerk.letters().result(60) == [(n, boss) for n in range(3)]


def test_async_code_awaits_it(clerks: list[AgentHandle]) -> None:
    async def send() -> Any:
        return await coordinate_agents(None, clerks[0], "letter", reply=True)

    assert asyncio.run(send()) == 1
