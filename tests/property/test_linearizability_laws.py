"""Laws of the linearizability checker: against all permutations, atomic and broken stores."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Hashable, Iterator, Sequence
from itertools import chain, combinations, permutations
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dspex.testing.histories import UNKNOWN, Operation
from dspex.testing.linearizability import check
from dspex.testing.models import CONFLICT, REFUSED, Register

# --- against all permutations --------------------------------------------------------------


def is_right(history: Sequence[Operation]) -> bool:
    """The definition, word by word: some order of what completed and of some of the rest."""
    completed = [each for each in history if each.result is not UNKNOWN]
    unknown = [each for each in history if each.result is UNKNOWN]
    chosen = chain.from_iterable(combinations(unknown, n) for n in range(len(unknown) + 1))
    return any(
        gives_all(order)
        for more in chosen
        for order in permutations([*completed, *more])
        if keeps_real_time(order)
    )


def keeps_real_time(order: Sequence[Operation]) -> bool:
    return all(not later.returned < earlier.called for earlier, later in combinations(order, 2))


def gives_all(order: Sequence[Operation]) -> bool:
    register = Register()
    state: Any = register.initial
    for each in order:
        state = register.step(state, each.op, each.args, each.result)
        if state is REFUSED:
            return False
    return True


VERSIONS = st.one_of(st.none(), st.integers(1, 3))
VALUES = st.sampled_from(["a", "b"])
CALLS = st.one_of(
    st.tuples(st.just("get"), st.just(()), st.one_of(st.none(), st.tuples(VALUES, VERSIONS))),
    st.tuples(st.just("put"), st.tuples(VALUES), VERSIONS),
    st.tuples(st.just("delete"), st.just(()), st.sampled_from([True, False, None])),
    st.tuples(
        st.just("compare_and_set"),
        st.tuples(st.integers(0, 3), VALUES),
        st.one_of(st.just(CONFLICT), VERSIONS),
    ),
)


@st.composite
def operations(draw: st.DrawFn) -> Operation:
    name, args, result = draw(CALLS)
    called = draw(st.integers(0, 8))
    if draw(st.integers(0, 3)) == 0:
        return Operation("p", "x", name, args, called=called)
    return Operation("p", "x", name, args, result, called, called + draw(st.integers(0, 6)))


def at(called: int, returned: int, op: str, *args: Any, gave: Any) -> Operation:
    return Operation("p", "x", op, args, gave, called, returned)


@settings(max_examples=400)
@given(st.lists(operations(), max_size=5))
@example(  # a delete that may or may not have found something changes nothing only if it did not
    [
        at(0, 1, "put", "b", gave=1),
        at(0, 3, "compare_and_set", 0, "a", gave=3),
        at(1, 4, "delete", gave=None),
    ]
)
def test_it_agrees_with_all_permutations(history: list[Operation]) -> None:
    found = check(history, Register())
    assert found.ok is is_right(history)
    if not found.ok:
        # What it gives is wrong itself, and right without its last return.
        assert not is_right(found.operations)
        end = max(each.returned for each in found.operations if each.returned < math.inf)
        assert all(each.returned == end for each in found.culprits)
        sooner = [
            Operation("p", "x", each.op, each.args, called=each.called)
            if each.returned == end
            else each
            for each in found.operations
            if each.called < end
        ]
        assert is_right(sooner)


# --- stores, atomic and broken -------------------------------------------------------------


class Store:
    """An atomic register."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.value: Any = None
        self.version = 0
        self.newest = 0

    def get(self) -> Any:
        return (self.value, self.version) if self.version else None

    def put(self, value: Any) -> int:
        self.newest += 1
        self.value, self.version = value, self.newest
        return self.version

    def delete(self) -> bool:
        was_there = self.version > 0
        self.value, self.version = None, 0
        return was_there

    def compare_and_set(self, expected: int, value: Any) -> Any:
        return self.put(value) if expected == self.version else CONFLICT

    def perform(self, op: str, args: tuple[Any, ...]) -> Any:
        operation: Callable[..., Any] = getattr(self, op)
        return operation(*args)


class ReadsFromAnOldCopy(Store):
    copy: Any = None

    def get(self) -> Any:
        told = self.copy
        self.copy = super().get()
        return told


class LosesWrites(Store):
    def put(self, value: Any) -> int:
        if self.dice.random() < 0.9:
            return super().put(value)
        self.newest += 1
        return self.newest


class DoesNotCompare(Store):
    def compare_and_set(self, expected: int, value: Any) -> Any:
        return self.put(value)


class ComparesAndDoesNotSet(Store):
    def compare_and_set(self, expected: int, value: Any) -> Any:
        return self.newest + 1 if expected == self.version else CONFLICT


class SetsAndSaysConflict(Store):
    def compare_and_set(self, expected: int, value: Any) -> Any:
        result = super().compare_and_set(expected, value)
        return CONFLICT if self.dice.random() < 0.2 else result


class BringsBackWhatWasDeleted(Store):
    deleted: Any = None

    def delete(self) -> bool:
        self.deleted = self.value, self.version
        return super().delete()

    def get(self) -> Any:
        if not self.version and self.deleted and self.dice.random() < 0.5:
            self.value, self.version = self.deleted
        return super().get()


class GivesVersionsAgain(Store):
    def delete(self) -> bool:
        self.newest = 0
        return super().delete()


class MixesValueAndVersion(Store):
    last: Any = None

    def put(self, value: Any) -> int:
        self.last = self.value
        return super().put(value)

    def get(self) -> Any:
        told = super().get()
        return (self.last, told[1]) if told and self.dice.random() < 0.1 else told


class WritesLater(Store):
    """Acknowledges at once, and writes at the next write."""

    queued: Any = None

    def put(self, value: Any) -> int:
        self.newest += 1
        queued, self.queued = self.queued, (value, self.newest)
        if queued:
            self.value, self.version = queued
        return self.newest


class WritesTwice(Store):
    """A request that was sent again takes effect again, later."""

    repeated: Any = None

    def get(self) -> Any:
        if self.repeated is not None and self.dice.random() < 0.3:
            super().put(self.repeated)
            self.repeated = None
        return super().get()

    def put(self, value: Any) -> int:
        self.repeated = value if self.dice.random() < 0.3 else self.repeated
        return super().put(value)


BROKEN: list[type[Store]] = [
    ReadsFromAnOldCopy,
    LosesWrites,
    DoesNotCompare,
    ComparesAndDoesNotSet,
    SetsAndSaysConflict,
    BringsBackWhatWasDeleted,
    GivesVersionsAgain,
    MixesValueAndVersion,
    WritesLater,
    WritesTwice,
]


def recorded(
    store: Store, dice: random.Random, *, processes: int, count: int, unknown: float = 0.0
) -> Iterator[Operation]:
    """Each operation takes effect at an instant drawn between its call and its return."""
    pending: list[tuple[float, int, float, float, bool]] = []
    free = [0.0] * processes
    for number in range(count):
        process = dice.randrange(processes)
        called = free[process] + dice.choice([0.1, 1.0]) * dice.random()
        took = 2 * dice.random()
        is_unknown = dice.random() < unknown
        # What nobody hears of may take effect much later, and its caller goes on.
        effect = called + took * dice.random() * (10 if is_unknown else 1)
        free[process] = called + took
        pending.append((effect, number, called, free[process], is_unknown))
    version = 0
    for _, number, called, returned, is_unknown in sorted(pending):
        op = dice.choice(["get", "get", "put", "delete", "compare_and_set", "compare_and_set"])
        args: tuple[Any, ...] = {
            "put": (f"v{number}",),
            "compare_and_set": (dice.choice([0, version, version]), f"v{number}"),
        }.get(op, ())
        by = f"p{number % processes}"
        if is_unknown and dice.random() < 0.5:
            yield Operation(by, "x", op, args, called=called)
            continue
        result = store.perform(op, args)
        version = store.version
        if is_unknown:
            yield Operation(by, "x", op, args, called=called)
        else:
            yield Operation(by, "x", op, args, result, called, returned)


@settings(max_examples=150)
@given(
    seed=st.integers(0, 2**32),
    processes=st.integers(1, 6),
    count=st.integers(0, 120),
    unknown=st.sampled_from([0.0, 0.05, 0.2]),
    are_versions_told=st.booleans(),
)
@example(seed=1, processes=8, count=1500, unknown=0.02, are_versions_told=True)
def test_an_atomic_store_is_always_accepted(
    seed: int, processes: int, count: int, unknown: float, are_versions_told: bool
) -> None:
    dice = random.Random(seed)
    history = list(recorded(Store(dice), dice, processes=processes, count=count, unknown=unknown))
    if not are_versions_told:
        history = [without_version(each) for each in history]
    dice.shuffle(history)
    found = check(history, Register())
    assert found.ok, str(found)


def without_version(operation: Operation) -> Operation:
    result = operation.result
    if operation.op == "get" and isinstance(result, tuple):
        result = (result[0], None)
    elif operation.op == "put" and result is not UNKNOWN:
        result = None
    return Operation(
        operation.process,
        operation.key,
        operation.op,
        operation.args,
        result,
        operation.called,
        operation.returned,
    )


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.__name__)
@pytest.mark.parametrize("unknown", [0.0, 0.03])
def test_every_broken_store_is_caught(broken: type[Store], unknown: float) -> None:
    caught = 0
    for seed in range(10):
        dice = random.Random(seed)
        history = list(recorded(broken(dice), dice, processes=4, count=300, unknown=unknown))
        found = check(history, Register())
        caught += not found.ok
        if not found.ok:
            assert "<--" in str(found)
            assert not check(found.operations, Register()).ok
    assert caught >= 9


@settings(max_examples=100)
@given(
    seed=st.integers(0, 2**32), broken=st.sampled_from([Store, *BROKEN]), count=st.integers(0, 40)
)
def test_of_one_process_every_wrong_result_is_caught(
    seed: int, broken: type[Store], count: int
) -> None:
    dice = random.Random(seed)
    history = list(recorded(broken(dice), dice, processes=1, count=count))
    found = check(history, Register())
    assert found.ok is gives_all(history)
    if not found.ok:
        first = next(n for n in range(len(history)) if not gives_all(history[: n + 1]))
        assert found.operations == tuple(history[: first + 1])
        assert found.culprits == (history[first],)


class Adder:
    """A counter, whose results are sums."""

    def changes(self, op: str, args: tuple[Any, ...], result: Any) -> bool:
        return True

    initial: Hashable = 0

    def step(self, state: int, op: str, args: tuple[Any, ...], result: Any) -> Hashable:
        after = state + args[0]
        return after if result in (UNKNOWN, after) else REFUSED


@settings(max_examples=100)
@given(st.integers(0, 2**32), st.integers(1, 5), st.integers(1, 60), st.booleans())
def test_any_model_will_do(seed: int, processes: int, count: int, is_wrong: bool) -> None:
    dice = random.Random(seed)
    free = [0.0] * processes
    history: list[tuple[float, str, int, float, float]] = []
    for _ in range(count):
        process = dice.randrange(processes)
        called = free[process] + dice.random()
        free[process] = called + dice.random()
        effect = dice.uniform(called, free[process])
        history.append((effect, f"p{process}", dice.randint(1, 9), called, free[process]))
    total = 0
    seen = []
    for n, (_, process_name, amount, called, returned) in enumerate(sorted(history)):
        total += amount
        told = total + (is_wrong and n == count // 2) * 1_000
        seen.append(Operation(process_name, "x", "add", (amount,), told, called, returned))
    assert check(seen, Adder()).ok is not is_wrong
