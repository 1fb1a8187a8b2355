"""Which columns of a row are active.

Knows: the clauses of all columns. Must not know: labels, units, params.
Columns that share their clauses are judged together, parents before children, so that an inactive
parent (NaN) switches off all that hangs on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np
from numpy.typing import NDArray

from dspex.space.conditions import Clause
from dspex.space.leaf import Leaf

__all__ = ["Activity", "holds"]


def holds(clauses: Sequence[Clause], raw: dict[str, float]) -> bool:
    """Whether all clauses hold, given the raw values of the active columns."""
    return all(clause.parent in raw and clause.holds(raw[clause.parent]) for clause in clauses)


@final
class Activity:
    """The conditions of a space, applied to arrays."""

    def __init__(self, leaves: Sequence[Leaf]) -> None:
        index = {leaf.name: j for j, leaf in enumerate(leaves)}
        groups: dict[tuple[int, ...], list[int]] = {}
        for j, leaf in enumerate(leaves):
            if leaf.clauses:
                groups.setdefault(tuple(map(id, leaf.clauses)), []).append(j)
        self._groups = [
            (
                np.array(columns),
                [(index[clause.parent], clause) for clause in leaves[columns[0]].clauses],
            )
            for columns in groups.values()
        ]

    def __bool__(self) -> bool:
        return bool(self._groups)

    def activate(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """A copy of the rows with NaN in every inactive column. Shapes (n, d)."""
        rows = np.array(rows, dtype=np.float64)
        for columns, clauses in self._groups:
            active = np.ones(len(rows), dtype=bool)
            for parent, clause in clauses:
                active &= clause.mask(rows[:, parent])
            if not active.all():
                rows[np.ix_(~active, columns)] = np.nan
        return rows
