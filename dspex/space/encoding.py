"""The map between rows of raw values and the unit cube.

Knows: bounds, scales, grids and distributions of columns. Must not know: names, labels, which
columns are active (NaN passes through).

Columns of one kind are mapped together. Floats go linearly or by their logarithm. Whatever has k
points (whole numbers, grids, choices) goes by k bins of equal width; a logarithmic whole number by
bins whose edges lie half a step off its points, on the logarithmic scale of
[low - 1/2, high + 1/2]; what follows a distribution by its cdf. A bin is mapped to its middle, so
``from_unit(to_unit(x)) == x`` for all that is discrete.

Notation: n rows, m columns of a block; x raw values, u units, both of shape (n, m).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, final

import numpy as np
from numpy.typing import NDArray

from dspex.space.leaf import Leaf

__all__ = ["UnitMap"]

FloatArray = NDArray[np.float64]


class _Block(Protocol):
    """The unit map of several columns of one kind."""

    def to_unit(self, x: FloatArray) -> FloatArray:
        """Raw values to units."""

    def from_unit(self, u: FloatArray) -> FloatArray:
        """Units to raw values."""


def _column(leaves: Sequence[Leaf], pick: Callable[[Leaf], float]) -> FloatArray:
    return np.array([pick(leaf) for leaf in leaves], dtype=np.float64)


@final
class _Linear:
    def __init__(self, leaves: Sequence[Leaf]) -> None:
        self.low = _column(leaves, lambda leaf: leaf.low)
        self.high = _column(leaves, lambda leaf: leaf.high)
        self.width = self.high - self.low

    def to_unit(self, x: FloatArray) -> FloatArray:
        unit: FloatArray = (x - self.low) / self.width
        return unit

    def from_unit(self, u: FloatArray) -> FloatArray:
        x: FloatArray = np.clip(self.low + u * self.width, self.low, self.high)
        return x


@final
class _Log:
    def __init__(self, leaves: Sequence[Leaf]) -> None:
        self.low = _column(leaves, lambda leaf: leaf.low)
        self.high = _column(leaves, lambda leaf: leaf.high)
        self.start = np.log(self.low)
        # Neighbouring floats may have one logarithm; their unit is 0 then, and they become low.
        self.width = np.maximum(np.log(self.high) - self.start, np.finfo(np.float64).tiny)

    def to_unit(self, x: FloatArray) -> FloatArray:
        unit: FloatArray = (np.log(x) - self.start) / self.width
        return unit

    def from_unit(self, u: FloatArray) -> FloatArray:
        x: FloatArray = np.clip(np.exp(self.start + u * self.width), self.low, self.high)
        return x


@final
class _Bins:
    """Equal bins: grids, whole numbers, choices, and constants, which have one."""

    def __init__(self, leaves: Sequence[Leaf]) -> None:
        self.low = _column(leaves, lambda leaf: leaf.low)
        self.step = _column(leaves, lambda leaf: leaf.step or 1.0)
        self.count = _column(leaves, lambda leaf: leaf.cardinality or 1)
        # One scale does for all: dividing by 1 what was not rounded changes nothing.
        self.scale = _column(leaves, lambda leaf: leaf.range.scale)
        self.rounded = self.scale > 0
        self.rounds = bool(((self.scale > 1) & (self.count > 1)).any())

    def to_unit(self, x: FloatArray) -> FloatArray:
        unit: FloatArray = (np.rint((x - self.low) / self.step) + 0.5) / self.count
        return unit

    def from_unit(self, u: FloatArray) -> FloatArray:
        index = np.minimum(np.floor(u * self.count), self.count - 1)
        x: FloatArray = self.low + index * self.step
        if not self.rounds:
            return x
        scale = np.where(self.rounded, self.scale, 1.0)
        return np.where(self.rounded, np.rint(x * scale) / scale, x)


@final
class _LogBins:
    """Whole numbers on a logarithmic scale, one bin each."""

    def __init__(self, leaves: Sequence[Leaf]) -> None:
        self.low = _column(leaves, lambda leaf: leaf.low)
        self.high = _column(leaves, lambda leaf: leaf.high)
        self.step = _column(leaves, lambda leaf: leaf.step or 1.0)
        self.last = np.rint((self.high - self.low) / self.step)
        self.start = np.log(self.low - 0.5)
        self.width = np.log(self.high + 0.5) - self.start

    def to_unit(self, x: FloatArray) -> FloatArray:
        below = np.log(np.maximum(x - self.step / 2, self.low - 0.5))
        above = np.log(np.minimum(x + self.step / 2, self.high + 0.5))
        unit: FloatArray = ((below + above) / 2 - self.start) / self.width
        return unit

    def from_unit(self, u: FloatArray) -> FloatArray:
        x: FloatArray = np.exp(self.start + u * self.width)
        index = np.clip(np.floor((x - self.low) / self.step + 0.5), 0, self.last)
        x = self.low + index * self.step
        return x


@final
class _Law:
    """One column that follows a distribution."""

    def __init__(self, leaf: Leaf) -> None:
        self.law = leaf.law

    def to_unit(self, x: FloatArray) -> FloatArray:
        assert self.law is not None
        return self.law.to_unit(x)

    def from_unit(self, u: FloatArray) -> FloatArray:
        assert self.law is not None
        return self.law.from_unit(u)


_KINDS: dict[str, Callable[[Sequence[Leaf]], _Block]] = {
    "linear": _Linear,
    "log": _Log,
    "bins": _Bins,
    "logbins": _LogBins,
}


def _kind(leaf: Leaf) -> str:
    if leaf.cardinality is None:
        return "log" if leaf.log else "linear"
    return "logbins" if leaf.log and leaf.kind == "int" else "bins"


@final
class UnitMap:
    """The map of all columns of a space.

    Parameters
    ----------
    leaves : sequence of Leaf
    """

    def __init__(self, leaves: Sequence[Leaf]) -> None:
        self._blocks: list[tuple[NDArray[np.intp], _Block]] = []
        groups: dict[str, list[int]] = {}
        for j, leaf in enumerate(leaves):
            if leaf.law is not None:
                self._blocks.append((np.array([j]), _Law(leaf)))
            else:
                groups.setdefault(_kind(leaf), []).append(j)
        for kind, columns in groups.items():
            block = _KINDS[kind]([leaves[j] for j in columns])
            self._blocks.append((np.array(columns), block))

    def to_unit(self, rows: FloatArray) -> FloatArray:
        """Rows to units in [0, 1]; NaN stays NaN. Shapes (n, d)."""
        unit = np.empty_like(rows)
        for columns, block in self._blocks:
            unit[:, columns] = block.to_unit(rows[:, columns])
        return np.clip(unit, 0.0, 1.0, out=unit)

    def from_unit(self, unit: FloatArray) -> FloatArray:
        """Units to rows; what lies outside [0, 1] is moved to its edge. Shapes (n, d)."""
        unit = np.clip(unit, 0.0, 1.0)
        rows = np.empty_like(unit)
        for columns, block in self._blocks:
            rows[:, columns] = block.from_unit(unit[:, columns])
        return rows
