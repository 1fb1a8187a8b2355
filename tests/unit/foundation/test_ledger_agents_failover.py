"""Agents whose host is gone: when they live on, where, and when they do not."""

from __future__ import annotations

from typing import Any

import pytest

from dspex.errors import AgentNotFoundError, InvalidRequestError
from dspex.testing.agents_ledger import LEASE, AgentsRun, facts


def run_with(*addresses: str, **fields: Any) -> AgentsRun:
    """A run with workers, of which the first has an agent `:x`, and a client."""
    run = AgentsRun()
    run.client()
    run.worker(addresses[0])
    run.running(":x", **{"persistence": "durable", **fields})
    for address in addresses[1:]:
        run.worker(address)
    return run


def placed(events: list[Any]) -> list[str]:
    return [event[1] for event in events if event[0] == "placed" and ":x" in event[5]]


# --- when ------------------------------------------------------------------------------------


def test_of_a_closed_connection_nobody_knows_and_its_lease_is_waited_for() -> None:
    run = run_with("a", "b")
    before = run.agent(":x").incarnation
    run.close("a")
    assert (run.status(":x"), run.host(":x")) == ("waiting", "")
    assert "former host a" in run.reason(":x")
    assert placed(run.run(LEASE - 0.2)) == [], "it may still believe in its lease"
    assert placed(run.run(1.0)) == ["b"]
    assert run.agent(":x").incarnation > before


def test_known_dead_is_at_once() -> None:
    run = run_with("a", "b")
    run.close("a")
    run.dead("b")
    assert run.status(":x") == "waiting", "that was another one"
    run.dead("a")
    assert run.host(":x") == "b"
    assert not run.dead("a").events
    assert placed(run.run(5.0)) == []


def test_a_session_that_ran_out_is_at_once() -> None:
    run = run_with("a", "b")
    run.alive.pop(run.sessions["a"])
    seen = []
    for _ in range(40):
        events = run.run(0.2)
        seen += [event[0] for event in events if event[0] in ("gone", "fenced")]
        if placed(events):
            break
    assert run.host(":x") == "b"
    assert seen == ["gone"]


def test_a_worker_that_leaves_in_order_takes_nothing_along() -> None:
    run = run_with("a", "b")
    run.end(run.sessions["a"])
    assert run.host(":x") == "b"


def test_a_new_incarnation_of_the_host_ends_the_former() -> None:
    run = run_with("a")
    before = run.agent(":x").incarnation
    run.worker("a")
    assert run.host(":x") == "a"
    assert run.status(":x") == "starting"
    assert run.agent(":x").incarnation > before


def test_a_host_that_comes_back_soon_is_fenced_like_any_other() -> None:
    run = run_with("a")
    run.close("a")
    run.worker("a")
    assert run.status(":x") == "waiting"
    run.run(LEASE + 1.0)
    assert run.host(":x") == "a"


def test_where_there_is_no_other_worker_it_waits_for_one() -> None:
    run = run_with("a")
    run.close("a")
    run.dead("a")
    assert "up and has room" in run.reason(":x")
    run.run(1.0)
    run.worker("c")
    assert run.host(":x") == "c"


def test_two_losses_of_one_address_are_two_fences() -> None:
    run = run_with("a", "c")
    run.close("a")
    run.run(2.0)
    run.worker("a")
    run.running(":y", worker="a", persistence="durable")
    run.close("a")
    run.run(LEASE - 0.5)
    assert run.status(":y") == "waiting"
    run.run(2.0)
    assert run.host(":x") == "c"
    assert "up and has room" in run.reason(":y")


def test_what_it_has_kept_goes_along() -> None:
    run = run_with("a", "b")
    run.commit("a", run.turn(":x", s={"n": b"1"}, r=["client", 1, 0, True, b"r", 7]))
    run.close("a")
    run.dead("a")
    loaded = run.ask(run.sessions["b"], "agents.load", keys=[":x"])
    (parcel,) = loaded["parcels"]
    assert loaded["specs"][parcel["spec"]]["persistence"] == "durable"
    assert (parcel["started"], parcel["state"]) == (True, {"n": b"1"})
    assert [row[0] for row in parcel["dedup"]] == ["client"]


def test_an_agent_that_was_stopped_meanwhile_stays_stopped() -> None:
    run = run_with("a", "b")
    run.close("a")
    run.call("client", "agents.end", keys=[":x"], reason="")
    run.ledger.validate()
    assert facts(run.restored()) == facts(run.ledger)
    run.run(LEASE + 1.0)
    assert run.agent(":x") is None


def test_a_new_agent_of_an_old_name_is_no_business_of_a_former_fence() -> None:
    run = run_with("a", "b")
    run.close("a")
    run.call("client", "agents.end", keys=[":x"], reason="")
    run.running(":x", persistence="durable")
    assert facts(run.restored()) == facts(run.ledger)
    token = run.agent(":x").incarnation
    run.run(2.0)
    run.close("b")
    run.worker("c")
    run.run(LEASE - 1.0)
    assert run.status(":x") == "waiting", "the fence of b stands, though that of a is down"
    run.run(2.0)
    assert run.host(":x") == "c"
    assert run.agent(":x").incarnation > token


# --- policies --------------------------------------------------------------------------------


@pytest.mark.parametrize("is_known_dead", [True, False])
def test_none_is_lost(is_known_dead: bool) -> None:
    run = run_with("a", "b", failover="none")
    run.close("a")
    if is_known_dead:
        run.dead("a")
    run.run(5.0)
    assert run.status(":x") == "lost"
    assert 'failover is "none"' in run.reason(":x")
    assert run.call("client", "agents.move", keys=[":x"], target="") == []
    run.call("client", "agents.end", keys=[":x"], reason="")
    run.running(":x")


def test_none_that_was_never_made_is_made_elsewhere() -> None:
    run = AgentsRun()
    run.client()
    run.worker("a")
    run.create(":x", failover="none", persistence="durable")
    run.worker("b")
    run.close("a")
    run.dead("a")
    assert run.host(":x") == "b"


@pytest.mark.parametrize("how", ["known dead", "closed", "ran out"])
def test_manual_waits_until_somebody_asks(how: str) -> None:
    run = run_with("a", "b", failover="manual")
    if how == "ran out":
        run.alive.pop(run.sessions["a"])
    else:
        run.close("a")
        if how == "known dead":
            run.dead("a")
    run.run(10.0)
    assert run.status(":x") == "waiting"
    assert "failover is manual" in run.reason(":x")
    run.worker("c")
    assert run.status(":x") == "waiting"
    with pytest.raises(InvalidRequestError, match="waits for it since b was lost"):
        run.call("client", "agents.recover", worker="b", keys=[":x"])
    assert run.call("client", "agents.recover", worker="a", keys=[":x", ":x"]) == ([":x"], True)
    assert run.host(":x") in "bc"
    with pytest.raises(InvalidRequestError, match="is starting"):
        run.call("client", "agents.recover", worker="a", keys=[":x"])
    with pytest.raises(AgentNotFoundError):
        run.call("client", "agents.recover", worker="a", keys=[":nobody"])
    assert run.call("client", "agents.recover", worker="a", keys=None) == ([], True)


def test_recovery_waits_while_a_lost_worker_may_still_believe_in_its_lease() -> None:
    run = run_with("a", "b", failover="manual")
    here = run.host(":x")
    run.close(here)
    for keys in ([":x"], None):
        waits = run.call("client", "agents.recover", worker=here, keys=keys)
        assert waits == ([":x"], False)
    assert run.host(":x") == ""
    run.run(LEASE + 1.0)
    assert run.call("client", "agents.recover", worker=here, keys=None) == ([":x"], True)
    assert run.host(":x") not in ("", here)


def test_recovery_takes_what_waited_before_others_were_lost_at_the_same_address() -> None:
    run = run_with("a", "b", failover="manual")
    here = run.host(":x")
    run.close(here)
    run.run(LEASE + 1.0)
    run.worker(here)
    run.create(":auto", worker=here, persistence="durable")
    run.made(":auto")
    run.close(here)
    keys = run.call("client", "agents.recover", worker=here, keys=None)
    assert keys == ([":x"], True)


def test_recovery_of_a_worker_takes_all_that_wait_for_it() -> None:
    run = run_with("a", failover="manual")
    run.running(":y", failover="manual", persistence="durable")
    run.running(":z", persistence="durable")
    run.close("a")
    run.dead("a")
    keys, is_begun = run.call("client", "agents.recover", worker="a", keys=None)
    assert (sorted(keys), is_begun) == ([":x", ":y"], True)
    assert run.ledger.agents._known.held == {}
    run.worker("b")
    assert {run.host(key) for key in (":x", ":y", ":z")} == {"b"}


# --- restart policies ------------------------------------------------------------------------


def lose(run: AgentsRun, key: str = ":x") -> None:
    host = run.host(key)
    run.close(host)
    run.dead(host)
    run.worker(host)
    if run.host(key):
        run.made(key)


@pytest.mark.parametrize("limit", [0, 1, 3])
def test_after_so_many_restarts_it_has_failed(limit: int) -> None:
    run = run_with("a", "b", max_restarts=limit)
    for count in range(limit):
        lose(run)
        assert run.status(":x") == "running"
        assert run.ask("client", "agents.row", key=":x")["restarts"] == count + 1
    lose(run)
    assert run.status(":x") == "failed"
    assert "as often as its policy allows" in run.reason(":x")


def test_restarts_count_for_as_long_as_the_policy_says() -> None:
    run = run_with("a", "b", max_restarts=1, within=10.0)
    lose(run)
    run.run(11.0)
    lose(run)
    assert run.status(":x") == "running", "the former one is forgotten"
    run.run(5.0)
    lose(run)
    assert run.status(":x") == "failed"


def test_moves_are_no_restarts() -> None:
    run = run_with("a", "b", max_restarts=0)
    run.call("client", "agents.move", keys=[":x"], target="b")
    run.commit("a", run.turn(":x", m=None))
    assert run.host(":x") == "b"


# --- the next scheduler ----------------------------------------------------------------------


def test_agents_of_a_former_scheduler_live_on_when_its_workers_are_gone() -> None:
    run = run_with("a")
    run.commit("a", run.turn(":x", s={"n": b"1"}))
    before = run.agent(":x").incarnation
    second = run.restarted()
    second.worker("a")
    second.run(8.0)
    assert second.host(":x") == "a"
    assert second.agent(":x").incarnation > before
    assert second.agent(":x").state == {"n": b"1"}


def test_a_fence_outlives_the_scheduler() -> None:
    run = run_with("a", "b")
    run.close("a")
    second = run.restarted()
    second.worker("c")
    second.run(LEASE - 0.4)
    assert second.status(":x") == "waiting"
    second.run(2.0)
    assert second.host(":x") == "c"
