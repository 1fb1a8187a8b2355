"""A ledger whose loop stood still: what runs out, and what is in the queue behind."""

from __future__ import annotations

from typing import Any

from dspex.foundation.ledger.ledger import Ledger
from dspex.foundation.ledger.sessions import TICK
from dspex.foundation.ledger.wire import Call
from dspex.foundation.record import put

LEASE = 3.0


class Run:
    """A ledger on a clock that ticks as it should, but where it is told to stand still."""

    def __init__(self) -> None:
        self.ledger = Ledger(term=1)
        self.now = 100.0
        self.ledger.tick(self.now)

    def ask(self, session: str, number: int | None, op: str, **args: Any) -> Any:
        return self.ledger.handle(session, 0, Call(number, op, args), now=self.now)

    def open(self, session: str, kind: str = "client") -> None:
        self.ask(session, None, "session.open", kind=kind, name=session, lease=LEASE)

    def put(self, number: int, ttl: float) -> None:
        operation = put("k", b"", {}, ttl=ttl, on_conflict="replace")
        self.ask("a", number, "records.commit", collection="r:", operations=[operation])

    def tick(self, after: float = TICK) -> None:
        self.now += after
        self.ledger.tick(self.now)
        self.ledger.validate()

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds / TICK)):
            self.tick()

    def is_there(self) -> bool:
        return self.ledger.records.get("r:", "k") is not None


def test_who_came_during_a_standstill_and_died_is_found_in_time() -> None:
    run = Run()
    run.now += 60.0
    run.open("w", "worker")  # handled before the tick that is late
    run.ask("w", 1, "members.join", address="w:1", name="w", host="h", capacity={})
    run.tick(0.0)
    run.run(LEASE * 2 / 3 + 3 * TICK)
    assert [member["state"] for member in run.ledger.members.everyone()] == ["suspected"]
    run.run(LEASE / 3)
    assert run.ledger.members.everyone() == []
    assert not run.ledger.sessions.is_open("w")


def test_an_entry_that_is_written_again_in_time_outlives_a_standstill() -> None:
    run = Run()
    run.open("a")
    run.put(1, ttl=5.0)
    run.run(1.0)
    run.tick(60.0)
    assert run.is_there(), "what refreshes it may be in the queue behind this tick"
    run.put(2, ttl=5.0)
    run.run(4.0)
    assert run.is_there()


def test_an_entry_that_is_not_written_again_runs_out_after_a_standstill() -> None:
    run = Run()
    run.open("a")
    run.put(1, ttl=5.0)
    run.tick(60.0)
    run.tick()
    assert not run.is_there()


def test_an_entry_runs_out_within_two_ticks_of_its_time() -> None:
    run = Run()
    run.open("a")
    run.put(1, ttl=1.0)
    run.run(1.0)
    assert run.is_there()
    run.run(2 * TICK)
    assert not run.is_there()
