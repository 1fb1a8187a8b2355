"""Scores in the order of trials, the best so far, and the Pareto front.

Knows: how scores are drawn. Must not know: variables' kinds.
Trials without a score stand as crosses on the edge where worse scores lie; scores too wild for
the axis as triangles on its border.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from bokeh.models import BasicTicker, ColumnDataSource, Range1d
from bokeh.plotting import figure
from numpy.typing import NDArray

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
    robust_range,
    style_legend,
    thinned,
    wants_log,
)
from dspex.monitoring.views import (
    FAILURES,
    improvements,
    params_text,
    pareto_mask,
    scores_of,
)
from dspex.monitoring.wording import number, short_error
from dspex.study.goal import Goal, Objective
from dspex.study.trial import Trial, TrialState

__all__ = ["draw_history", "draw_pareto"]

FloatArray = NDArray[np.float64]


def draw_history(trials: Sequence[Trial], goal: Goal, objective: Objective) -> figure:
    """One objective over the trials."""
    title = f"{objective.name}, {_better(objective)} is better"
    scores = scores_of(trials, goal, objective)
    scored = np.flatnonzero(np.isfinite(scores))
    failed = np.array([i for i, t in enumerate(trials) if t.state in FAILURES], dtype=np.intp)
    if not len(scored) and not len(failed):
        return empty(title, "No trial has ended yet")
    feasible = np.array([trial.violation == 0 for trial in trials], dtype=bool)
    steps = improvements(scores, feasible, objective.sign)
    best = float(scores[steps[-1]]) if len(steps) else None
    shown = np.union1d(thinned(scored), steps)
    is_log = wants_log(scores[scored])
    low, high = _limits(scores[scored], best, is_log)
    edge = low if objective.direction == "maximize" else high
    numbers = np.array([trial.number for trial in trials])
    plot = new_figure(
        title,
        y_axis_type="log" if is_log else "linear",
        y_range=_padded(low, high, is_log),
        x_axis_label="trial",
        y_axis_label=objective.name,
    )
    plot.xaxis.ticker = BasicTicker(min_interval=1)
    dots = []
    if len(scored):
        dots.append(_draw_points(plot, trials, shown, scores, feasible, low, high))
    else:
        plot.yaxis.visible = False
    crosses = []
    if len(failed):
        kept = thinned(failed, MAX_POINTS // 4)
        crosses.append(
            plot.scatter(
                "x",
                "y",
                source=_source(trials, kept, np.full(len(trials), edge), low, high),
                marker="x",
                size=8,
                line_width=2,
                line_alpha=max(0.4, point_alpha(len(kept))),
                color=COLOURS[TrialState.FAILED],
                legend_label=f"failed ({len(failed):,})",
            )
        )
    if len(steps):
        _draw_best(plot, numbers, scores, steps, low, high)
    if len(trials) and trials[0].proposed_by == "default" and np.isfinite(scores[0]):
        plot.line(
            [0, max(int(numbers[-1]), 1)],
            [scores[0], scores[0]],
            color=NEUTRAL,
            line_dash="dashed",
            line_width=1.5,
            legend_label="the defaults",
        )
    hover(plot, _TOOLTIPS, dots)
    hover(plot, _FAILED_TOOLTIPS, crosses)
    style_legend(plot)
    return plot


def _draw_points(
    plot: figure,
    trials: Sequence[Trial],
    shown: NDArray[np.intp],
    scores: FloatArray,
    feasible: NDArray[np.bool_],
    low: float,
    high: float,
) -> Any:
    alpha = point_alpha(len(shown))
    source = _source(trials, shown, scores, low, high)
    source.data["filled"] = np.where(feasible[shown], alpha, 0.0)
    return plot.scatter(
        "x",
        "y",
        source=source,
        marker="marker",
        size=7,
        color=COLOURS[TrialState.COMPLETED],
        fill_alpha="filled",
        line_alpha=min(1.0, alpha + 0.1),
        legend_label="trial" if feasible.all() else "trial (hollow: breaks a constraint)",
    )


_TOOLTIPS = [
    ("trial", "@number"),
    ("score", "@score"),
    ("params", "@params"),
    ("by", "@by"),
]
_FAILED_TOOLTIPS = [("trial", "@number"), ("error", "@error"), ("params", "@params")]


def _better(objective: Objective) -> str:
    return "higher" if objective.direction == "maximize" else "lower"


def _limits(values: FloatArray, best: float | None, is_log: bool) -> tuple[float, float]:
    if not len(values):
        return 0.0, 1.0
    if is_log:
        return float(values.min()), float(values.max())
    return robust_range(values, best)


def _padded(low: float, high: float, is_log: bool) -> Range1d:
    if is_log:
        factor = (high / low) ** 0.06
        return Range1d(low / factor, high * factor)
    pad = 0.06 * (high - low)
    return Range1d(low - pad, high + pad)


def _source(
    trials: Sequence[Trial],
    positions: NDArray[np.intp],
    scores: FloatArray,
    low: float,
    high: float,
) -> ColumnDataSource:
    chosen = [trials[i] for i in positions]
    raw = scores[positions]
    y = np.clip(raw, low, high)
    data: dict[str, Any] = {
        "x": np.array([trial.number for trial in chosen], dtype=np.int32),
        "y": y.astype(np.float32) if np.abs(y).max(initial=0.0) < 1e30 else y,
        "marker": [
            "circle" if value == clipped else "inverted_triangle" if value < low else "triangle"
            for value, clipped in zip(raw, y, strict=True)
        ],
        "number": [str(trial.number) for trial in chosen],
        "score": [number(trial.score) for trial in chosen],
        "params": [params_text(trial.params) for trial in chosen],
        "by": [trial.proposed_by for trial in chosen],
    }
    if any(trial.error for trial in chosen):
        data["error"] = [short_error(trial) for trial in chosen]
    return ColumnDataSource(data)


def _draw_best(
    plot: figure,
    numbers: NDArray[np.int64],
    scores: FloatArray,
    steps: NDArray[np.intp],
    low: float,
    high: float,
) -> None:
    ends = np.append(numbers[steps], numbers[-1])
    line = np.clip(np.append(scores[steps], scores[steps[-1]]), low, high)
    plot.step(ends, line, mode="after", color=BEST, line_width=2.5, legend_label="best so far")
    plot.scatter(
        numbers[steps[-1:]],
        scores[steps[-1:]],
        marker="star",
        size=16,
        color=BEST,
        legend_label=f"best: {number(float(scores[steps[-1]]))} (trial {numbers[steps[-1]]})",
    )


def draw_pareto(trials: Sequence[Trial], goal: Goal, x: Objective, y: Objective) -> figure:
    """Two objectives against each other, with the front of all objectives."""
    title = f"{y.name} ({_better(y)} is better) against {x.name} ({_better(x)} is better)"
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
