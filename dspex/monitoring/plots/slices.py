"""The score against each variable alone.

Knows: how one small picture per variable is laid out. Must not know: what a strategy did.
Later trials are bluer, so that one sees where the search went. Failed trials stand as crosses
on the edge where worse scores lie: a region that fails shows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from bokeh.layouts import gridplot
from bokeh.models import ColumnDataSource, LinearColorMapper
from bokeh.plotting import figure
from numpy.typing import NDArray

from dspex.monitoring.plots.axes import VariableAxis, chosen_leaves
from dspex.monitoring.plots.scores import ScoreAxis
from dspex.monitoring.plots.style import (
    BEST,
    COLOURS,
    MAX_POINTS,
    RAMP,
    empty,
    hover,
    new_figure,
    point_alpha,
    thinned,
)
from dspex.monitoring.views import FAILURES, in_order, scores_of
from dspex.monitoring.wording import number, plain_value, short_error
from dspex.space import Space
from dspex.study.goal import Goal, Objective
from dspex.study.trial import Trial, TrialState

__all__ = ["draw_slices"]

_MOST = 12


def draw_slices(
    trials: Sequence[Trial],
    space: Space,
    goal: Goal,
    objective: Objective,
    params: Iterable[str] | None,
    ranking: Sequence[str],
) -> Any:
    """A grid of scatter plots, one per variable."""
    leaves = chosen_leaves(space, params, ranking, _MOST)
    scores = scores_of(trials, goal, objective)
    scored = np.flatnonzero(np.isfinite(scores))
    if not len(scored):
        return empty(f"{objective.name} by variable", "No trial has a score yet")
    # Every small picture repeats its points, so all of them share one budget.
    budget = max(200, 4 * MAX_POINTS // max(len(leaves), 4))
    failed = np.array([i for i, t in enumerate(trials) if t.state in FAILURES], dtype=np.intp)
    scored, failed = thinned(scored, budget), thinned(failed, budget // 4)
    best = in_order(trials, goal, objective)[0]
    best_at = [i for i, trial in enumerate(trials) if trial is best]
    shown = np.union1d(scored, np.array(best_at, dtype=np.intp)).astype(np.intp)
    score_axis = ScoreAxis(scores[shown], objective)
    heights = score_axis.clip(scores)
    heights[failed] = score_axis.failed
    # One range for all, so that zooming one picture zooms its neighbours.
    y_range = score_axis.range()
    rows = space.rows([trial.params for trial in trials])
    plots = []
    for leaf in leaves:
        axis = VariableAxis(leaf, rows[:, space.names.index(leaf.name)])
        plot = new_figure(
            leaf.name,
            height=250,
            x_axis_type=axis.scale,
            y_axis_type=score_axis.scale,
            y_range=y_range,
            y_axis_label=objective.name,
        )
        axis.dress(plot)
        _draw(plot, axis, trials, shown, failed, heights, scores, best_at)
        plots.append(plot)
    columns = 2 if len(plots) in (2, 4) else min(3, len(plots))
    return gridplot(
        plots,
        ncols=columns,
        sizing_mode="stretch_width",
        toolbar_location=None,
    )


def _draw(
    plot: figure,
    axis: VariableAxis,
    trials: Sequence[Trial],
    shown: NDArray[np.intp],
    failed: NDArray[np.intp],
    heights: NDArray[np.float64],
    scores: NDArray[np.float64],
    best_at: Sequence[int],
) -> None:
    numbers = np.array([trial.number for trial in trials], dtype=np.int64)
    xs = axis.positions(numbers)
    name = axis.leaf.name

    def source(positions: NDArray[np.intp]) -> ColumnDataSource:
        active = positions[np.isfinite(xs[positions])]
        return ColumnDataSource(
            {
                "x": xs[active].astype(np.float32) if axis.scale == "linear" else xs[active],
                "y": heights[active],
                "n": numbers[active].astype(np.int32),
                "value": [plain_value(trials[i].params[name]) for i in active],
                "score": [number(float(scores[i])) for i in active],
            }
        )

    mapper = LinearColorMapper(palette=RAMP, low=0, high=max(1, int(numbers[-1])))
    dots = plot.scatter(
        "x",
        "y",
        source=source(shown),
        size=6,
        color={"field": "n", "transform": mapper},
        fill_alpha=point_alpha(len(shown)),
        line_alpha=min(1.0, point_alpha(len(shown)) + 0.1),
    )
    hover(plot, [("trial", "@n"), (name, "@value"), ("score", "@score")], [dots])
    if len(failed):
        crosses = source(failed)
        active = failed[np.isfinite(xs[failed])]
        crosses.data["error"] = [short_error(trials[i], 80) for i in active]
        drawn = plot.scatter(
            "x",
            "y",
            source=crosses,
            marker="x",
            size=7,
            line_width=2,
            color=COLOURS[TrialState.FAILED],
            alpha=max(0.4, point_alpha(len(failed))),
        )
        hover(plot, [("trial", "@n"), (name, "@value"), ("error", "@error")], [drawn])
    marked = np.array(best_at, dtype=np.intp)
    plot.scatter("x", "y", source=source(marked), marker="star", size=15, color=BEST)
