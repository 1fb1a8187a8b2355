"""Group commit: in order, one write at a time, again after trouble, never after another owner."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial

import pytest

from dspex.cluster.foundation import commits as committing
from dspex.cluster.foundation.commits import Commits
from dspex.errors import JournalError, JournalFencedError, UnavailableError
from dspex.storage.journals.memory import MemoryJournal
from dspex.testing.ledgers import GatedJournal, run, until


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committing, "_RETRY_AFTER", (0.0,))


class Committing:
    """A journal, what writes to it, and what it said."""

    def __init__(self, thread: ThreadPoolExecutor) -> None:
        self.journal = GatedJournal()
        self.told: list[int] = []
        self.commits = Commits(self.journal, 0, self.told.append, thread)
        self.last = 0

    def append(self, count: int = 1, size: int = 8) -> None:
        for _ in range(count):
            self.last += 1
            self.commits.append(self.last, self.last.to_bytes(size, "big"))

    def held_up(self) -> None:
        """Have the next write wait at the gate, on its way already."""
        self.journal.gate.clear()
        self.journal.entered.clear()
        self.append()

    async def is_entered(self) -> None:
        await until(self.journal.entered.is_set)

    @property
    def written(self) -> list[tuple[int, int]]:
        """First number and count of each write."""
        return [(first, len(entries)) for first, entries in self.journal.batches]


@asynccontextmanager
async def committing_on(thread: ThreadPoolExecutor) -> AsyncIterator[Committing]:
    made = Committing(thread)
    made.commits.start()
    try:
        yield made
    finally:
        made.journal.gate.set()
        await made.commits.close()


@pytest.fixture
def thread() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as thread:
        yield thread


def test_what_comes_during_a_write_goes_with_the_next_one(thread: ThreadPoolExecutor) -> None:
    async def test() -> None:
        async with committing_on(thread) as there:
            there.held_up()
            await there.is_entered()
            there.append(3)
            reached: list[int] = []

            def reach(number: int, _: object) -> None:
                reached.append(number)

            waiting = [
                asyncio.ensure_future(there.commits.reach(number)) for number in (4, 2, 2, 1)
            ]
            for number, each in zip((4, 2, 2, 1), waiting, strict=True):
                each.add_done_callback(partial(reach, number))
            await asyncio.sleep(0)
            assert there.commits.committed == 0
            assert not reached
            there.journal.gate.set()
            await asyncio.gather(*waiting)
            assert there.written == [(1, 1), (2, 3)]
            assert there.told == [1, 4]
            assert reached[0] == 1
            assert not there.commits._waiters
            await there.commits.reach(3)  # long ago

    run(test())


def test_large_batches_are_written_in_parts(
    thread: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(committing, "MAX_BATCH", 100)

    async def test() -> None:
        async with committing_on(thread) as there:
            there.append(4, size=40)
            there.append(1, size=400)  # larger than a batch: alone
            there.append(1, size=40)
            await there.commits.reach(6)
            assert there.written == [(1, 2), (3, 2), (5, 1), (6, 1)]

    run(test())


def test_a_failed_write_is_made_again_and_meanwhile_nothing_new_is_taken(
    thread: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        async with committing_on(thread) as there:
            there.journal.errors += [JournalError("the disk is full"), OSError("not of ours")]
            there.held_up()
            reaching = asyncio.ensure_future(there.commits.reach(1))
            await there.is_entered()
            there.commits.check()
            there.journal.gate.set()
            await until(lambda: there.commits.trouble)
            with pytest.raises(UnavailableError, match="nothing was changed"):
                there.commits.check()
            await reaching
            assert there.written == [(1, 1)]
            there.commits.check()

    with caplog.at_level(logging.WARNING, logger="dspex.journal"):
        run(test())
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]


@pytest.mark.parametrize("why", ["it fails", "it does not answer"])
def test_whoever_waits_for_long_hears_that_it_is_not_known(
    thread: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    monkeypatch.setattr(committing, "PATIENCE", 0.01)
    monkeypatch.setattr(committing, "_RETRY_AFTER", (0.001,))

    async def test() -> None:
        async with committing_on(thread) as there:
            if why == "it fails":
                there.journal.errors += [JournalError("the disk is full")] * 10_000
                there.append()
            else:
                there.held_up()
            with pytest.raises(UnavailableError, match="takes effect when it can be"):
                await there.commits.reach(1)
            assert not there.commits._waiters
            there.journal.errors.clear()
            there.journal.gate.set()
            await until(lambda: there.commits.committed == 1)
            assert there.written == [(1, 1)]

    run(test())


def test_another_owner_is_for_good(thread: ThreadPoolExecutor) -> None:
    async def test() -> None:
        async with committing_on(thread) as there:
            there.held_up()
            await there.is_entered()
            waiting = asyncio.ensure_future(there.commits.reach(1))
            await asyncio.sleep(0)
            there.journal.errors.append(JournalFencedError("term 7"))
            there.journal.gate.set()
            with pytest.raises(UnavailableError, match="is not known"):
                await waiting
            with pytest.raises(UnavailableError, match=r"does not own .* any more \(term 7\)"):
                there.commits.check()
            there.append(3)
            with pytest.raises(UnavailableError, match="does not own"):
                await there.commits.reach(4)
            assert not there.commits._queue
        assert there.written == []

    run(test())


def test_closing_writes_what_is_queued(thread: ThreadPoolExecutor) -> None:
    async def test() -> None:
        async with committing_on(thread) as there:
            there.held_up()
            await there.is_entered()
            there.append(2)
            closing = asyncio.ensure_future(there.commits.close())
            await asyncio.sleep(0)
            there.journal.gate.set()
            await closing
            assert there.written == [(1, 1), (2, 2)]
            await there.commits.close()

    run(test())


def test_closing_in_trouble_ends_and_tells_those_who_wait(thread: ThreadPoolExecutor) -> None:
    async def test() -> None:
        async with committing_on(thread) as there:
            there.journal.errors += [JournalError("the disk is full")] * 10_000
            there.append()
            waiting = asyncio.ensure_future(there.commits.reach(1))
            await until(lambda: there.commits.trouble)
            await there.commits.close()
            with pytest.raises(UnavailableError, match="closed before"):
                await waiting

    run(test())


def test_a_journal_in_memory_has_everything_at_once() -> None:
    journal = MemoryJournal()
    journal.open()
    told: list[int] = []
    with ThreadPoolExecutor(1) as thread:
        commits = Commits(journal, 0, told.append, thread)
        commits.append(1, b"one")
        assert commits.committed == 1
        assert told == [1]


def test_an_error_in_what_follows_a_commit_stops_no_commit(
    thread: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(number: int) -> None:
        raise ZeroDivisionError(number)

    async def test() -> None:
        commits = Commits(GatedJournal(), 0, broken, thread)
        commits.start()
        for number in (1, 2):
            commits.append(number, b"")
            await commits.reach(number)
        await commits.close()

    run(test())
    assert "what follows the commit of entry 2 failed" in caplog.text
