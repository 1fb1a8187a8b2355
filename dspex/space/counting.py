"""How many rows a finite space has, and which.

Knows: columns, their values and clauses. Must not know: constraints, params, units.

Counting: columns that do not depend on each other multiply. In a group that does, the first
column (whose own clauses are decided) is split into the classes of its values that the clauses
tell apart; each class is counted once and weighed by its size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import prod

import numpy as np
from numpy.typing import NDArray

from dspex.errors import InvalidSpaceError
from dspex.space.activity import holds
from dspex.space.conditions import Clause
from dspex.space.leaf import Leaf

__all__ = ["cardinality", "enumerate_rows"]

_LARGEST = 2**53
_MOST_JUDGED = 2**20
"""How many values of a column a user's function is asked about."""


class _Uncountable(Exception):
    """A function would have to be asked about too many values."""


def cardinality(leaves: Sequence[Leaf]) -> int | None:
    """How many different rows there are; None where infinite, beyond 2**53 or not countable."""
    if any(leaf.cardinality is None for leaf in leaves):
        return None
    try:
        total = _count(tuple(leaves), {})
    except _Uncountable:
        return None
    return total if total <= _LARGEST else None


def _count(leaves: tuple[Leaf, ...], decided: Mapping[int, bool]) -> int:
    # decided: {id of a clause: whether it holds}, for all clauses on columns before these
    return prod(_count_group(group, decided) for group in _groups(leaves, decided))


def _groups(leaves: Sequence[Leaf], decided: Mapping[int, bool]) -> list[tuple[Leaf, ...]]:
    """Columns that share no undecided clause, each group in the given order."""
    group_of: dict[str, list[Leaf]] = {}
    for leaf in leaves:
        merged = [leaf]
        parents = {c.parent for c in leaf.clauses if id(c) not in decided}
        for group in {id(g): g for g in (group_of[p] for p in parents)}.values():
            merged = group + merged
        for each in merged:
            group_of[each.name] = merged
    order = {leaf.name: i for i, leaf in enumerate(leaves)}
    distinct = {id(group): group for group in group_of.values()}.values()
    return [tuple(sorted(group, key=lambda leaf: order[leaf.name])) for group in distinct]


def _count_group(group: tuple[Leaf, ...], decided: Mapping[int, bool]) -> int:
    first, rest = group[0], group[1:]
    active = all(decided[id(clause)] for clause in first.clauses)
    if not rest:
        return (first.cardinality or 0) if active else 1
    clauses = list(
        {id(c): c for leaf in rest for c in leaf.clauses if c.parent == first.name}.values()
    )
    classes = _classes(first, clauses) if active else {(False,) * len(clauses): 1}
    return sum(
        size * _count(rest, {**decided, **dict(zip(map(id, clauses), outcome, strict=True))})
        for outcome, size in classes.items()
    )


def _classes(leaf: Leaf, clauses: Sequence[Clause]) -> dict[tuple[bool, ...], int]:
    """The sizes of the classes of values that the clauses tell apart."""
    size = leaf.cardinality or 0
    classes: dict[tuple[bool, ...], int] = {}
    if all(clause.allowed is not None for clause in clauses):
        # Only values that some clause names can differ from the many that none does.
        named = {value for clause in clauses for value in clause.allowed or ()}
        values = sorted(named)
        if size > len(values):
            classes[(False,) * len(clauses)] = size - len(values)
    elif size <= _MOST_JUDGED:
        values = leaf.values().tolist()
    else:
        raise _Uncountable
    for value in values:
        outcome = tuple(clause.holds(value) for clause in clauses)
        classes[outcome] = classes.get(outcome, 0) + 1
    return classes


def enumerate_rows(leaves: Sequence[Leaf]) -> Iterator[NDArray[np.float64]]:
    """All rows of a finite space, the last column fastest.

    Raises
    ------
    InvalidSpaceError
        Where a column is continuous.
    """
    for leaf in leaves:
        if leaf.cardinality is None:
            raise InvalidSpaceError(
                f"only a finite space can be enumerated; {leaf.name!r} is continuous; give it a "
                f"step, or a list of values",
                variable=leaf.name,
            )
    yield from _extended(leaves, {}, np.full(len(leaves), np.nan))


def _extended(
    leaves: Sequence[Leaf], raw: dict[str, float], row: NDArray[np.float64]
) -> Iterator[NDArray[np.float64]]:
    j = len(leaves) - 1
    depth = 0
    # An odometer, for a generator in a generator for each column would be slow.
    choices: list[list[float]] = [[] for _ in leaves]
    places = [0] * len(leaves)

    def enter(column: int) -> None:
        leaf = leaves[column]
        active = holds(leaf.clauses, raw)
        choices[column] = leaf.values().tolist() if active else [float("nan")]
        places[column] = 0
        put(column)

    def put(column: int) -> None:
        value = choices[column][places[column]]
        row[column] = value
        raw.pop(leaves[column].name, None)
        if value == value:
            raw[leaves[column].name] = value

    while True:
        for column in range(depth, len(leaves)):
            enter(column)
        yield row.copy()
        j = len(leaves) - 1
        while j >= 0 and places[j] + 1 == len(choices[j]):
            raw.pop(leaves[j].name, None)
            j -= 1
        if j < 0:
            return
        places[j] += 1
        put(j)
        depth = j + 1
