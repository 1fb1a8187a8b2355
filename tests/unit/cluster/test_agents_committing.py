"""Group commit: turns are committed in order, and each is told what became of it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from dspex.cluster.agents import committing
from dspex.cluster.agents.committing import Committer, Pending
from dspex.errors import SessionExpiredError, UnavailableError
from dspex.foundation.agents.cells import Cell
from dspex.foundation.ledger.agents.turns import pack_turn, unpack_turn
from dspex.testing.ledgers import run, until


class Ledger:
    """A caller, and who hears what became of turns."""

    def __init__(self) -> None:
        self.session = "s1"
        self.writes: list[list[Any]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.outcomes: list[Any] = []
        self.told: list[Any] = []
        self.cells: dict[str, Cell] = {}
        caller: Any = self
        self.committer = Committer(caller, self)

    async def write(self, op: str, **args: Any) -> Any:
        assert op == "agents.commit"
        self.writes.append(args["turns"])
        await self.gate.wait()
        outcome = self.outcomes.pop(0) if self.outcomes else []
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def committed(self, batch: Sequence[Pending], refused: Mapping[int, str]) -> None:
        self.note("committed", batch, dict(refused))

    async def not_committed(self, batch: Sequence[Pending], error: Exception) -> None:
        self.note("not", batch, type(error).__name__)

    def session_ended(self, session: str) -> None:
        self.told.append(("ended", session))

    def note(self, what: str, batch: Sequence[Pending], more: Any) -> None:
        # By now nothing of them is under way.
        assert all(not each.cell.uncommitted for each in batch if self.is_last(each, batch))
        self.told.append((what, [each.cell.key for each in batch], more))

    def is_last(self, pending: Pending, batch: Sequence[Pending]) -> bool:
        waiting = self.committer._pending
        return all(each.cell is not pending.cell for each in waiting)

    def pending(self, key: str, *, size: int = 0, is_entry: bool = True) -> Pending:
        cell = self.cells.setdefault(key, Cell(key, (1, 1), 9))
        entry = pack_turn({"a": key, "s": {"n": b"x" * size}}) if is_entry else None
        return Pending(cell, entry)

    def add(self, *keys: str, size: int = 0) -> None:
        for key in keys:
            self.committer.add(self.pending(key, size=size))

    async def idle(self) -> None:
        await until(lambda: self.committer._running is None)
        assert all(not cell.uncommitted for cell in self.cells.values())

    def keys(self) -> list[list[str]]:
        return [[unpack_turn(turn)["a"] for turn in turns] for turns in self.writes]


def test_turns_gather_while_one_commit_is_under_way() -> None:
    async def work() -> None:
        ledger = Ledger()
        ledger.gate.clear()
        ledger.add("a", "b")
        await until(lambda: ledger.writes)
        ledger.add("a", "c")
        ledger.add("d")
        assert ledger.cells["a"].uncommitted == 2
        assert len(ledger.writes) == 1, "one at a time"
        ledger.gate.set()
        await ledger.idle()
        assert ledger.keys() == [["a", "b"], ["a", "c", "d"]]
        assert ledger.told == [("committed", ["a", "b"], {}), ("committed", ["a", "c", "d"], {})]

    run(work())


def test_turns_that_end_in_the_same_round_go_along() -> None:
    async def work() -> None:
        ledger = Ledger()
        ledger.add("a")
        ledger.add("b")
        await ledger.idle()
        assert ledger.keys() == [["a", "b"]]

    run(work())


def test_what_changed_nothing_keeps_its_place_and_is_not_sent() -> None:
    async def work() -> None:
        ledger = Ledger()
        ledger.outcomes = [[[1, "fenced"]]]
        ledger.committer.add(ledger.pending("a"))
        ledger.committer.add(ledger.pending("a", is_entry=False))
        ledger.committer.add(ledger.pending("b"))
        await ledger.idle()
        assert ledger.keys() == [["a", "b"]]
        assert ledger.told == [("committed", ["a", "a", "b"], {1: "fenced"})], "places of entries"
        ledger.committer.add(ledger.pending("c", is_entry=False))
        await ledger.idle()
        assert len(ledger.writes) == 1
        assert ledger.told[-1] == ("committed", ["c"], {})

    run(work())


def test_batches_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committing, "TURNS_AT_ONCE", 2)

    async def work() -> None:
        ledger = Ledger()
        ledger.add("a", "b", "c")
        await ledger.idle()
        assert ledger.keys() == [["a", "b"], ["c"]]
        monkeypatch.setattr(committing, "TURNS_AT_ONCE", 100)
        monkeypatch.setattr(committing, "BYTES_AT_ONCE", 1000)
        ledger.add("d", "e", "f", size=500)
        ledger.add("g", size=5000)
        await ledger.idle()
        assert ledger.keys()[2:] == [["d", "e"], ["f", "g"]], "none is too large for its own"

    run(work())


def test_where_nobody_knows_all_of_the_batch_hear_it_and_the_next_goes_on() -> None:
    async def work() -> None:
        ledger = Ledger()
        ledger.outcomes = [UnavailableError("nobody there")]
        ledger.gate.clear()
        ledger.add("a", "b")
        await until(lambda: ledger.writes)
        ledger.add("c")
        ledger.gate.set()
        await ledger.idle()
        assert ledger.told == [
            ("not", ["a", "b"], "UnavailableError"),
            ("committed", ["c"], {}),
        ]

    run(work())


def test_the_end_of_a_session_is_that_of_the_session_which_committed() -> None:
    async def work() -> None:
        ledger = Ledger()
        ledger.outcomes = [SessionExpiredError("it ran out")]
        ledger.gate.clear()
        ledger.add("a")
        await until(lambda: ledger.writes)
        ledger.session = "s2"
        ledger.gate.set()
        await ledger.idle()
        assert ledger.told == [("ended", "s1")]

    run(work())


def test_who_waits_hears_when_it_is_settled_whatever_became_of_it() -> None:
    async def work() -> None:
        ledger = Ledger()
        ledger.outcomes = [[], UnavailableError("nobody"), SessionExpiredError("it ran out")]
        for _ in range(3):
            await ledger.committer.add_and_wait(ledger.pending("a"))
        assert [each[0] for each in ledger.told] == ["committed", "not", "ended"]
        await ledger.idle()

    run(work())


def test_what_has_not_left_is_dropped_by_agent() -> None:
    async def work() -> None:
        ledger = Ledger()
        ledger.gate.clear()
        ledger.add("a")
        await until(lambda: ledger.writes)
        waiting = asyncio.ensure_future(ledger.committer.add_and_wait(ledger.pending("a")))
        await asyncio.sleep(0)
        ledger.add("b", "a")
        dropped = ledger.committer.drop({"a": None})
        assert [each.cell.key for each in dropped] == ["a", "a"]
        assert ledger.cells["a"].uncommitted == 1, "one has left"
        await waiting
        ledger.gate.set()
        await ledger.idle()
        assert ledger.keys() == [["a"], ["b"]]

    run(work())


def test_all_is_dropped_at_once() -> None:
    async def work() -> None:
        ledger = Ledger()
        ledger.add("a", "b")
        assert len(ledger.committer.drop()) == 2
        assert ledger.committer.drop() == []
        await ledger.idle()
        assert ledger.writes == []
        assert [each for each in ledger.told if each[1]] == []

    run(work())


def test_closing_tells_who_waits_and_commits_no_more() -> None:
    async def work() -> None:
        ledger = Ledger()
        ledger.gate.clear()
        under_way = asyncio.ensure_future(ledger.committer.add_and_wait(ledger.pending("a")))
        await until(lambda: ledger.writes)
        behind = asyncio.ensure_future(ledger.committer.add_and_wait(ledger.pending("b")))
        await asyncio.sleep(0)
        await ledger.committer.close()
        await asyncio.gather(under_way, behind)
        assert len(ledger.writes) == 1
        assert ledger.told == []
        await ledger.committer.close()

    run(work())
