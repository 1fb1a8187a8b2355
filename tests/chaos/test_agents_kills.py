"""Workers and schedulers are killed and paused under agents: what was acknowledged is kept, each
call takes effect as often as it was promised to, and a former incarnation has none."""

from __future__ import annotations

import os
import pathlib
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest

import dspex
from dspex.agents import (
    AgentHandle,
    Placement,
    RestartPolicy,
    create_agent,
    create_agents,
    gather,
    list_agents,
)
from dspex.errors import (
    AgentFailedError,
    AgentLostError,
    DeadlineError,
    DeliveryError,
    InvalidRequestError,
    StateNotFoundError,
)
from dspex.foundation.handles.foundation import Foundation
from dspex.testing.agents import Counter, Meddler, Plain, Ticking, entered, release
from dspex.testing.agents_traffic import Traffic
from dspex.testing.probe import wait_for
from dspex.testing.processes import SchedulerProcess, WorkerProcess

pytestmark = pytest.mark.chaos

KEPT = "cluster_replicated"
LONG = 60
LEASE = 1.0


class Site:
    """A scheduler and workers, each a process to be harmed."""

    def __init__(
        self, foundation: Foundation, scheduler: SchedulerProcess, workers: Sequence[WorkerProcess]
    ) -> None:
        self.foundation = foundation
        self.scheduler = scheduler
        self.workers = workers
        self.create: Callable[..., AgentHandle] = partial(create_agent, foundation=foundation)

    @property
    def up(self) -> list[str]:
        return [each.address for each in self.foundation.members() if each.state == "up"]

    def revive(self) -> None:
        """Start what is dead, and wait until all are members."""
        for worker in self.workers:
            if not worker.is_alive():
                worker.start()
        wait_for(lambda: len(self.up) == len(self.workers))

    def worker_of(self, agent: AgentHandle) -> WorkerProcess:
        pid = agent.pid().result(LONG)
        return next(worker for worker in self.workers if worker.pid == pid)

    def worker_at(self, address: str) -> WorkerProcess:
        """By its log, as an agent there may be too busy to be asked."""
        return next(worker for worker in self.workers if f"{address}\n" in worker.log)

    def many(self, *, persistence: str | None = KEPT, count: int = 30) -> list[AgentHandle]:
        """Agents all over the workers."""
        specs = [
            {"cls": cls, "id": f"{cls.__name__}-{n}", "persistence": persistence}
            for n in range(count // 2)
            for cls in (Counter, Plain)
        ]
        agents = create_agents(specs, foundation=self.foundation)
        assert {row["host"] for row in list_agents(self.foundation)} == set(self.up)
        return agents

    def clear(self) -> None:
        space = self.foundation.namespace
        for row in list_agents(self.foundation):
            AgentHandle(f"{space}:{row['id']}", row["name"]).stop(drain=False)
        wait_for(lambda: list_agents(self.foundation) == [])


@pytest.fixture(scope="module")
def module_site() -> Iterator[Site]:
    variables = {"DASK_DSPEX__LEASE": str(LEASE)}
    with ExitStack() as stack:
        scheduler = stack.enter_context(SchedulerProcess(variables=variables))
        workers = [stack.enter_context(WorkerProcess(scheduler.address)) for _ in range(3)]
        foundation = stack.enter_context(dspex.connect(scheduler.address, namespace="kills"))
        yield Site(foundation, scheduler, workers)


@pytest.fixture
def site(module_site: Site) -> Iterator[Site]:
    module_site.revive()
    yield module_site
    module_site.clear()


def check_counts(agents: Sequence[AgentHandle], traffic: Traffic) -> None:
    assert gather([agent.read() for agent in agents], timeout=LONG) == traffic.counts


# --- workers ---------------------------------------------------------------------------------


def test_a_killed_worker_loses_nothing_that_is_kept(site: Site) -> None:
    agents = site.many()
    with Traffic(agents) as traffic:
        traffic.during(site.worker_of(agents[0]).kill)
    check_counts(agents, traffic)


def test_volatile_agents_of_a_killed_worker_begin_afresh(site: Site) -> None:
    agents = site.many(persistence=None)
    gather([agent.add(5) for agent in agents], timeout=LONG)
    victim = site.worker_of(agents[0])
    pids = gather([agent.pid() for agent in agents], timeout=LONG)
    died = victim.pid
    victim.kill()
    wait_for(lambda: len(site.up) == 2)
    calls = [agent.call("add", delivery="at_least_once") for agent in agents]
    answers = gather(calls, timeout=LONG)
    assert answers == [1 if pid == died else 6 for pid in pids]


def test_two_workers_killed_at_once(site: Site) -> None:
    agents = site.many()
    with Traffic(agents) as traffic:
        traffic.go_on()
        for worker in site.workers[:2]:
            worker.send(signal.SIGKILL)
        for worker in site.workers[:2]:
            worker.wait()
        traffic.go_on()
        assert len(site.up) == 1
    check_counts(agents, traffic)


def test_a_worker_killed_during_the_failover_to_it(site: Site) -> None:
    agents = site.many(count=200)
    with Traffic(agents) as traffic:
        traffic.go_on(2)
        first, second, _ = site.workers
        first.kill()
        # Now, or soon, the second one makes the agents of the first.
        wait_for(lambda: len(site.up) == 2)
        second.kill()
        traffic.go_on()
    check_counts(agents, traffic)


def test_killed_workers_that_nannies_start_again(cluster_of: Callable[[int], Any]) -> None:
    with dspex.connect(cluster_of(2)) as foundation:
        wait_for(lambda: {m.state for m in foundation.members()} == {"up"})
        wait_for(lambda: len(foundation.members()) == 2)
        specs = [{"cls": Counter, "id": f"c{n}", "persistence": KEPT} for n in range(20)]
        agents = create_agents(specs, foundation=foundation)
        with Traffic(agents) as traffic:
            for agent in agents[:2]:
                before = agent.restored().result(LONG)
                os.kill(agent.pid().result(LONG), signal.SIGKILL)
                traffic.go_on()
                assert agent.restored().result(LONG) > before
        check_counts(agents, traffic)


@pytest.mark.parametrize("resumes", ["before the call has ended", "after it"])
def test_a_paused_worker_has_no_effect_any_more(
    site: Site, tmp_path: pathlib.Path, resumes: str
) -> None:
    agents = site.many()
    agent = site.create(Counter, id="under way", persistence=KEPT)
    home = agent.worker
    paused = site.worker_of(agent)
    call = agent.hang(str(tmp_path), "gate")
    wait_for(partial(entered, tmp_path, "gate"))
    (tmp_path / "gate.entered").unlink()
    with Traffic(agents) as traffic:
        traffic.go_on()
        paused.send(signal.SIGSTOP)
        # The call is made again where the agent lives now.
        wait_for(partial(entered, tmp_path, "gate"))
        assert agent.worker not in ("", home)
        traffic.go_on()
        if resumes == "after it":
            release(tmp_path, "gate")
            assert call.result(LONG) == "gate"
            assert agent.add().result(LONG) == 2
            paused.send(signal.SIGCONT)
        else:
            paused.send(signal.SIGCONT)
            release(tmp_path, "gate")
            assert call.result(LONG) == "gate"
            assert agent.add().result(LONG) == 2
        # It is a member again, and what its former self has done is nowhere.
        wait_for(lambda: len(site.up) == 3)
        traffic.go_on()
        assert agent.read().result(LONG) == 2
        agent.migrate(home).result(LONG)
        wait_for(lambda: agent.worker == home)
        assert agent.read().result(LONG) == 2
        assert agent.pid().result(LONG) == paused.pid
    check_counts(agents, traffic)


def test_a_call_that_is_made_again_takes_effect_as_often_as_promised(
    site: Site, tmp_path: pathlib.Path
) -> None:
    for delivery in ("at_most_once", "at_least_once", "exactly_once"):
        agent = site.create(Counter, id=delivery, persistence=KEPT)
        agent.add().result(LONG)
        call = agent.call("hang", (str(tmp_path), f"gate {delivery}"), delivery=delivery)
        wait_for(partial(entered, tmp_path, f"gate {delivery}"))
        site.worker_at(agent.worker).kill()
        release(tmp_path, f"gate {delivery}")
        if delivery == "at_most_once":
            with pytest.raises(DeliveryError, match="not known"):
                call.result(LONG)
            assert agent.read().result(LONG) == 1
        else:
            assert call.result(LONG) == f"gate {delivery}"
            assert agent.read().result(LONG) == 2
        site.revive()


def test_a_call_that_an_agent_makes_is_made_once(site: Site, tmp_path: pathlib.Path) -> None:
    counter = site.create(Counter, id="called", persistence=KEPT)
    meddler = site.create(
        Meddler, id="calls", persistence=KEPT, placement=Placement.same_as(counter)
    )
    # The counter is at something, so the meddler's call waits for it when both die.
    hanging = counter.hang(str(tmp_path), "gate")
    wait_for(partial(entered, tmp_path, "gate"))
    asked = [meddler.ask_async(counter, 1) for _ in range(3)]
    meddler_sends = meddler.send(counter, 1, 2, 3)
    wait_for(lambda: counter.status()["load"] > 0)
    site.worker_at(counter.worker).kill()
    release(tmp_path, "gate")
    assert hanging.result(LONG) == "gate"
    assert gather(asked, timeout=LONG) == [2, 3, 4]
    assert meddler_sends.result(LONG) is None
    wait_for(lambda: counter.notes().result(LONG) == [1, 2, 3])
    assert meddler.made().result(LONG) == 4
    assert counter.read().result(LONG) == 4


def test_a_call_that_was_late_before_the_kill_stays_without_effect(
    site: Site, tmp_path: pathlib.Path
) -> None:
    agent = site.create(Counter, id="late", persistence=KEPT)
    victim = site.worker_of(agent)
    hanging = agent.hang(str(tmp_path), "gate")
    wait_for(partial(entered, tmp_path, "gate"))
    late = agent.call("add", (100,), timeout=0.3)
    given_up = agent.add(1000)
    with pytest.raises(DeadlineError):
        late.result(LONG)
    wait_for(lambda: agent.status()["load"] == 1)
    given_up.cancel()
    wait_for(lambda: agent.status()["load"] == 0)
    victim.kill()
    release(tmp_path, "gate")
    assert hanging.result(LONG) == "gate"
    assert agent.add().result(LONG) == 2


def test_timers_go_on_elsewhere(site: Site) -> None:
    agent = site.create(Ticking, id="ticks", persistence=KEPT)
    agent.begin(0.05, "tick").result(LONG)
    wait_for(lambda: len(agent.notes().result(LONG)) > 2)
    site.worker_of(agent).kill()
    count = len(agent.notes().result(LONG))
    wait_for(lambda: len(agent.notes().result(LONG)) > count + 2)


# --- policies --------------------------------------------------------------------------------


def test_without_failover_it_is_lost_with_its_worker(site: Site) -> None:
    agent = site.create(Counter, id="none", persistence=KEPT, failover="none")
    agent.add(3).result(LONG)
    lost = agent.worker
    site.worker_at(lost).kill()
    with pytest.raises(AgentLostError, match='failover is "none"'):
        agent.add().result(LONG)
    assert agent.status()["status"] == "lost"
    with pytest.raises(InvalidRequestError, match="lost"):
        site.foundation.state_store.recover_from_failure(lost, "none")
    agent.stop(drain=False).result(LONG)
    assert site.create(Counter, id="none", persistence=KEPT).add().result(LONG) == 1


def test_failover_on_request(site: Site) -> None:
    make = partial(site.create, Counter, failover="manual")
    manual = make(id="manual", persistence=KEPT)
    same = Placement.same_as(manual)
    second = make(id="second", persistence=KEPT, placement=same)
    fresh = make(id="fresh", placement=same)
    gather([each.add(3) for each in (manual, second, fresh)], timeout=LONG)
    lost = manual.worker
    site.worker_of(manual).kill()
    wait_for(lambda: lost not in site.up)
    waits = manual.add()
    with pytest.raises(DeadlineError):
        second.call("add", timeout=0.2).result(LONG)
    assert not waits.done()
    recover = site.foundation.state_store.recover_from_failure
    report = recover(lost, "manual")
    assert (report.agents, report.failed) == (("manual",), {})
    assert (report.source, report.lost_writes, report.copies_used) == ("scheduler", 0, 1)
    assert waits.result(LONG) == 4
    with pytest.raises(InvalidRequestError):
        recover(lost, "manual")
    report = recover(lost)
    assert sorted(report.agents) == ["fresh", "second"]
    assert report.lost_writes is None
    assert second.add().result(LONG) == 4
    assert fresh.add().result(LONG) == 1


def test_a_policy_ends_what_takes_down_one_worker_after_the_other(site: Site) -> None:
    class Deadly:
        def die(self) -> None:
            import os
            import signal

            os.kill(os.getpid(), signal.SIGKILL)

    policy = RestartPolicy(max_restarts=1, within="10 minutes")
    agent = site.create(Deadly, id="deadly", persistence=KEPT, restart=policy)
    bystander = site.create(Counter, id="bystander", persistence=KEPT)
    bystander.add().result(LONG)
    call = agent.die()
    with pytest.raises(AgentFailedError, match="as often as its policy allows"):
        call.result(LONG)
    assert agent.status()["status"] == "failed"
    assert len(site.up) == 1
    assert bystander.add().result(LONG) == 2
    with pytest.raises(AgentFailedError):
        agent.die().result(LONG)


# --- the scheduler ---------------------------------------------------------------------------


def restart_all(
    scheduler: SchedulerProcess, workers: Sequence[WorkerProcess], *, do_end: bool
) -> None:
    """Kill the scheduler, and the workers or let them end of it, and start all again."""
    scheduler.kill()
    for worker in workers:
        worker.wait() if do_end else worker.kill()
    scheduler.start()
    scheduler.wait_until_up()
    for worker in workers:
        worker.start()


@pytest.mark.parametrize(
    ("kills", "do_end"), [(1, False), pytest.param(4, True, marks=pytest.mark.slow)]
)
def test_a_killed_scheduler_comes_back_with_every_acknowledged_call(
    tmp_path: pathlib.Path, kills: int, do_end: bool
) -> None:
    with (
        SchedulerProcess(f"sqlite:///{tmp_path}/journal.db") as scheduler,
        WorkerProcess(scheduler.address) as first,
        WorkerProcess(scheduler.address) as second,
        dspex.connect(scheduler.address) as foundation,
    ):
        wait_for(lambda: len(foundation.members()) == 2)
        create = partial(create_agent, foundation=foundation)
        specs = [
            {"cls": cls, "id": f"{cls.__name__}-{n}", "persistence": "durable"}
            for n in range(10)
            for cls in (Counter, Plain)
        ]
        agents = create_agents(specs, foundation=foundation)
        replicated = create(Counter, id="replicated", persistence=KEPT)
        ticking = create(Ticking, id="ticking", persistence="durable")
        ticking.begin(0.05, "tick").result(LONG)
        replicated.add().result(LONG)
        with Traffic(agents) as traffic:
            for _ in range(kills):
                traffic.during(partial(restart_all, scheduler, (first, second), do_end=do_end))
        check_counts(agents, traffic)
        assert foundation.status()["term"] == kills + 1
        with pytest.raises(StateNotFoundError, match="memory of a scheduler"):
            replicated.add().result(LONG)
        replicated.stop(drain=False).result(LONG)
        assert create(Counter, id="replicated", persistence=KEPT).add().result(LONG) == 1
        count = len(ticking.notes().result(LONG))
        wait_for(lambda: len(ticking.notes().result(LONG)) > count)
