"""Which agents would be better off elsewhere."""

from __future__ import annotations

from collections import Counter
from typing import Any

from dspex.testing.agents_ledger import AgentsRun


def run_with(*addresses: str) -> AgentsRun:
    run = AgentsRun()
    run.client()
    for address in addresses:
        run.worker(address)
    return run


def better(run: AgentsRun, *, most: int | None = None, is_done: bool = False) -> Any:
    return run.call("client", "agents.rebalance", dry_run=not is_done, max_moves=most)


def keys(count: int) -> list[str]:
    return [f":x{n}" for n in range(count)]


def follow(run: AgentsRun) -> None:
    """Have all that are to move go where they are to."""
    known = run.ledger.agents._known
    for key, agent in list(known.agents.items()):
        if agent.status == "moving":
            run.commit(agent.host, run.turn(key, m=None))
            run.made(key)


def counts(run: AgentsRun) -> Counter[str]:
    return Counter(agent.host for agent in run.ledger.agents._known.agents.values())


def test_numbers_differ_by_one_at_most_afterwards_and_no_more_than_needed_move() -> None:
    run = run_with("a")
    run.running(*keys(8))
    run.worker("b")
    run.worker("c")
    moves = better(run)
    assert len(moves) == 5
    assert {source for _, source, _ in moves} == {"a"}
    assert counts(run) == {"a": 8}, "it was only asked for"
    assert better(run, is_done=True) == moves
    follow(run)
    assert sorted(counts(run).values()) == [2, 3, 3]
    assert all(run.host(key) == target for key, _, target in moves)
    assert better(run) == []


def test_at_most_so_many_move() -> None:
    run = run_with("a")
    run.running(*keys(8))
    run.worker("b")
    assert len(better(run, most=2, is_done=True)) == 2
    assert Counter(run.status(key) for key in keys(8)) == {"running": 6, "moving": 2}
    assert better(run, most=0) == []


def test_hashed_ones_move_where_the_hash_says_now() -> None:
    run = run_with("a", "b")
    run.running(*keys(40), placement="any_node")
    assert better(run) == []
    run.worker("c")
    moves = better(run)
    assert moves
    assert {target for _, _, target in moves} == {"c"}
    assert len(moves) < 25
    better(run, is_done=True)
    follow(run)
    assert better(run) == []


def test_who_is_bound_to_its_place_stays() -> None:
    run = run_with("a")
    run.running(*keys(4), worker="a")
    run.running(":leader", placement="pack")
    run.running(":follower", same_as=":leader")
    run.running(":packed", placement="pack")
    run.create(":starting")
    run.worker("b")
    assert better(run) == []


def test_nobody_moves_where_it_does_not_fit() -> None:
    run = run_with("a")
    run.worker("b", labels=["ssd"])
    run.running(*keys(3), labels=["ssd"])
    run.running(":big", worker="a", amounts={"cpu_cores": 4})
    assert counts(run) == {"a": 1, "b": 3}
    assert better(run) == []
    run.running(*[f":y{n}" for n in range(4)], amounts={"cpu_cores": 1})
    assert counts(run) == {"a": 1, "b": 7}, "a is full"
    run.worker("c", labels=["ssd"], cpu_cores=0.0)
    moves = better(run)
    assert {target for _, _, target in moves} == {"c"}
    assert {key for key, _, _ in moves} <= set(keys(3)), "the others need a core"


def test_to_who_drains_nobody_moves() -> None:
    run = run_with("a")
    run.running(*keys(4))
    run.worker("b")
    run.call("client", "members.drain", address="b", undo=False)
    assert better(run) == []
