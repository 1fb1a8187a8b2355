"""Parallel coordinates: one line per trial across all variables.

Knows: how many lines still tell something. Must not know: how importances are computed.
Bad trials are faint and grey, good ones blue; the best is green and lies on top.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from bokeh.models import ColumnDataSource, Label, Range1d, Span
from bokeh.plotting import figure
from numpy.typing import NDArray

from dspex.monitoring.plots.axes import VariableAxis, chosen_leaves
from dspex.monitoring.plots.scores import ScoreAxis
from dspex.monitoring.plots.style import (
    BEST,
    NEUTRAL,
    RAMP,
    empty,
    hover,
    new_figure,
    thinned,
)
from dspex.monitoring.views import in_order, params_text, scores_of
from dspex.monitoring.wording import number
from dspex.space import Space
from dspex.study.goal import Goal, Objective
from dspex.study.trial import Trial

__all__ = ["draw_parallel_coordinates"]

_MOST_AXES = 12
_MOST_LINES = 250
_OFF = -0.14  # where an inactive variable's line runs


def draw_parallel_coordinates(
    trials: Sequence[Trial],
    space: Space,
    goal: Goal,
    objective: Objective,
    params: Iterable[str] | None,
    ranking: Sequence[str],
) -> figure:
    """One line per trial across all variables, coloured by score."""
    title = f"Params and {objective.name}"
    leaves = chosen_leaves(space, params, ranking, _MOST_AXES)
    ranked = in_order(trials, goal, objective)
    if not ranked:
        return empty(title, "No trial has a score yet")
    chosen = _worth_drawing(ranked)
    scores = scores_of(chosen, goal, objective)
    score_axis = ScoreAxis(scores, objective)
    low, high = score_axis.low, score_axis.high
    rows = space.rows([trial.params for trial in chosen])
    numbers = np.array([trial.number for trial in chosen])
    axes = [VariableAxis(leaf, rows[:, space.names.index(leaf.name)]) for leaf in leaves]
    score_height = np.clip((scores - low) / (high - low), 0, 1)
    heights = [np.where(np.isnan(axis.column), _OFF, axis.unit(numbers)) for axis in axes]
    lines = np.stack([*heights, score_height], axis=1)
    # By rank, so that a few good trials stand out however close the scores are.
    goodness = np.linspace(0, 1, len(chosen)) ** 5 if len(chosen) > 1 else np.ones(1)
    titles = [*(leaf.name for leaf in leaves), objective.name]
    has_off = any(np.isnan(axis.column).any() for axis in axes)
    plot = _canvas(title, titles, bottom=_OFF - 0.08 if has_off else -0.08)
    source = ColumnDataSource(
        {
            "xs": [list(range(len(titles)))] * len(chosen),
            "ys": [line.round(4).tolist() for line in lines],
            "colour": [RAMP[round(63 * value)] for value in goodness],
            "alpha": 0.15 + 0.6 * goodness,
            "number": [str(trial.number) for trial in chosen],
            "score": [number(float(score)) for score in scores],
            "params": [params_text(trial.params) for trial in chosen],
        }
    )
    drawn = plot.multi_line(
        "xs",
        "ys",
        source=source,
        line_color="colour",
        line_alpha="alpha",
        line_width=1.5,
        hover_line_color="#D55E00",
        hover_line_alpha=1.0,
    )
    plot.line(list(range(len(titles))), lines[-1], color=BEST, line_width=3)
    _label_ticks(plot, axes, scores, low, high)
    tooltips = [("trial", "@number"), (objective.name, "@score"), ("params", "@params")]
    hover(plot, tooltips, [drawn], line_policy="interp")
    return plot


def _worth_drawing(ranked: Sequence[Trial]) -> list[Trial]:
    """The better part of the lines as they are, the rest evenly from all others; best last."""
    half = _MOST_LINES // 2
    rest: NDArray[np.intp] = np.arange(half, max(len(ranked), half))
    return [*ranked[:half], *(ranked[i] for i in thinned(rest, half))][::-1]


def _canvas(title: str, names: Sequence[str], bottom: float) -> figure:
    plot = new_figure(
        title,
        height=400,
        x_range=Range1d(-0.25, len(names) - 0.35),
        y_range=Range1d(bottom, 1.08),
        tools="save,reset",
        active_drag=None,
    )
    plot.yaxis.visible = False
    plot.grid.visible = False
    plot.xaxis.ticker = list(range(len(names)))
    plot.xaxis.major_label_overrides = dict(enumerate(names))
    plot.xaxis.axis_line_color = None
    plot.xaxis.major_tick_line_color = None
    if sum(map(len, names)) > 90:
        plot.xaxis.major_label_orientation = 0.4
    for position in range(len(names)):
        plot.add_layout(
            Span(location=position, dimension="height", line_color=NEUTRAL, line_alpha=0.6)
        )
    return plot


def _label_ticks(
    plot: figure,
    axes: Sequence[VariableAxis],
    scores: NDArray[np.float64],
    low: float,
    high: float,
) -> None:
    ticks = [(i, at, text) for i, axis in enumerate(axes) for at, text in axis.ticks()]
    ends = [number(float(f"{end:.4g}")) for end in (low, high)]
    if scores.min() < low:
        ends[0] = f"≤ {ends[0]}"
    if scores.max() > high:
        ends[1] = f"≥ {ends[1]}"
    ticks += [(len(axes), float(at), text) for at, text in enumerate(ends)]
    ticks += [(i, _OFF, "inactive") for i, axis in enumerate(axes) if np.isnan(axis.column).any()]
    for position, at, text in ticks:
        plot.add_layout(
            Label(
                x=position,
                y=at,
                text=text,
                x_offset=6,
                text_baseline="middle",
                text_font_size="12px",
                text_font_style="bold",
                text_color=NEUTRAL,
            )
        )
