"""Agents that move: on request, because their worker drains; and those that end."""

from __future__ import annotations

from typing import Any

import pytest

from dspex.errors import AgentNotFoundError, InvalidRequestError, KeyNotFoundError
from dspex.foundation.ledger.agents.turns import pack_turn
from dspex.testing.agents_ledger import AgentsRun, facts


def run_with(*addresses: str, **fields: Any) -> AgentsRun:
    """A run with workers, of which the first has an agent `:x`, and a client."""
    run = AgentsRun()
    run.client()
    run.worker(addresses[0])
    run.running(":x", **{"persistence": "durable", **fields})
    for address in addresses[1:]:
        run.worker(address)
    return run


def move(run: AgentsRun, *keys: str, target: str = "") -> Any:
    return run.call("client", "agents.move", keys=list(keys), target=target)


# --- on request ------------------------------------------------------------------------------


def test_a_host_lets_go_and_then_it_is_at_its_target() -> None:
    run = run_with("a", "b", "c")
    before = run.agent(":x").incarnation
    assert move(run, ":x", target="c") == [":x"]
    assert (run.status(":x"), run.host(":x")) == ("moving", "a"), "it serves on until then"
    assert run.commit("a", run.turn(":x", s={"n": b"1"})) == []
    assert run.commit("a", run.turn(":x", m=None)) == []
    assert (run.status(":x"), run.host(":x")) == ("starting", "c")
    assert run.agent(":x").incarnation > before
    assert run.ledger.agents._known.targets == {}
    run.made(":x")
    assert run.agent(":x").state == {"n": b"1"}


def test_one_that_is_there_already_does_not_move() -> None:
    run = run_with("a", "b")
    assert move(run, ":x", target="a") == []
    assert move(run, ":x", target="b") == [":x"]
    assert move(run, ":x", target="b") == [], "it does already"


def test_elsewhere_is_not_where_it_was() -> None:
    run = run_with("a", "b")
    move(run, ":x")
    run.commit("a", run.turn(":x", m=None))
    assert run.host(":x") == "b"


def test_where_there_is_nowhere_else_it_comes_back() -> None:
    run = run_with("a")
    before = run.agent(":x").incarnation
    move(run, ":x")
    run.commit("a", run.turn(":x", m=None))
    run.run(1.0)
    assert run.host(":x") == "a"
    assert run.agent(":x").incarnation > before


@pytest.mark.parametrize("end", ["gone", "draining"])
def test_a_target_that_is_gone_by_then_is_not_waited_for(end: str) -> None:
    run = run_with("a", "b", "c")
    move(run, ":x", target="b")
    if end == "gone":
        run.close("b")
    else:
        run.call("client", "members.drain", address="b", undo=False)
    run.commit("a", run.turn(":x", m=None))
    assert run.host(":x") == "c"


def test_a_host_that_is_lost_on_the_way_is_left_for_the_target() -> None:
    run = run_with("a", "b", "c", "d")
    move(run, ":x", target="d")
    run.close("a")
    run.dead("a")
    assert run.host(":x") in "bcd"
    assert run.ledger.agents._known.targets == {}


def test_only_members_that_are_up_are_targets() -> None:
    run = run_with("a", "b")
    with pytest.raises(InvalidRequestError, match="'nobody' is no member"):
        move(run, ":x", target="nobody")
    run.call("client", "members.drain", address="b", undo=False)
    with pytest.raises(InvalidRequestError, match="'b' is draining"):
        move(run, ":x", target="b")
    with pytest.raises(AgentNotFoundError):
        move(run, ":nobody")
    assert run.status(":x") == "running"


def test_a_move_of_many_is_one_event_for_each_host() -> None:
    run = run_with("a", "b")
    run.running(":y", worker="b")
    run.worker("c")
    before = len(run.journal)
    assert sorted(move(run, ":x", ":y", target="c")) == [":x", ":y"]
    events = [event for step in run.journal[before:] for event in step.events]
    moving = [event[1:] for event in events if event[0] == "moving"]
    assert sorted(moving) == [("a", "c", [":x"]), ("b", "c", [":y"])]


# --- drains ----------------------------------------------------------------------------------


@pytest.mark.parametrize("is_asked_for", [True, False])
def test_a_draining_worker_lets_all_go_and_is_given_none(is_asked_for: bool) -> None:
    run = run_with("a", "b")
    run.running(":y", worker="a", persistence="durable")
    if is_asked_for:
        found = run.call("client", "members.drain", address="a", undo=False)
        assert found == {"agents": 2}
    else:
        run.keep(run.ledger.drain("a", run.now))
    assert run.status(":x") == run.status(":y") == "moving"
    run.commit("a", run.turn(":x", m=None), run.turn(":y", m=None))
    assert run.host(":x") == "b"
    assert run.status(":y") == "waiting", "it is pinned"
    run.create(":z")
    assert run.host(":z") == "b"
    run.call("client", "members.drain", address="a", undo=True)
    assert run.host(":y") == "a"


def test_where_all_drain_the_agents_wait() -> None:
    run = run_with("a")
    run.call("client", "members.drain", address="a", undo=False)
    run.commit("a", run.turn(":x", m=None))
    run.run(1.0)
    assert run.status(":x") == "waiting"
    run.worker("b")
    assert run.host(":x") == "b"


def test_nobody_drains_who_is_not_there() -> None:
    run = run_with("a")
    with pytest.raises(KeyNotFoundError):
        run.call("client", "members.drain", address="b", undo=False)
    assert not run.keep(run.ledger.drain("b", run.now)).events


# --- parcels ---------------------------------------------------------------------------------


def test_what_is_not_kept_is_taken_along_once() -> None:
    run = run_with("a", "b", persistence=None)
    move(run, ":x")
    run.commit("a", run.turn(":x", m=b"parcel"))
    (parcel,) = run.ask(run.sessions["b"], "agents.load", keys=[":x"])["parcels"]
    assert (parcel["parcel"], parcel["started"], parcel["state"]) == (b"parcel", True, None)
    run.made(":x")
    (parcel,) = run.ask(run.sessions["b"], "agents.load", keys=[":x"])["parcels"]
    assert parcel["parcel"] is None
    assert facts(run.replayed()) == facts(run.ledger)


def test_a_parcel_waits_with_its_agent() -> None:
    run = run_with("a", persistence=None)
    run.call("client", "members.drain", address="a", undo=False)
    run.commit("a", run.turn(":x", m=b"parcel"))
    run.worker("b")
    (parcel,) = run.ask(run.sessions["b"], "agents.load", keys=[":x"])["parcels"]
    assert parcel["parcel"] == b"parcel"


# --- ends ------------------------------------------------------------------------------------


def test_agents_are_stopped_wherever_they_are() -> None:
    run = run_with("a", "b")
    run.running(":y", worker="b", persistence="durable")
    run.create(":waits", labels=[], worker="nobody")
    keys = [":x", ":x", ":y", ":waits", ":nobody"]
    assert run.call("client", "agents.end", keys=keys, reason="enough") == 3
    ended = [event[1:] for step in run.journal for event in step.events if event[0] == "ended"]
    assert ended == [
        ("a", "enough", [":x"]),
        ("b", "enough", [":y"]),
        ("", "enough", [":waits"]),
    ]
    known = run.ledger.agents._known
    assert not known.agents
    assert not known.at
    assert not known.codes
    assert not known._correspondents
    assert run.commit("a", pack_turn({"a": ":x", "i": (1, 1)})) == [(0, "fenced")]


def test_a_host_that_takes_its_agents_anew_has_another_incarnation_of_each() -> None:
    run = run_with("a", "b")
    run.running(":y", worker="b")
    before = run.agent(":x").incarnation, run.agent(":y").incarnation
    assert run.call(run.sessions["a"], "agents.retake", keys=[":x", ":x", ":y", ":nobody"])
    assert run.agent(":x").incarnation > before[0]
    assert run.agent(":y").incarnation == before[1], "it is not there"
    assert run.status(":x") == "starting"
    run.made(":x")
