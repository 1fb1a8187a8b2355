"""Scores as an axis on which the good ones can be told apart.

Knows: an objective's scores. Must not know: which picture is drawn.

Bad params are often very bad (an accuracy of 0.1 among many of 0.98), and an axis that shows them
all shows nothing else. So the better side is shown to its end, the worse side as far as two
interquartile ranges behind the worse quartile (Tukey's fences); what lies beyond is drawn on the
border. Positive scores over more than three orders of magnitude have a logarithmic axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np
from bokeh.models import Range1d
from numpy.typing import NDArray

from dspex.study.goal import Objective

__all__ = ["ScoreAxis", "wants_log"]

FloatArray = NDArray[np.float64]

_PAD = 0.07  # of the axis, on both sides


def wants_log(values: FloatArray) -> bool:
    """Whether positive numbers span more than three orders of magnitude.

    Examples
    --------
    >>> wants_log(np.array([0.001, 5.0])), wants_log(np.array([-0.001, 5.0]))
    (True, False)
    """
    return bool(len(values) and values.min() > 0 and values.max() / values.min() > 1000)


@final
class ScoreAxis:
    """Where scores lie on an axis.

    Parameters
    ----------
    values : array, shape (n,)
        Finite scores.
    objective : Objective
    keep : sequence of float
        Scores that are inside in any case, such as that of the defaults.

    Attributes
    ----------
    low, high : float
        Beyond them scores lie on the border.
    scale : str
        Bokeh's word: "log" or "linear".

    Examples
    --------
    >>> axis = ScoreAxis(np.array([-1e9, *np.linspace(0.0, 1.0, 9)]), Objective("r2", "maximize"))
    >>> bool(axis.low > -3), axis.high
    (True, 1.0)
    >>> axis.clip(np.array([-1e9]))[0] == axis.low
    np.True_
    """

    def __init__(
        self, values: FloatArray, objective: Objective, keep: Sequence[float] = ()
    ) -> None:
        self.scale = "log" if wants_log(values) else "linear"
        self._worse_is_low = objective.direction == "maximize"
        ends: list[float] = [0.0, 1.0]
        if len(values):
            losses = objective.sign * values
            worst = losses.max()
            if self.scale == "linear":
                better, worse = np.quantile(losses, [0.25, 0.75])
                worst = min(worst, worse + 2 * (worse - better))
            ends = [float(objective.sign * loss) for loss in (losses.min(), worst)]
        self.low: float = min(*ends, *keep)
        self.high: float = max(*ends, *keep)
        if self.low == self.high:
            pad = abs(self.low) * 0.1 or 1.0
            self.low, self.high = self.low - pad, self.high + pad

    def clip(self, values: FloatArray) -> FloatArray:
        """Where these scores are drawn."""
        return np.clip(values, self.low, self.high)

    def range(self) -> Range1d:
        """A new range for a figure."""
        return Range1d(self._beyond(False, _PAD), self._beyond(True, _PAD))

    @property
    def failed(self) -> float:
        """Where trials without a score are drawn: just beyond the worst scores."""
        return self._beyond(not self._worse_is_low, _PAD / 2)

    def _beyond(self, high: bool, part: float) -> float:
        if self.scale == "log":
            factor: float = (self.high / self.low) ** part
            return self.high * factor if high else self.low / factor
        pad = part * (self.high - self.low)
        return self.high + pad if high else self.low - pad
