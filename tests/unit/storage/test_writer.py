"""Group commit: who waits for whom, and where errors come out."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from dspex.errors import StorageError
from dspex.storage import writer
from dspex.storage.writer import Write, Writer
from dspex.study.records import Record, Stopped


def record(number: int) -> Record:
    return Stopped(reason=str(number), time=0.0)


class Disk:
    """A sink whose writes wait at a gate."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.gate = threading.Semaphore(0)
        self.written: list[list[Record]] = []
        self.error: Exception | None = None
        self.left = False

    @contextmanager
    def session(self) -> Iterator[Write]:
        try:
            yield self.write
        finally:
            self.left = True

    def write(self, records: list[Record]) -> None:
        self.entered.release()
        self.gate.acquire()
        if self.error is not None:
            raise self.error
        self.written.append(records)

    def open_gate(self) -> None:
        self.gate.release(1_000)


def test_append_does_not_wait_and_the_next_commit_takes_all_that_came_meanwhile() -> None:
    disk = Disk()
    log = Writer(disk.session, idle_seconds=60)
    log.append([record(0)])
    disk.entered.acquire()
    for number in range(1, 10):
        log.append([record(number)])
    disk.open_gate()
    log.sync()
    assert disk.written == [[record(0)], [record(number) for number in range(1, 10)]]
    log.close()
    assert disk.left


def test_close_writes_what_is_queued() -> None:
    disk = Disk()
    disk.open_gate()
    log = Writer(disk.session, idle_seconds=60)
    log.append([record(0)])
    log.close()
    assert disk.written == [[record(0)]]


def test_an_error_comes_out_of_every_later_call() -> None:
    disk = Disk()
    disk.error = StorageError("the disk is full")
    disk.open_gate()
    log = Writer(disk.session, idle_seconds=60)
    log.append([record(0)])
    for call in (log.sync, lambda: log.append([record(1)]), log.sync, log.close):
        with pytest.raises(StorageError, match="the disk is full"):
            call()
    log.close()
    assert disk.left
    assert disk.written == []


def test_an_error_at_the_opening_comes_out() -> None:
    def session() -> AbstractContextManager[Write]:
        raise StorageError("no such disk")

    log = Writer(session, idle_seconds=60)
    with pytest.raises(StorageError, match="no such disk"):
        log.sync()
    with pytest.raises(StorageError, match="no such disk"):
        log.close()


def test_a_full_queue_makes_append_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "LIMIT", 2)
    disk = Disk()
    log = Writer(disk.session, idle_seconds=60)
    log.append([record(0)])
    disk.entered.acquire()
    log.append([record(1), record(2)])
    done = threading.Event()

    def append() -> None:
        log.append([record(3)])
        done.set()

    thread = threading.Thread(target=append)
    thread.start()
    assert not done.is_set()
    disk.gate.release()
    # The second commit took the full queue, so there is room again.
    disk.entered.acquire()
    assert done.wait(60)
    disk.open_gate()
    thread.join()
    log.close()
    assert [len(each) for each in disk.written] == [1, 2, 1]


def test_a_full_queue_does_not_hide_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "LIMIT", 1)
    disk = Disk()
    disk.error = StorageError("the disk is full")
    log = Writer(disk.session, idle_seconds=60)
    log.append([record(0)])
    disk.entered.acquire()
    log.append([record(1)])
    caught: list[BaseException] = []

    def append() -> None:
        try:
            log.append([record(2)])
        except StorageError as error:
            caught.append(error)

    thread = threading.Thread(target=append)
    thread.start()
    disk.open_gate()
    thread.join()
    assert caught == [disk.error]
    with pytest.raises(StorageError):
        log.close()


def test_a_silent_log_gives_signs_of_life() -> None:
    disk = Disk()
    disk.open_gate()
    log = Writer(disk.session, idle_seconds=0.001)
    disk.entered.acquire()
    disk.entered.acquire()
    log.close()
    assert set(map(len, disk.written)) == {0}


def test_a_fork_may_not_use_the_log_and_does_not_close_it(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk()
    disk.open_gate()
    log = Writer(disk.session, idle_seconds=60)
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: -1)
        with pytest.raises(StorageError, match="open logs after forking"):
            log.append([record(0)])
        log.close()
    log.append([record(1)])
    log.close()
    assert disk.written == [[record(1)]]
