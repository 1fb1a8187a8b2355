"""Transactions, conflicts, limits, and what runs out."""

from __future__ import annotations

from typing import Any

import pytest

from dspex.errors import (
    FoundationError,
    InvalidRequestError,
    KeyExistsError,
    KeyNotFoundError,
    VersionConflictError,
)
from dspex.foundation.ledger.events import Event
from dspex.foundation.ledger.records import Records
from dspex.foundation.limits import plain
from dspex.foundation.record import Record, check, drop, patch, put


class Live:
    """Records with a revision, a clock and the events so far."""

    def __init__(self) -> None:
        self.records = Records()
        self.events: list[Event] = []
        self.revision = 0
        self.now = 0.0

    def emit(self, event: Event) -> None:
        self.records.apply(event, self.now)
        self.events.append(event)

    def commit(self, *operations: Any, collection: str = "r:", writer: str = "me") -> list[Record]:
        self.revision += 1
        replies = self.records.commit(
            collection,
            list(operations),
            revision=self.revision,
            writer=writer,
            now=self.now,
            emit=self.emit,
        )
        self.records.validate()
        return [Record(*each) for each in replies]

    def refuses(self, error: type[FoundationError], *operations: Any) -> FoundationError:
        before, count = self.records.all("r:"), len(self.events)
        with pytest.raises(error) as caught:
            self.commit(*operations)
        assert self.records.all("r:") == before
        assert len(self.events) == count
        return caught.value

    def get(self, key: str) -> Record:
        found = self.records.get("r:", key)
        assert found is not None
        return found


@pytest.fixture
def live() -> Live:
    return Live()


def test_a_put_gives_the_record_without_the_value_that_its_writer_has(live: Live) -> None:
    (reply,) = live.commit(put("k", b"v", {"a": 1}, ("gpu",), ttl=2.0, owner="s"))
    assert reply == Record("k", 1, b"", {"a": 1}, ("gpu",), 2.0, "s", "me")
    assert live.get("k") == reply._replace(value=b"v")
    assert live.events == [("put", "r:", "k", 1, b"v", {"a": 1}, ("gpu",), 2.0, "s", "me")]


def test_conflicts_are_errors_replaced_or_kept(live: Live) -> None:
    live.commit(put("k", b"1", {}))
    error = live.refuses(KeyExistsError, put("k", b"2", {}))
    assert vars(error) == {"key": "k", "version": 1}
    (kept,) = live.commit(put("k", b"2", {}, on_conflict="keep"))
    assert (kept.version, kept.value) == (1, b"1")
    (replaced,) = live.commit(put("k", b"2", {}, on_conflict="replace"))
    assert replaced.version == live.revision
    assert live.get("k").value == b"2"


def test_an_expected_version_decides_alone(live: Live) -> None:
    live.refuses(VersionConflictError, put("k", b"", {}, expected_version=3))
    live.commit(put("k", b"1", {}, expected_version=0))
    version = live.get("k").version
    error = live.refuses(VersionConflictError, put("k", b"", {}, expected_version=0))
    assert vars(error) == {"key": "k", "expected": 0, "version": version}
    live.commit(put("k", b"2", {}, expected_version=version))
    assert live.get("k").value == b"2"
    live.refuses(VersionConflictError, drop("k", expected_version=version))
    live.refuses(VersionConflictError, patch("k", {}, expected_version=version))
    live.refuses(VersionConflictError, check("k", version))
    live.commit(check("k", live.get("k").version), check("other", 0))


def test_a_transaction_sees_itself_and_tells_the_outcome_once(live: Live) -> None:
    live.commit(put("old", b"", {}))
    live.events.clear()
    live.commit(
        put("k", b"1", {"n": 1}),
        patch("k", {"n": 2}),
        drop("old"),
        put("old", b"again", {}),
        put("brief", b"", {}),
        drop("brief"),
    )
    assert live.get("k").metadata == {"n": 2}
    assert [event[:4] for event in live.events] == [
        ("put", "r:", "k", 2),
        ("put", "r:", "old", 2),
    ]


def test_one_bad_operation_undoes_all(live: Live) -> None:
    live.refuses(KeyNotFoundError, put("a", b"", {}), patch("absent", {}))
    live.refuses(KeyExistsError, put("a", b"", {}), put("a", b"", {}))
    live.refuses(InvalidRequestError, put("a", b"", {}), put("", b"", {}))


def test_a_key_made_again_never_has_an_old_version(live: Live) -> None:
    live.commit(put("k", b"", {}))
    (dropped,) = live.commit(drop("k"))
    assert dropped.version == 1
    assert live.events[-1] == ("drop", "r:", "k", 1, "dropped")
    (again,) = live.commit(put("k", b"", {}))
    assert again.version == 3


def test_dropping_what_is_absent(live: Live) -> None:
    live.refuses(KeyNotFoundError, drop("k"))
    (reply,) = live.commit(drop("k", missing_ok=True))
    assert reply.version == 0
    assert live.events == []


def test_a_patch_merges_maps_and_none_drops_a_name(live: Live) -> None:
    live.commit(put("k", b"v", {"a": {"x": 1, "y": [1]}, "b": 1, "c": None}))
    (reply,) = live.commit(patch("k", {"a": {"x": None, "z": {"q": None}}, "b": {"d": 1}}))
    assert reply.metadata == {"a": {"y": [1], "z": {}}, "b": {"d": 1}, "c": None}
    assert reply.value == b"v"
    assert reply == live.get("k")


def test_a_patch_may_not_grow_metadata_beyond_its_limit(live: Live) -> None:
    live.commit(put("k", b"", {"a": "x" * 40_000}))
    live.refuses(InvalidRequestError, patch("k", {"b": "x" * 40_000}))


def test_time_to_live_begins_again_with_each_write(live: Live) -> None:
    live.commit(put("k", b"", {}, ttl=2.0), put("forever", b"", {}))
    live.now = 1.5
    live.commit(patch("k", {"n": 1}))
    live.now = 3.0
    live.records.expire(live.now, live.emit)
    assert live.records.count == 2
    live.now = 3.5
    live.records.expire(live.now, live.emit)
    assert live.records.get("r:", "k") is None
    assert live.events[-1] == ("drop", "r:", "k", 2, "its time to live ran out")
    live.commit(put("forever", b"", {}, ttl=1.0, on_conflict="replace"))
    live.commit(put("forever", b"", {}, on_conflict="replace"))
    live.now = 99.0
    live.records.expire(live.now, live.emit)
    assert live.records.count == 1


def test_renewing_for_ever_takes_no_memory(live: Live) -> None:
    for _ in range(1_000):
        live.commit(put("k", b"", {}, ttl=3600.0, on_conflict="replace"))
    assert len(vars(live.records)["_heap"]) < 100


def test_time_to_live_begins_again_with_a_replay(live: Live) -> None:
    live.commit(put("k", b"", {}, ttl=2.0))
    again = Live()
    again.records.apply(live.events[0], 10.0)
    again.records.expire(11.9, again.emit)
    assert again.records.count == 1
    again.records.expire(12.0, again.emit)
    assert again.records.count == 0


def test_what_is_tied_goes_and_what_was_tied_before_stays(live: Live) -> None:
    live.commit(put("a", b"", {}, owner="s"), put("b", b"", {}, owner="s"))
    live.commit(put("c", b"", {}, owner="worker:x"), put("x", b"", {}, owner="s"), collection="s:")
    live.commit(put("b", b"", {}, on_conflict="replace"))
    live.records.owner_gone("s", "its session closed", live.emit)
    assert [each.key for each in live.records.all("r:")] == ["b"]
    assert [each.key for each in live.records.all("s:")] == ["c"]
    assert live.events[-2][-1] == "its session closed"
    live.records.owner_gone("s", "again", live.emit)
    live.records.validate()


def test_large_values_are_named_by_states_alone(live: Live) -> None:
    live.commit(put("a", b"", {"blob": "d1"}), put("b", b"", {"blob": 7}), collection="s:")
    live.commit(put("a", b"", {"blob": "d2"}))
    assert live.records.blobs() == {"d1"}


def test_collections_are_apart_and_go_when_they_are_empty(live: Live) -> None:
    live.commit(put("k", b"1", {}))
    live.commit(put("k", b"2", {}), collection="r:other")
    assert live.get("k").value == b"1"
    live.commit(drop("k"), collection="r:other")
    assert live.records.all("r:other") == []
    assert list(vars(live.records)["_collections"]) == ["r:"]


GOOD = put("k", b"", {})
DEEP: Any = {}
for _ in range(16):
    DEEP = {"d": DEEP}


@pytest.mark.parametrize(
    "operations",
    [
        "text",
        {"a": 1},
        [7],
        ["put"],
        [("put", "k")],
        [("frobnicate", "k", 1, 2)],
        [(["put"], "k", 1, 2)],
        [("put", "k", b"", {})],
        [("drop", "k", 1, None)],
        [("check", "k", None)],
        [("check", "k", -1)],
        [("patch", "k", [], None)],
        [("patch", "k", {1: 2}, None)],
        [put("", b"", {})],
        [put("x" * 513, b"", {})],
        [put("a\nb", b"", {})],
        [put("\ud800", b"", {})],
        [("put", 7, *GOOD[2:])],
        [("put", ["k"], *GOOD[2:])],
        [("put", "k", "text", *GOOD[3:])],
        [put("k", b"x" * (2**20 + 1), {})],
        [put("k", b"", {"a": "x" * 2**16})],
        [put("k", b"", {"a": float("inf")})],
        [put("k", b"", {"a": 2**63})],
        [put("k", b"", {"a": 10**5000})],
        [put("k", b"", {"a": b""})],
        [put("k", b"", {"a": {7: 1}})],
        [put("k", b"", DEEP)],
        [put("k", b"", {}, ("",))],
        [put("k", b"", {}, ("x" * 129,))],
        [put("k", b"", {}, (7,))],  # type: ignore[arg-type]
        [put("k", b"", {}, tuple(map(str, range(257))))],
        [put("k", b"", {}, ttl=0)],
        [put("k", b"", {}, ttl=float("nan"))],
        [put("k", b"", {}, ttl=True)],
        [put("k", b"", {}, owner="")],
        [put("k", b"", {}, owner=7)],  # type: ignore[arg-type]
        [put("k", b"", {}, on_conflict="ignore")],
        [put("k", b"", {}, on_conflict=["keep"])],  # type: ignore[arg-type]
        [put("k", b"", {}, expected_version=-1)],
        [put("k", b"", {}, expected_version=True)],
        [put("k", b"", {}, expected_version=1.0)],  # type: ignore[arg-type]
        [GOOD] * 10_001,
        [put(str(n), b"x" * 2**20, {}) for n in range(16)],
    ],
)
def test_whatever_breaks_a_rule_is_refused_whole(live: Live, operations: Any) -> None:
    with pytest.raises(InvalidRequestError):
        live.records.commit("r:", operations, revision=1, writer="me", now=0.0, emit=live.emit)
    assert live.events == []


def test_the_limits_themselves_are_allowed(live: Live) -> None:
    live.commit(
        put("x" * 512, b"x" * 2**20, {"a": "x" * 65_000}, tuple(map(str, range(256)))),
        put("ü", b"", DEEP["d"], ("x" * 128,), ttl=0.001),
        put("n", b"", {"a": [2**63 - 1, -(2**63), 1e308, None, True]}),
    )
    assert live.records.count == 3


def test_a_key_that_is_no_text_is_refused_when_read(live: Live) -> None:
    with pytest.raises(InvalidRequestError):
        live.records.get("r:", ["a"])  # type: ignore[arg-type]


def test_what_is_stored_is_plain_and_nobody_elses() -> None:
    class Text(str):
        pass

    given = {Text("a"): (1, [Text("b")]), "f": True, "n": None}
    made = plain(given)
    assert made == {"a": [1, ["b"]], "f": True, "n": None}
    assert type(made["a"][1][0]) is type(next(iter(made))) is str
    given["a"][1].append("later")  # type: ignore[index]
    assert made["a"] == [1, ["b"]]


@pytest.mark.parametrize("bad", [{"a": {1}}, {1: 1}, {"a": "\ud800"}, {"a": object()}, DEEP])
def test_what_json_cannot_say_is_named(bad: Any) -> None:
    with pytest.raises(InvalidRequestError, match=r"metadata|text|nested"):
        plain({"x": bad})
