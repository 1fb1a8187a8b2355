"""The score over two variables at once.

Knows: how a smooth map is made of scattered scores. Must not know: what a strategy did.

The colour of a place is the mean of the scores around it, weighted by a Gaussian kernel of their
distance in the unit square (Nadaraya 1964, Watson 1964); a place without a trial near it stays
blank, for nothing is known there. Each label is a stripe of its own. The trials themselves are
drawn on top.

Notation: n trials, g cells along each side of the map.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from bokeh.models import BasicTicker, ColorBar, ColumnDataSource, LinearColorMapper
from bokeh.plotting import figure
from numpy.typing import NDArray

from dspex.monitoring.plots.axes import VariableAxis
from dspex.monitoring.plots.scores import ScoreAxis
from dspex.monitoring.plots.style import BEST, RAMP, empty, hover, new_figure, thinned
from dspex.monitoring.views import better, in_order, scores_of
from dspex.monitoring.wording import number, plain_value
from dspex.space import Leaf, Space
from dspex.study.goal import Goal, Objective
from dspex.study.trial import Trial

__all__ = ["draw_contour"]

FloatArray = NDArray[np.float64]

_CELLS = 64
_REACH = 2.0  # kernel widths; beyond them a place is blank


def draw_contour(
    trials: Sequence[Trial],
    space: Space,
    goal: Goal,
    objective: Objective,
    leaves: tuple[Leaf, Leaf],
) -> figure:
    """A map of the score over two variables, with the trials in which both were active."""
    x_leaf, y_leaf = leaves
    title = f"{objective.name} over {x_leaf.name} and {y_leaf.name}, {better(objective)} is better"
    scores = scores_of(trials, goal, objective)
    rows = space.rows([trial.params for trial in trials])
    columns = [rows[:, space.names.index(leaf.name)] for leaf in leaves]
    shown = np.flatnonzero(np.isfinite(scores) & np.isfinite(columns).all(axis=0))
    if not len(shown):
        return empty(title, "No trial has a score and both variables yet")
    shown = thinned(shown)
    members = [trials[int(i)] for i in shown]
    numbers = np.array([trial.number for trial in trials], dtype=np.int64)
    axes = [VariableAxis(leaf, column) for leaf, column in zip(leaves, columns, strict=True)]
    score_axis = ScoreAxis(scores[shown], objective)
    heights = score_axis.clip(scores)
    palette = RAMP if objective.direction == "maximize" else RAMP[::-1]
    mapper = LinearColorMapper(
        palette=palette, low=score_axis.low, high=score_axis.high, nan_color="rgba(0,0,0,0)"
    )
    plot = new_figure(
        title,
        height=440,
        x_axis_type=axes[0].scale,
        y_axis_type=axes[1].scale,
        x_axis_label=x_leaf.name,
        y_axis_label=y_leaf.name,
    )
    axes[0].dress(plot)
    axes[1].dress(plot, side="y")
    units = np.stack([axis.unit(numbers)[shown] for axis in axes], axis=1)
    (left, right), (bottom, top) = (axis.ends() for axis in axes)
    plot.image(
        image=[_smooth(units, heights[shown], (len(x_leaf.labels), len(y_leaf.labels)))],
        x=left,
        y=bottom,
        dw=right - left,
        dh=top - bottom,
        color_mapper=mapper,
        alpha=0.55,
        level="image",
    )
    x, y = (axis.positions(numbers) for axis in axes)
    dots = plot.scatter(
        "x",
        "y",
        source=ColumnDataSource(
            {
                "x": x[shown],
                "y": y[shown],
                "height": heights[shown],
                "n": numbers[shown],
                "vx": [plain_value(trial.params[x_leaf.name]) for trial in members],
                "vy": [plain_value(trial.params[y_leaf.name]) for trial in members],
                "score": [number(float(scores[i])) for i in shown],
            }
        ),
        size=7,
        fill_color={"field": "height", "transform": mapper},
        line_color="white",
        line_width=0.7,
    )
    tooltips = [("trial", "@n"), (x_leaf.name, "@vx"), (y_leaf.name, "@vy"), ("score", "@score")]
    hover(plot, tooltips, [dots])
    best = in_order(trials, goal, objective)[0]
    marked = [i for i, trial in zip(shown, members, strict=True) if trial is best]
    plot.scatter(x[marked], y[marked], marker="star", size=16, color=BEST, line_color="white")
    plot.add_layout(
        ColorBar(
            color_mapper=mapper,
            ticker=BasicTicker(desired_num_ticks=5),
            width=10,
            padding=4,
            border_line_color=None,
            background_fill_alpha=0.0,
            major_label_text_color=plot.xaxis[0].major_label_text_color,
        ),
        "right",
    )
    return plot


def _smooth(units: FloatArray, heights: FloatArray, labels: tuple[int, int]) -> FloatArray:
    """The map, shape (g, g), rows from bottom to top; NaN where no trial is near.

    Parameters
    ----------
    units : array, shape (n, 2)
        Where the trials lie in the unit square.
    heights : array, shape (n,)
    labels : pair of int
        How many labels each variable has; 0 where it is a number.

    Examples
    --------
    >>> image = _smooth(np.array([[0.1, 0.1]]), np.array([3.0]), (0, 0))
    >>> float(image[6, 6]), bool(np.isnan(image[-1, -1]))
    (3.0, True)
    """
    # Scott's rule for two dimensions, with the spread of the whole square.
    width = max(0.29 * len(units) ** (-1 / 6), 0.03)
    centres = (np.arange(_CELLS) + 0.5) / _CELLS
    along_x, along_y = (
        _near(centres[:, None], unit[None], width, count)
        for unit, count in zip(units.T, labels, strict=True)
    )
    weight = along_y @ along_x.T
    mean = (along_y * heights) @ along_x.T / np.maximum(weight, 1e-300)
    # The weight of one trial at the reach's end.
    return np.where(weight >= np.exp(-0.5 * _REACH**2), mean, np.nan)


def _near(places: FloatArray, units: FloatArray, width: float, labels: int) -> FloatArray:
    if labels:  # labels are not near each other
        return np.equal(np.floor(places * labels), np.floor(units * labels)).astype(np.float64)
    return np.asarray(np.exp(-0.5 * ((places - units) / width) ** 2))
