"""A variable as an axis: its numbers or its labels, its scale, its ticks.

Knows: leaves of a space. Must not know: which picture is drawn.
Labels lie at whole numbers; points on them are spread a little, the same way every time.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Literal, final

import numpy as np
from bokeh.models import BasicTicker, FixedTicker, Range1d
from bokeh.plotting import figure
from numpy.typing import NDArray

from dspex.errors import InvalidArgumentError
from dspex.monitoring.wording import number, plain_value
from dspex.space import Leaf, Space

__all__ = ["VariableAxis", "chosen_leaves"]

FloatArray = NDArray[np.float64]

_SPREAD = 0.5  # of the distance between two labels
_LABEL_WIDTH = 18


def chosen_leaves(
    space: Space, params: Iterable[str] | None, ranking: Sequence[str], limit: int
) -> list[Leaf]:
    """The variables to draw: those named, or the ``limit`` most important in the space's order.

    Raises
    ------
    InvalidArgumentError
        Where the space has no variable of a name.
    """
    by_name = {leaf.name: leaf for leaf in space.leaves}
    if params is None:
        kept = set(ranking[:limit])
        return [leaf for leaf in space.leaves if leaf.name in kept]
    names = [params] if isinstance(params, str) else list(params)
    unknown = [name for name in names if name not in by_name]
    if unknown or not names:
        raise InvalidArgumentError(
            f"params are names of the study's variables ({', '.join(by_name)}); got {names!r}"
        )
    return [by_name[name] for name in names]


@final
class VariableAxis:
    """How one variable lies on an axis.

    Parameters
    ----------
    leaf : Leaf
    column : array, shape (n,)
        Its raw values, NaN where inactive.
    """

    def __init__(self, leaf: Leaf, column: FloatArray) -> None:
        self.leaf = leaf
        self.column = column
        self.is_choice = leaf.kind == "choice"

    @property
    def scale(self) -> str:
        """Bokeh's word for it: "log" or "linear"."""
        return "log" if not self.is_choice and self.leaf.log else "linear"

    def positions(self, numbers: NDArray[np.int64]) -> FloatArray:
        """Where the points of these trials lie, shape (n,)."""
        if not (self.is_choice or self._is_short()):
            return self.column
        golden = (5**0.5 - 1) / 2
        spread = _SPREAD if self.is_choice else _SPREAD / 2
        return np.asarray(self.column + spread * ((numbers * golden) % 1.0 - 0.5))

    def unit(self, numbers: NDArray[np.int64]) -> FloatArray:
        """Positions from 0 to 1, shape (n,)."""
        if self.is_choice:
            return np.asarray((self.positions(numbers) + 0.5) / len(self.leaf.labels))
        low, high = self._bounds()
        column = self.column
        if self.scale == "log":
            low, high, column = math.log(low), math.log(high), np.log(column)
        return np.asarray((column - low) / (high - low)) if high > low else column * 0 + 0.5

    def ticks(self) -> list[tuple[float, str]]:
        """A few places from 0 to 1 with what stands there."""
        if self.is_choice:
            labels = self._labels()
            stride = max(1, math.ceil(len(labels) / 12))
            return [((i + 0.5) / len(labels), labels[i]) for i in range(0, len(labels), stride)]
        low, high = self._bounds()
        middle = math.sqrt(low * high) if self.scale == "log" else (low + high) / 2
        if self.leaf.kind == "int" and (middle != int(middle) or not low < middle < high):
            return [(0.0, number(low)), (1.0, number(high))]
        return [(0.0, _short(low)), (0.5, _short(middle)), (1.0, _short(high))]

    def dress(self, plot: figure, side: Literal["x", "y"] = "x") -> None:
        """Give one of the figure's axes, "x" or "y", its range and labels."""
        axis, across = (plot.xaxis, plot.xgrid) if side == "x" else (plot.yaxis, plot.ygrid)

        def set_range(low: float, high: float) -> None:
            setattr(plot, f"{side}_range", Range1d(low, high))

        if self.is_choice:
            labels = self._labels()
            set_range(-0.5, len(labels) - 0.5)
            stride = max(1, math.ceil(len(labels) / 12))
            shown = list(range(0, len(labels), stride))
            axis.ticker = FixedTicker(ticks=shown)
            axis.major_label_overrides = {i: labels[i] for i in shown}
            across.grid_line_color = None
            if side == "x" and sum(len(labels[i]) for i in shown) > 36:
                axis.major_label_orientation = 0.6
            return
        low, high = self._bounds()
        if self.scale == "log":
            factor = (high / low) ** 0.04
            set_range(low / factor, high * factor)
            return
        pad = 0.5 if self._is_short() else 0.04 * (high - low) or 0.5
        set_range(low - pad, high + pad)
        if self.leaf.kind == "int":
            axis.ticker = BasicTicker(min_interval=1, desired_num_ticks=6)

    def ends(self) -> tuple[float, float]:
        """The places of 0 and 1 of `unit` on the figure's axis."""
        if self.is_choice:
            return -0.5, len(self.leaf.labels) - 0.5
        low, high = self._bounds()
        return (low, high) if high > low else (low - 0.5, high + 0.5)

    def _is_short(self) -> bool:
        """Whether it is an integer of so few values that its points would hide each other."""
        low, high = self._bounds()
        return self.leaf.kind == "int" and not self.leaf.log and high - low <= 12

    def _bounds(self) -> tuple[float, float]:
        """The variable's range; what was seen, where a distribution has no end."""
        seen = self.column[np.isfinite(self.column)]
        low, high = float(self.leaf.low), float(self.leaf.high)
        if not math.isfinite(low):
            low = float(seen.min()) if len(seen) else 0.0
        if not math.isfinite(high):
            high = float(seen.max()) if len(seen) else low
        return low, max(low, high)

    def _labels(self) -> list[str]:
        return [_clipped(plain_value(label)) for label in self.leaf.labels]


def _short(value: float) -> str:
    return number(float(f"{value:.3g}"))


def _clipped(label: str) -> str:
    return label if len(label) <= _LABEL_WIDTH else label[: _LABEL_WIDTH - 1] + "…"
