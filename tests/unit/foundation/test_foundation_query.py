"""What queries mean, and what is refused at their door."""

from __future__ import annotations

from typing import Any

import pytest

from dspex.errors import InvalidRequestError
from dspex.foundation.patterns import matches
from dspex.foundation.query import Query, scan
from dspex.foundation.record import Record


def record(key: str, metadata: dict[str, Any], *capabilities: str) -> Record:
    return Record(key, 1, b"value", metadata, capabilities, None, None, "me")


WORKERS = [
    record("a", {"memory": 4, "labels": ["gpu", "ssd"], "name": "Ada"}, "train"),
    record("b", {"memory": 8.0, "labels": [], "host": {"name": "n1"}}, "train", "serve"),
    record("c", {"memory": "much", "busy": True}, "serve"),
    record("d", {"memory": None, "busy": 1}),
]


def keys(*where: tuple[Any, ...], **options: Any) -> str:
    return "".join(each.key for each in scan(WORKERS, Query.made(where, **options)))


@pytest.mark.parametrize(
    ("condition", "found"),
    [
        (("memory", "eq", 4.0), "a"),
        (("memory", "eq", None), "d"),
        (("memory", "ne", 4), "bcd"),
        (("host.name", "eq", "n1"), "b"),
        (("host.name", "ne", "n1"), "acd"),
        (("host.name.first", "exists", True), ""),
        (("memory", "lt", 8), "a"),
        (("memory", "le", 8), "ab"),
        (("memory", "gt", 4), "b"),
        (("memory", "ge", 4), "ab"),
        (("memory", "ge", "a"), "c"),
        (("busy", "eq", 1), "d"),
        (("busy", "ge", 0), "d"),
        (("memory", "in", [4, "much", None]), "acd"),
        (("memory", "in", {8}), "b"),
        (("labels", "contains", "gpu"), "a"),
        (("labels", "eq", ["gpu", "ssd"]), "a"),
        (("name", "contains", "da"), "a"),
        (("host", "contains", "name"), "b"),
        (("memory", "contains", 4), ""),
        (("busy", "exists"), "cd"),
        (("busy", "exists", False), "ab"),
    ],
)
def test_each_operator(condition: tuple[Any, ...], found: str) -> None:
    assert keys(condition) == found


def test_all_conditions_must_hold() -> None:
    assert keys(("memory", "ge", 4), ("labels", "contains", "gpu")) == "a"


def test_capabilities_any_and_all() -> None:
    assert keys(capabilities=("train", "serve")) == "abc"
    assert keys(capabilities=("train", "serve"), match="all") == "b"
    assert keys(capabilities="serve") == "bc"


def test_mixed_types_have_one_order_and_what_is_absent_comes_last_either_way() -> None:
    made = [*WORKERS, record("e", {})]
    for query, found in [("memory", "abcde"), ("-memory", "cbade"), ("-key", "edcba")]:
        ordered = scan(reversed(made), Query.made(order_by=query))
        assert "".join(each.key for each in ordered) == found


def test_equals_are_ordered_by_key_whichever_way_the_rest_goes() -> None:
    made = [record(key, {"x": x}) for key, x in [("c", 1), ("a", 1), ("b", 2)]]
    for order, found in [("x", "acb"), ("-x", "bac")]:
        assert "".join(each.key for each in scan(made, Query.made(order_by=order))) == found


def test_limit_prefix_and_bare_keys() -> None:
    assert keys(limit=2, order_by="-key") == "dc"
    assert keys(limit=0) == ""
    assert keys(prefix="b") == "b"
    assert scan(WORKERS[:1], Query.made(keys_only=True)) == [
        Record("a", 1, b"", {}, (), None, None, "")
    ]


DEEP: Any = []
for _ in range(20):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    "fields",
    [
        "not a list",
        [[], [], "any", "", None, None, False, "one too many"],
        [[["a", "like", "b"]]],
        [[["a", ["eq"], "b"]]],
        [[["a", "eq"]]],
        [[["", "eq", 1]]],
        [[["a..b", "eq", 1]]],
        [[[7, "eq", 1]]],
        [[["a", "lt", True]]],
        [[["a", "lt", None]]],
        [[["a", "lt", [1]]]],
        [[["a", "in", "text"]]],
        [[["a", "exists", 1]]],
        [[["a", "eq", b"bytes"]]],
        [[["a", "eq", float("nan")]]],
        [[["a", "eq", DEEP]]],
        [[["a", "eq", "x" * 2**20]]],
        [[["a", "exists"]] * 65],
        ["a eq b"],
        [None],
        [7],
        [[], [""]],
        [[], ["x" * 129]],
        [[], ["x\n"]],
        [[], 7],
        [[], [str(n) for n in range(257)]],
        [[], [], "some"],
        [[], [], ["any"]],
        [[], [], "any", 7],
        [[], [], "any", "", 7],
        [[], [], "any", "", "-"],
        [[], [], "any", "", None, -1],
        [[], [], "any", "", None, True],
        [[], [], "any", "", None, 1.5],
        [[], [], "any", "", None, None, 1],
    ],
)
def test_whatever_is_no_query_is_refused(fields: Any) -> None:
    with pytest.raises(InvalidRequestError):
        Query.from_wire(fields)


@pytest.mark.parametrize(
    ("pattern", "matching", "other"),
    [
        ("*", "any/thing", None),
        ("workers/*", "workers/a/b", "Workers/a"),
        ("workers/?", "workers/a", "workers/ab"),
        ("[ab]*", "b1", "c1"),
        ("a", "a", "ab"),
        ("a.*", "a.b", "aXb"),
        ("*/x", "a/x", "a/xy"),
    ],
)
def test_patterns(pattern: str, matching: str, other: str | None) -> None:
    assert matches(matching, pattern)
    assert other is None or not matches(other, pattern)
