"""Records do what a dict of dicts would; indexes and replays change nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from dspex.errors import FoundationError, KeyExistsError, KeyNotFoundError, VersionConflictError
from dspex.foundation.ledger import collection as collection_module
from dspex.foundation.ledger.events import Event
from dspex.foundation.ledger.records import Records
from dspex.foundation.query import Query, rank, scan
from dspex.foundation.record import Operation, Record, check, drop, patch, put

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 2),
    st.sampled_from([-0.0, 0.5, 1.0, 1e300]),
    st.sampled_from(["", "a", "ab", "ü"]),
)
VALUES = st.one_of(
    SCALARS,
    st.lists(SCALARS, max_size=2),
    st.dictionaries(st.sampled_from(["x", "y"]), SCALARS, max_size=2),
)
METADATA = st.dictionaries(st.sampled_from(["x", "y", "z"]), VALUES, max_size=3)
KEYS = st.sampled_from(["a", "b", "a/1", "a/2", "ü"])
CAPABILITIES = st.lists(st.sampled_from(["gpu", "train", "serve"]), max_size=2, unique=True).map(
    tuple
)
OWNERS = st.sampled_from([None, None, "me", "worker:1"])
EXPECTED = st.sampled_from([None] * 12 + [*range(6)])
COLLECTIONS = st.sampled_from(["r:", "s:x"])

OPERATIONS: st.SearchStrategy[Operation] = st.one_of(
    st.builds(
        put,
        KEYS,
        st.binary(max_size=2),
        METADATA,
        CAPABILITIES,
        ttl=st.sampled_from([None, None, 1.0, 5]),
        owner=OWNERS,
        on_conflict=st.sampled_from(["error", "replace", "replace", "keep"]),
        expected_version=EXPECTED,
    ),
    st.builds(patch, KEYS, METADATA, expected_version=EXPECTED),
    st.builds(drop, KEYS, missing_ok=st.booleans(), expected_version=EXPECTED),
    st.builds(check, KEYS, st.integers(0, 6)),
)

PATHS = st.sampled_from(["x", "y", "x.y", "z.x"])
CONDITIONS = st.one_of(
    st.tuples(PATHS, st.sampled_from(["eq", "ne", "contains"]), VALUES),
    st.tuples(
        PATHS,
        st.sampled_from(["lt", "le", "gt", "ge"]),
        st.sampled_from([-1, 0, 0.5, 1, 2.0, "", "a", "b"]),
    ),
    st.tuples(PATHS, st.just("in"), st.lists(VALUES, max_size=3)),
    st.tuples(PATHS, st.just("exists"), st.sampled_from([True, False, None])),
)
QUERIES = st.builds(
    Query.made,
    st.lists(CONDITIONS, max_size=2),
    CAPABILITIES,
    match=st.sampled_from(["any", "all"]),
    prefix=st.sampled_from(["", "a", "a/", "c"]),
    order_by=st.one_of(st.none(), st.sampled_from(["x", "-x", "x.y", "key", "-version"])),
    limit=st.one_of(st.none(), st.integers(0, 3)),
    keys_only=st.booleans(),
)


def merged(old: Any, changes: dict[str, Any]) -> dict[str, Any]:
    """What RFC 7396 says."""
    result = dict(old) if isinstance(old, dict) else {}
    for name, value in changes.items():
        if value is None:
            result.pop(name, None)
        elif isinstance(value, dict):
            result[name] = merged(result.get(name), value)
        else:
            result[name] = value
    return result


class Model:
    """One collection, one operation after the other, with the whole of it copied before."""

    def __init__(self) -> None:
        self.records: dict[str, dict[str, Record]] = {}
        self.due: dict[tuple[str, str], float] = {}

    def commit(self, name: str, operations: list[Operation], version: int, now: float) -> None:
        records = dict(self.records.get(name, {}))
        due = dict(self.due)
        for kind, key, *rest in operations:
            record = records.get(key)
            expected = rest[-1]
            if expected is not None and expected != (record.version if record else 0):
                raise VersionConflictError("")
            if kind == "put":
                value, metadata, capabilities, ttl, owner, on_conflict, _ = rest
                if record and expected is None and on_conflict == "error":
                    raise KeyExistsError("")
                if record and expected is None and on_conflict == "keep":
                    continue
                records[key] = Record(
                    key, version, value, metadata, capabilities, ttl, owner, "writer"
                )
            elif kind == "patch":
                if record is None:
                    raise KeyNotFoundError("")
                records[key] = record._replace(
                    version=version, metadata=merged(record.metadata, rest[0]), writer="writer"
                )
            elif kind == "drop":
                if record is None and not rest[0]:
                    raise KeyNotFoundError("")
                records.pop(key, None)
        for key in {operation[1] for operation in operations}:
            if records.get(key) is not self.records.get(name, {}).get(key):
                due.pop((name, key), None)
                if key in records and records[key].ttl is not None:
                    due[name, key] = now + (records[key].ttl or 0)
        self.records[name] = records
        self.due = due

    def remove(self, name: str, key: str) -> None:
        del self.records[name][key]
        self.due.pop((name, key), None)


class Machine(RuleBasedStateMachine):
    """Live records, the model, and all events as the journal holds them."""

    def __init__(self) -> None:
        super().__init__()
        self.records = Records()
        self.model = Model()
        self.journal: list[bytes] = []
        self.standing: list[tuple[str, Query]] = []
        self.emitted = 0
        self.revision = 0
        self.now = 0.0

    def emit(self, event: Event) -> None:
        self.records.apply(event, self.now)
        self.journal.append(msgpack.packb(event))
        self.emitted += 1

    @initialize()
    def indexes_are_used_from_the_first_record(self) -> None:
        assert collection_module.SMALL == 0, "see the fixture"

    @rule(name=COLLECTIONS, filling=st.lists(METADATA, min_size=3, max_size=5))
    def fill(self, name: str, filling: list[dict[str, Any]]) -> None:
        keys = ["a", "b", "a/1", "a/2", "ü"]
        self.commit(
            name,
            [
                put(key, b"", each, on_conflict="replace")
                for key, each in zip(keys, filling, strict=False)
            ],
        )

    @rule(name=COLLECTIONS, key=KEYS)
    def drop_one(self, name: str, key: str) -> None:
        self.commit(name, [drop(key, missing_ok=True)])

    @rule(name=COLLECTIONS, operations=st.lists(OPERATIONS, max_size=4))
    def commit(self, name: str, operations: list[Operation]) -> None:
        self.emitted = 0
        before = dict(self.model.records.get(name, {}))
        wire = msgpack.unpackb(msgpack.packb(operations))
        try:
            self.model.commit(name, operations, self.revision + 1, self.now)
        except FoundationError as expected:
            with pytest.raises(type(expected)):
                self._commit(name, wire)
            assert not self.emitted
            return
        replies = [Record(*each) for each in self._commit(name, wire)]
        self.revision += 1
        after = self.model.records[name]
        assert self.emitted == sum(
            before.get(key) is not after.get(key) for key in before.keys() | after.keys()
        )
        assert [each.key for each in replies] == [operation[1] for operation in operations]
        if len(operations) == 1 and operations[0][0] != "drop":
            (reply,) = replies
            found = after.get(reply.key)
            if found is None:
                assert reply.version == 0
            elif operations[0][0] == "put" and found is not before.get(reply.key):
                assert reply == found._replace(value=b"")
            else:
                assert reply == found

    def _commit(self, name: str, operations: Any) -> list[list[Any]]:
        return self.records.commit(
            name,
            operations,
            revision=self.revision + 1,
            writer="writer",
            now=self.now,
            emit=self.emit,
        )

    @rule(seconds=st.sampled_from([0.0, 0.5, 1.0, 5.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.revision += 1
        self.records.expire(self.now, self.emit)
        for (name, key), due in list(self.model.due.items()):
            if due <= self.now:
                self.model.remove(name, key)

    @rule(owner=st.sampled_from(["me", "worker:1", "stranger"]))
    def an_owner_goes(self, owner: str) -> None:
        self.revision += 1
        self.records.owner_gone(owner, "gone", self.emit)
        for name, records in self.model.records.items():
            for key in [key for key, each in records.items() if each.owner == owner]:
                self.model.remove(name, key)

    @rule(name=COLLECTIONS, query=QUERIES)
    def select(self, name: str, query: Query) -> None:
        query = Query.from_wire(msgpack.unpackb(msgpack.packb(query)))
        self.standing = [*self.standing[-2:], (name, query)]

    @invariant()
    def queries_are_answered_as_by_a_full_scan(self) -> None:
        for name, query in self.standing:
            found = self.records.select(name, query)
            assert found == scan(self.model.records.get(name, {}).values(), query)

    @rule(name=COLLECTIONS, pattern=st.sampled_from(["*", "a/*", "a", "?", "[!a]*"]))
    def list_by_pattern(self, name: str, pattern: str) -> None:
        wanted: dict[str, Callable[[str], bool]] = {
            "*": lambda key: True,
            "a/*": lambda key: key.startswith("a/"),
            "a": lambda key: key == "a",
            "?": lambda key: len(key) == 1,
            "[!a]*": lambda key: key[0] != "a",
        }
        found = {each.key for each in self.records.all(name, pattern)}
        assert found == {key for key in self.model.records.get(name, {}) if wanted[pattern](key)}

    @rule()
    def replays_and_dumps_make_the_same_state(self) -> None:
        replayed, loaded = Records(), Records()
        for packed in self.journal:
            replayed.apply(tuple(msgpack.unpackb(packed)), self.now)
        dump = self.records.dump()
        # What happens after the call of dump is not in it.
        live = state_of(self.records)
        key = "made after the dump"
        self.records.apply(("put", "r:", key, 99, b"", {}, (), None, None, ""), self.now)
        for event in dump:
            loaded.apply(tuple(msgpack.unpackb(msgpack.packb(event))), self.now)
        self.records.apply(("drop", "r:", key, 99, ""), self.now)
        for other in (replayed, loaded):
            other.validate()
            assert state_of(other) == live

    @invariant()
    def records_are_those_of_the_model(self) -> None:
        self.records.validate()
        wanted = {name: records for name, records in self.model.records.items() if records}
        assert state_of(self.records) == wanted
        assert self.records.count == sum(map(len, wanted.values()))


def state_of(records: Records) -> dict[str, dict[str, Record]]:
    found = {name: {each.key: each for each in records.all(name)} for name in ("r:", "s:x")}
    return {name: each for name, each in found.items() if each}


class TestMachine(Machine.TestCase):  # type: ignore[valid-type, misc]
    settings = settings(max_examples=60, stateful_step_count=30)

    @pytest.fixture(autouse=True)
    def no_collection_is_small(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(collection_module, "SMALL", 0)
        monkeypatch.setattr(collection_module, "MAX_INDEXES", 2)


@given(st.lists(VALUES, max_size=8))
def test_all_values_have_one_order(values: list[Any]) -> None:
    assert sorted(map(rank, values)) == sorted(map(rank, reversed(values)))


@given(VALUES, VALUES)
def test_equal_ranks_are_equal_json(one: Any, other: Any) -> None:
    def typed(value: Any) -> Any:
        if isinstance(value, list):
            return ["list", *map(typed, value)]
        if isinstance(value, dict):
            return {name: typed(each) for name, each in value.items()}
        return ["bool" if isinstance(value, bool) else "other", value]

    assert (rank(one) == rank(other)) == (typed(one) == typed(other))
