"""What only the handle decides: copies that age, streams that begin again, who ties what."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any, TypeVar

import pytest

from dspex.cluster.foundation.bridge import LoopBridge, LoopThread
from dspex.errors import KeyNotFoundError, UnavailableError, UnsupportedGuaranteeError
from dspex.foundation.handles.local_copy import LocalCopy
from dspex.foundation.handles.registry import Registry
from dspex.foundation.handles.watching import UNSEEN, WatchEvent, watched
from dspex.foundation.ports import Change, Update
from dspex.foundation.query import Query
from dspex.foundation.record import Operation, Record
from dspex.testing.backends import MemoryBackend

T = TypeVar("T")


def record(key: str, version: int, writer: str = "me") -> Record:
    return Record(key, version, b"", {}, (), None, None, writer)


def snapshot(*records: Record, at: float = 0.0) -> Update:
    return Update(True, [Change(each.key, each.version, each, "put") for each in records], 9, at)


def changes(*made: Change, at: float = 0.0) -> Update:
    return Update(False, made, 10, at)


class Scripted:
    """A backend whose streams say what a test says; each `follow` takes the next script."""

    linearizable = False
    shared = durable = True

    def __init__(self, *scripts: Sequence[Update]) -> None:
        self.scripts = list(scripts)
        self.follows = 0
        self.ended = 0
        self.is_reachable = True

    async def commit(
        self, collection: str, operations: Sequence[Operation], *, wait_durable: bool = True
    ) -> list[Record]:
        raise NotImplementedError

    async def fetch(self, collection: str, keys: Sequence[str]) -> list[Record | None]:
        if not self.is_reachable:
            raise UnavailableError("not reachable")
        return [None for _ in keys]

    async def select(self, collection: str, query: Query) -> list[Record]:
        return []

    async def follow(self, collection: str, pattern: str) -> AsyncIterator[Update]:
        script = self.scripts[self.follows]
        self.follows += 1
        try:
            for update in script:
                yield update
            raise UnavailableError("the script is over")
        finally:
            self.ended += 1

    async def close(self) -> None:
        pass


class Stage:
    """A bridge that runs what never waits, and keeps what is in the background."""

    asynchronous = False

    def __init__(self) -> None:
        self.background: list[Any] = []
        self.time = 100.0
        self.session = "me"

    def now(self) -> float:
        return self.time

    def run(self, work: Any) -> Any:
        try:
            work.send(None)
        except StopIteration as stop:
            return stop.value
        raise AssertionError("it waits")

    def spawn(self, work: Any) -> Callable[[], None]:
        self.background.append(work)
        return work.close  # type: ignore[no-any-return]

    def iterate(self, make: Callable[[], AsyncIterator[T]]) -> Any:
        return make()

    def go_on(self) -> None:
        """Let the background come to its end."""
        while self.background:
            self.run(self.background.pop(0))


@pytest.fixture
def stage() -> Iterator[Stage]:
    made = Stage()
    yield made
    for work in made.background:
        work.close()


def test_a_copy_tells_the_age_of_what_it_knows(stage: Stage) -> None:
    backend = Scripted([snapshot(record("a", 1), at=99.0), changes(at=100.0)])
    copy = LocalCopy(backend, stage, "r:", now=stage.now, max_staleness=5.0)
    assert (copy.is_ready, copy.is_current) == (False, False)
    assert "empty" in repr(copy)
    stage.run(copy.ready())
    assert copy.get_aged("a") == (record("a", 1), 1.0)
    stage.go_on()
    assert (copy.age, copy.is_current) == (0.0, True)
    stage.time = 105.1
    assert (copy.is_ready, copy.is_current) == (True, False)
    assert copy.get("a") == record("a", 1)
    assert "1 records" in repr(copy)


def test_a_copy_takes_changes_and_later_snapshots(stage: Stage) -> None:
    backend = Scripted(
        [
            snapshot(record("a", 1), record("b", 2)),
            changes(Change("a", 1, None, "dropped"), Change("c", 3, record("c", 3), "put")),
            changes(Change("absent", 1, None, "dropped")),
        ],
        [snapshot(record("d", 4))],
    )
    copy = LocalCopy(backend, stage, "r:", now=stage.now)
    copy.start()
    copy.start()
    stage.go_on()
    assert (copy.get("a"), copy.get("b"), copy.get("c")) == (None, record("b", 2), record("c", 3))
    assert (backend.follows, backend.ended) == (1, 1)
    copy.start()  # the stream ended, so it is fed by another one
    stage.go_on()
    assert copy.get("b") is None
    assert copy.get("d") == record("d", 4)


def test_two_that_wait_for_a_copy_feed_it_once(stage: Stage) -> None:
    backend = Scripted([snapshot(record("a", 1))], [snapshot(record("a", 1))])
    copy = LocalCopy(backend, stage, "r:", now=stage.now)
    copy.start()  # it has not run yet
    stage.run(copy.ready())
    assert copy.get("a") == record("a", 1)
    assert backend.ended == 1
    stage.go_on()
    assert (backend.follows, backend.ended) == (2, 2)
    copy.close()
    copy.close()
    copy.start()
    assert stage.background == []


def test_waiting_for_a_copy_of_nobody_ends(stage: Stage) -> None:
    backend = Scripted()
    backend.is_reachable = False
    copy = LocalCopy(backend, stage, "r:", now=stage.now)
    with pytest.raises(UnavailableError):
        stage.run(copy.ready())
    assert backend.follows == 0


def test_an_old_copy_answers_only_those_who_are_content_with_it(stage: Stage) -> None:
    backend = Scripted([snapshot(record("a", 1), at=100.0)], [], [], [snapshot(at=110.0)])
    registry = Registry(backend, stage, caller=stage, max_staleness=5.0)
    assert registry.lookup("a", consistency="eventual").age == 0.0
    stage.go_on()
    stage.time = 110.0
    with pytest.raises(UnavailableError, match=r"10\.0 s old"):
        registry.lookup("a", consistency="eventual")
    tolerated = registry.lookup("a", consistency="eventual", partition_tolerance=True)
    assert (tolerated.version, tolerated.age) == (1, 10.0)
    stage.go_on()
    assert registry.get("b", 0, consistency="eventual", partition_tolerance=True) == 0
    stage.go_on()
    assert registry.get("b", 0, consistency="eventual", partition_tolerance=True) == 0
    stage.go_on()  # now somebody tells again
    with pytest.raises(KeyNotFoundError):
        registry.lookup("a", consistency="eventual")


def test_a_ready_copy_answers_without_the_loop(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry(Scripted([snapshot(record("a", 1), at=99.0)]), stage, caller=stage)
    registry.lookup("a", consistency="eventual")
    monkeypatch.setattr(stage, "run", None)
    assert registry.lookup("a", consistency="eventual").age == 1.0
    assert registry.get("b", 7, consistency="eventual") == 7


def test_strong_reads_need_a_linearizable_backend(stage: Stage) -> None:
    registry = Registry(Scripted(), stage, caller=stage, require=("shared", "durable"))
    with pytest.raises(UnsupportedGuaranteeError, match="Scripted"):
        registry.lookup("a", consistency="strong")
    assert registry.get("a") is None  # as strong as it gives
    with pytest.raises(UnsupportedGuaranteeError, match="linearizable"):
        Registry(Scripted(), stage, caller=stage, require="linearizable")


def told(*updates: Update) -> list[WatchEvent]:
    """What a watcher is told of these."""

    async def listen() -> list[WatchEvent]:
        events: list[WatchEvent] = []
        try:
            async for event in watched(Scripted(updates), "r:", "*"):
                events.append(event)  # noqa: PERF401  # those before the error count
        except UnavailableError:
            pass
        return events

    return asyncio.run(listen())


def test_a_stream_that_begins_again_tells_the_difference_only() -> None:
    events = told(
        snapshot(record("same", 1), record("changed", 2), record("gone", 3)),
        changes(Change("later", 4, record("later", 4), "put")),
        snapshot(
            record("same", 1), record("changed", 5), record("later", 4, "another"), record("new", 6)
        ),
        changes(Change("new", 6, None, "its time to live ran out")),
    )
    assert [(each.kind, each.key, each.version, each.reason) for each in events] == [
        ("snapshot", "same", 1, ""),
        ("snapshot", "changed", 2, ""),
        ("snapshot", "gone", 3, ""),
        ("synced", "", 9, ""),
        ("put", "later", 4, ""),
        ("drop", "gone", 3, UNSEEN),
        ("put", "changed", 5, ""),
        ("put", "later", 4, ""),
        ("put", "new", 6, ""),
        ("drop", "new", 6, "its time to live ran out"),
    ]


def test_a_change_is_told_once_and_a_drop_only_of_what_was_told() -> None:
    put = Change("a", 1, record("a", 1), "put")
    events = told(snapshot(), changes(put), changes(put, Change("b", 1, None, "dropped")))
    assert [(each.kind, each.key) for each in events] == [("synced", ""), ("put", "a")]


class OnLoop:
    """A registry in memory, and its backend."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.backend = MemoryBackend()
        self.bridge = LoopBridge(loop, asynchronous=False)
        self.stage = Stage()
        self.registry = Registry(self.backend, self.bridge, caller=self.stage)


@pytest.fixture
def live() -> Iterator[OnLoop]:
    thread = LoopThread("registry")
    made = OnLoop(thread.loop)
    try:
        yield made
    finally:
        made.registry.close()
        thread.stop()


def test_entries_go_with_whom_they_are_tied_to(live: OnLoop) -> None:
    registry = live.registry
    assert registry.register("a", 1, tied_to="client").tied_to == "me"
    assert registry.register("b", 1, tied_to="tcp://w:1").tied_to == "worker:tcp://w:1"
    registry.register("c", 1)
    with registry.watch() as stream:
        events = iter(stream)
        while next(events).kind != "synced":
            pass
        live.bridge.loop.call_soon_threadsafe(live.backend.drop_owned, "worker:tcp://w:1")
        gone = next(events)
        live.bridge.loop.call_soon_threadsafe(live.backend.drop_owned, "me")
        assert [gone.key, next(events).key] == ["b", "a"]
        assert gone.reason == "its session ended"
    assert list(registry) == ["c"]


def test_a_copy_is_not_asked_over_the_wire(live: OnLoop) -> None:
    live.registry.register("a", 1)
    live.registry.lookup("a", consistency="eventual")
    fetches = live.backend.fetches
    for _ in range(100):
        live.registry.lookup("a", consistency="eventual")
        live.registry.get("b", consistency="eventual")
    assert live.backend.fetches == fetches


def test_while_nobody_can_be_reached_reads_fail_but_for_tolerant_ones(live: OnLoop) -> None:
    live.registry.register("a", 1)
    live.registry.lookup("a", consistency="eventual")
    live.backend.is_reachable = False
    with pytest.raises(UnavailableError):
        live.registry.lookup("a")
    found = live.registry.lookup("a", consistency="eventual", partition_tolerance=True)
    assert found.value == 1
