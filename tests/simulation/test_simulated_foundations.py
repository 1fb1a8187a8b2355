"""Foundations in virtual time: what is lost, late, doubled, stopped or killed breaks no promise."""

from __future__ import annotations

import msgpack
import pytest

from dspex.foundation.ledger.events import Event
from dspex.testing.foundation_simulation import SimulatedFoundation
from dspex.testing.linearizability import check
from dspex.testing.models import Register


def plain(events: list[Event]) -> list[str]:
    """What the journal would give back, in an order of its own."""
    return sorted(map(repr, msgpack.unpackb(msgpack.packb(events))))


def check_world(seed: int, seconds: float) -> SimulatedFoundation:
    world = SimulatedFoundation(seed=seed)
    world.run(seconds=seconds)
    verdict = check(world.history, Register())
    assert verdict.ok, f"seed {seed}: {verdict}"
    made, live = world.replayed()
    assert plain(made) == plain(live), f"seed {seed}"
    return world


@pytest.mark.parametrize("seed", range(100))
def test_promises_hold_in_a_hostile_world(seed: int) -> None:
    check_world(seed, 20.0)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_promises_hold_in_thousands_of_hostile_worlds() -> None:
    for seed in range(1000, 6000):
        check_world(seed, 60.0)


def test_much_happens_in_these_worlds() -> None:
    worlds = [check_world(seed, 30.0) for seed in range(20)]
    assert sum(world.grants for world in worlds) > 500
    assert sum(len(world.history) for world in worlds) > 500
    assert sum(world.scheduler.generation > 1 for world in worlds) > 5
