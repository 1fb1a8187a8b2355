"""One column of a space.

Knows: what a column holds: the raw value of a number is the number, that of a choice the index of
its label. Must not know: the other columns, units, how params travel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, final

import numpy as np
from numpy.typing import NDArray

from dspex.space.conditions import Clause
from dspex.space.distributions import Continuous, Discrete, Words
from dspex.space.labels import Scalar, find, plain
from dspex.space.ranges import Range, real

__all__ = ["Leaf", "match"]


@final
@dataclass(frozen=True, kw_only=True)
class Leaf:
    """One column of a space.

    Attributes
    ----------
    name : str
        From the top of the space, nested ones with dots.
    kind : "float", "int" or "choice"
    low, high : float
        Bounds of the raw value, both included; of a choice 0 and the last index.
    log : bool
    step : float or None
        None where continuous; 1 for a choice.
    labels : tuple
        Of a choice; empty otherwise.
    ordered : bool
        Whether a choice's neighbours are alike.
    default : label or number
        Counts where `has_default`, for None may be a label.
    clauses : tuple of Clause
        All hold where the column is active; empty for one that always is.
    folds : tuple of (int, str)
        The labels that stand for a nested variable, and the name of its column.
    folded : bool
        Whether this is such a nested variable, shown to programs under its parent's name.
    """

    name: str
    kind: Literal["float", "int", "choice"]
    low: float
    high: float
    log: bool = False
    step: float | None = None
    labels: tuple[Scalar, ...] = ()
    ordered: bool = False
    default: Scalar = None
    has_default: bool = False
    clauses: tuple[Clause, ...] = ()
    folds: tuple[tuple[int, str], ...] = ()
    folded: bool = False
    # Objects and laws may have an == of any kind, and are the same where the descriptions are.
    objects: tuple[Any, ...] | None = field(default=None, compare=False, repr=False)
    law: Continuous | Discrete | None = field(default=None, compare=False, repr=False)
    distribution: Words | None = None

    @cached_property
    def cardinality(self) -> int | None:
        """How many values it has; None where it is continuous."""
        if self.kind == "choice":
            return len(self.labels)
        if isinstance(self.law, Discrete):
            return len(self.law.values)
        return self.range.count

    @cached_property
    def range(self) -> Range:
        """The numbers that it may hold."""
        kind: Literal["float", "int"] = "float" if self.kind == "float" else "int"
        return Range(kind, self.low, self.high, self.log, self.step)

    def values(self) -> NDArray[np.float64]:
        """All raw values of a finite column, ascending."""
        if isinstance(self.law, Discrete):
            return self.law.values
        return self.range.point(np.arange(self.cardinality or 0, dtype=np.float64))

    def value(self, raw: float) -> Scalar:
        """What params hold for a raw value."""
        if self.kind == "float":
            return raw
        return self.labels[int(raw)] if self.kind == "choice" else int(raw)

    def object(self, raw: float) -> Any:
        """What a program gets for a raw value."""
        if self.kind == "choice" and self.objects is not None:
            return self.objects[int(raw)]
        return self.value(raw)

    def fault(self, value: Any) -> str:
        """The rule that a number breaks, in words; empty where it is one of the column's."""
        number = real(value)
        rule = self.range.fault(number)
        if not rule and isinstance(self.law, Discrete) and number not in self.law.values:
            return "must be a number that its distribution gives"
        return rule


def match(
    leaf: Leaf, value: Any, leaves: Mapping[str, Leaf], given: Mapping[str, Any]
) -> tuple[float, dict[str, Any]] | None:
    """The raw value that ``value`` means, and what it says of nested columns; None for none.

    Parameters
    ----------
    leaf : Leaf
    value : object
        A number, a label, an option, or a value of an option that is a variable.
    leaves : mapping of name to Leaf
        All columns.
    given : mapping
        The params around it, whose names tell apart options that are equal.
    """
    if leaf.kind != "choice":
        number = real(value)
        if number is None or leaf.fault(number):
            return None
        nearest = leaf.range.nearest(number)
        return None if nearest is None else (nearest, {})
    hits = find(leaf.labels, leaf.labels if leaf.objects is None else leaf.objects, value)
    folds = dict(leaf.folds)
    # 1. an option that needs no more, or whose own variables stand beside it
    for hit in sorted(hits, key=lambda i: not _has_company(leaf, i, given)):
        if hit not in folds or folds[hit] in given:
            return float(hit), {}
    # 2. a value of an option that is a variable
    for hit, child in folds.items():
        if (inner := match(leaves[child], value, leaves, given)) is not None:
            return float(hit), {child: plain(value), **inner[1]}
    # 3. an option whose variable is missing, which the caller will say
    return (float(hits[0]), {}) if hits else None


def _has_company(leaf: Leaf, index: int, given: Mapping[str, Any]) -> bool:
    prefix = f"{leaf.name}.{leaf.labels[index]}"
    return any(name == prefix or name.startswith(f"{prefix}.") for name in given)
