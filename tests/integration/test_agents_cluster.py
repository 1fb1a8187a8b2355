"""Agents on a real cluster: from every kind of code, on every worker, beside Dask's own work."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import importlib
import operator
import pathlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from distributed import Client

import dspex
from dspex.agents import (
    AgentHandle,
    Placement,
    RestartPolicy,
    as_completed,
    create_agent,
    create_agents,
    gather,
    get_agent,
    list_agents,
    wait,
)
from dspex.errors import (
    AgentFailedError,
    AgentNotFoundError,
    InvalidRequestError,
    UnsatisfiableRequestError,
)
from dspex.foundation.handles.foundation import Foundation
from dspex.testing.agents import Counter, Meddler, Plain, Worker, entered, release
from dspex.testing.agents_suite import KEPT, LONG, AgentsConformance, Create
from dspex.testing.agents_suite_lives import LivesConformance
from dspex.testing.clusters import local_cluster
from dspex.testing.probe import wait_for

CORES = 2


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with local_cluster(3, threads=CORES) as cluster:
        yield cluster


@pytest.fixture
def space(request: pytest.FixtureRequest) -> str:
    """A namespace of the test's own."""
    return hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:12]


@pytest.fixture
def foundation(client: Any, space: str) -> Iterator[Foundation]:
    with dspex.connect(client, namespace=space) as foundation:
        yield foundation
        stops = [
            get_agent(row["id"], foundation=foundation).stop(drain=False)
            for row in list_agents(foundation)
        ]
        gather(stops, timeout=LONG)


@pytest.fixture
def create(foundation: Foundation) -> Create:
    return partial(create_agent, foundation=foundation)


def addresses(foundation: Foundation) -> list[str]:
    return [member.address for member in foundation.members()]


class TestAgentsOnACluster(AgentsConformance):
    pass


class TestLivesOnACluster(LivesConformance):
    pass


# --- creation, placement ---------------------------------------------------------------------


def test_a_class_that_workers_do_not_have_is_an_error_and_leaves_nothing(
    create: Create,
    foundation: Foundation,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "only_the_client_has_it.py").write_text("class Mine:\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    mine = importlib.import_module("only_the_client_has_it").Mine
    for options in ({}, {"persistence": KEPT}):
        with pytest.raises(AgentFailedError, match="No module named 'only_the_client_has_it'"):
            create(mine, id="mine", **options)
        assert list_agents(foundation) == []


def test_a_class_of_the_script_travels_by_value(create: Create) -> None:
    class Mine:
        def __init__(self) -> None:
            self.n = 0

        def add(self) -> int:
            self.n += 1
            return self.n

    agent = create(Mine, persistence=KEPT)
    assert [agent.add().result(LONG) for _ in range(3)] == [1, 2, 3]


@pytest.mark.parametrize(
    "placement",
    [
        "any_node",
        "least_loaded",
        "least_loaded_node",
        "spread",
        "round_robin",
        "random",
        "compute_nodes",
        "memory_nodes",
        "pack",
    ],
)
def test_every_placement_places(foundation: Foundation, placement: str) -> None:
    specs = [{"cls": Counter, "id": f"p{n}", "placement": placement} for n in range(30)]
    agents = create_agents(specs, foundation=foundation)
    hosts = [row["host"] for row in list_agents(foundation)]
    assert set(hosts) <= set(addresses(foundation))
    if placement in ("spread", "round_robin", "least_loaded", "least_loaded_node"):
        assert sorted(map(hosts.count, set(hosts))) == [10, 10, 10]
    elif placement == "pack":
        assert len(set(hosts)) == 1
    elif placement in ("any_node", "random"):
        assert len(set(hosts)) == 3
    assert gather([agent.add() for agent in agents], timeout=LONG) == [1] * 30


def test_a_place_of_ones_own(create: Create, foundation: Foundation) -> None:
    first, second, third = foundation.members()
    pinned = create(Counter, id="pinned", placement=Placement.pinned(second))
    assert pinned.worker == second.address
    named = create(Counter, placement=Placement.pinned(third.name))
    assert named.worker == third.address
    beside = create(Counter, placement=Placement.same_as(pinned))
    assert beside.worker == second.address
    chosen = create(Counter, placement=lambda members: members[0])
    assert chosen.worker == first.address
    assert len({each.pid().result(LONG) for each in (pinned, beside)}) == 1


def test_resources_are_leased_while_it_lives(create: Create, foundation: Foundation) -> None:
    whole = {"cpu_cores": CORES}
    agents = [create(Counter, id=f"r{n}", resources=whole) for n in range(3)]
    assert {agent.worker for agent in agents} == set(addresses(foundation))
    used = foundation.resources.usage("kind")["agent"]
    assert used["cpu_cores"] == 3 * CORES
    moved_to = agents[1].worker
    agents[1].stop().result(LONG)
    with foundation.resources.acquire("fit", cpu_cores=CORES, timeout=LONG) as lease:
        assert lease.worker == moved_to
        making = client_thread(lambda: create(Counter, id="r3", resources=whole))
        wait_for(lambda: any(row["status"] == "waiting" for row in list_agents(foundation)))
    late = making()
    assert late.worker == moved_to
    with pytest.raises(UnsatisfiableRequestError):
        create(Counter, resources={"cpu_cores": CORES + 1})
    with pytest.raises(UnsatisfiableRequestError):
        create(Counter, resources={"labels": "gpu"})


def client_thread(work: Callable[[], Any]) -> Callable[[], Any]:
    """Do something beside; gives what waits for it."""
    from concurrent.futures import ThreadPoolExecutor

    pool = ThreadPoolExecutor(1)
    future = pool.submit(work)
    pool.shutdown(wait=False)
    return partial(future.result, LONG)


def test_options_of_the_restart_go_with_the_failover(create: Create) -> None:
    policy = RestartPolicy(max_restarts=2, within="1 minute")
    assert create(Counter, restart=policy, failover="manual").add().result(LONG) == 1
    with pytest.raises(ValueError, match="never restarts"):
        create(Counter, restart=policy, failover="none")


# --- from every kind of code -----------------------------------------------------------------


def test_async_code_awaits_the_same_names(cluster: Any, space: str) -> None:
    async def work() -> None:
        make: Any = Client
        async with make(
            cluster.scheduler_address, asynchronous=True, set_as_default=False
        ) as client:
            connecting: Any = dspex.connect(client, namespace=space)
            async with await connecting as foundation:
                create: Any = partial(create_agent, foundation=foundation)
                agent = await create(Counter, id="a", persistence=KEPT)
                assert await agent.add() == 1
                assert await gather([agent.add() for _ in range(5)]) == [2, 3, 4, 5, 6]
                many: Any = create_agents(
                    [{"cls": Plain, "id": f"m{n}"} for n in range(5)], foundation=foundation
                )
                assert await gather([each.add() for each in await many]) == [1] * 5
                found: Any = get_agent("a", foundation=foundation)
                assert await found == agent
                assert (await agent.status())["status"] == "running"
                home = await agent.worker
                others = [m.address for m in await foundation.members() if m.address != home]
                assert await agent.migrate(others[0])
                assert await agent.add() == 7
                assert await agent.worker == others[0]
                async for future in as_completed([agent.add()]):
                    assert await future == 8
                assert (await agent.state())["n"] == 8
                rows: Any = list_agents(foundation)
                assert len(await rows) == 6
                assert await agent.stop() is True
                with pytest.raises(AgentNotFoundError):
                    await agent.add()

    asyncio.run(work())


def test_tasks_use_handles_and_create_agents(
    client: Any, create: Create, foundation: Foundation, space: str
) -> None:
    agent = create(Counter, id="shared", persistence=KEPT)

    def add(handle: AgentHandle, by: int) -> int:
        answer: int = handle.add(by).result(timeout=60)
        return answer

    futures = [client.submit(add, agent, 1, pure=False) for _ in range(20)]
    assert sorted(client.gather(futures)) == list(range(1, 21))

    def make(space: str) -> Any:
        from dspex.agents import create_agent, get_agent
        from dspex.testing.agents import Counter

        made = create_agent(Counter, id="of a task", namespace=space, args=(5,))
        assert get_agent("shared", namespace=space).add().result(timeout=60) == 21
        return made

    made = client.submit(make, space, pure=False).result(timeout=LONG)
    assert made.add().result(LONG) == 6
    assert get_agent("of a task", foundation=foundation) == made


def test_agents_call_and_create_agents_across_workers(
    create: Create, foundation: Foundation
) -> None:
    homes = addresses(foundation)
    counters = [
        create(Counter, persistence=KEPT, placement=Placement.pinned(home)) for home in homes
    ]
    meddlers = [
        create(Meddler, persistence=KEPT, placement=Placement.pinned(home)) for home in homes
    ]
    for method in ("ask", "ask_async"):
        calls = [m.call(method, (c, 1)) for m in meddlers for c in counters]
        gather(calls, timeout=LONG)
    assert gather([c.read() for c in counters], timeout=LONG) == [6, 6, 6]
    gather([m.send(c, 1, 2, 3) for m in meddlers for c in counters], timeout=LONG)
    wait_for(lambda: [len(c.notes().result(LONG)) for c in counters] == [9, 9, 9])
    made = [
        m.make(f"child of {n}", placement=Placement.pinned(homes[n - 1])).result(LONG)
        for n, m in enumerate(meddlers)
    ]
    assert [each.worker for each in made] == [homes[n - 1] for n in range(3)]
    assert gather([each.add() for each in made], timeout=LONG) == [8] * 3


def test_turns_use_the_dask_around_them(client: Any, create: Create) -> None:
    agent = create(Worker)
    assert agent.address().result(LONG) == agent.address_async().result(LONG) == agent.worker
    numbers = client.submit(list, range(5), pure=False)
    calls = [agent.call(each, (numbers,)) for each in ("total", "total_async")]
    assert gather(calls, timeout=LONG) == [10, 10]


def test_a_study_in_a_turn_starts_no_cluster(client: Any, create: Create) -> None:
    before = set(client.scheduler_info()["workers"])
    agent = create(Worker)
    assert 0.0 <= agent.least().result(LONG) < 1.0
    assert set(client.scheduler_info()["workers"]) == before


def test_answers_of_agents_and_of_dask_are_waited_for_together(client: Any, create: Create) -> None:
    agents = [create(Counter, persistence=KEPT) for _ in range(3)]
    squares = client.map(lambda n: n * n, range(3), pure=False)
    mixed = [
        each for pair in zip([a.add(5) for a in agents], squares, strict=True) for each in pair
    ]
    assert gather(mixed, timeout=LONG) == [5, 0, 5, 1, 5, 4]
    assert wait(mixed, timeout=LONG).not_done == set()
    assert set(as_completed(mixed, timeout=LONG)) == set(mixed)
    added = client.submit(operator.add, agents[0].add().as_dask(client), squares[2])
    assert added.result(timeout=LONG) == 10


def test_a_second_client_reaches_the_same_agents(cluster: Any, create: Create, space: str) -> None:
    agent = create(Counter, id="a", persistence=KEPT)
    agent.add().result(LONG)
    with dspex.connect(cluster.scheduler_address, namespace=space) as other:
        found = get_agent("a", foundation=other)
        assert found == agent
        assert found.add().result(LONG) == 2
        doomed = create_agent(Counter, id="b", foundation=other)
        assert doomed.add().result(LONG) == 1
    # It does not end with the connection that made it.
    assert doomed.add().result(LONG) == 2
    assert agent.add().result(LONG) == 3


# --- what people see -------------------------------------------------------------------------


def test_every_worker_shows_its_host_as_an_actor(
    client: Any, create: Create, foundation: Foundation, space: str
) -> None:
    homes = addresses(foundation)
    for n, home in enumerate(homes):
        create(Counter, id=f"a{n}", placement=Placement.pinned(home))

    def actors(dask_scheduler: Any) -> dict[str, list[str]]:
        return {
            address: [str(each.key) for each in worker.actors]
            for address, worker in dask_scheduler.workers.items()
        }

    wait_for(
        lambda: client.run_on_scheduler(actors) == {home: [f"dspex-host-{home}"] for home in homes}
    )

    def told(dask_worker: Any) -> Any:
        host = dask_worker.state.actors[f"dspex-host-{dask_worker.address}"]
        return host.status(), host.agents()

    for n, home in enumerate(homes):
        status, agents = client.run(told, workers=[home])[home]
        assert status["address"] == home
        assert status["agents"] == len(agents)
        assert f"{space}:a{n}" in agents


def test_status_tells_how_many_are_where(create: Create, foundation: Foundation) -> None:
    homes = addresses(foundation)
    before = dict(foundation.status())["agents"]["hosts"]
    for home in homes[:2]:
        create(Counter, placement=Placement.pinned(home))
    after = dict(foundation.status())["agents"]["hosts"]
    told = [after.get(home, 0) - before.get(home, 0) for home in homes]
    assert told == [1, 1, 0]


def is_at(agent: AgentHandle, home: str) -> bool:
    found: str = agent.worker
    return found == home


# --- moves -----------------------------------------------------------------------------------


@pytest.mark.parametrize("persistence", [None, KEPT])
@pytest.mark.parametrize("cls", [Counter, Plain])
def test_it_moves_with_its_state_under_traffic(
    create: Create, foundation: Foundation, cls: type, persistence: str | None
) -> None:
    agent = create(cls, persistence=persistence)
    first, first_home = agent.pid().result(LONG), agent.worker
    answers = []
    homes = addresses(foundation)
    for home in (*homes, *homes):
        calls = [agent.add() for _ in range(20)]
        assert agent.migrate(home).result(LONG)
        calls += [agent.add() for _ in range(20)]
        answers += gather(calls, timeout=LONG)
        wait_for(partial(is_at, agent, home))
    assert answers == list(range(1, 241))
    agent.migrate(homes[0]).result(LONG)
    if agent.worker == first_home:
        assert agent.pid().result(LONG) == first


def test_a_move_waits_for_the_call_that_is_under_way(
    create: Create, foundation: Foundation, tmp_path: pathlib.Path
) -> None:
    agent = create(Counter, persistence=KEPT)
    home = agent.worker
    under_way = agent.hang(str(tmp_path), "gate")
    wait_for(partial(entered, tmp_path, "gate"))
    target = next(each for each in addresses(foundation) if each != home)
    moved = agent.migrate(target)
    later = agent.add()
    assert agent.worker == home
    assert not moved.done()
    release(tmp_path, "gate")
    assert under_way.result(LONG) == "gate"
    assert later.result(LONG) == 2
    assert moved.result(LONG)
    assert agent.worker == target
    assert agent.restored().result(LONG) == 1


def test_it_moves_nowhere_but_to_a_worker(create: Create) -> None:
    agent = create(Counter)
    home = agent.worker
    with pytest.raises(InvalidRequestError, match="no member"):
        agent.migrate("tcp://127.0.0.1:9").result(LONG)
    assert agent.add().result(LONG) == 1
    agent.stop().result(LONG)
    with pytest.raises(AgentNotFoundError):
        agent.migrate(home).result(LONG)


def test_what_a_worker_holds_of_the_users_is_not_frozen() -> None:
    with local_cluster(2) as running, Client(running) as client:
        one, other = client.scheduler_info()["workers"]
        held = client.submit(list, "abc", workers=[one])
        assert held.result() == ["a", "b", "c"]
        with dspex.connect(client):
            frozen = client.run(gc.get_freeze_count)
            assert frozen[one] == 0 < frozen[other]
