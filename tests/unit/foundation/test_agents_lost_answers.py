"""Calls that are repeated because their answer was lost, behind others that had an effect."""

from __future__ import annotations

from typing import Any

import pytest

from dspex.foundation.agents.cells import Letter
from dspex.foundation.agents.dedup import LOST, NEW, Answered, Dedup
from dspex.foundation.agents.inbox import Inbox
from dspex.foundation.agents.messages import CAST, DONE, EXACTLY_ONCE, REFUSED
from dspex.testing.agents_ledger import AgentsRun


class Link:
    def __init__(self) -> None:
        self.stuck: dict[str, int] = {}


def table() -> Dedup:
    made = Dedup()
    made.acknowledge("me", 3)
    made.record("me", 5, Answered(True, b"five", 0))
    return made


def test_what_was_neither_kept_nor_acknowledged_is_lost() -> None:
    for made in (table(), Dedup.from_rows(table().rows())):
        assert made.look_up("me", 4) is LOST
        assert made.look_up("me", 2) == Answered(True, None, 0), "its sender has the answer"
        assert made.look_up("me", 6) is NEW
        made.acknowledge("me", 5)
        assert made.look_up("me", 4) == Answered(True, None, 0)


@pytest.mark.parametrize(
    ("flags", "left", "outcome"),
    [(0, None, "runs"), (CAST, None, DONE), (0, 1.0, REFUSED)],
    ids=["a call", "a cast", "a call with a deadline"],
)
def test_a_call_that_changed_nothing_runs_again(
    flags: int, left: float | None, outcome: Any
) -> None:
    told: list[int] = []
    inbox = Inbox(lambda letter, status, payload: told.append(status))
    inbox.ready(inbox.add(":x", (1, 1), limit=10), table())
    letter = Letter(1, ":x", EXACTLY_ONCE | flags, "me", 4, 3, left, "read", b"", Link(), left)
    accepted = inbox.accept(letter)
    assert (accepted is not None) == (outcome == "runs")
    assert told == ([] if outcome == "runs" else [outcome])


def test_all_of_a_sender_that_is_gone_are_refused_at_once() -> None:
    run = AgentsRun()
    run.client()
    run.worker("a")
    run.running(":x", persistence="durable")
    turns = [
        run.turn(":x", s={"n": b"1"}, r=["nobody", 1, 0, True, b"", 0]),
        run.turn(":x", s={"n": b"2"}),
        run.turn(":x", s={"n": b"3"}, r=["nobody", 2, 0, True, b"", 0]),
    ]
    # Told one by one, the agent was made anew for each of them.
    assert run.commit("a", *turns) == [(0, "sender"), (1, "fenced"), (2, "sender")]


def test_the_only_agent_of_a_host_is_still_there_when_it_is_made_anew() -> None:
    run = AgentsRun()
    run.client()
    run.worker("a")
    run.running(":x", persistence="durable")
    run.call(run.sessions["a"], "agents.retake", keys=[":x"])
    run.ledger.validate()
    assert [key for key, _, _ in run.ask(run.sessions["a"], "agents.at_host")] == [":x"]
