"""Threads for turns: one while turns are short, more while some are stuck."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from dspex.cluster.agents.pool import Pool

WITHIN = 30.0


class Stuck:
    """A job that is at it until it is let go."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.may_end = threading.Event()
        self.thread: threading.Thread | None = None

    def __call__(self) -> None:
        self.thread = threading.current_thread()
        self.begun.set()
        assert self.may_end.wait(WITHIN)


@contextmanager
def pool_of(most: int) -> Iterator[tuple[Pool, Callable[[], Stuck]]]:
    """A pool, and what submits jobs that are let go at the end."""
    pool = Pool(most)
    jobs: list[Stuck] = []

    def submit() -> Stuck:
        jobs.append(Stuck())
        pool.submit(jobs[-1])
        return jobs[-1]

    try:
        yield pool, submit
    finally:
        for job in jobs:
            job.may_end.set()
        pool.close()
        for thread in pool._threads:
            thread.join(WITHIN)
            assert not thread.is_alive(), "a pool that is closed lets its threads end"


def watch_until(pool: Pool, event: threading.Event) -> None:
    """Watch as a loop does, until something has happened."""
    for _ in range(10_000):
        if event.wait(0.001):
            return
        pool.watch()
    raise AssertionError("it never happened")


def test_short_jobs_run_in_one_thread_in_order() -> None:
    with pool_of(4) as (pool, submit):
        first = submit()
        assert first.begun.wait(WITHIN)
        done: list[int] = []
        end = threading.Event()
        for n in range(100):
            pool.submit(lambda n=n: done.append(n))
        pool.submit(end.set)
        first.may_end.set()
        assert end.wait(WITHIN)
        assert done == list(range(100))
        assert len(pool._threads) == 1


def test_a_stuck_job_delays_no_other() -> None:
    with pool_of(2) as (pool, submit):
        assert submit().begun.wait(WITHIN)
        done = threading.Event()
        pool.submit(done.set)
        watch_until(pool, done)


def test_there_are_no_more_threads_than_allowed() -> None:
    with pool_of(3) as (pool, submit):
        stuck = [submit() for _ in range(3)]
        for job in stuck:
            watch_until(pool, job.begun)
        done = threading.Event()
        pool.submit(done.set)
        for _ in range(20):
            assert pool.watch(), "one waits"
        assert len(pool._threads) == 3
        assert not done.is_set()
        assert len({job.thread for job in stuck}) == 3
        stuck[1].may_end.set()
        watch_until(pool, done)


def test_watching_wakes_nobody_while_things_get_on() -> None:
    with pool_of(4) as (pool, submit):
        first, second = submit(), submit()
        assert first.begun.wait(WITHIN)
        pool.watch()  # it has seen what was done so far; the next call would wake one
        threads = len(pool._threads)
        first.may_end.set()
        watch_until(pool, second.begun)
        assert len(pool._threads) <= threads + 1
        assert not pool.watch(), "nothing waits"


def test_threads_that_sleep_are_used_again() -> None:
    with pool_of(2) as (pool, submit):
        for _ in range(50):
            done = threading.Event()
            pool.submit(done.set)
            watch_until(pool, done)
        stuck = submit()
        watch_until(pool, stuck.begun)
        assert len(pool._threads) <= 2


def test_a_job_that_raises_is_told_of_and_the_others_go_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail() -> None:
        raise ValueError("no")

    with pool_of(1) as (pool, _), caplog.at_level(logging.ERROR, "dspex.agents"):
        done = threading.Event()
        pool.submit(fail)
        pool.submit(done.set)
        watch_until(pool, done)
        assert "a job of the agents' threads failed" in caplog.text


def test_what_has_not_begun_when_it_closes_never_does() -> None:
    with pool_of(1) as (pool, submit):
        running = submit()
        assert running.begun.wait(WITHIN)
        never = submit()
        pool.close()
        pool.submit(never)
        assert not never.begun.is_set()
        running.may_end.set()
        for thread in pool._threads:
            thread.join(WITHIN)
        assert not never.begun.is_set()


def test_a_pool_that_was_never_used_has_no_thread() -> None:
    pool = Pool(3)
    assert not pool.watch()
    pool.close()
    assert pool._threads == []
