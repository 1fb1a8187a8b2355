"""Agents in a hostile world: nothing that was acknowledged is lost, nothing happens twice."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dspex.cluster.agents.running import Running
from dspex.foundation.agents.dedup import Dedup
from dspex.testing.agents_simulation import SimulatedAgents

HARSH = {"loss": 0.1, "double": 0.1, "faults": 1.5}

CUT_OFF: dict[str, Any] = {"seconds": 20.0, "faults": 0.15, "loss": 0.01, "only": "keep_a_reader"}
"""What lets a host that is not one any more go on with those who do not know better."""

UNCONNECTED: dict[str, Any] = {"connects": 0.3, "faults": 1.0, "loss": 0.1}
"""What lets a flight not leave, of which its sender knows, while another one did."""


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Say nothing of what goes wrong on purpose: it takes longer than the rest."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def check_world(seed: int, seconds: float = 10.0, **trouble: Any) -> SimulatedAgents:
    world = SimulatedAgents(seed=seed, seconds=seconds, **trouble)
    try:
        world.run()
    except AssertionError as error:
        befell = "\n".join(world.befell)
        raise AssertionError(
            f"seed {seed}, {seconds:g} s, {trouble}: {error}\nwhat befell:\n{befell}"
        ) from error
    return world


@pytest.mark.parametrize("block", range(40))
def test_promises_hold_in_a_hostile_world(block: int) -> None:
    for seed in range(3 * block, 3 * block + 3):
        check_world(seed)


@pytest.mark.parametrize("block", range(30))
def test_promises_hold_where_a_host_is_left_alone_with_a_reader(block: int) -> None:
    for seed in range(3 * block, 3 * block + 3):
        check_world(seed, **CUT_OFF)


@pytest.mark.parametrize("block", range(20))
def test_promises_hold_where_connections_fail(block: int) -> None:
    for seed in range(3 * block, 3 * block + 3):
        check_world(seed, **UNCONNECTED)


@pytest.mark.parametrize(("seed", "seconds", "trouble"), [(1340, 10.0, HARSH), (30107, 15.0, {})])
def test_seeds_that_found_something(seed: int, seconds: float, trouble: dict[str, Any]) -> None:
    check_world(seed, seconds, **trouble)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_promises_hold_in_thousands_of_hostile_worlds() -> None:
    for seed in range(1000, 3000):
        check_world(seed, 15.0)
        check_world(seed, 10.0, **HARSH)
        check_world(seed, **CUT_OFF)
        check_world(seed, **UNCONNECTED)


def test_much_happens_in_these_worlds() -> None:
    worlds = [check_world(seed) for seed in range(30, 33)]
    assert sum(len(world.claims.acknowledged) for world in worlds) > 200
    assert sum(world.claims.reads for world in worlds) > 80
    assert sum(len(world.befell) for world in worlds) > 8
    assert sum(world.network.lost for world in worlds) > 100
    assert sum(world.around.disk.snapshots for world in worlds) > 3
    assert check_world(30, **UNCONNECTED).around.not_sent > 10


def test_a_world_is_the_same_each_time() -> None:
    one, other = (check_world(5, 5.0) for _ in range(2))
    assert one.loop.steps == other.loop.steps
    assert one.befell == other.befell
    assert one.claims.acknowledged == other.claims.acknowledged


# --- what the simulation must not let pass ---------------------------------------------------


def caught(seeds: range, seconds: float = 10.0, **trouble: Any) -> str:
    """What the first world says in which something is wrong; empty where all is well."""
    for seed in seeds:
        try:
            SimulatedAgents(seed=seed, seconds=seconds, **trouble).run()
        except AssertionError as error:
            return str(error) or "something that must hold does not"
    return ""


def test_a_host_that_ignores_its_lease_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Running, "may_answer", lambda self: True)
    assert "was read without" in caught(range(16, 60), **CUT_OFF)


def test_no_deduplication_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Dedup, "look_up", lambda self, sender, number: None)
    assert "times in" in caught(range(10), loss=0.1)


def test_what_left_and_is_taken_for_not_sent_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dspex.cluster.agents.flying._may_have_left", lambda sending: False)
    assert "times in" in caught(range(40), **UNCONNECTED)


def _before_commit(also_answer: bool, also_send: bool) -> Callable[..., None]:
    real = Running.commit

    def commit(self: Running, pending: Any) -> None:
        letter, verdict = pending.letter, pending.verdict
        if letter is not None and verdict is not None:
            if also_answer:
                self.inbox.answer(pending.cell, letter, *verdict)
            if also_send and pending.context is not None:
                self._send_all(pending.cell, pending.context)
        real(self, pending)

    return commit


def test_answers_before_the_commit_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Running, "commit", _before_commit(True, False))
    assert caught(range(40), faults=1.0)


def test_messages_that_leave_before_the_commit_are_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Running, "commit", _before_commit(False, True))
    assert caught(range(40), faults=1.0)
