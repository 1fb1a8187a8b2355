"""Agents in this process, without Dask."""

from __future__ import annotations

import asyncio
import pathlib
from collections.abc import Iterator
from functools import partial

import pytest

import dspex
from dspex.agents import AgentHandle, create_agent, create_agents, gather, get_agent, list_agents
from dspex.errors import (
    AgentNotFoundError,
    InvalidArgumentError,
    InvalidRequestError,
)
from dspex.foundation.handles.foundation import Foundation
from dspex.testing.agents import Counter, Grown, Meddler, Plain, Ticking
from dspex.testing.agents_suite import LONG, AgentsConformance
from dspex.testing.agents_suite_lives import LivesConformance
from dspex.testing.probe import wait_for


@pytest.fixture
def foundation() -> Iterator[Foundation]:
    with dspex.connect("local", namespace="mine") as foundation:
        yield foundation


class TestAgentsInThisProcess(AgentsConformance):
    pass


class TestLivesInThisProcess(LivesConformance):
    pass


def test_without_a_foundation_there_is_one_of_this_process() -> None:
    agent = create_agent(Counter, id="alone", distribution="local")
    try:
        assert agent.add().result(LONG) == 1
        again = create_agent(Counter, id="alone", distribution="local", on_conflict="existing")
        assert again.add().result(LONG) == 2
        assert agent.worker == "local"
        made = create_agent(Meddler, distribution="local").make("child").result(LONG)
        assert made.add().result(LONG) == 8
        made.stop().result(LONG)
    finally:
        agent.stop().result(LONG)


def test_async_code_creates_them_too() -> None:
    async def work() -> None:
        agent = create_agent(Counter, distribution="local")
        assert await gather([agent.add(), agent.add_async()]) == [1, 2]
        assert await agent.stop()

    asyncio.run(work())


def test_one_worker_is_moved_from_nowhere(foundation: Foundation) -> None:
    agent = create_agent(Counter, foundation=foundation)
    with pytest.raises(InvalidRequestError, match="no member"):
        agent.migrate("elsewhere").result(LONG)
    assert foundation.rebalance() == []
    with pytest.raises(InvalidArgumentError, match="connect to a cluster"):
        foundation.rolling_restart()
    assert agent.add().result(LONG) == 1


def test_a_foundation_that_is_closed_has_no_agents() -> None:
    with dspex.connect("local") as foundation:
        agent = create_agent(Counter, foundation=foundation)
        agent.add().result(LONG)
    with dspex.connect("local") as other:
        twin = create_agent(Counter, id=agent.id, foundation=other)
        with pytest.raises(InvalidArgumentError, match="closed"):
            agent.add()
        assert twin.read().result(LONG) == 0
    with pytest.raises(InvalidArgumentError, match="closed"):
        create_agent(Counter, foundation=foundation)


def test_a_handle_goes_on_with_another_foundation_of_its_ledger(tmp_path: pathlib.Path) -> None:
    journal = f"sqlite:///{tmp_path}/journal.db"
    with dspex.connect("local", journal=journal) as foundation:
        agent = create_agent(Counter, id="c", foundation=foundation, persistence="durable")
        assert agent.add().result(LONG) == 1
    with dspex.connect("local", journal=journal):
        assert agent.add().result(LONG) == 2


def check_it_ticks(ticking: AgentHandle) -> None:
    count = len(ticking.notes().result(LONG))
    wait_for(lambda: len(ticking.notes().result(LONG)) > count)


def test_durable_ones_are_there_again_with_the_journal(tmp_path: pathlib.Path) -> None:
    journal = f"sqlite:///{tmp_path}/journal.db"
    for begun in range(3):
        with dspex.connect("local", journal=journal) as foundation:
            create = partial(
                create_agent, foundation=foundation, persistence="durable", on_conflict="existing"
            )
            counter, plain = create(Counter, id="c"), create(Plain, id="p")
            ticking = create(Ticking, id="t")
            assert gather([counter.read(), plain.read()], timeout=LONG) == [begun * 2] * 2
            assert gather([counter.add(2), plain.add(2)], timeout=LONG) == [begun * 2 + 2] * 2
            assert counter.restored().result(LONG) == begun
            if not begun:
                ticking.begin(0.01, "tick").result(LONG)
            check_it_ticks(ticking)
            volatile = create_agent(Counter, id=f"v{begun}", foundation=foundation)
            assert volatile.add().result(LONG) == 1
            assert {"c", "p", "t"} <= {row["id"] for row in list_agents(foundation)}
    with dspex.connect("local", journal=journal) as foundation:
        get_agent("c", foundation=foundation).stop().result(LONG)
    with dspex.connect("local", journal=journal) as foundation, pytest.raises(AgentNotFoundError):
        get_agent("c", foundation=foundation)


def test_many_are_durable_at_once(tmp_path: pathlib.Path) -> None:
    journal = f"sqlite:///{tmp_path}/journal.db"
    specs = [{"cls": Counter, "id": f"c{n}", "persistence": "durable"} for n in range(300)]
    with dspex.connect("local", journal=journal) as foundation:
        agents = create_agents(specs, foundation=foundation)
        gather([agent.add(3) for agent in agents], timeout=LONG)
    with dspex.connect("local", journal=journal) as foundation:
        agents = [get_agent(f"c{n}", foundation=foundation) for n in range(300)]
        assert gather([agent.read() for agent in agents], timeout=LONG) == [3] * 300


def test_a_state_of_a_former_version_is_taken_along(tmp_path: pathlib.Path) -> None:
    journal = f"sqlite:///{tmp_path}/journal.db"
    with dspex.connect("local", journal=journal) as foundation:
        agent = create_agent(Grown, id="g", persistence="durable", foundation=foundation)
        agent.add(3).result(LONG)
    with dspex.connect("local", journal=journal) as foundation:
        agent = get_agent("g", foundation=foundation)
        state = agent.state().result(LONG)
        assert (state["n"], state.get("grown from")) == (3, None)
