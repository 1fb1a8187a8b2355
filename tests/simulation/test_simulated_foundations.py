"""Foundations in virtual time: what is lost, late, doubled, stopped or killed breaks no promise."""

from __future__ import annotations

from typing import Any

import pytest

from dspex.testing.foundation_parties import Process
from dspex.testing.foundation_scheduler import LEASE
from dspex.testing.foundation_simulation import SimulatedFoundation
from dspex.testing.linearizability import check
from dspex.testing.models import Register

LOCK = {"namespace": "", "name": "mine", "kind": "lock"}


def check_world(seed: int, seconds: float, **trouble: float) -> SimulatedFoundation:
    world = SimulatedFoundation(seed=seed, **trouble)
    try:
        world.run(seconds=seconds)
        verdict = check(world.history, Register())
        assert verdict.ok, str(verdict)
    except AssertionError as error:
        raise AssertionError(f"seed {seed}, {seconds:g} s, {trouble}: {error}") from error
    return world


@pytest.mark.parametrize("block", range(20))
def test_promises_hold_in_a_hostile_world(block: int) -> None:
    for seed in range(10 * block, 10 * block + 10):
        check_world(seed, 10.0)


@pytest.mark.parametrize(
    ("seed", "trouble"),
    [(4768, {}), (1950, {}), (1625, {"loss": 0.2, "double": 0.3, "faults": 1.0})],
    ids=str,
)
def test_promises_hold_in_worlds_in_which_they_did_not(
    seed: int, trouble: dict[str, float]
) -> None:
    check_world(seed, 15.0 if trouble else 20.0, **trouble)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_promises_hold_in_thousands_of_hostile_worlds() -> None:
    for seed in range(1000, 5000):
        check_world(seed, 20.0)
        check_world(seed, 15.0, loss=0.2, double=0.3, faults=1.0)


def test_much_happens_in_these_worlds() -> None:
    worlds = [check_world(seed, 20.0) for seed in range(10)]
    assert sum(world.grants for world in worlds) > 250
    assert sum(len(world.history) for world in worlds) > 250
    assert sum(world.scheduler.generation > 1 for world in worlds) > 3
    assert sum(world.scheduler.kept.upto > 0 for world in worlds) > 5, "snapshots are made"


# --- faults that are placed ----------------------------------------------------------------


class Quiet:
    """A world in which nothing goes wrong by itself, and one more client."""

    def __init__(self) -> None:
        self.world = SimulatedFoundation(seed=7, loss=0.0, double=0.0, faults=0.0)
        self.client = Process(self.world, "me", "client")
        self.world.advance(1.0)

    def lock(self, client: Process) -> None:
        def granted(reply: Any, is_error: bool) -> None:
            client.held[tuple(reply["token"])] = "mine"

        client.call("locks.acquire", LOCK, granted)
        self.world.advance(1.0)

    def states(self) -> dict[str, str]:
        everyone = self.world.scheduler.ledger.members.everyone()
        return {member["name"]: member["state"] for member in everyone}


@pytest.mark.parametrize("absence", [0.1, 1.0, 30.0])
def test_after_a_restart_what_was_held_stays_with_who_renews(absence: float) -> None:
    quiet = Quiet()
    world, client = quiet.world, quiet.client
    quiet.lock(client)
    (token,) = client.believes()
    world.scheduler.crash()
    world.clock.after(absence, world.scheduler.start)
    other = Process(world, "you", "client")
    world.advance(absence + 1.0)
    quiet.lock(other)
    world.advance(5 * LEASE)
    assert client.sessions == 1
    assert list(client.believes()) == [token]
    assert world.scheduler.ledger.locks.verify(token)
    assert not other.held


def test_after_a_restart_what_was_held_by_the_dead_is_free_within_two_leases() -> None:
    quiet = Quiet()
    world, client = quiet.world, quiet.client
    quiet.lock(client)
    (token,) = client.believes()
    client.is_dead = True
    world.scheduler.crash()
    world.clock.after(1.0, world.scheduler.start)
    other = Process(world, "you", "client")
    world.advance(2.0)
    quiet.lock(other)
    assert not other.held, "until then nobody can know that the holder is dead"
    world.advance(2 * LEASE)
    assert [held > token for held in other.believes()] == [True]


def test_a_scheduler_that_is_stalled_for_a_minute_loses_nobody() -> None:
    quiet = Quiet()
    world = quiet.world
    quiet.lock(quiet.client)
    before = {
        each["name"]: each["incarnation"] for each in world.scheduler.ledger.members.everyone()
    }
    for _ in range(3):
        world.scheduler.stall(60.0)
        world.advance(62.0)
    after = {
        each["name"]: each["incarnation"] for each in world.scheduler.ledger.members.everyone()
    }
    assert after == before
    assert set(quiet.states().values()) <= {"up", "draining"}
    assert all(process.sessions == 1 for process in [quiet.client, *world.workers])
    assert quiet.client.believes()


def test_a_worker_that_pauses_is_suspected_then_lost_and_comes_back_as_another() -> None:
    quiet = Quiet()
    world = quiet.world
    worker = world.workers[0]
    (before,) = [
        each["incarnation"]
        for each in world.scheduler.ledger.members.everyone()
        if each["name"] == worker.name
    ]
    worker.paused_until = world.clock.now + 4 * LEASE
    seen = set()
    for _ in range(int(2 * LEASE / 0.1)):
        world.advance(0.1)
        seen.add(quiet.states().get(worker.name, "lost"))
    assert quiet.states().get(worker.name) is None, "within two leases"
    assert {"suspected", "lost"} <= seen
    world.advance(3 * LEASE)
    member = world.scheduler.ledger.members.get(worker.name)
    assert member is not None
    assert member["incarnation"] > before
    assert member["session"] == f"{worker.name}.2", "its old session was refused"
