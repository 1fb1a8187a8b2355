"""Whether what clients saw could have been seen on one atomic object per key.

Knows: histories and models. Must not know: what was called, how it was recorded.

A history is linearizable where each operation can be given one instant between its call and its
return so that, performed one by one at these instants, all give the results that were seen
(Herlihy and Wing, "Linearizability: a correctness condition for concurrent objects", TOPLAS 1990).
The search is that of Wing and Gong ("Testing and verifying concurrent objects", JPDC 1993) with
Lowe's memory of what was tried ("Testing for linearizability", CCPE 2017). Linearizability is
local: each key is an object of its own and is searched by itself.

An operation of unknown outcome, whose caller died or was told nothing, may have taken effect at
any instant after its call, or never.

Notation: *performed* operations were given their place in the order; a *candidate* is one that
may come next, because no operation that is not performed had returned before it was called.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

from dspex.errors import DspexError
from dspex.testing.histories import UNKNOWN, History, Operation, read_histories, timeline
from dspex.testing.models import CONFLICT, REFUSED, Model, Register

__all__ = [
    "CONFLICT",
    "REFUSED",
    "UNKNOWN",
    "History",
    "Model",
    "Operation",
    "Register",
    "UndecidedError",
    "Verdict",
    "check",
    "read_histories",
    "timeline",
]

LIMIT = 5_000_000
"""Steps of the model after which a search is given up: some ten seconds."""

_SHOWN_STATES = 5
_KEPT_STATES = 1_000


class UndecidedError(DspexError, RuntimeError):
    """The search took more steps than allowed: the history may be right or wrong."""


@final
@dataclass(frozen=True, slots=True)
class Verdict:
    """What `check` found.

    Attributes
    ----------
    ok : bool
    key : str or None
        The first key that is wrong.
    operations : tuple of Operation
        Of that key: the shortest prefix of its history that is wrong. What had not returned by
        its end is of unknown outcome in it.
    culprits : tuple of Operation
        Those whose return made it wrong.
    states : tuple of state
        States of the object, after orders that fit all results before, in which a culprit could
        not have given its result.
    steps : int
        How much work it was.
    """

    ok: bool
    key: str | None = None
    operations: tuple[Operation, ...] = ()
    culprits: tuple[Operation, ...] = ()
    states: tuple[Any, ...] = ()
    steps: int = 0

    def __str__(self) -> str:
        if self.ok:
            return f"linearizable ({self.steps:,} steps)"
        culprits = " and ".join(map(str, self.culprits))
        lines = [
            f"not linearizable: key {self.key!r}, the first {len(self.operations)} operations",
            f"no order of them explains what {culprits}",
        ]
        if self.states:
            lines.append("when it could have taken effect, the object was one of")
            lines += [f"  {state}" for state in self.states[:_SHOWN_STATES]]
            if len(self.states) > _SHOWN_STATES:
                lines.append(f"  ... {len(self.states) - _SHOWN_STATES} more")
        else:
            lines.append("wherever it is put, another result does not fit any more")
        return "\n".join([*lines, timeline(self.operations, marked=self.culprits)])


def check(history: Iterable[Operation], model: Model, *, limit: int = LIMIT) -> Verdict:
    """Search an order for the operations of each key.

    Parameters
    ----------
    history : iterable of Operation
        In any order.
    model : Model
        Of the object under each key.
    limit : int
        Steps of the model, over all keys.

    Raises
    ------
    UndecidedError
        Past the limit; it never says yes where it has not seen all.

    Examples
    --------
    >>> put = Operation("a", "x", "put", ("new",), 1, called=0.0, returned=1.0)
    >>> stale = Operation("b", "x", "get", (), None, called=2.0, returned=3.0)
    >>> check([put], Register()).ok
    True
    >>> print(check([put, stale], Register()))
    not linearizable: key 'x', the first 2 operations
    no order of them explains what b: get() -> None
    when it could have taken effect, the object was one of
      'new' of version 1
    [=]     a: put('new') -> 1
        [=] b: get() -> None  <--
    """
    keys: dict[str, list[Operation]] = {}
    for operation in history:
        keys.setdefault(operation.key, []).append(operation)
    steps = 0
    for key, operations in keys.items():
        search = _Search(operations, model, limit - steps)
        is_found = search.run()
        steps += search.steps
        if is_found is None:
            raise UndecidedError(
                f"a search takes at most {limit:,} steps; that of key {key!r} with "
                f"{len(operations):,} operations took more; record fewer per key, or pass limit=",
                key=key,
            )
        if not is_found:
            return _shortest(key, search, steps, limit)
    return Verdict(True, steps=steps)


def _shortest(key: str, wrong: _Search, steps: int, limit: int) -> Verdict:
    """Find the first return up to which a wrong history is wrong.

    A prefix of a right history is right, so this is a search in sorted returns. It begins where
    the search of the whole got stuck, which is right or a little early: the whole knows results
    of which a prefix cannot know yet.
    """
    returns = sorted({each.returned for each in wrong.operations if each.returned < math.inf})
    low, high = returns.index(wrong.furthest), len(returns) - 1
    stride = 0
    while low < high:
        middle = min(low + stride, (low + high) // 2)
        prefix = _Search(_until(returns[middle], wrong.operations), wrong.model, limit - steps)
        is_found = prefix.run()
        steps += prefix.steps
        if is_found is None:
            break  # it is wrong, and a longer prefix shows it too
        if is_found:
            low, stride = middle + 1, 2 * stride + 1
        else:
            high, wrong = middle, prefix
    culprits = tuple(each for each in wrong.operations if each.returned == returns[high])
    operations = tuple(_until(returns[high], wrong.operations))
    states = tuple(sorted(wrong.states, key=str))
    return Verdict(False, key, operations, culprits, states, steps)


def _until(end: float, operations: Sequence[Operation]) -> list[Operation]:
    """What was known of operations at an instant."""
    return [
        each if each.returned <= end else replace(each, result=UNKNOWN, returned=math.inf)
        for each in operations
        if each.called <= end
    ]


@final
class _Node:
    """A place in the search: what was performed, and what to try next.

    Attributes
    ----------
    base : int
        All completed operations below it, in the order of their calls, were performed.
    above : int
        A bit for each completed operation from `base` on that was performed, too.
    guessed : int
        A bit for each operation of unknown outcome that was performed.
    before : state or None
        Where the last one performed was of unknown outcome, the state before it.
    untried : list of (operation's index, state after it)
    is_guessing : bool
        Whether the untried are of unknown outcome; they come after those that completed.
    is_settled : bool
        Whether the untried are all that need be tried.
    """

    __slots__ = (
        "above",
        "base",
        "before",
        "guessed",
        "is_guessing",
        "is_settled",
        "state",
        "untried",
    )

    def __init__(
        self, state: Hashable, base: int, above: int, guessed: int, before: Hashable | None
    ) -> None:
        while above & 1:
            base += 1
            above >>= 1
        self.state = state
        self.base = base
        self.above = above
        self.guessed = guessed
        self.before = before
        self.untried: list[tuple[int, Hashable]] = []
        self.is_guessing = False
        self.is_settled = False

    @property
    def name(self) -> tuple[Hashable, ...]:
        """Equal for nodes from which the same can follow."""
        return self.base, self.above, self.guessed, self.state

    def next(self) -> _Node:
        """The node after an untried operation."""
        index, state = self.untried.pop()
        if self.is_guessing:
            return _Node(state, self.base, self.above, self.guessed | 1 << index, self.state)
        above = self.above | 1 << (index - self.base)
        return _Node(state, self.base, above, self.guessed, None)


@final
class _Search:
    """The search of one key.

    Attributes
    ----------
    steps : int
    furthest : float
        The latest return before which everything that had returned could be performed.
    states : set of state
        Those in which what returned last of all could not be performed.
    """

    def __init__(self, operations: Sequence[Operation], model: Model, limit: int) -> None:
        self.operations = operations
        self.model = model
        self.steps = 0
        self.furthest = -math.inf
        self.states: set[Hashable] = set()
        self._limit = limit
        ordered = sorted(operations, key=lambda each: each.called)
        self._completed = [each for each in ordered if each.returned < math.inf]
        self._readers = {
            index
            for index, each in enumerate(self._completed)
            if not model.changes(each.op, each.args, each.result)
        }
        self._unknown = [each for each in ordered if each.returned == math.inf]
        self._end = max((each.returned for each in self._completed), default=math.inf)

    def run(self) -> bool | None:
        """Whether there is an order; None where the limit ended the search."""
        root = _Node(self.model.initial, 0, 0, 0, None)
        seen = {root.name}
        path = [root]
        self._look(root)
        while path:
            node = path[-1]
            if node.base == len(self._completed):
                return True  # what is left is of unknown outcome, and never took effect
            if self.steps > self._limit:
                return None
            if not node.untried and not node.is_settled:
                self._guess(node)
            if not node.untried:
                path.pop()
                continue
            child = node.next()
            if child.name not in seen:
                seen.add(child.name)
                self._look(child)
                path.append(child)
        return False

    def _look(self, node: _Node) -> None:
        """Find the completed operations that may come next."""
        candidates, soonest = self._candidates(node)
        self.furthest = max(self.furthest, soonest)
        # Popped from the end: what returns first is most urgent.
        candidates.sort(key=lambda index: -self._completed[index].returned)
        for index in candidates:
            after = self._step(node.state, self._completed[index])
            if after is REFUSED:
                continue
            if index in self._readers and after == node.state:
                # Nobody sees whether it was performed, so an order with it later fits now, too.
                node.untried = [(index, after)]
                node.is_settled = True
                return
            if not self._is_unseen(node, self._completed[index], after):
                node.untried.append((index, after))

    def _candidates(self, node: _Node) -> tuple[list[int], float]:
        completed = self._completed
        soonest = math.inf
        found = []
        index, above = node.base, node.above
        while index < len(completed) and completed[index].called <= soonest:
            if not above & 1:
                found.append(index)
                soonest = min(soonest, completed[index].returned)
            above >>= 1
            index += 1
        return [each for each in found if completed[each].called <= soonest], soonest

    def _guess(self, node: _Node) -> None:
        """Find the operations of unknown outcome that may come next."""
        node.is_guessing = node.is_settled = True
        _, soonest = self._candidates(node)
        for index, operation in enumerate(self._unknown):
            if operation.called > soonest:
                break
            if node.guessed >> index & 1:
                continue
            after = self._step(node.state, operation)
            # One without effect need not have been.
            if (
                after is not REFUSED
                and after != node.state
                and not self._is_unseen(node, operation, after)
            ):
                node.untried.append((index, after))

    def _is_unseen(self, node: _Node, operation: Operation, after: Hashable) -> bool:
        """Whether the guess that led here makes no difference for this operation.

        Then it is tried without the guess, where the guess is still open.
        """
        return node.before is not None and self._step(node.before, operation) == after

    def _step(self, state: Hashable, operation: Operation) -> Hashable:
        self.steps += 1
        after = self.model.step(state, operation.op, operation.args, operation.result)
        if after is REFUSED and operation.returned == self._end and len(self.states) < _KEPT_STATES:
            self.states.add(state)
        return after
