"""Scores in the order of trials, and the best so far.

Knows: how scores are drawn. Must not know: variables.
Trials without a score stand as crosses on the edge where worse scores lie; scores off the scale
as triangles on its border.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from bokeh.models import BasicTicker, ColumnDataSource
from bokeh.plotting import figure
from numpy.typing import NDArray

from dspex.monitoring.plots.scores import ScoreAxis
from dspex.monitoring.plots.style import (
    BEST,
    COLOURS,
    MAX_POINTS,
    NEUTRAL,
    POINT,
    empty,
    hover,
    new_figure,
    point_alpha,
    style_legend,
    thinned,
)
from dspex.monitoring.views import FAILURES, better, improvements, params_text, scores_of
from dspex.monitoring.wording import number, short_error
from dspex.study.goal import Goal, Objective
from dspex.study.trial import Trial, TrialState

__all__ = ["draw_history"]

FloatArray = NDArray[np.float64]
IndexArray = NDArray[np.intp]

_TOOLTIPS = [("trial", "@x"), ("score", "@score"), ("params", "@params"), ("by", "@by")]
_FAILED_TOOLTIPS = [("trial", "@x"), ("error", "@error"), ("params", "@params")]


def draw_history(trials: Sequence[Trial], goal: Goal, objective: Objective) -> figure:
    """One objective over the trials."""
    title = f"{objective.name}, {better(objective)} is better"
    scores = scores_of(trials, goal, objective)
    scored = np.flatnonzero(np.isfinite(scores))
    failed = np.array([i for i, t in enumerate(trials) if t.state in FAILURES], dtype=np.intp)
    if not len(scored) and not len(failed):
        return empty(title, "No trial has ended yet")
    has_defaults = trials[0].proposed_by == "default" and np.isfinite(scores[0])
    axis = ScoreAxis(scores[scored], objective, keep=[float(scores[0])] if has_defaults else [])
    plot = new_figure(
        title,
        y_axis_type=axis.scale,
        y_range=axis.range(),
        x_axis_label="trial",
        y_axis_label=objective.name,
    )
    plot.xaxis.ticker = BasicTicker(min_interval=1)
    if len(scored):
        _draw_scores(plot, trials, scores, axis, objective)
    else:
        plot.yaxis.visible = False
    if len(failed):
        _draw_failed(plot, [trials[i] for i in failed], axis)
    if has_defaults:
        plot.line(
            [0, max(trials[-1].number, 1)],
            [scores[0], scores[0]],
            color=NEUTRAL,
            line_dash="dashed",
            line_width=1.5,
            legend_label="the defaults",
        )
    style_legend(plot)
    return plot


def _draw_scores(
    plot: figure,
    trials: Sequence[Trial],
    scores: FloatArray,
    axis: ScoreAxis,
    objective: Objective,
) -> None:
    feasible = np.array([trial.violation == 0 for trial in trials], dtype=bool)
    steps = improvements(scores, feasible, objective.sign)
    shown = np.union1d(thinned(np.flatnonzero(np.isfinite(scores))), steps).astype(np.intp)
    drawn = axis.clip(scores)
    inside = drawn[shown] == scores[shown]
    alpha = point_alpha(len(shown))
    parts = [(shown[inside], "circle", "trial"), (shown[~inside], _beyond(objective), "")]
    for positions, marker, label in parts:
        if not len(positions):
            continue
        hollow = "" if feasible[positions].all() else " (hollow: breaks a constraint)"
        dots = plot.scatter(
            "x",
            "y",
            source=_source([trials[i] for i in positions], drawn[positions], scores[positions]),
            marker=marker,
            size=7,
            color=POINT,
            fill_alpha="filled",
            line_alpha=min(1.0, alpha + 0.1),
            legend_label=(label or "off the scale") + hollow,
        )
        dots.data_source.data["filled"] = np.where(feasible[positions], alpha, 0.0)
        hover(plot, _TOOLTIPS, [dots])
    if len(steps):
        numbers = np.array([trial.number for trial in trials])
        _draw_best(plot, numbers, scores, axis, steps)


def _beyond(objective: Objective) -> str:
    return "inverted_triangle" if objective.direction == "maximize" else "triangle"


def _draw_best(
    plot: figure,
    numbers: NDArray[np.int64],
    scores: FloatArray,
    axis: ScoreAxis,
    steps: IndexArray,
) -> None:
    ends = np.append(numbers[steps], numbers[-1])
    line = axis.clip(np.append(scores[steps], scores[steps[-1]]))
    plot.step(ends, line, mode="after", color=BEST, line_width=2.5, legend_label="best so far")
    plot.scatter(
        numbers[steps[-1:]],
        scores[steps[-1:]],
        marker="star",
        size=16,
        color=BEST,
        legend_label=f"best: {number(float(scores[steps[-1]]))} (trial {numbers[steps[-1]]})",
    )


def _draw_failed(plot: figure, failed: Sequence[Trial], axis: ScoreAxis) -> None:
    kept = [failed[i] for i in thinned(np.arange(len(failed)), MAX_POINTS // 4)]
    places = np.full(len(kept), axis.failed)
    crosses = plot.scatter(
        "x",
        "y",
        source=_source(kept, places, places),
        marker="x",
        size=8,
        line_width=2,
        line_alpha=max(0.4, point_alpha(len(kept))),
        color=COLOURS[TrialState.FAILED],
        legend_label=f"failed ({len(failed):,})",
    )
    crosses.data_source.data["error"] = [short_error(trial) for trial in kept]
    hover(plot, _FAILED_TOOLTIPS, [crosses])


def _source(trials: Sequence[Trial], places: FloatArray, scores: FloatArray) -> ColumnDataSource:
    data: dict[str, Any] = {
        "x": np.array([trial.number for trial in trials], dtype=np.int32),
        "y": places,
        "score": [number(float(score)) for score in scores],
        "params": [params_text(trial.params) for trial in trials],
        "by": [trial.proposed_by for trial in trials],
    }
    return ColumnDataSource(data)
