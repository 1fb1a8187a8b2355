"""What the next scheduler finds of agents: from the journal, and from a snapshot."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dspex.foundation.ledger.agents import population
from dspex.foundation.ledger.ledger import Ledger
from dspex.foundation.ledger.wire import Call
from dspex.testing.agents_ledger import AgentsRun, facts

Again = Callable[[AgentsRun], Ledger]


def rich() -> AgentsRun:
    """A run with agents in every state."""
    run = AgentsRun()
    run.client()
    run.worker("a")
    run.running(":x", persistence="durable", capabilities=["fit"])
    run.running(":memory", persistence="cluster_replicated")
    run.running(":volatile")
    run.running(":manual", persistence="durable", failover="manual")
    run.running(":lost", persistence="durable", failover="none")
    run.running(":limited", persistence="durable", max_restarts=5)
    run.worker("b")
    run.commit(
        "a",
        run.turn(
            ":x",
            s={"n": b"1", "m": b"2"},
            r=["client", 3, 0, True, b"r", 7],
            o=[[1, ":volatile", "m", b"", ":x"]],
            n=1,
        ),
        run.turn(":x", d=["m"], r=["agent::manual", 1, 0, False, b"e", 7]),
        run.turn(":memory", s={"n": b"1"}),
    )
    run.close("a")
    run.dead("a")
    for key in (":x", ":memory", ":volatile", ":limited"):
        run.made(key)
    run.worker("c")
    run.running(":fenced", persistence="durable", worker="c")
    run.running(":gone", persistence="durable", worker="c")
    run.close("c")
    run.call("client", "agents.end", keys=[":gone"], reason="")
    run.create(":starting")
    run.create(":nowhere", worker="nobody")
    run.worker("d")
    run.call("client", "agents.move", keys=[":x"], target="d")
    run.call("client", "agents.move", keys=[":volatile"], target="")
    assert {run.status(key) for key in (":x", ":volatile")} == {"moving"}
    assert run.status(":manual") == run.status(":fenced") == "waiting"
    return run


@pytest.mark.parametrize("again", [AgentsRun.replayed, AgentsRun.restored])
def test_the_same_again(again: Again) -> None:
    run = rich()
    made = again(run)
    assert facts(made) == facts(run.ledger)
    known, there = made.agents._known, run.ledger.agents._known
    assert known.targets == there.targets
    assert known.fenced == there.fenced == {":fenced": "c"}
    assert set(known.capable("fit")) == {":x"}
    assert known.nowhere.keys() == there.nowhere.keys()


def test_a_snapshot_of_a_snapshot_is_the_same() -> None:
    made = rich().restored()
    again = Ledger(term=1)
    again.replay(1, list(made.dump()), 0.0)
    assert facts(again) == facts(made)
    assert list(again.dump()) == list(made.dump())


def test_senders_are_forgotten_after_a_snapshot_as_before_it() -> None:
    made = rich().restored()
    made.replay(2, [("gone", "client", "a test"), ("ended", "", "", [":manual"])], 0.0)
    made.validate()
    dedup = made.agents._known.agents[":x"].dedup
    assert dedup is not None
    assert list(dedup.senders()) == []
    assert made.agents._known._correspondents == {}


def test_many_are_told_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(population, "_IN_A_SNAPSHOT", 2)
    run = AgentsRun()
    run.client()
    run.worker("a")
    run.running(*[f":x{n}" for n in range(5)], persistence="durable")
    pieces = [len(event[3]) for event in run.ledger.dump() if event[0] == "agents"]
    assert pieces == [2, 2, 1]
    assert facts(run.restored()) == facts(run.ledger)


def test_what_was_in_memory_is_lost_and_never_fresh() -> None:
    run = rich()
    second = run.restarted()
    assert second.status(":memory") == "lost"
    assert "memory of a scheduler" in second.reason(":memory")
    assert second.agent(":memory").state is None
    for key in (":x", ":manual", ":fenced"):
        assert second.agent(key).state == run.agent(key).state
        assert second.status(key) != "lost"
    assert second.status(":volatile") != "lost"


@pytest.mark.parametrize("again", [AgentsRun.replayed, AgentsRun.restored])
def test_what_was_in_memory_is_lost_from_a_snapshot_too(again: Again) -> None:
    made = again(rich())
    made.recovered(0.0)
    made.validate()
    assert made.agents._known.agents[":memory"].status == "lost"


def test_one_in_memory_that_was_never_made_is_made_by_the_next_scheduler() -> None:
    run = AgentsRun()
    run.client()
    run.create(":x", persistence="cluster_replicated")
    second = run.restarted()
    second.worker("a")
    assert second.status(":x") == "starting"
    assert second.create(":x", on_conflict="existing", persistence="cluster_replicated") is None
    second.made(":x")
    assert [reply for _, _, reply in second.answers()] == [{"failed": []}]


def test_the_restarts_of_a_policy_survive_a_snapshot() -> None:
    run = rich()
    made = run.restored()
    assert made.agents._known.agents[":limited"].restarts_within(run.now) == 1


def test_a_fence_is_as_long_after_a_snapshot() -> None:
    run = AgentsRun()
    run.ask("long", "session.open", kind="worker", name="n", lease=100.0)
    run.call("long", "members.join", address="a", name="n", host="h", capacity={"cpu_cores": 1.0})
    run.sessions["a"] = "long"
    run.client()
    run.running(":x", persistence="durable")
    run.close("a")
    run.worker("b")
    made = run.restored()
    found = []
    now = run.now
    for _ in range(600):
        now += 0.2
        events = made.tick(now).events
        made.handle(run.sessions["b"], 1, Call(None, "session.renew", {}), now=now)
        if any(event[0] == "placed" for event in events):
            found.append(round(now - run.now))
            break
    assert found == [100]
