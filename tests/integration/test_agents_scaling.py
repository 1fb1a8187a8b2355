"""Workers come and go by every door, in order; agents live on with their states, under traffic."""

from __future__ import annotations

import concurrent.futures
import pathlib
import signal
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from dask import config

import dspex
from dspex.agents import AgentHandle, create_agent, create_agents, gather, list_agents
from dspex.errors import DeliveryError, InvalidArgumentError, UnavailableError
from dspex.foundation.handles.foundation import Foundation
from dspex.testing.agents import Counter, Plain, entered, release
from dspex.testing.agents_suite import KEPT, LONG
from dspex.testing.agents_traffic import Traffic
from dspex.testing.clusters import local_cluster
from dspex.testing.probe import wait_for
from dspex.testing.processes import SchedulerProcess, WorkerProcess

EACH = 12


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with local_cluster(3) as cluster:
        yield cluster


@pytest.fixture
def foundation(client: Any, cluster: Any, request: pytest.FixtureRequest) -> Iterator[Foundation]:
    """Of three workers that are up."""
    cluster.scale(3)
    with dspex.connect(client, namespace=request.node.name) as foundation:
        wait_for(lambda: len(ups(foundation)) == 3)
        yield foundation
        for row in list_agents(foundation):
            AgentHandle(f"{foundation.namespace}:{row['id']}", row["name"]).stop(drain=False)
        wait_for(lambda: list_agents(foundation) == [])


def ups(foundation: Foundation) -> list[str]:
    return [member.address for member in foundation.members() if member.state == "up"]


def some(
    foundation: Foundation, persistences: tuple[str | None, ...] = (None, KEPT)
) -> list[AgentHandle]:
    """Agents of every kind, all over the cluster."""
    specs = [
        {"cls": cls, "id": f"{cls.__name__}-{persistence}-{n}", "persistence": persistence}
        for n in range(EACH)
        for cls in (Counter, Plain)
        for persistence in persistences
    ]
    agents = create_agents(specs, foundation=foundation)
    assert set(hosts(foundation)) == set(ups(foundation))
    return agents


def hosts(foundation: Foundation) -> list[str]:
    return [row["host"] for row in list_agents(foundation)]


def check_counts(agents: list[AgentHandle], traffic: Traffic) -> None:
    assert gather([agent.read() for agent in agents], timeout=LONG) == traffic.counts


# --- in order --------------------------------------------------------------------------------


def test_retired_workers_lose_nobody(cluster_of: Callable[[int], Any]) -> None:
    client = cluster_of(3)
    with dspex.connect(client) as foundation:
        wait_for(lambda: len(ups(foundation)) == 3)
        agents = some(foundation)
        first, second, third = ups(foundation)
        with Traffic(agents) as traffic:
            traffic.during(lambda: client.retire_workers([first, second]))
            assert set(hosts(foundation)) == {third} == set(ups(foundation))
        check_counts(agents, traffic)


@pytest.mark.slow
def test_a_cluster_that_scales_down_and_up_loses_nobody(
    cluster: Any, foundation: Foundation
) -> None:
    agents = some(foundation)
    with Traffic(agents) as traffic:
        traffic.during(lambda: cluster.scale(1))
        wait_for(lambda: len(ups(foundation)) == 1)
        assert set(hosts(foundation)) == set(ups(foundation))
        traffic.during(lambda: cluster.scale(3))
        wait_for(lambda: len(ups(foundation)) == 3)
        foundation.rebalance()
        wait_for(lambda: len(set(hosts(foundation)) - {""}) == 3)
        traffic.go_on()
    check_counts(agents, traffic)


def test_drained_workers_have_none_until_it_is_undone(foundation: Foundation) -> None:
    agents = some(foundation)
    first, *others = ups(foundation)
    with Traffic(agents) as traffic:
        assert traffic.during(lambda: foundation.drain(first))
        assert set(hosts(foundation)) == set(others)
        more = create_agents([{"cls": Counter, "id": f"m{n}"} for n in range(9)])
        assert set(hosts(foundation)) == set(others)
        foundation.drain(first, undo=True)
        wait_for(lambda: first in ups(foundation))
        foundation.rebalance()
        wait_for(lambda: first in hosts(foundation))
        traffic.go_on()
    check_counts(agents, traffic)
    assert gather([each.add() for each in more], timeout=LONG) == [1] * 9


def test_rebalance_moves_what_it_says(foundation: Foundation) -> None:
    agents = some(foundation)
    assert foundation.rebalance() == []
    first, *_ = ups(foundation)
    foundation.drain(first)
    foundation.drain(first, undo=True)
    wait_for(lambda: len(ups(foundation)) == 3)
    before = hosts(foundation)
    planned = foundation.rebalance(dry_run=True)
    assert planned
    assert {move.target for move in planned} == {first}
    assert hosts(foundation) == before
    assert foundation.rebalance(max_moves=0) == []
    with Traffic(agents) as traffic:
        begun = traffic.during(lambda: foundation.rebalance(max_moves=2))
        assert begun == planned[:2]
        wait_for(lambda: hosts(foundation).count(first) == 2)
        assert foundation.rebalance() == planned[2:]
        wait_for(lambda: hosts(foundation).count(first) == len(planned))
        assert foundation.rebalance(dry_run=True) == []
        traffic.go_on()
    check_counts(agents, traffic)


def test_a_rolling_restart_loses_nobody(foundation: Foundation) -> None:
    agents = some(foundation)
    before = set(gather([agent.pid() for agent in agents], timeout=LONG))
    with Traffic(agents) as traffic:
        done = traffic.during(foundation.rolling_restart)
    assert len(done) == 3
    assert {each.after for each in done} == set(ups(foundation))
    check_counts(agents, traffic)
    assert not before & set(gather([agent.pid() for agent in agents], timeout=LONG))


@pytest.mark.parametrize("waits", [True, False])
def test_a_retirement_waits_for_a_turn_as_long_as_the_configuration_says(
    cluster_of: Callable[[int], Any], tmp_path: pathlib.Path, waits: bool
) -> None:
    client = cluster_of(2)
    with (
        config.set({"dspex.agents.leave-within": None if waits else "100ms"}),
        dspex.connect(client) as foundation,
        concurrent.futures.ThreadPoolExecutor() as threads,
    ):
        wait_for(lambda: len(ups(foundation)) == 2)
        agent = create_agent(Counter, foundation=foundation)
        call = agent.hang(str(tmp_path), "turn")
        wait_for(lambda: entered(tmp_path, "turn"))
        worker = agent.worker
        retiring = threads.submit(client.retire_workers, [worker])
        if waits:
            wait_for(lambda: worker not in ups(foundation))
            assert not retiring.done()
            release(tmp_path, "turn")
            assert call.result(LONG) == "turn"
        assert list(retiring.result(LONG)) == [worker]
        assert agent.add().result(LONG) == (2 if waits else 1)
        if not waits:
            with pytest.raises(DeliveryError):
                call.result(LONG)


def test_a_bound_that_is_none_is_refused_before_anything_is_installed(
    cluster_of: Callable[[int], Any],
) -> None:
    with (
        config.set({"dspex.agents.leave-within": "soon"}),
        pytest.raises(InvalidArgumentError, match=r"dspex\.agents\.leave-within"),
    ):
        dspex.connect(cluster_of(1))


def test_one_worker_alone_is_not_restarted(client: Any, cluster_of: Callable[[int], Any]) -> None:
    with (
        dspex.connect(cluster_of(1)) as foundation,
        pytest.raises(UnavailableError, match="add one"),
    ):
        foundation.rolling_restart()


@pytest.mark.slow
def test_a_restart_of_the_client_keeps_what_is_kept(client: Any, foundation: Foundation) -> None:
    agents = some(foundation)
    for _ in range(3):
        gather([agent.add() for agent in agents], timeout=LONG)
    client.restart()
    answers = gather([agent.add() for agent in agents], timeout=LONG)
    for agent, answer in zip(agents, answers, strict=True):
        if agent.status()["persistence"] is not None:
            assert answer == 4
        else:  # it moved before its worker ended, or began afresh
            assert answer in (1, 4)


# --- processes of their own ------------------------------------------------------------------


def leaving(
    make: Callable[[str], WorkerProcess],
    tell: Callable[[WorkerProcess], Any],
    *persistences: str | None,
) -> None:
    """Have one of two workers leave, and check that nobody is lost."""
    with (
        SchedulerProcess() as scheduler,
        WorkerProcess(scheduler.address),
        dspex.connect(scheduler.address) as foundation,
    ):
        wait_for(lambda: len(ups(foundation)) == 1)
        (stays,) = ups(foundation)
        with make(scheduler.address) as worker:
            wait_for(lambda: len(ups(foundation)) == 2)
            agents = some(foundation, persistences)
            with Traffic(agents) as traffic:
                traffic.go_on()
                tell(worker)
                wait_for(lambda: ups(foundation) == [stays])
                wait_for(lambda: set(hosts(foundation)) == {stays})
                traffic.go_on()
            check_counts(agents, traffic)
            worker.wait()


@pytest.mark.slow
def test_a_worker_whose_life_is_over_loses_nobody() -> None:
    worker = partial(WorkerProcess, options=("--lifetime", "4 s"))
    leaving(worker, lambda worker: None, None, KEPT)


@pytest.mark.slow
@pytest.mark.parametrize("nanny", [True, False])
def test_a_worker_that_is_told_to_end_loses_nobody(nanny: bool) -> None:
    worker = partial(WorkerProcess, nanny=nanny)
    leaving(worker, lambda worker: worker.send(signal.SIGTERM), None, KEPT)


def test_agents_of_the_last_worker_wait_for_another(cluster_of: Callable[[int], Any]) -> None:
    client = cluster_of(1)
    with dspex.connect(client) as foundation:
        wait_for(lambda: len(ups(foundation)) == 1)
        kept, volatile = create_agents(
            [
                {"cls": Counter, "id": "kept", "persistence": KEPT},
                {"cls": Counter, "id": "volatile"},
            ],
            foundation=foundation,
        )
        gather([kept.add(5), volatile.add(5)], timeout=LONG)
        cluster = client.cluster
        cluster.scale(0)
        wait_for(lambda: not cluster.workers)
        assert {kept.status()["status"], volatile.status()["status"]} == {"waiting"}
        later = kept.add(), volatile.add()
        cluster.scale(1)
        assert gather(*later, timeout=LONG) == [6, 6]
