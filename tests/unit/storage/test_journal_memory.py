"""The journal that keeps nothing: neither does its memory grow, nor its terms stand still."""

from __future__ import annotations

import time
import tracemalloc

import pytest

from dspex.errors import JournalError
from dspex.storage.journals import memory
from dspex.storage.journals.memory import MemoryJournal


def test_entries_and_snapshots_are_let_go() -> None:
    journal = MemoryJournal()
    journal.open()
    tracemalloc.start()
    try:
        for number in range(1, 200):
            journal.append(number, [bytes(100_000)])
        journal.compact(199, (bytes(100_000) for _ in range(100)))
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 100_000
    assert list(journal.load().entries) == []


def test_each_opening_is_a_history_of_its_own() -> None:
    journal = MemoryJournal()
    journal.open()
    first = journal.identity
    journal.append(1, [b"1"])
    journal.put_blob("0" * 64, b"x")
    journal.close()
    journal.open()
    assert journal.identity != first
    with pytest.raises(KeyError):
        journal.get_blob("0" * 64)
    with pytest.raises(JournalError, match="got number 2 after 0"):
        journal.append(2, [b"2"])


def test_terms_are_unix_seconds_and_grow_though_the_clock_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start = MemoryJournal().open()
    assert start >= int(time.time()) - 5
    monkeypatch.setattr("time.time", lambda: start - 1_000.0)
    assert MemoryJournal().open() == start + 1
    monkeypatch.setattr("time.time", lambda: start + 1_000.5)
    assert MemoryJournal().open() == start + 1_000
    monkeypatch.setattr(memory, "_terms", [0])
