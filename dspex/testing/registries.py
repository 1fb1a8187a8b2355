"""What every `RegistryBackend` must keep, as a suite of tests.

Knows: the port `dspex.foundation.ports.RegistryBackend`. Must not know: any one backend.

Subclass it in a test module, and give it a fixture ``backend``, which is used on the loop of the
fixture ``bridge`` alone; the same fixtures serve the suite of what users hold of it,
`dspex.testing.registry_handles`::

    class TestMyBackend(BackendConformance):
        @pytest.fixture
        def backend(self, bridge):
            backend = MyBackend()
            yield backend
            bridge.run(backend.close())


    class TestRegistryOnMyBackend(TestMyBackend, RegistryConformance):
        pass

A backend that knows sessions gives a fixture ``caller``, too.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import count
from typing import Any, NamedTuple

import pytest

from dspex.cluster.foundation.bridge import LoopBridge, LoopThread
from dspex.errors import (
    FoundationError,
    InvalidRequestError,
    KeyExistsError,
    KeyNotFoundError,
    VersionConflictError,
)
from dspex.foundation.handles.requests import Session
from dspex.foundation.ports import RegistryBackend, Update
from dspex.foundation.query import OPERATORS, Query, scan
from dspex.foundation.record import Operation, Record, check, drop, patch, put

__all__ = ["WAIT", "BackendConformance", "Commit", "OnLoop", "SomeSession"]

Commit = Callable[..., list[Record]]
"""Called with operations: commits them to one collection and waits."""

WAIT = 30.0
"""Seconds for which a test waits for what must come."""

_collections = count()


class SomeSession(NamedTuple):
    """A session of which nothing is known but its name."""

    session: str = "session"

    def now(self) -> float:
        """Monotonic seconds."""
        return time.monotonic()


async def until(stream: AsyncIterator[Update], key: str, gone: bool = False) -> list[Update]:
    """Follow until a key was told of, as there or as gone; gives all updates."""
    seen = []
    async for update in stream:
        seen.append(update)
        if any(each.key == key and (each.record is None) is gone for each in update.changes):
            break
    return seen


class OnLoop:
    """Fixtures that give a loop in a thread, and what blocks on it."""

    @pytest.fixture
    def bridge(self) -> Iterator[LoopBridge]:
        thread = LoopThread("conformance")
        try:
            yield LoopBridge(thread.loop, asynchronous=False)
        finally:
            thread.stop()

    @pytest.fixture
    def caller(self) -> Session:
        return SomeSession()

    @pytest.fixture
    def collection(self) -> str:
        return f"r:conformance-{next(_collections)}"

    @pytest.fixture
    def commit(self, backend: RegistryBackend, bridge: LoopBridge, collection: str) -> Commit:
        return lambda *operations: bridge.run(backend.commit(collection, operations))


def first_of(
    backend: RegistryBackend, bridge: LoopBridge, collection: str, key: str
) -> Record | None:
    """What lies under a key."""
    (found,) = bridge.run(backend.fetch(collection, [key]))
    return found


class BackendConformance(OnLoop):
    """The promises of every backend; subclasses give the fixture ``backend``."""

    def test_it_is_a_backend_that_says_what_it_gives(self, backend: RegistryBackend) -> None:
        assert isinstance(backend, RegistryBackend)
        for name in ("linearizable", "shared", "durable"):
            assert isinstance(getattr(backend, name), bool)

    def test_what_was_put_is_found_whole(
        self, backend: RegistryBackend, bridge: LoopBridge, collection: str, commit: Commit
    ) -> None:
        metadata = {"n": 1, "f": 0.1 + 0.2, "deep": {"list": [None, True, "ü"]}}
        (written,) = commit(put("a/ü", b"\x00value", metadata, ("gpu", "train"), ttl=3600.0))
        found = first_of(backend, bridge, collection, "a/ü")
        assert found == written
        assert written.version > 0
        assert written[:1] + written[2:7] == (
            "a/ü",
            b"\x00value",
            metadata,
            ("gpu", "train"),
            3600.0,
            None,
        )

    def test_what_is_absent_is_none_in_its_place(
        self, backend: RegistryBackend, bridge: LoopBridge, collection: str, commit: Commit
    ) -> None:
        commit(put("b", b"", {}))
        found = bridge.run(backend.fetch(collection, ["a", "b", "c", "b"]))
        assert [each and each.key for each in found] == [None, "b", None, "b"]
        assert bridge.run(backend.fetch(collection, [])) == []

    def test_collections_are_apart(
        self, backend: RegistryBackend, bridge: LoopBridge, collection: str, commit: Commit
    ) -> None:
        commit(put("a", b"1", {}))
        assert first_of(backend, bridge, f"{collection}-other", "a") is None
        assert bridge.run(backend.select(f"{collection}-other", Query())) == []

    def test_versions_grow_with_every_change_and_never_come_again(self, commit: Commit) -> None:
        versions = [commit(put("a", b"", {}))[0].version]
        versions.append(commit(patch("a", {"n": 1}))[0].version)
        versions.append(commit(put("a", b"", {}, on_conflict="replace"))[0].version)
        assert commit(drop("a"))[0].version == versions[-1]
        versions.append(commit(put("a", b"", {}))[0].version)
        assert versions == sorted(set(versions))

    def test_conflicts_are_errors_replaced_or_kept(
        self, backend: RegistryBackend, bridge: LoopBridge, collection: str, commit: Commit
    ) -> None:
        (first,) = commit(put("a", b"1", {}))
        with pytest.raises(KeyExistsError):
            commit(put("a", b"2", {}))
        assert commit(put("a", b"2", {}, on_conflict="keep")) == [first]
        (second,) = commit(put("a", b"2", {}, on_conflict="replace"))
        assert second.value == b"2"
        assert first_of(backend, bridge, collection, "a") == second

    def test_an_expected_version_is_compared_and_zero_means_absent(self, commit: Commit) -> None:
        (first,) = commit(put("a", b"", {}, expected_version=0))
        for operation in (
            put("a", b"", {}, expected_version=0),
            put("a", b"", {}, on_conflict="replace", expected_version=first.version + 1),
            put("b", b"", {}, expected_version=first.version),
            patch("a", {}, expected_version=first.version + 1),
            drop("a", expected_version=first.version + 1),
            check("a", 0),
        ):
            with pytest.raises(VersionConflictError):
                commit(operation)
        (second,) = commit(put("a", b"2", {}, expected_version=first.version))
        assert second.version > first.version
        commit(check("a", second.version), check("b", 0), drop("a"))

    def test_a_patch_merges_maps_and_none_drops_a_name(self, commit: Commit) -> None:
        commit(put("a", b"v", {"x": {"p": 1, "q": [1]}, "y": 1}))
        (patched,) = commit(patch("a", {"x": {"p": None, "r": 2}, "y": None, "z": [None]}))
        assert patched.metadata == {"x": {"q": [1], "r": 2}, "z": [None]}
        assert patched.value == b"v"

    def test_changing_what_is_absent(self, commit: Commit) -> None:
        for operation in (patch("a", {}), drop("a")):
            with pytest.raises(KeyNotFoundError):
                commit(operation)
        (absent,) = commit(drop("a", missing_ok=True))
        assert (absent.key, absent.version) == ("a", 0)

    @pytest.mark.parametrize(
        "bad",
        [
            put("a", b"", {}),
            patch("absent", {}),
            check("absent", 1),
            put("", b"", {}),
            put("x", b"x" * (2**20 + 1), {}),
            put("x", b"", {"n": float("nan")}),
            ("what", "x", None),
        ],
    )
    def test_a_transaction_happens_whole_or_not_at_all(
        self,
        backend: RegistryBackend,
        bridge: LoopBridge,
        collection: str,
        commit: Commit,
        bad: Operation,
    ) -> None:
        commit(put("a", b"1", {}))
        before = bridge.run(backend.select(collection, Query()))
        with pytest.raises(FoundationError):
            commit(put("b", b"", {}), patch("a", {"n": 1}), drop("a", missing_ok=True), bad, bad)
        assert bridge.run(backend.select(collection, Query())) == before

    def test_operations_of_a_transaction_see_each_other(self, commit: Commit) -> None:
        records = commit(
            put("a", b"1", {"n": 1}), patch("a", {"n": 2}), drop("a"), put("a", b"2", {})
        )
        assert [each.metadata.get("n") for each in records] == [1, 2, 2, None]

    def test_many_at_once(
        self, backend: RegistryBackend, bridge: LoopBridge, collection: str, commit: Commit
    ) -> None:
        commit(*(put(f"{n:04}", b"x" * 100, {"n": n}, (f"c{n % 10}",)) for n in range(1_000)))
        query = Query.made([("n", "lt", 500)], "c3", order_by="-n", limit=7)
        found = bridge.run(backend.select(collection, query))
        assert [each.metadata["n"] for each in found] == [493 - 10 * n for n in range(7)]

    def test_queries_mean_what_the_reference_says(
        self, backend: RegistryBackend, bridge: LoopBridge, collection: str, commit: Commit
    ) -> None:
        values = [1, 2.0, "a", "ab", True, None, ["a", 1], {"a": 1}]
        commit(*(put(f"{n}", b"", {"x": each, "n": n}) for n, each in enumerate(values)))
        commit(put("none", b"", {}, ("gpu",)), put("both", b"", {"y": {"z": 1}}, ("gpu", "cpu")))
        records = [
            each
            for each in bridge.run(
                backend.fetch(collection, [*map(str, range(len(values))), "none", "both"])
            )
            if each is not None
        ]
        asked = {"in": [1, "ab", None], "exists": True, "contains": "a"}
        queries = [
            Query.made([("x", name, value)], order_by=order)
            for name in OPERATORS
            for value in ([asked[name]] if name in asked else [1, "a"])
            for order in (None, "x", "-x", "-version")
        ]
        queries += [
            Query.made(capabilities=("gpu", "cpu"), match="any"),
            Query.made(capabilities=("gpu", "cpu"), match="all"),
            Query.made([("y.z", "eq", 1), ("x", "exists", False)]),
            Query.made(prefix="n", limit=1),
            Query.made(order_by="-key", limit=3, keys_only=True),
            Query.made(limit=0),
        ]
        for query in queries:
            assert bridge.run(backend.select(collection, query)) == scan(records, query), query

    def test_what_is_no_query_is_refused(
        self, backend: RegistryBackend, bridge: LoopBridge, collection: str
    ) -> None:
        with pytest.raises(InvalidRequestError):
            bridge.run(backend.select(collection, Query.from_wire([[["x", "like", 1]]])))

    def test_of_many_writers_with_one_expected_version_one_wins(
        self, backend: RegistryBackend, bridge: LoopBridge, collection: str, commit: Commit
    ) -> None:
        (first,) = commit(put("a", b"", {}))

        async def attempts() -> list[Any]:
            tries = (
                backend.commit(collection, [put("a", b"", {}, expected_version=first.version)])
                for _ in range(20)
            )
            return await asyncio.gather(*tries, return_exceptions=True)

        outcomes = bridge.run(attempts())
        lost = [each for each in outcomes if isinstance(each, VersionConflictError)]
        assert (len(outcomes), len(lost)) == (20, 19)

    def test_a_time_to_live_runs_out_by_itself(
        self, backend: RegistryBackend, bridge: LoopBridge, collection: str, commit: Commit
    ) -> None:
        commit(put("a", b"", {}, ttl=0.2), put("b", b"", {}))

        async def followed() -> None:
            stream = backend.follow(collection, "*")
            await asyncio.wait_for(until(stream, "a", gone=True), WAIT)
            await closed(stream)

        bridge.run(followed())
        assert [each.key for each in bridge.run(backend.select(collection, Query()))] == ["b"]

    def test_following_tells_all_there_is_then_every_change(
        self, backend: RegistryBackend, bridge: LoopBridge, collection: str, commit: Commit
    ) -> None:
        commit(put("w/1", b"1", {}), put("other", b"", {}))

        async def followed() -> list[Update]:
            began = time.monotonic()
            stream = backend.follow(collection, "w/*")
            updates = [await asyncio.wait_for(anext(stream), WAIT)]
            await backend.commit(collection, [put("w/2", b"2", {"n": 1}), put("x", b"", {})])
            await backend.commit(collection, [patch("w/2", {"n": 2})])
            await backend.commit(collection, [drop("w/1")])
            await backend.commit(collection, [put("w/end", b"", {})])
            updates += await asyncio.wait_for(until(stream, "w/end"), WAIT)
            await closed(stream)
            assert updates[-1].fresh_at >= began
            return updates

        first, *rest = bridge.run(followed())
        assert first.is_snapshot
        assert [each.key for each in first.changes] == ["w/1"]
        assert not any(each.is_snapshot for each in rest)
        changes = [change for update in rest for change in update.changes]
        told = [(each.key, each.record and each.record.metadata) for each in changes]
        assert told == [("w/2", {"n": 1}), ("w/2", {"n": 2}), ("w/1", None), ("w/end", {})]
        assert changes[0].record is not None
        assert changes[0].record.value == b"2"
        assert changes[0].version == changes[0].record.version
        revisions = [first.revision, *(each.revision for each in rest)]
        assert revisions == sorted(revisions)

    def test_followers_are_apart_and_miss_nothing_between_snapshot_and_changes(
        self, backend: RegistryBackend, bridge: LoopBridge, collection: str
    ) -> None:
        total = 60

        async def write() -> None:
            for n in range(total):
                await backend.commit(collection, [put(f"{n}", b"", {})])

        async def read(start_after: int) -> set[str]:
            for _ in range(start_after):
                await asyncio.sleep(0)  # begins at another point of the writing
            stream = backend.follow(collection, "*")
            seen: list[str] = []
            async for update in stream:
                seen += [each.key for each in update.changes]
                if f"{total - 1}" in seen:
                    break
            await closed(stream)
            assert len(seen) == len(set(seen)), "a change was told twice"
            return set(seen)

        async def both() -> list[Any]:
            readers = (read(start_after) for start_after in range(0, 100, 20))
            return await asyncio.wait_for(asyncio.gather(write(), *readers), WAIT)

        _, *seen = bridge.run(both())
        assert all(each == {f"{n}" for n in range(total)} for each in seen)

    def test_closing_twice_is_closing_once(
        self, backend: RegistryBackend, bridge: LoopBridge
    ) -> None:
        bridge.run(backend.close())
        bridge.run(backend.close())


async def closed(stream: Any) -> None:
    """End a stream."""
    await stream.aclose()
