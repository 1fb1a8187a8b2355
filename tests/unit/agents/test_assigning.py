"""Who gets which part, by each rule; how a task is cut."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from dspex.agents.assigning import RULES, Choice, bid_of, choose, parts_of
from dspex.errors import InvalidArgumentError

WORKERS = ["a", "b", "c"]


def choice(index: int = 0, part: bytes = b"", **fields: Any) -> Choice:
    return Choice(index=index, part=part, **{"everyone": WORKERS, "left": WORKERS, **fields})


def test_the_least_loaded_is_the_first_of_those() -> None:
    assert choose("least_loaded", choice(loads={"a": 2.0, "b": 1.0, "c": 1.0})) == "b"
    assert choose("least_loaded", choice(loads={"a": 2.0, "b": 1.0})) == "c"
    assert choose("least_loaded", choice(left=["a"], loads={"a": float("inf")})) == "a"


def test_in_turn_means_in_the_order_of_the_workers() -> None:
    assert [choose("round_robin", choice(n)) for n in range(4)] == ["a", "b", "c", "a"]
    assert choose("round_robin", choice(1, left=["a", "c"])) == "c"
    assert choose("round_robin", choice(2, left=["a", "b"])) == "a"


def test_a_hash_moves_only_the_parts_of_the_worker_that_left() -> None:
    parts = [str(n).encode() for n in range(300)]
    before = {part: choose("consistent_hash", choice(part=part)) for part in parts}
    counts = Counter(before.values())
    assert min(counts.values()) > 60
    for part in parts:
        after = choose("consistent_hash", choice(5, part=part, left=["c", "a"]))
        assert after == before[part] or before[part] == "b"
    assert choose("consistent_hash", choice(part=b"\xff\x00")) in WORKERS


def test_an_auction_goes_to_the_lowest_bid_and_ties_go_by_id() -> None:
    assert choose("auction", choice(bids={"c": 1.0, "b": 1.0, "a": 3.0})) == "b"
    assert choose("auction", choice(left=["a", "c"], bids={"b": 1.0, "c": 4.0})) == "c"
    assert choose("auction", choice(left=["a"], bids={"b": 1.0})) is None


def test_a_broadcast_goes_to_each_once() -> None:
    assert [choose("broadcast", choice(n)) for n in range(3)] == WORKERS
    assert choose("broadcast", choice(1, left=["a", "c"])) is None


@pytest.mark.parametrize("rule", sorted(RULES))
def test_where_nobody_is_left_nobody_is_chosen(rule: str) -> None:
    assert choose(rule, choice(left=[], bids={"a": 1.0})) is None


@pytest.mark.parametrize("value", [None, "3", float("nan"), float("inf"), [], object(), 10**400])
def test_what_is_no_finite_number_is_no_bid(value: Any) -> None:
    assert bid_of(value) is None


@pytest.mark.parametrize("value", [3, -2.5, np.float32(1.5), np.int64(7), True])
def test_every_finite_number_is_a_bid(value: Any) -> None:
    assert bid_of(value) == float(value)


@pytest.mark.parametrize(
    ("task", "split", "parts"),
    [
        ("task", None, ["task"]),
        ([1, 2, 3, 4, 5, 6, 7], 3, [[1, 2, 3], [4, 5], [6, 7]]),
        ((1, 2), 1, [(1, 2)]),
        ([1, 2], 5, [[1], [2]]),
        ([], 2, []),
        (range(4), 2, [range(2), range(2, 4)]),
        ({"b": 1}, dict.items, [("b", 1)]),
    ],
)
def test_a_task_is_cut(task: Any, split: Any, parts: list[Any]) -> None:
    assert parts_of(task, split) == parts


def test_arrays_are_cut_along_their_first_axis() -> None:
    first, second = parts_of(np.arange(6).reshape(3, 2), 2)
    assert first.tolist() == [[0, 1], [2, 3]]
    assert second.tolist() == [[4, 5]]


@pytest.mark.parametrize(
    ("task", "split", "message"),
    [
        (7, 2, "cut from a sequence"),
        ({"a": 1}, 2, "cut from a sequence"),
        ([1], 0, "whole number from 1"),
        ([1], True, "whole number from 1"),
        ([1], "2", "whole number from 1"),
    ],
)
def test_what_cannot_be_cut_is_refused(task: Any, split: Any, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        parts_of(task, split)
