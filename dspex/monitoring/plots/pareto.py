"""Two objectives against each other, and the Pareto front.

Knows: how a front is drawn. Must not know: variables.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from bokeh.models import ColumnDataSource
from bokeh.plotting import figure
from numpy.typing import NDArray

from dspex.monitoring.plots.scores import wants_log
from dspex.monitoring.plots.style import (
    BEST,
    POINT,
    empty,
    hover,
    new_figure,
    point_alpha,
    style_legend,
    thinned,
)
from dspex.monitoring.views import better, params_text, pareto_mask, scores_of
from dspex.monitoring.wording import number
from dspex.study.goal import Goal, Objective
from dspex.study.trial import Trial

__all__ = ["draw_pareto"]

FloatArray = NDArray[np.float64]


def draw_pareto(trials: Sequence[Trial], goal: Goal, x: Objective, y: Objective) -> figure:
    """Two objectives against each other, with the front of all objectives."""
    title = f"{y.name} ({better(y)} is better) against {x.name} ({better(x)} is better)"
    columns = {each.name: scores_of(trials, goal, each) for each in goal.objectives}
    losses = np.stack([each.sign * columns[each.name] for each in goal.objectives], axis=1)
    feasible = np.array([trial.violation == 0 for trial in trials], dtype=bool)
    scored = np.flatnonzero(np.isfinite(losses).all(axis=1))
    if not len(scored):
        return empty(title, "No trial has all its scores yet")
    losses[~feasible] = np.nan
    mask = pareto_mask(losses)
    front = np.flatnonzero(mask)
    others = thinned(scored[~mask[scored]])
    xs, ys = columns[x.name], columns[y.name]
    plot = new_figure(
        title,
        height=420,
        x_axis_label=x.name,
        y_axis_label=y.name,
        x_axis_type="log" if wants_log(xs[scored]) else "linear",
        y_axis_type="log" if wants_log(ys[scored]) else "linear",
    )
    alpha = point_alpha(len(others))
    dots = [
        plot.scatter(
            "x",
            "y",
            source=_pair(trials, others, xs, ys, feasible),
            size=7,
            color=POINT,
            fill_alpha="filled",
            line_alpha=min(1.0, alpha + 0.1),
            legend_label="dominated"
            if feasible.all()
            else "dominated (hollow: breaks a constraint)",
        )
    ]
    if len(goal.objectives) == 2 and len(front) > 1:
        order = front[np.argsort(losses[front, goal.objectives.index(x)])]
        plot.step(
            xs[order],
            ys[order],
            # Between two members the worse of both in each objective is what is attained.
            mode="after",
            color=BEST,
            line_width=2,
            line_alpha=0.7,
        )
    dots.append(
        plot.scatter(
            "x",
            "y",
            source=_pair(trials, front, xs, ys, feasible),
            size=11,
            marker="diamond",
            color=BEST,
            legend_label=f"Pareto front ({len(front):,})",
        )
    )
    tooltips = [("trial", "@number"), (x.name, "@sx"), (y.name, "@sy"), ("params", "@params")]
    hover(plot, tooltips, dots)
    style_legend(plot)
    return plot


def _pair(
    trials: Sequence[Trial],
    positions: NDArray[np.intp],
    xs: FloatArray,
    ys: FloatArray,
    feasible: NDArray[np.bool_],
) -> ColumnDataSource:
    return ColumnDataSource(
        {
            "x": xs[positions],
            "y": ys[positions],
            "filled": np.where(feasible[positions], point_alpha(len(positions)), 0.0),
            "number": [str(trials[i].number) for i in positions],
            "sx": [number(float(xs[i])) for i in positions],
            "sy": [number(float(ys[i])) for i in positions],
            "params": [params_text(trials[i].params) for i in positions],
        }
    )
