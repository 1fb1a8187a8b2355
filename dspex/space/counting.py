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
"""How many values of a column are looked at one by one."""

_INACTIVE = (float("nan"),)


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
        Where a column is continuous, or has more than 2**20 values.
    """
    for leaf in leaves:
        if leaf.cardinality is None or leaf.cardinality > _MOST_JUDGED:
            size = "is continuous" if leaf.cardinality is None else f"has {leaf.cardinality} values"
            raise InvalidSpaceError(
                f"only spaces whose variables have few values can be enumerated; {leaf.name!r} "
                f"{size}; give it a larger step, or a list of values",
                variable=leaf.name,
            )
    return _odometer(leaves, [leaf.values().tolist() for leaf in leaves])


def _odometer(
    leaves: Sequence[Leaf], values: Sequence[list[float]]
) -> Iterator[NDArray[np.float64]]:
    # {name of an active column left of the one that turns: its raw value}
    raw: dict[str, float] = {}
    row = np.full(len(leaves), np.nan)
    wheels: list[Iterator[float]] = []
    while True:
        while len(wheels) < len(leaves):
            leaf = leaves[len(wheels)]
            wheels.append(iter(values[len(wheels)] if holds(leaf.clauses, raw) else _INACTIVE))
            _turn(leaf, wheels, row, raw)
        yield row.copy()
        while wheels and not _turn(leaves[len(wheels) - 1], wheels, row, raw):
            wheels.pop()
        if not wheels:
            return


def _turn(
    leaf: Leaf, wheels: list[Iterator[float]], row: NDArray[np.float64], raw: dict[str, float]
) -> bool:
    """Move the last wheel on by one; False where it is at its end."""
    raw.pop(leaf.name, None)
    for value in wheels[-1]:
        row[len(wheels) - 1] = value
        if value == value:
            raw[leaf.name] = value
        return True
    return False
