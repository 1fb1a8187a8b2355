"""What every `Registry` promises its user, whatever backend it stands on, as a suite of tests.

Knows: the handle, in sync and in async code. Must not know: any one backend.

Subclass it together with the suite of the backend, whose fixtures it uses (see
`dspex.testing.registries`).
"""

from __future__ import annotations

import asyncio
import json
import pickle
from collections.abc import Callable, Coroutine, Iterator
from itertools import count, islice
from typing import Any

import pytest

from dspex.cluster.foundation.bridge import LoopBridge
from dspex.errors import (
    InvalidArgumentError,
    InvalidRequestError,
    KeyExistsError,
    KeyNotFoundError,
    NotPicklableError,
    UnsupportedGuaranteeError,
    VersionConflictError,
)
from dspex.foundation.handles.registry import Registry
from dspex.foundation.handles.requests import Session
from dspex.foundation.handles.transaction import Transaction
from dspex.foundation.handles.watching import WatchEvent
from dspex.foundation.ports import RegistryBackend
from dspex.testing.registries import WAIT, OnLoop

__all__ = ["RegistryConformance"]

_namespaces = count()


class Unreadable:
    """Pickles, and cannot be unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return int, ("not a number",)


class RegistryConformance(OnLoop):
    """The promises of the handle; subclasses give the fixture ``backend``."""

    @pytest.fixture
    def made(
        self, backend: RegistryBackend, bridge: LoopBridge, caller: Session
    ) -> Iterator[Callable[..., Registry]]:
        """Makes registries in a namespace of their own."""
        opened: list[Registry] = []
        namespace = f"handle-{next(_namespaces)}"

        def make(*, asynchronous: bool = False, **options: Any) -> Registry:
            options = {"caller": caller, "namespace": namespace, **options}
            own = LoopBridge(bridge.loop, asynchronous=asynchronous)
            opened.append(Registry(backend, own, **options))
            return opened[-1]

        yield make
        for each in opened:
            each.close()

    @pytest.fixture
    def registry(self, made: Callable[..., Registry]) -> Registry:
        return made()

    @pytest.fixture
    def awaited(self, made: Callable[..., Registry]) -> Registry:
        return made(asynchronous=True)

    # --- single entries ----------------------------------------------------------------------

    def test_an_entry_is_found_as_it_was_registered(self, registry: Registry) -> None:
        made = registry.register(
            "w/1", {"a": [1]}, {"gpu": {"gb": 24}}, capabilities=["train", "train"], ttl=3600
        )
        found = registry.lookup("w/1")
        assert found == made == registry["w/1"]
        assert hash(found) == hash(made)
        assert (found.key, found.value, found.ttl, found.age) == ("w/1", {"a": [1]}, 3600.0, 0.0)
        assert found.metadata == {"gpu": {"gb": 24}}
        assert found.capabilities == ("train",)
        assert found.version == made.version > 0
        assert "w/1" in repr(found)
        assert "train" in repr(found)

    def test_metadata_of_an_entry_is_its_own(self, registry: Registry) -> None:
        given = {"list": [1], "map": {"a": 1}}
        entry = registry.register("a", 1, given)
        given["list"].append(2)  # type: ignore[attr-defined]
        with pytest.raises(TypeError):
            entry.metadata["list"] = 3  # type: ignore[index]
        entry.metadata["map"]["a"] = 2
        assert registry["a"].metadata == {"list": [1], "map": {"a": 1}}
        assert json.loads(json.dumps(dict(registry["a"].metadata)))["list"] == [1]

    def test_an_entry_pickles(self, registry: Registry) -> None:
        entry = registry.register("a", [1], {"n": 1})
        again = pickle.loads(pickle.dumps(entry))
        assert again == entry
        assert again.value == [1]

    def test_a_value_that_cannot_be_read_here_harms_only_its_reader(
        self, registry: Registry
    ) -> None:
        registry.register("bad", Unreadable(), {"n": 1})
        (found,) = registry.query()
        assert found.metadata == {"n": 1}
        with pytest.raises(NotPicklableError, match="'bad'"):
            _ = found.value

    def test_conflicts(self, registry: Registry) -> None:
        first = registry.register("a", 1)
        with pytest.raises(KeyExistsError):
            registry.register("a", 2)
        assert registry.register("a", 2, on_conflict="keep") == first
        assert registry.register("a", 2, on_conflict="replace").value == 2
        with pytest.raises(VersionConflictError):
            registry.register("a", 3, expected_version=first.version)
        with pytest.raises(VersionConflictError):
            registry.register("a", 3, expected_version=0)

    def test_unregister(self, registry: Registry) -> None:
        version = registry.register("a", 1).version
        with pytest.raises(VersionConflictError):
            registry.unregister("a", expected_version=version + 1)
        registry.unregister("a", expected_version=version)
        with pytest.raises(KeyNotFoundError):
            registry.unregister("a")
        registry.unregister("a", missing_ok=True)
        with pytest.raises(KeyError):
            _ = registry["a"]

    def test_update_metadata(self, registry: Registry) -> None:
        first = registry.register("a", 1, {"x": {"p": 1}, "y": 1})
        second = registry.update_metadata("a", {"x": {"q": 2}, "y": None})
        assert second.metadata == {"x": {"p": 1, "q": 2}}
        assert second.value == 1
        with pytest.raises(VersionConflictError):
            registry.update_metadata("a", {}, expected_version=first.version)
        with pytest.raises(KeyNotFoundError):
            registry.update_metadata("b", {})

    def test_lookup_many_names_what_is_missing(self, registry: Registry) -> None:
        registry.register_many({"a": 1, "b": 2})
        assert {key: each.value for key, each in registry.lookup_many(["b", "a"]).items()} == {
            "a": 1,
            "b": 2,
        }
        with pytest.raises(KeyNotFoundError, match="'x'"):
            registry.lookup_many(["a", "x"])

    def test_get(self, registry: Registry) -> None:
        registry.register("a", None)
        assert registry.get("a").value is None
        assert registry.get("b") is None
        assert registry.get("b", 7) == 7

    @pytest.mark.parametrize(
        "call",
        [
            lambda registry: registry.register("", 1),
            lambda registry: registry.register("a\n", 1),
            lambda registry: registry.register("a", b"x" * (2**20 + 1)),
            lambda registry: registry.register("a", 1, {"x": object()}),
            lambda registry: registry.register("a", 1, {"x": float("nan")}),
            lambda registry: registry.register("a", 1, {"x": "x" * 2**16}),
            lambda registry: registry.register("a", 1, ["x"]),
            lambda registry: registry.register("a", 1, capabilities=[1]),
            lambda registry: registry.register("a", 1, ttl=-1),
            lambda registry: registry.register("a", 1, on_conflict="merge"),
            lambda registry: registry.register("a", 1, tied_to=7),
            lambda registry: registry.register("a", 1, expected_version=-1),
            lambda registry: registry.register_many([{"key": "a"}]),
            lambda registry: registry.register_many([{"key": "a", "value": 1, "more": 1}]),
            lambda registry: registry.unregister_many("abc"),
            lambda registry: registry.lookup(7),
            lambda registry: registry.lookup("a", consistency="weak"),
            lambda registry: registry.query([("x", "like", 1)]),
            lambda registry: registry.find_by_attribute(),
            lambda registry: registry.find_by_capability([]),
            lambda registry: registry.watch(""),
        ],
    )
    def test_wrong_arguments_are_refused(
        self, registry: Registry, call: Callable[[Registry], object]
    ) -> None:
        with pytest.raises((InvalidRequestError, InvalidArgumentError)):
            call(registry)
        assert registry.query() == []

    def test_what_does_not_pickle_is_refused(self, registry: Registry) -> None:
        with pytest.raises(NotPicklableError, match="'a'"):
            registry.register("a", (n for n in "abc"))

    # --- many, queries, the mapping ------------------------------------------------------------

    def test_many_in_parts(self, registry: Registry) -> None:
        entries = registry.register_many(
            ({"key": f"{n:05}", "value": n, "metadata": {"n": n}} for n in range(2_500)),
            capabilities="all",
        )
        assert [each.value for each in entries[:2]] == [0, 1]
        assert len(registry) == len(entries) == 2_500
        assert registry.find_by_attribute("n", 7)[0].capabilities == ("all",)
        updated = registry.update_metadata_many({each.key: {"n": -1} for each in entries[:1_500]})
        assert len(updated) == 1_500
        registry.unregister_many(each.key for each in entries[:1_500])
        assert registry.list_keys()[0] == "01500"
        assert len(registry.lookup_many(registry.list_keys())) == 1_000

    def test_an_error_amid_many_says_how_many_were_done(self, registry: Registry) -> None:
        registry.register("01500", "in the way")
        with pytest.raises(KeyExistsError) as caught:
            registry.register_many({f"{n:05}": n for n in range(2_500)})
        assert caught.value.done == 1_000  # type: ignore[attr-defined]
        assert len(registry) == 1_001

    def test_queries(self, registry: Registry) -> None:
        for n in range(4):
            registry.register(
                f"w/{n}",
                n,
                {"resources": {"memory_gb": 2 * n}, "kind": "odd" if n % 2 else "even"},
                capabilities=["train"] + ["serve"] * (n > 1),
            )
        found = registry.query([("resources.memory_gb", "ge", 4)], order_by="-key", limit=1)
        assert [each.key for each in found] == ["w/3"]
        assert [each.value for each in registry.find_by_attribute(kind="odd")] == [1, 3]
        assert [each.value for each in registry.find_by_attribute("resources.memory_gb", 4)] == [2]
        assert len(registry.find_by_capability(["train", "serve"])) == 4
        both = registry.find_by_capability(
            ["train", "serve"], match="all", where=[("kind", "eq", "odd")]
        )
        assert [each.value for each in both] == [3]
        assert registry.list_keys("w/3") == ["w/3"]

    def test_it_is_a_mapping(self, registry: Registry) -> None:
        registry.register_many({"b": 2, "a": 1})
        assert list(registry) == ["a", "b"]
        assert len(registry) == 2
        assert "a" in registry
        assert "c" not in registry
        assert not registry.__contains__(7)
        assert list(registry.keys()) == ["a", "b"]
        assert [each.value for each in registry.values()] == [1, 2]
        assert dict(registry.items()) == {"a": registry["a"], "b": registry["b"]}
        assert registry != {"a": 1}
        assert "Registry" in repr(registry)

    def test_namespaces_are_apart(self, registry: Registry, made: Callable[..., Registry]) -> None:
        registry.register("a", 1)
        assert "a" not in made(namespace=f"{registry.namespace}-other")

    # --- transactions --------------------------------------------------------------------------

    def test_a_transaction_happens_at_its_end(self, registry: Registry) -> None:
        old = registry.register("old", 0)
        with registry.transaction() as tx:
            tx.register("a", 1, {"n": 1})
            tx.update_metadata("a", {"n": 2})
            tx.register("b", 2)
            tx.unregister("b")
            tx.unregister("old", expected_version=old.version)
            tx.check("absent", 0)
            assert "a" not in registry
        assert list(registry) == ["a"]
        assert tx.entries == {"a": registry["a"]}
        assert registry["a"].metadata == {"n": 2}

    def test_one_refused_change_refuses_all(self, registry: Registry) -> None:
        old = registry.register("old", 0)
        tx = registry.transaction()
        with pytest.raises(VersionConflictError):
            register_in(tx, lambda: tx.check("old", old.version + 1))
        assert list(registry) == ["old"]
        assert tx.entries == {}

    def test_an_exception_in_the_block_abandons_it(self, registry: Registry) -> None:
        tx = registry.transaction()
        with pytest.raises(ZeroDivisionError):
            register_in(tx, lambda: 1 / 0)
        assert len(registry) == 0
        with pytest.raises(InvalidArgumentError, match="abandoned"):
            tx.register("b", 1)
        with pytest.raises(InvalidArgumentError, match="once"), tx:
            pass

    # --- guarantees, eventual reads ------------------------------------------------------------

    def test_what_the_backend_cannot_give_is_refused(
        self, backend: RegistryBackend, made: Callable[..., Registry]
    ) -> None:
        for name in ("linearizable", "shared", "durable"):
            if getattr(backend, name):
                made(require=[name])
            else:
                with pytest.raises(UnsupportedGuaranteeError, match=name):
                    made(require=[name])
        with pytest.raises(InvalidArgumentError):
            made(require=["fast"])

    def test_eventual_reads_come_from_a_copy_that_tells_its_age(self, registry: Registry) -> None:
        registry.register("a", 1)
        first = registry.lookup("a", consistency="eventual")
        assert first.value == 1
        assert 0 <= first.age < WAIT
        with pytest.raises(KeyNotFoundError):
            registry.lookup("b", consistency="eventual")
        assert registry.get("b", 0, consistency="eventual") == 0
        assert registry.lookup_many(["a"], consistency="eventual")["a"].value == 1
        version = registry.register("a", 2, on_conflict="replace").version
        while registry.lookup("a", consistency="eventual").version < version:
            pass
        assert registry.lookup("a", consistency="eventual").value == 2
        with pytest.raises(UnsupportedGuaranteeError):
            registry.lookup("a", consistency="strong", partition_tolerance=True)

    # --- watching ------------------------------------------------------------------------------

    def test_a_watcher_is_told_what_there_is_then_every_change(self, registry: Registry) -> None:
        registry.register_many({"w/1": 1, "other": 0})
        with registry.watch("w/*") as stream:
            told = list(islice(stream, 2))
            registry.register("x", 0)
            registry.register("w/2", 2)
            registry.update_metadata("w/2", {"n": 1})
            registry.unregister("w/1")
            told += islice(stream, 3)
        assert [(each.kind, each.key) for each in told] == [
            ("snapshot", "w/1"),
            ("synced", ""),
            ("put", "w/2"),
            ("put", "w/2"),
            ("drop", "w/1"),
        ]
        assert told[0].entry is not None
        assert told[0].entry.value == 1
        assert told[0].version == told[0].entry.version == told[4].version
        assert told[3].entry is not None
        assert told[3].entry.metadata == {"n": 1}
        assert told[4].entry is None
        assert told[4].reason

    # --- async code ----------------------------------------------------------------------------

    def test_all_of_it_can_be_awaited(self, awaited: Registry, bridge: LoopBridge) -> None:
        registry: Any = awaited

        async def used() -> list[WatchEvent]:
            await registry.register("a", 1, {"n": 1})
            await registry.register_many({"b": 2})
            assert (await registry.lookup("a")).value == 1
            assert (await registry.lookup("a", consistency="eventual")).value == 1
            assert (await registry.lookup("a", consistency="eventual")).age >= 0
            assert await registry.get("x", consistency="eventual") is None
            assert await registry.list_keys() == ["a", "b"]
            assert [each.key for each in await registry.find_by_attribute(n=1)] == ["a"]
            async with registry.transaction() as tx:
                tx.register("c", 3)
            assert tx.entries["c"].value == 3
            told = []
            async with registry.watch() as stream:
                async for event in stream:
                    told.append(event)
                    if event.kind == "synced":
                        await registry.unregister("c")
                    if event.kind == "drop":
                        break
            return told

        told = on(bridge, used())
        assert [each.kind for each in told] == ["snapshot"] * 3 + ["synced", "drop"]

    @pytest.mark.parametrize(
        ("call", "instead"),
        [
            (lambda registry: registry["a"], "lookup"),
            (lambda registry: "a" in registry, "get"),
            (len, "list_keys"),
            (iter, "list_keys"),
            (lambda registry: registry.keys(), "list_keys"),
            (lambda registry: registry.values(), "query"),
            (lambda registry: registry.items(), "query"),
            (lambda registry: registry.transaction().__enter__(), "async with"),
        ],
    )
    def test_what_cannot_be_awaited_says_what_can(
        self,
        awaited: Registry,
        bridge: LoopBridge,
        call: Callable[[Registry], object],
        instead: str,
    ) -> None:
        keys: Any = awaited.list_keys()
        assert on(bridge, keys) == []
        with pytest.raises(InvalidArgumentError, match=instead):
            call(awaited)


def register_in(tx: Transaction, then: Callable[[], object]) -> None:
    """Register something in a transaction, and do something else."""
    with tx:
        tx.register("a", 1)
        then()


def on(bridge: LoopBridge, work: Coroutine[Any, Any, Any]) -> Any:
    """Do async work on the loop, within the time of a test."""

    async def bounded() -> Any:
        return await asyncio.wait_for(work, WAIT)

    return bridge.run(bounded())
