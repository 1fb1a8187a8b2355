"""The checker says yes to what is right, no to what is known to be wrong, and says why."""

from __future__ import annotations

import math
import pickle
import random
from collections.abc import Hashable, Iterator
from typing import Any

import pytest

from dspex.testing.histories import UNKNOWN, Operation, timeline
from dspex.testing.linearizability import UndecidedError, Verdict, check
from dspex.testing.models import CONFLICT, REFUSED, Register


def op(
    called: float, returned: float, name: str, *args: Any, gave: Any = UNKNOWN, by: str = "a"
) -> Operation:
    return Operation(by, "x", name, args, gave, called, returned)


def lost(called: float, name: str, *args: Any, by: str = "lost") -> Operation:
    return Operation(by, "x", name, args, called=called)


def verdict(*history: Operation) -> Verdict:
    return check(history, Register())


# --- what is right -------------------------------------------------------------------------


def test_nothing_is_right() -> None:
    assert verdict().ok
    assert str(verdict()) == "linearizable (0 steps)"


def test_one_after_the_other() -> None:
    assert verdict(
        op(0, 1, "get", gave=None),
        op(2, 3, "put", "a", gave=4),
        op(4, 5, "get", gave=("a", 4)),
        op(6, 7, "compare_and_set", 4, "b", gave=7),
        op(8, 9, "compare_and_set", 4, "c", gave=CONFLICT),
        op(10, 11, "delete", gave=True),
        op(12, 13, "delete", gave=False),
        op(14, 15, "get", gave=None),
        op(16, 17, "compare_and_set", 0, "d", gave=9),
        op(18, 19, "get", gave=("d", 9)),
    ).ok


def test_what_overlaps_may_be_in_any_order() -> None:
    put = op(0, 10, "put", "new", gave=1)
    for gave in (None, ("new", 1)):
        assert verdict(put, op(3, 4, "get", gave=gave, by="b")).ok


def test_two_readers_may_see_a_write_before_it_returns() -> None:
    assert verdict(
        op(0, 10, "put", "new", gave=1),
        op(1, 3, "get", gave=None, by="b"),
        op(2, 5, "get", gave=("new", 1), by="c"),
        op(6, 7, "get", gave=("new", 1), by="b"),
    ).ok


def test_instants_that_are_equal_overlap() -> None:
    assert verdict(op(0, 1, "put", "a", gave=1), op(1, 2, "get", gave=None, by="b")).ok


def test_versions_need_not_be_recorded() -> None:
    right = [
        op(0, 1, "put", "a", gave=None),
        op(2, 3, "get", gave=("a", None)),
        op(4, 5, "get", gave=("a", 8)),
        op(6, 7, "compare_and_set", 8, "b", gave=None),
        op(8, 9, "delete", gave=None),
    ]
    assert verdict(*right).ok
    assert not verdict(*right, op(10, 11, "put", "c", gave=8)).ok


def test_keys_are_apart() -> None:
    history = [
        Operation("a", key, "put", (key,), version, called, called + 1)
        for key, version, called in [("x", 2, 0), ("y", 1, 2)]
    ]
    assert check(history, Register()).ok
    wrong = Operation("a", "y", "get", (), ("x", 2), 4, 5)
    found = check([*history, wrong], Register())
    assert not found.ok
    assert found.key == "y"


# --- what is wrong -------------------------------------------------------------------------

WRONG = {
    "stale read": [
        op(0, 1, "put", "old", gave=1),
        op(2, 3, "put", "new", gave=2),
        op(4, 5, "get", gave=("old", 1), by="b"),
    ],
    "lost update": [
        op(0, 1, "put", 0, gave=1),
        op(2, 4, "compare_and_set", 1, 1, gave=2),
        op(3, 5, "compare_and_set", 1, 1, gave=3, by="b"),
    ],
    "compare_and_set succeeds twice": [
        op(0, 5, "compare_and_set", 0, "a", gave=1),
        op(1, 6, "compare_and_set", 0, "b", gave=2, by="b"),
        op(2, 7, "get", gave=None, by="c"),
    ],
    "a value that was never written": [
        op(0, 1, "put", "a", gave=1),
        op(2, 3, "get", gave=("b", 1)),
    ],
    "a read from the future": [
        op(0, 1, "get", gave=("a", 1), by="b"),
        op(2, 3, "put", "a", gave=1),
    ],
    "reads that go back": [
        op(0, 9, "put", "new", gave=1),
        op(1, 2, "get", gave=("new", 1), by="b"),
        op(3, 4, "get", gave=None, by="c"),
    ],
    "two readers see two orders": [
        op(0, 1, "put", "a", gave=None),
        op(0, 1, "put", "b", gave=None, by="b"),
        op(2, 3, "get", gave=("a", None), by="c"),
        op(4, 5, "get", gave=("b", None), by="d"),
    ],
    "a deleted value comes back": [
        op(0, 1, "put", "a", gave=1),
        op(2, 3, "delete", gave=True),
        op(4, 5, "get", gave=None),
        op(6, 7, "get", gave=("a", 1), by="b"),
    ],
    "deleted twice": [
        op(0, 1, "put", "a", gave=1),
        op(2, 5, "delete", gave=True),
        op(3, 6, "delete", gave=True, by="b"),
    ],
    "acknowledged, then vanished": [
        op(0, 1, "put", "a", gave=1),
        op(2, 3, "get", gave=None, by="b"),
    ],
    "a version that was given before": [
        op(0, 1, "put", "a", gave=5),
        op(2, 3, "delete", gave=True),
        op(4, 5, "put", "b", gave=5),
    ],
    "a conflict without cause": [
        op(0, 1, "put", "a", gave=1),
        op(2, 3, "compare_and_set", 1, "b", gave=CONFLICT),
    ],
    "success with the wrong version": [
        op(0, 1, "put", "a", gave=1),
        op(2, 3, "compare_and_set", 0, "b", gave=2),
    ],
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_refused(name: str) -> None:
    history = WRONG[name]
    assert not verdict(*history).ok
    # Among much that is right, on every side.
    before = [op(n - 100, n - 99.5, "get", gave=None) for n in range(50)]
    after = [op(n + 100, n + 101, "get", gave=("later", 99)) for n in range(5)]
    found = verdict(*before, *history, *after)
    assert not found.ok
    assert len(found.operations) <= 50 + len(history)


# --- unknown outcomes ----------------------------------------------------------------------


def test_what_nobody_knows_took_effect_or_did_not() -> None:
    put = op(0, 1, "put", "a", gave=1)
    doubtful = lost(2, "put", "b")
    assert verdict(put, doubtful, op(3, 4, "get", gave=("a", 1))).ok
    assert verdict(put, doubtful, op(3, 4, "get", gave=("b", 2))).ok
    assert verdict(put, doubtful, op(3, 4, "get", gave=("a", 1)), op(5, 6, "get", gave=("b", 7))).ok


def test_it_takes_effect_once() -> None:
    assert not verdict(
        op(0, 1, "put", "a", gave=1),
        lost(2, "put", "b"),
        op(3, 4, "get", gave=("b", 2)),
        op(5, 6, "put", "c", gave=3),
        op(7, 8, "get", gave=("b", 4)),
    ).ok


def test_it_does_not_go_away_again() -> None:
    assert not verdict(
        op(0, 1, "put", "a", gave=1),
        lost(2, "put", "b"),
        op(3, 4, "get", gave=("b", 2)),
        op(5, 6, "get", gave=("a", 1)),
    ).ok


def test_it_takes_no_effect_before_its_call() -> None:
    assert not verdict(op(0, 1, "get", gave=("b", 2)), lost(2, "put", "b")).ok


def test_a_doubtful_delete() -> None:
    history = [op(0, 1, "put", "a", gave=1), lost(2, "delete")]
    assert verdict(*history, op(3, 4, "get", gave=("a", 1))).ok
    assert verdict(*history, op(3, 4, "get", gave=None)).ok
    assert not verdict(
        *history, op(3, 4, "get", gave=None), op(5, 6, "get", gave=("a", 1), by="b")
    ).ok


def test_a_doubtful_compare_and_set_needs_its_version() -> None:
    history = [op(0, 1, "put", "a", gave=1), lost(2, "compare_and_set", 1, "b")]
    assert verdict(*history, op(3, 4, "get", gave=("b", 2))).ok
    assert verdict(*history, op(3, 4, "get", gave=("a", 1))).ok
    wrong = [op(0, 1, "put", "a", gave=1), lost(2, "compare_and_set", 7, "b")]
    assert not verdict(*wrong, op(3, 4, "get", gave=("b", 8))).ok


def test_a_version_that_nobody_told_is_learned() -> None:
    assert verdict(
        op(0, 1, "put", "a", gave=1),
        lost(2, "put", "b"),
        op(3, 4, "compare_and_set", 2, "c", gave=3),
        op(5, 6, "get", gave=("c", 3)),
    ).ok
    assert not verdict(
        op(0, 1, "put", "a", gave=1),
        lost(2, "put", "b"),
        op(3, 4, "get", gave=("b", 5)),
        op(5, 6, "get", gave=("b", 6)),
    ).ok


def test_many_doubtful_writes_do_not_explode() -> None:
    doubtful = [lost(n / 100, "put", f"lost {n}", by=f"p{n}") for n in range(60)]
    seen = [op(100 + 2 * n, 101 + 2 * n, "get", gave=(f"lost {n}", None)) for n in range(59, 0, -1)]
    seen.sort(key=lambda each: each.called)
    found = check([*doubtful, *seen], Register(), limit=400_000)
    assert found.ok
    last = op(1000, 1001, "get", gave=("lost 30", None))
    assert not check([*doubtful, *seen, last], Register(), limit=400_000).ok


# --- size ----------------------------------------------------------------------------------


def concurrent(seed: int, processes: int, count: int, *, versions: bool) -> Iterator[Operation]:
    """A history of an object that is atomic: each operation takes effect as it is drawn."""
    dice = random.Random(seed)
    free = [0.0] * processes
    value: Any = None
    version = 0
    now = 0.0
    for number in range(count):
        process = dice.randrange(processes)
        now = max(now, free[process]) + dice.random()
        called = max(free[process], now - 3 * dice.random())
        returned = now + 3 * dice.random()
        free[process] = returned
        kind = dice.choice(["get", "put", "compare_and_set"])
        told = version if versions else None
        args: tuple[Any, ...] = ()
        result: Any = None if value is None else (value, told)
        if kind == "compare_and_set":
            args = (version if dice.random() < 0.7 else max(0, version - 1), number)
            if args[0] != version:
                result = CONFLICT
        elif kind == "put":
            args = (number,)
        if args and result is not CONFLICT:
            value = number
            version += 1
            result = version if versions or kind == "compare_and_set" else None
        yield Operation(f"p{process}", "x", kind, args, result, called, returned)


@pytest.mark.parametrize("versions", [True, False])
def test_thousands_of_operations_take_few_steps(versions: bool) -> None:
    history = list(concurrent(7, 8, 4000, versions=versions))
    found = check(history, Register(), limit=200_000)
    assert found.ok, str(found)
    at = next(n for n in range(2500, 4000) if history[n].op == "get")
    right = history[at]
    history[at] = Operation(
        right.process, "x", "get", (), ("never", 1), right.called, right.returned
    )
    wrong = check(history, Register(), limit=400_000)
    assert not wrong.ok
    assert wrong.culprits == (history[at],)
    assert max(each.called for each in wrong.operations) <= right.returned


class Opaque:
    """An object whose every operation has an effect of its own: no search is shorter."""

    initial: Hashable = ()

    def changes(self, op: str, args: tuple[Any, ...], result: Any) -> bool:
        return True

    def step(self, state: Any, op: str, args: tuple[Any, ...], result: Any) -> Hashable:
        return REFUSED if op == "never" else (*state, args[0])


def test_past_the_limit_it_says_neither_yes_nor_no() -> None:
    history = [
        Operation(f"p{n}", "x", "add", (n,), None, called=n / 100, returned=2.0) for n in range(12)
    ]
    wrong = Operation("p", "x", "never", (), None, called=1.0, returned=3.0)
    with pytest.raises(UndecidedError, match=r"at most 10,000 steps.*'x' with 13 operations"):
        check([*history, wrong], Opaque(), limit=10_000)
    assert check(history, Opaque(), limit=10_000).ok


# --- what it says --------------------------------------------------------------------------


def test_the_shortest_prefix_that_is_wrong() -> None:
    found = verdict(
        op(0, 1, "put", "a", gave=1),
        op(2, 20, "get", gave=("a", 1), by="slow"),
        op(3, 4, "get", gave=("b", 2), by="b"),
        op(5, 6, "get", gave=("c", 3), by="b"),
    )
    assert [each.result for each in found.operations] == [1, UNKNOWN, ("b", 2)]
    assert found.culprits == (found.operations[2],)
    said = str(found)
    assert "key 'x', the first 3 operations" in said
    assert "b: get() -> ('b', 2)" in said
    assert "'a' of version 1" in said
    assert said.count("<--") == 1


def test_the_prefix_does_not_know_what_came_later() -> None:
    # Until the first of the two returns, the reads could have seen it; so they are no culprits.
    found = verdict(
        op(0, 9, "put", "a", gave=5),
        op(1, 2, "get", gave=("a", 4), by="b"),
        op(3, 4, "get", gave=("a", 4), by="b"),
    )
    assert not found.ok
    assert [str(each) for each in found.culprits] == ["a: put('a') -> 5"]


def test_many_states_are_counted() -> None:
    found = verdict(
        *[op(0, 1, "put", n, gave=None, by=f"p{n}") for n in range(7)],
        op(2, 3, "get", gave=("x", None)),
    )
    assert "... 2 more" in str(found)


def test_a_picture_of_what_was_concurrent() -> None:
    history = [op(n, n + 1.5, "put", n, gave=n, by=f"p{n % 2}") for n in range(30)]
    assert timeline(history, last=3).splitlines() == [
        "... 27 earlier operations",
        "[===]       p1: put(27) -> 27",
        "  [=====]   p0: put(28) -> 28",
        "      [===] p1: put(29) -> 29",
    ]
    assert timeline([]) == ""


def test_operations_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="returns after it was called"):
        op(3, 2, "get", gave=None)
    with pytest.raises(ValueError, match="returns after it was called"):
        op(math.nan, 2, "get", gave=None)
    with pytest.raises(ValueError, match="exactly where its result is UNKNOWN"):
        op(1, 2, "get")
    with pytest.raises(ValueError, match="exactly where its result is UNKNOWN"):
        op(1, math.inf, "get", gave=None)
    with pytest.raises(ValueError, match="knows get, put, delete, compare_and_set; got 'swap'"):
        verdict(op(0, 1, "swap", gave=None))


def test_unknown_is_one_over_processes() -> None:
    assert pickle.loads(pickle.dumps(lost(1, "get"))).result is UNKNOWN
