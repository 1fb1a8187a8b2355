"""The state store: versions, promises, large values, snapshots, and three kinds of trouble."""

from __future__ import annotations

import os
import pathlib
import pickle
import sys
import types
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import dspex
from dspex.cluster.foundation import server as serving
from dspex.errors import (
    InsufficientReplicasError,
    InvalidArgumentError,
    NotPicklableError,
    StateCorruptError,
    StateIncompatibleError,
    StateNotFoundError,
    UnavailableError,
    UnsupportedGuaranteeError,
    VersionConflictError,
)
from dspex.foundation import Foundation, State, Version, state
from dspex.foundation.handles import state_store as handle
from dspex.testing.probe import wait_for
from dspex.testing.processes import SchedulerProcess

LARGE = b"x" * (state.LARGE + 1)


@pytest.fixture(params=["memory", "sqlite"])
def foundation(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[Foundation]:
    url = "memory" if request.param == "memory" else f"sqlite:///{tmp_path}/journal.db"
    with dspex.connect("local", journal=url) as foundation:
        yield foundation


def test_what_is_put_is_found_with_its_version(foundation: Foundation) -> None:
    store = foundation.state_store
    version = store.put("k", {"a": [1, 2]})
    assert version == Version(version.number, 1, foundation.journal["durable"], "strong")
    assert store.lookup("k") == State(key="k", value={"a": [1, 2]}, version=version, age=0.0)
    assert store.get("k") == {"a": [1, 2]}
    later = store.put("k", 2)
    assert later > version
    assert store.get("k") == 2


def test_absent_states_are_an_error_or_the_default(foundation: Foundation) -> None:
    store = foundation.state_store
    for consistency in ("strong", "eventual", None):
        with pytest.raises(StateNotFoundError, match="no state 'k'"):
            store.lookup("k", consistency=consistency)
    assert store.get("k", 7) == 7
    with pytest.raises(StateNotFoundError):
        store.delete("k")
    store.delete("k", missing_ok=True)
    with pytest.raises(KeyError):
        store.status("k")


def test_compare_and_set_writes_only_over_what_was_seen(foundation: Foundation) -> None:
    store = foundation.state_store
    first = store.compare_and_set("k", 0, "a")
    second = store.compare_and_set("k", first, "b")
    with pytest.raises(VersionConflictError, match="expected to be version"):
        store.compare_and_set("k", first, "c")
    with pytest.raises(VersionConflictError, match="expected to be absent"):
        store.put("k", "c", expected_version=0)
    with pytest.raises(VersionConflictError):
        store.delete("k", expected_version=first)
    store.delete("k", expected_version=second)
    # A key that was made again never has an old version.
    assert store.compare_and_set("k", 0, "d") > second


def test_keys_are_listed_by_prefix(foundation: Foundation) -> None:
    store = foundation.state_store
    for key in ("b/1", "a/2", "a/1"):
        store.put(key, key)
    assert store.keys() == ["a/1", "a/2", "b/1"]
    assert store.keys("a/") == ["a/1", "a/2"]
    assert "a/1" not in foundation.registry


def test_large_values_travel_in_pieces_and_are_swept_when_nobody_names_them(
    foundation: Foundation, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = foundation.state_store
    store.put("large", LARGE)
    status = store.status("large")
    assert status["size"] > state.LARGE
    assert len(status["blob"]) == 64
    assert store.get("large") == LARGE
    with pytest.raises(InvalidArgumentError, match="at most 104,857,600 bytes"):
        store.put("too large", b"x" * (handle.MAX_VALUE + 1))
    monkeypatch.setattr(serving, "SWEEP_AFTER", 1)
    monkeypatch.setattr("dspex.cluster.foundation.blobs._UNNAMED_SECONDS", 0.0)
    store.put("large", LARGE + b"2")

    def is_swept() -> bool:
        try:
            store.put("small", 1)
            foundation._bridge.run(foundation._caller.get_blob(status["blob"]))
        except StateCorruptError:
            return True
        return False

    wait_for(is_swept)
    assert store.get("large") == LARGE + b"2"


@pytest.mark.parametrize("value", [b"x", LARGE], ids=["small", "large"])
def test_snapshots_restore_what_was_there(foundation: Foundation, value: bytes) -> None:
    store = foundation.state_store
    store.put("a/1", value)
    store.put("a/2", 2, consistency="eventual")
    store.put("b", 3)
    snapshot = store.snapshot("a/")
    store.delete("a/1")
    store.put("a/2", "changed")
    with pytest.raises(VersionConflictError, match=r"'a/2' is there, and 0 of 2 .*replace"):
        store.restore(snapshot)
    assert store.restore(snapshot, on_conflict="replace") == 2
    assert (store.get("a/1"), store.get("a/2"), store.get("b")) == (value, 2, 3)
    assert store.status("a/2")["consistency"] == "eventual"
    with pytest.raises(StateCorruptError, match="nothing was changed"):
        store.restore(snapshot[:-1] + b"\0")
    with pytest.raises(InvalidArgumentError):
        store.restore(snapshot, on_conflict="merge")  # type: ignore[arg-type]


def test_what_cannot_be_promised_is_refused_before_anything_is_sent(
    foundation: Foundation,
) -> None:
    store = foundation.state_store
    with pytest.raises(InsufficientReplicasError, match="there are 1") as caught:
        store.put("k", 1, replication=2)
    assert caught.value.available == 1  # type: ignore[attr-defined]
    assert store.put("k", 1, replication=1).copies == 1
    with pytest.raises(InsufficientReplicasError):
        store.put("k", 1, replication=0)
    with pytest.raises(UnsupportedGuaranteeError, match="cut off"):
        store.put("k", 1, partition_tolerance=True)
    weak: Any = "weak"
    with pytest.raises(InvalidArgumentError, match="consistency is"):
        store.put("k", 1, consistency=weak)
    with pytest.raises(InvalidArgumentError, match="consistency is"):
        store.lookup("k", consistency=weak)
    with pytest.raises(NotPicklableError, match="cannot be pickled"):
        store.put("k", (each for each in "ab"))


def test_eventual_reads_come_from_the_copy_and_tell_their_age(foundation: Foundation) -> None:
    store = foundation.state_store
    version = store.put("k", 1, consistency="eventual")
    assert (version.durable, version.consistency) == (False, "eventual")
    state = store.lookup("k", consistency="eventual")
    assert state.value == 1
    assert 0.0 <= state.age < 5.0
    store.put("k", 2, consistency="eventual")
    wait_for(lambda: store.lookup("k").value == 2)
    assert store.lookup("k", consistency="strong").age == 0.0


# --- trouble -------------------------------------------------------------------------------


@pytest.fixture
def module_of_now() -> Iterator[Callable[[], Any]]:
    """A class that can be taken away again."""
    module = types.ModuleType("module_of_now")
    exec("class Thing:\n    pass", module.__dict__)
    sys.modules["module_of_now"] = module
    yield lambda: module.Thing()
    sys.modules.pop("module_of_now", None)


def test_a_state_that_this_program_cannot_read_is_told_apart_from_a_damaged_one(
    foundation: Foundation, module_of_now: Callable[[], Any]
) -> None:
    store = foundation.state_store
    store.put("k", module_of_now())
    assert store.status("k")["kind"] == "module_of_now.Thing"
    sys.modules.pop("module_of_now")
    with pytest.raises(StateIncompatibleError, match=r"module_of_now\.Thing, is whole"):
        store.lookup("k")
    with pytest.raises(StateIncompatibleError):
        store.get("k", "a default is no excuse")


def test_a_damaged_large_value_is_told_and_not_given(tmp_path: pathlib.Path) -> None:
    url = f"sqlite:///{tmp_path}/journal.db"
    with dspex.connect("local", journal=url) as foundation:
        foundation.state_store.put("k", LARGE)
        (blob,) = [path for path in (tmp_path / "journal.db-blobs").rglob("*") if path.is_file()]
        blob.write_bytes(blob.read_bytes()[:-1] + b"!")
        with pytest.raises(StateCorruptError, match="damaged"):
            foundation.state_store.lookup("k")
        blob.unlink()
        with pytest.raises(StateCorruptError, match="is not in the journal"):
            foundation.state_store.lookup("k")


@pytest.mark.parametrize("use", ["lookup", "lookup in the copy", "snapshot", "when it is gone"])
def test_a_large_value_that_is_swept_while_it_is_read_is_read_anew(
    foundation: Foundation, monkeypatch: pytest.MonkeyPatch, use: str
) -> None:
    store = foundation.state_store
    store.put("k", LARGE)
    store.put("k2", 1)
    if use == "lookup in the copy":
        assert store.lookup("k2", consistency="eventual").value == 1
    caller: Any = foundation._caller
    get_blob = caller.get_blob
    digest = store.status("k")["blob"]

    async def get_swept(asked: str) -> bytes:
        if asked == digest:
            if use == "when it is gone":
                await store._delete("k", None, True)
            else:
                await store._put(
                    "k", LARGE + b"2", 1, consistency="strong", tolerant=False, expected=None
                )
            raise StateCorruptError("it was swept")
        found: bytes = await get_blob(asked)
        return found

    monkeypatch.setattr(type(caller), "get_blob", lambda self, asked: get_swept(asked))
    if use == "snapshot":
        snapshot = store.snapshot()
        monkeypatch.undo()
        store.restore(snapshot, on_conflict="replace")
        assert store.get("k") == LARGE + b"2"
    elif use == "when it is gone":
        with pytest.raises(StateNotFoundError):
            store.lookup("k")
    else:
        consistency: Any = "eventual" if "copy" in use else None
        assert store.lookup("k", consistency=consistency).value == LARGE + b"2"


def test_many_put_large_values_at_once(foundation: Foundation) -> None:
    store = foundation.state_store
    same = os.urandom(5 * 2**20)

    def put(number: int) -> None:
        value = same if number % 2 else os.urandom(5 * 2**20)
        store.put(f"k{number}", value)
        assert store.get(f"k{number}") == value

    with ThreadPoolExecutor(20) as threads:
        list(threads.map(put, range(20)))


def test_states_survive_the_process_in_a_durable_journal(tmp_path: pathlib.Path) -> None:
    url = f"sqlite:///{tmp_path}/journal.db"
    with dspex.connect("local", journal=url, namespace="n") as foundation:
        version = foundation.state_store.put("k", pickle.dumps(1))
        foundation.state_store.put("large", LARGE)
        foundation.registry.register("e", 1, {"a": 1}, capabilities=["c"])
    with dspex.connect("local", journal=url, namespace="n") as foundation:
        assert foundation.status()["term"] == 2
        assert foundation.state_store.lookup("k").version.number == version.number
        assert foundation.state_store.get("large") == LARGE
        assert [e.key for e in foundation.registry.find_by_capability("c")] == ["e"]
    with dspex.connect("local", journal=url) as foundation:
        assert foundation.state_store.keys() == []


def test_tolerant_states_are_read_while_the_scheduler_is_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(handle, "MAX_STALENESS", 3.0)
    with SchedulerProcess() as scheduler, dspex.connect(scheduler.address) as foundation:
        store = foundation.state_store
        store.put("tolerant", 1, consistency="eventual", partition_tolerance=True)
        store.put("other", 2, consistency="eventual")
        # The copy has begun with the first of them; it hears of the other one a moment later.
        wait_for(lambda: store._copy.get("tolerant") and store._copy.get("other"))
        foundation._caller._exchange.patience = 1.0  # type: ignore[attr-defined]
        scheduler.kill()
        wait_for(lambda: store._copy.age > 3.0)
        state = store.lookup("tolerant")
        assert state.value == 1
        assert state.age > 3.0
        with pytest.raises(UnavailableError, match="partition_tolerance"):
            store.lookup("other", consistency="eventual")
        with pytest.raises(UnavailableError):
            store.lookup("tolerant", consistency="strong")
        with pytest.raises(UnavailableError):
            store.put("tolerant", 3, consistency="eventual", partition_tolerance=True)
