"""Which worker gets which part of a task.

Knows: parts, ids, loads, bids. Must not know: agents, calls, what a part is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, final

from dspex.errors import InvalidArgumentError
from dspex.foundation.ledger.hashing import mix, stable_hash

__all__ = ["RULES", "Choice", "bid_of", "choose", "parts_of"]


@final
@dataclass(frozen=True, kw_only=True)
class Choice:
    """One choice to be made.

    Parameters
    ----------
    index : int
        Of the part.
    part : bytes
        The part, pickled.
    everyone : sequence of str
        All workers, in the order in which they were given.
    left : sequence of str
        Those that have not tried it.
    loads : mapping
        {worker: messages before it}
    bids : mapping
        {worker: cost}, of those that want it.
    """

    index: int
    part: bytes
    everyone: Sequence[str]
    left: Sequence[str]
    loads: Mapping[str, float] = field(default_factory=dict)
    bids: Mapping[str, float] = field(default_factory=dict)


def choose(rule: str, choice: Choice) -> str | None:
    """The worker that gets a part; None where nobody is left that wants it.

    Examples
    --------
    >>> choice = Choice(index=1, part=b"", everyone=["a", "b"], left=["a", "b"], bids={"a": 2.5})
    >>> [choose(rule, choice) for rule in ("round_robin", "least_loaded", "auction")]
    ['b', 'a', 'a']
    """
    return RULES[rule](choice) if choice.left else None


def _least_loaded(choice: Choice) -> str:
    return min(choice.left, key=lambda worker: choice.loads.get(worker, 0.0))


def _round_robin(choice: Choice) -> str:
    at = choice.index % len(choice.everyone)
    in_turn = (*choice.everyone[at:], *choice.everyone[:at])
    return next(worker for worker in in_turn if worker in choice.left)


def _consistent_hash(choice: Choice) -> str:
    """Rendezvous hashing: a worker that comes or goes moves only the parts that are its own.

    Thaler and Ravishankar, "Using name-based mappings to increase hit rates", IEEE/ACM
    Transactions on Networking 6(1), 1998.
    """
    part = stable_hash(choice.part.decode("latin-1"))
    return max(choice.left, key=lambda worker: (mix(stable_hash(worker) ^ part), worker))


def _broadcast(choice: Choice) -> str | None:
    worker = choice.everyone[choice.index]
    return worker if worker in choice.left else None


def _auction(choice: Choice) -> str | None:
    bidders = [worker for worker in choice.left if worker in choice.bids]
    return min(bidders, key=lambda worker: (choice.bids[worker], worker), default=None)


RULES: Mapping[str, Callable[[Choice], str | None]] = {
    "least_loaded": _least_loaded,
    "round_robin": _round_robin,
    "consistent_hash": _consistent_hash,
    "broadcast": _broadcast,
    "auction": _auction,
}


def bid_of(value: Any) -> float | None:
    """The cost that a worker bids; None where it does not bid.

    Examples
    --------
    >>> bid_of(3), bid_of(None), bid_of(float("nan"))
    (3.0, None, None)
    """
    if value is None or isinstance(value, str):
        return None
    try:
        cost = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return cost if math.isfinite(cost) else None


def parts_of(task: Any, split: Any) -> list[Any]:
    """Cut a task.

    Parameters
    ----------
    task : Any
    split : None, int or callable
        None: it is one part. A number: a sequence is cut into so many, in order, of sizes that
        differ by one at most; a shorter one into as many as it has items. A callable gives them.

    Raises
    ------
    InvalidArgumentError

    Examples
    --------
    >>> parts_of([1, 2, 3, 4, 5], 2)
    [[1, 2, 3], [4, 5]]
    >>> parts_of("ab", 3)
    ['a', 'b']
    >>> parts_of({"x": 1}, lambda task: list(task.items()))
    [('x', 1)]
    """
    if split is None:
        return [task]
    if callable(split):
        return list(split(task))
    if not isinstance(split, int) or isinstance(split, bool) or split < 1:
        raise InvalidArgumentError(
            f"split is None, a whole number from 1 or a callable; got {split!r}"
        )
    if not hasattr(task, "__len__") or isinstance(task, Mapping | set | frozenset):
        raise InvalidArgumentError(
            f"a number of parts is cut from a sequence; got {task!r:.80}; give split a callable "
            "that makes the parts"
        )
    size, rest = divmod(len(task), split)
    ends = [at * size + min(at, rest) for at in range(split + 1)]
    return [task[a:b] for a, b in pairwise(ends) if a < b]
