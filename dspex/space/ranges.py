"""Numbers between two bounds: continuous, or on a grid of equal steps.

Knows: bounds, steps, how a number lands on a grid and which numbers lie in a range.
Must not know: names, conditions, units, spaces.

A grid is counted in decimal arithmetic on the numbers as they are written (0.3 / 0.1 is 3), and
its points are rounded to the decimals in which bounds and step are written, so that the third
point of ``Float(0, 1, step=0.1)`` is 0.3 and not 0.30000000000000004.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from numbers import Real
from typing import Any, Literal, final

import numpy as np
from numpy.typing import NDArray

from dspex.errors import InvalidSpaceError

__all__ = ["Range", "real"]

EXACT = 2**53
"""Whole numbers up to this one are exact in float64."""

MOST_POINTS = 2**50
"""More points than this cannot be told apart in the unit interval."""

HIGHEST_LOG = 2**44
"""Above this whole numbers cannot be told apart by their float64 logarithm."""

OFF_GRID = 1e-9
"""How far off, in steps, a float may lie and still be taken as a point of the grid."""


def real(value: Any) -> float | int | None:
    """``value`` as a plain number, or None where it is none (a bool is none).

    Examples
    --------
    >>> real(np.int64(3)), real(2.5), real("3"), real(True)
    (3, 2.5, None, None)
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        # A whole number too large for a float lies in no range, as infinity does.
        return value if abs(value) <= sys.float_info.max else math.inf
    return float(value) if isinstance(value, Real) else None


@final
@dataclass(frozen=True)
class Range:
    """The numbers from ``low`` to ``high``, both included.

    ``high`` is lowered onto the grid: it is the largest ``low + m * step`` not above it.

    Raises
    ------
    InvalidSpaceError
        Where the bounds, the step or the scale contradict each other.

    Examples
    --------
    >>> grid = Range("float", 0, 1, log=False, step=0.3)
    >>> grid.high, grid.count
    (0.9, 4)
    >>> grid.point(np.arange(4)).tolist()
    [0.0, 0.3, 0.6, 0.9]
    """

    kind: Literal["float", "int"]
    low: float
    high: float
    log: bool
    step: float | None

    def __post_init__(self) -> None:
        low, high = self._bound("low"), self._bound("high")
        if low > high:
            raise InvalidSpaceError(
                f"low is at most high; got low={low}, high={high}; swap them", low=low, high=high
            )
        if not math.isfinite(float(high) - float(low)):
            raise InvalidSpaceError(
                f"the width of a range is finite; got {low} to {high}; narrow it"
            )
        if self.log and low <= 0:
            raise InvalidSpaceError(
                f"a logarithmic range lies above 0; got low={low}; raise low or drop log=True"
            )
        object.__setattr__(self, "low", float(low))
        object.__setattr__(self, "high", float(high))
        if self.step is not None:
            self._settle_on_grid()

    def _bound(self, name: str) -> float | int:
        given = getattr(self, name)
        number = real(given)
        if number is None or not math.isfinite(number):
            raise InvalidSpaceError(f"{name} is a finite number; got {given!r}", value=given)
        if self.kind == "int" and (number != int(number) or abs(number) > EXACT):
            raise InvalidSpaceError(
                f"{name} of an Int is a whole number between -2**53 and 2**53, beyond which "
                f"numbers are not exact; got {given!r}; use Float, or scale it",
                value=given,
            )
        return number

    def _settle_on_grid(self) -> None:
        step = real(self.step)
        if step is None or not (math.isfinite(step) and step > 0):
            raise InvalidSpaceError(f"a step is a positive number; got step={self.step!r}")
        if self.kind == "int" and step != int(step):
            raise InvalidSpaceError(
                f"the step of an Int is a whole number; got step={step}; use Float(step=...)"
            )
        # A hair wider is the rounding of 0.03 - 0.01 against 0.02.
        if step * (1 - 1e-9) > self.high - self.low > 0:
            raise InvalidSpaceError(
                f"a step is at most as wide as the range; got step={self.step!r} from {self.low!r} "
                f"to {self.high!r}; lower it, or name the options in a Choice"
            )
        if self.kind == "float" and self.log:
            raise InvalidSpaceError(
                f"a Float has log=True or a step, not both; got step={step}; drop one of them"
            )
        object.__setattr__(self, "step", float(step))
        count = self.count or 0
        finest = 4 * np.spacing(max(abs(self.low), abs(self.high))) if self.kind == "float" else 1
        if count > MOST_POINTS or step < finest:
            raise InvalidSpaceError(
                f"a grid has at most 2**50 points that float64 can tell apart; got "
                f"{self.low} to {self.high} in steps of {step}; use a larger step or narrow it"
            )
        if self.kind == "int" and self.log and self.high > HIGHEST_LOG:
            raise InvalidSpaceError(
                f"a logarithmic Int ends at 2**44 at the latest, beyond which its points cannot "
                f"be told apart; got high={self.high:.0f}; use Float(log=True)"
            )
        object.__setattr__(self, "high", float(self.point(np.array([count - 1.0]))[0]))

    @cached_property
    def count(self) -> int | None:
        """How many points; None where continuous."""
        if self.low == self.high:
            return 1
        if self.step is None:
            return None
        # The slack of 1e-12 step forgives bounds that were themselves computed, as in 3 * 0.1.
        low, high, step = (Decimal(repr(each)) for each in (self.low, self.high, self.step))
        return int((high - low) / step + Decimal("1e-12")) + 1

    @cached_property
    def scale(self) -> float:
        """10 to the decimals of the grid; 0 where rounding would not be exact."""
        if self.step is None:
            return 0.0
        decimals = max(-_exponent(self.low), -_exponent(self.step), 0)
        largest = max(abs(self.low), abs(self.high), 1.0)
        return 10.0**decimals if decimals <= 15 and largest * 10.0**decimals < EXACT else 0.0

    def point(self, index: NDArray[np.float64]) -> NDArray[np.float64]:
        """The points at these positions of the grid."""
        step = self.step if self.step is not None else 0.0
        points = self.low + index * step
        return np.rint(points * self.scale) / self.scale if self.scale else points

    def fault(self, number: float | int | None) -> str:
        """The rule that a value breaks, in words; empty where it lies in the range."""
        noun = "a whole number" if self.kind == "int" else "a number"
        if number is None or not math.isfinite(number):
            return f"must be {noun}"
        if self.kind == "int" and number != int(number):
            return f"must be {noun}"
        if not self.low <= number <= self.high and self.nearest(number) is None:
            return f"must lie between {self.show(self.low)} and {self.show(self.high)}"
        if self.nearest(number) is None:
            step = self.show(self.step or 0.0)
            return f"must be {self.show(self.low)} plus a multiple of the step {step}"
        return ""

    def nearest(self, number: float | int) -> float | None:
        """The number as a member of the range, None where it is none."""
        if self.step is None or self.count == 1:
            return float(number) if self.low <= number <= self.high else None
        if self.kind == "int":
            index, off = divmod(int(number) - int(self.low), int(self.step))
            return None if off or not 0 <= index < (self.count or 0) else float(number)
        index = round((number - self.low) / self.step)
        if not 0 <= index < (self.count or 0):
            return None
        point = float(self.point(np.array([float(index)]))[0])
        slack = max(OFF_GRID * self.step, 2 * np.spacing(max(abs(self.low), abs(self.high))))
        return point if abs(number - point) <= slack else None

    def show(self, number: float) -> str:
        """A number as people write it."""
        return str(int(number)) if self.kind == "int" else repr(float(number))


def _exponent(number: float) -> int:
    exponent = Decimal(repr(number)).normalize().as_tuple().exponent
    return exponent if isinstance(exponent, int) else 0
