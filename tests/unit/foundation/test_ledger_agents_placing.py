"""Where agents are placed, and what of a worker is leased for them."""

from __future__ import annotations

from collections import Counter

import pytest

from dspex.errors import InvalidRequestError
from dspex.foundation.ledger.amounts import Amounts
from dspex.testing.agents_ledger import AgentsRun


def run_with(*addresses: str) -> AgentsRun:
    run = AgentsRun()
    run.client()
    for address in addresses:
        run.worker(address)
    return run


def counts(run: AgentsRun) -> dict[str, int]:
    return {address: len(keys) for address, keys in run.ledger.agents._known.at.items()}


def keys(count: int, prefix: str = "x") -> list[str]:
    return [f":{prefix}{n}" for n in range(count)]


def free(run: AgentsRun, address: str) -> Amounts:
    worker = run.ledger.resources.fleet.get(address)
    assert worker is not None
    return worker.free


def leased(run: AgentsRun) -> Counter[str]:
    return Counter(lease.worker for lease in run.ledger.resources.leases())


# --- words -----------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["least_loaded", "least_loaded_node", "compute_nodes"])
def test_the_fewest_agents_where_all_else_is_equal(word: str) -> None:
    run = run_with("a", "b", "c")
    run.create(*keys(7), placement=word)
    assert sorted(counts(run).values()) == [2, 2, 3]
    for key in keys(2, "y"):
        run.create(key, placement=word)
    assert sorted(counts(run).values()) == [3, 3, 3]


def test_least_loaded_goes_by_what_is_leased_first() -> None:
    run = run_with("a", "b")
    run.create(*keys(3), placement="pack")
    (full,) = counts(run)
    (empty,) = {"a", "b"} - {full}
    run.create(":big", worker=empty, amounts={"cpu_cores": 2})
    run.create(":y", placement="least_loaded")
    assert run.host(":y") == full


def test_pack_fills_one_as_long_as_it_has_room() -> None:
    run = run_with("a", "b")
    run.create(*keys(5), placement="pack", amounts={"cpu_cores": 1})
    assert sorted(counts(run).values()) == [1, 4]


def test_spread_goes_by_machine_then_by_worker() -> None:
    run = run_with()
    run.worker("a", host="one")
    run.worker("b", host="one")
    run.worker("c", host="two")
    run.create(*keys(4), placement="spread")
    assert counts(run) == {"a": 1, "b": 1, "c": 2}
    run.create(*keys(4, "y"), placement="spread")
    assert counts(run) == {"a": 2, "b": 2, "c": 4}


def test_round_robin_goes_around() -> None:
    run = run_with("a", "b", "c")
    hosts = []
    for key in keys(6):
        run.create(key, placement="round_robin")
        hosts.append(run.host(key))
    assert sorted(hosts[:3]) == ["a", "b", "c"]
    assert hosts[3:] == hosts[:3]


def test_random_gives_each_its_share() -> None:
    run = run_with("a", "b")
    run.create(*keys(100), placement="random")
    assert min(counts(run).values()) > 20


def test_any_node_depends_on_the_key_and_moves_only_the_share_of_a_new_worker() -> None:
    run = run_with("a", "b", "c")
    run.create(*keys(60), placement="any_node")
    assert min(counts(run).values()) > 5
    same = run_with("c", "b", "a")
    for key in reversed(keys(60)):
        same.create(key, placement="any_node")
    assert all(same.host(key) == run.host(key) for key in keys(60))
    more = run_with("a", "b", "c", "d")
    more.create(*keys(60), placement="any_node")
    moved = [key for key in keys(60) if more.host(key) != run.host(key)]
    assert moved
    assert {more.host(key) for key in moved} == {"d"}


def test_memory_nodes_are_those_with_much_and_others_where_they_are_full() -> None:
    run = run_with()
    run.worker("a", memory_gb=1.0)
    run.worker("b", memory_gb=1.0)
    run.worker("c", memory_gb=64.0)
    run.worker("d", memory_gb=64.0)
    run.create(*keys(4), placement="memory_nodes")
    assert counts(run) == {"c": 2, "d": 2}
    run.create(":all-c", worker="c", amounts={"cpu_cores": 4})
    run.create(":all-d", worker="d", amounts={"cpu_cores": 4})
    run.create(":y", placement="memory_nodes", amounts={"cpu_cores": 1})
    assert run.host(":y") in "ab"


# --- only there ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["b", "name-b"])
def test_pinned_waits_for_its_worker_however_it_is_named(name: str) -> None:
    run = run_with("a")
    run.create(":x", worker=name)
    assert run.status(":x") == "waiting"
    run.worker("b")
    assert run.host(":x") == "b"
    run.made(":x")
    run.close("b")
    run.run(4.0)
    assert run.status(":x") == "waiting", "no other will do"
    run.worker("b")
    assert run.host(":x") == "b"


def test_labels_are_had_by_the_worker() -> None:
    run = run_with("a")
    run.worker("b", labels=["ssd", "gpu"])
    run.create(*keys(3), labels=["ssd"])
    assert counts(run) == {"b": 3}


def test_same_as_goes_where_the_other_is() -> None:
    run = run_with("a", "b", "c")
    run.running(":leader", worker="b")
    run.create(*keys(3), same_as=":leader")
    assert {run.host(key) for key in keys(3)} == {"b"}
    run.create(":alone", same_as=":nobody")
    assert run.status(":alone") == "waiting"


@pytest.mark.parametrize("how", ["known dead", "closed", "ran out"])
def test_same_as_follows_its_agent_to_another_worker(how: str) -> None:
    run = run_with("a")
    run.running(":leader")
    run.running(":x", same_as=":leader")
    run.worker("b")
    run.worker("c")
    if how == "ran out":
        run.alive.pop(run.sessions["a"])
    else:
        run.close("a")
        if how == "known dead":
            run.dead("a")
    run.run(10.0)
    assert run.host(":leader") in "bc"
    assert run.host(":x") == run.host(":leader")


def test_same_as_is_placed_when_its_agent_is() -> None:
    run = run_with("a")
    run.create(":x", same_as=":leader")
    run.running(":leader")
    run.run(1.0)
    assert run.host(":x") == "a"


# --- resources -------------------------------------------------------------------------------


def test_what_an_agent_needs_is_leased_and_given_back_when_it_ends() -> None:
    run = run_with("a")
    before = free(run, "a")
    run.running(":x", ":y", amounts={"cpu_cores": 1.5, "memory_gb": 2})
    run.running(":small")
    assert leased(run) == {"a": 2}
    assert free(run, "a") == Amounts(1000, before.memory - 2 * (before.memory // 4), 0)
    run.call("client", "agents.end", keys=[":x"], reason="")
    assert leased(run) == {"a": 1}
    run.commit("a", run.turn(":y", e=1))
    assert free(run, "a") == before


def test_those_for_whom_there_is_no_room_wait_until_there_is() -> None:
    run = run_with("a")
    run.create(":x", ":y", amounts={"cpu_cores": 3})
    waits = ":x" if run.status(":x") == "waiting" else ":y"
    (other,) = {":x", ":y"} - {waits}
    assert run.status(waits) == "waiting"
    run.call("client", "agents.end", keys=[other], reason="")
    assert run.status(waits) == "starting"
    assert leased(run) == {"a": 1}


def test_room_that_a_lease_leaves_is_given_to_who_waits() -> None:
    run = run_with("a")
    run.create(":x", amounts={"cpu_cores": 3})
    run.worker("b")
    run.create(":y", amounts={"cpu_cores": 3}, worker="a")
    assert run.status(":y") == "waiting"
    run.made(":x")
    run.call("client", "agents.move", keys=[":x"], target="")
    run.commit("a", run.turn(":x", m=None))
    assert (run.host(":x"), run.host(":y")) == ("b", "a")
    assert leased(run) == {"a": 1, "b": 1}


def test_leases_follow_a_failover() -> None:
    run = run_with("a")
    run.running(":x", amounts={"cpu_cores": 3})
    run.worker("b")
    run.close("a")
    run.dead("a")
    assert run.host(":x") == "b"
    assert leased(run) == {"b": 1}


def test_an_agent_that_failed_leases_nothing() -> None:
    run = run_with("a")
    run.running(":x", amounts={"cpu_cores": 3}, persistence="durable")
    before = run.agent(":x").incarnation
    run.call(run.sessions["a"], "agents.retake", keys=[":x", ":nobody"])
    assert run.agent(":x").incarnation > before
    assert leased(run) == {"a": 1}
    run.fail(":x")
    assert run.status(":x") == "failed"
    assert leased(run) == {}


def test_a_move_takes_no_more_than_the_target_has() -> None:
    run = run_with("a", "b")
    run.running(":big", worker="b", amounts={"cpu_cores": 3})
    run.running(":x", worker="a", amounts={"cpu_cores": 3})
    try:
        run.call("client", "agents.move", keys=[":x"], target="b")
    except InvalidRequestError:
        pass
    else:
        run.commit("a", run.turn(":x", m=None))
    for address in ("a", "b"):
        assert free(run, address).cpu >= 0, "the sum of leases never exceeds what a worker has"
