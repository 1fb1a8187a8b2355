"""What ran where and when: one row per worker, one bar per trial.

Knows: trials' workers and times. Must not know: folds (a trial is drawn from its first
evaluation's start to its end, on the worker where its last evaluation ran).
Trials that overlap on a worker lie in lanes; a pause of the study between two sessions is cut
out; bars that touch and are thinner than a pixel are merged.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from bokeh.models import ColumnDataSource, FixedTicker, Range1d, Span
from bokeh.plotting import figure
from numpy.typing import NDArray

from dspex.monitoring.plots.style import (
    COLOURS,
    NEUTRAL,
    empty,
    hover,
    new_figure,
    style_legend,
)
from dspex.monitoring.wording import count, duration, number, short_error
from dspex.study.trial import Trial, TrialState

__all__ = ["draw_timeline"]

_PIXELS = 1500
_LEAST_PAUSE = 60.0  # seconds; shorter ones are part of a session


@final
@dataclass(slots=True)
class _Bar:
    """One or several trials of one state, side by side in one lane."""

    lane: int
    state: TrialState
    start: float
    end: float
    first: Trial
    trials: int = 1


def draw_timeline(trials: Sequence[Trial]) -> figure:
    """Workers as rows, trials as bars coloured by state."""
    title = "When and where trials ran"
    ran = [t for t in trials if t.started is not None and t.finished is not None and t.worker]
    if not ran:
        return empty(title, "No trial has run yet")
    starts = np.array([trial.started for trial in ran], dtype=np.float64)
    ends = np.array([trial.finished for trial in ran], dtype=np.float64)
    starts, ends, cuts = _without_pauses(starts, ends)
    unit, divisor = _unit(float(ends.max()))
    starts, ends = starts / divisor, ends / divisor
    lanes, rows = _lanes(ran, starts, ends)
    bars = _merged(ran, lanes, starts, ends)
    total = sum(rows.values())
    plot = new_figure(
        title,
        height=int(min(120 + max(16 * total, 34 * len(rows)), 640)),
        x_axis_label=f"{unit} since the first trial",
        x_range=Range1d(0, float(ends.max()) * 1.01 or 1.0),
        y_range=Range1d(total + 0.2, -0.2),
    )
    drawn = []
    for state in sorted({bar.state for bar in bars}):
        chosen = [bar for bar in bars if bar.state is state]
        drawn.append(
            plot.quad(
                left="left",
                right="right",
                top="top",
                bottom="bottom",
                source=_source(chosen, divisor),
                fill_color=COLOURS[state],
                fill_alpha=0.85,
                line_color="white",
                line_alpha=0.5 if len(bars) < 600 else 0.0,
                line_width=0.5,
                legend_label=state.name.lower().replace("_", " "),
            )
        )
    _label_rows(plot, rows)
    for at, seconds in cuts:
        plot.add_layout(
            Span(location=at / divisor, dimension="height", line_color=NEUTRAL, line_dash="dotted")
        )
        plot.line(
            [], [], color=NEUTRAL, line_dash="dotted", legend_label=f"pause of {duration(seconds)}"
        )
    tooltips = [("trial", "@what"), ("took", "@took"), ("score", "@score"), ("error", "@error")]
    hover(plot, tooltips, drawn)
    style_legend(plot)
    plot.ygrid.grid_line_color = None
    return plot


def _without_pauses(
    starts: NDArray[np.float64], ends: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], list[tuple[float, float]]]:
    """Times from 0 on, without the pauses; the cuts as (where, seconds cut out)."""
    origin = starts.min()
    starts, ends = starts - origin, ends - origin
    order = np.argsort(starts)
    reached = np.maximum.accumulate(ends[order])
    gaps = starts[order][1:] - reached[:-1]
    active = reached[-1] - gaps[gaps > 0].sum()
    pauses = np.flatnonzero((gaps > _LEAST_PAUSE) & (gaps > 0.2 * active))
    shift = np.zeros(len(starts))
    cuts = []
    for pause in pauses:
        cuts.append((float(reached[pause] - shift[order[pause]]), float(gaps[pause])))
        shift[order[pause + 1 :]] += gaps[pause]
    return starts - shift, ends - shift, cuts


def _unit(seconds: float) -> tuple[str, float]:
    if seconds < 300:
        return "seconds", 1.0
    return ("minutes", 60.0) if seconds < 3 * 3600 else ("hours", 3600.0)


def _lanes(
    trials: Sequence[Trial], starts: NDArray[np.float64], ends: NDArray[np.float64]
) -> tuple[NDArray[np.int64], dict[str, int]]:
    """The lane of each trial, and how many lanes each worker has, in the order drawn."""
    # {worker: heap of (when the lane is free, lane)}
    free: dict[str, list[tuple[float, int]]] = {}
    lane = np.zeros(len(trials), dtype=np.int64)
    for index in np.lexsort((ends, starts)):
        heap = free.setdefault(str(trials[index].worker), [])
        # A lane freed within a thousandth of the bar's own length counts as free: clocks round.
        slack = 1e-3 * (ends[index] - starts[index])
        if heap and heap[0][0] <= starts[index] + slack:
            lane[index] = heapq.heappop(heap)[1]
        else:
            lane[index] = len(heap)
        heapq.heappush(heap, (float(ends[index]), int(lane[index])))
    rows = {worker: len(free[worker]) for worker in sorted(free)}
    offsets = dict(zip(rows, np.cumsum([0, *rows.values()]), strict=False))
    for index, trial in enumerate(trials):
        lane[index] += offsets[str(trial.worker)]
    return lane, rows


def _merged(
    trials: Sequence[Trial],
    lanes: NDArray[np.int64],
    starts: NDArray[np.float64],
    ends: NDArray[np.float64],
) -> list[_Bar]:
    pixel = float(ends.max()) / _PIXELS
    bars: list[_Bar] = []
    last: dict[int, _Bar] = {}
    for index in np.lexsort((starts, lanes)):
        lane, trial = int(lanes[index]), trials[index]
        start, end = float(starts[index]), float(ends[index])
        before = last.get(lane)
        if (
            before is not None
            and before.state is trial.state
            and start - before.end < pixel
            and min(end - start, before.end - before.start) < 3 * pixel
        ):
            before.end = max(before.end, end)
            before.trials += 1
        else:
            last[lane] = _Bar(lane, trial.state, start, end, trial)
            bars.append(last[lane])
    return bars


def _source(bars: Sequence[_Bar], divisor: float) -> ColumnDataSource:
    data: dict[str, Any] = {
        "left": [bar.start for bar in bars],
        "right": [bar.end for bar in bars],
        "top": [bar.lane + 0.08 for bar in bars],
        "bottom": [bar.lane + 0.92 for bar in bars],
        "what": [
            str(bar.first.number) if bar.trials == 1 else f"{count(bar.trials, 'trial')}, merged"
            for bar in bars
        ],
        "took": [duration((bar.end - bar.start) * divisor) for bar in bars],
        "score": [number(bar.first.score) if bar.trials == 1 else "…" for bar in bars],
        "error": [short_error(bar.first) if bar.first.error else "-" for bar in bars],
    }
    return ColumnDataSource(data)


def _label_rows(plot: figure, rows: dict[str, int]) -> None:
    edges = np.cumsum([0, *rows.values()])
    middles = (edges[:-1] + edges[1:]) / 2
    # Every n-th worker's name where they would lie on each other.
    stride = max(1, len(rows) * 14 // 560 + 1) if len(rows) > 30 else 1
    shown = list(zip(middles, rows, strict=True))[::stride]
    plot.yaxis.ticker = FixedTicker(ticks=[float(middle) for middle, _ in shown])
    plot.yaxis.major_label_overrides = {
        float(middle): worker.split("://")[-1][-28:] for middle, worker in shown
    }
    for edge in edges[1:-1]:
        plot.add_layout(
            Span(location=float(edge), dimension="width", line_color=NEUTRAL, line_alpha=0.3)
        )
