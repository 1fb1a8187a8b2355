"""Pictures of all variables at once: importances and parallel coordinates.

Knows: how they are drawn. Must not know: how importances are computed (`monitoring.importance`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from bokeh.models import (
    ColorBar,
    ColumnDataSource,
    Label,
    LabelSet,
    LinearColorMapper,
    Range1d,
    Span,
)
from bokeh.palettes import Cividis256
from bokeh.plotting import figure

from dspex.monitoring.importance import MINIMUM_TRIALS
from dspex.monitoring.plots.axes import VariableAxis, chosen_leaves
from dspex.monitoring.plots.style import (
    BEST,
    NEUTRAL,
    POINT,
    empty,
    hover,
    new_figure,
    robust_range,
    thinned,
)
from dspex.monitoring.views import in_order, params_text, scores_of
from dspex.monitoring.wording import number, share
from dspex.space import Space
from dspex.study.goal import Goal, Objective
from dspex.study.trial import Trial

__all__ = ["draw_importance", "draw_parallel_coordinates"]

_MOST_BARS = 15
_MOST_AXES = 12
_MOST_LINES = 300
_OFF = -0.14  # where an inactive variable's line runs


def draw_importance(found: Mapping[str, float], objective: Objective, completed: int) -> figure:
    """Bars, the most important variable on top."""
    title = f"What {objective.name} depends on"
    if not any(found.values()):
        few = f"importances need {MINIMUM_TRIALS} completed trials, there are {completed}"
        chance = "no variable stands out from chance"
        return empty(title, f"Nothing yet: {few if completed < MINIMUM_TRIALS else chance}")
    shown = sorted(found.items(), key=lambda item: -item[1])[:_MOST_BARS]
    names = [name for name, _ in shown]
    values = [value for _, value in shown]
    plot = new_figure(
        title,
        height=70 + 30 * len(names),
        y_range=names[::-1],
        x_range=Range1d(0, max(values) * 1.15),
    )
    source = ColumnDataSource(
        {"name": names, "value": values, "text": [share(value) for value in values]}
    )
    bars = plot.hbar(y="name", right="value", height=0.62, source=source, color=POINT)
    plot.add_layout(
        LabelSet(
            x="value",
            y="name",
            text="text",
            source=source,
            x_offset=6,
            text_baseline="middle",
            text_color=NEUTRAL,
            text_font_size="12px",
        )
    )
    plot.xaxis.visible = False
    plot.grid.visible = False
    hover(plot, [("variable", "@name"), ("importance", "@text")], [bars])
    return plot


def draw_parallel_coordinates(
    trials: Sequence[Trial],
    space: Space,
    goal: Goal,
    objective: Objective,
    params: Iterable[str] | None,
    ranking: Sequence[str],
) -> figure:
    """One line per trial across all variables, coloured by score; the best in green on top."""
    title = f"Params and {objective.name}"
    leaves = chosen_leaves(space, params, ranking, _MOST_AXES)
    ranked = in_order(trials, goal)
    if not ranked:
        return empty(title, "No trial has a score yet")
    # The best half of the lines as they are, the rest evenly from all others.
    half = _MOST_LINES // 2
    rest = thinned(np.arange(half, max(len(ranked), half)), half)
    chosen = [*ranked[:half], *(ranked[i] for i in rest)][::-1]
    scores = scores_of(chosen, goal, objective)
    low, high = robust_range(scores, float(scores[-1]))
    rows = space.rows([trial.params for trial in chosen])
    names = list(space.names)
    axes = [VariableAxis(leaf, rows[:, names.index(leaf.name)]) for leaf in leaves]
    heights = [np.where(np.isnan(axis.column), _OFF, axis.unit()) for axis in axes]
    heights.append(np.clip((scores - low) / (high - low), 0, 1))
    has_off = any(np.isnan(axis.column).any() for axis in axes)
    plot = new_figure(
        title,
        height=400,
        x_range=Range1d(-0.35, len(axes) + 0.55),
        y_range=Range1d(_OFF - 0.08 if has_off else -0.08, 1.1),
        tools="save,reset",
        active_drag=None,
    )
    plot.yaxis.visible = False
    plot.grid.visible = False
    titles = [leaf.name for leaf in leaves] + [objective.name]
    plot.xaxis.ticker = list(range(len(titles)))
    plot.xaxis.major_label_overrides = dict(enumerate(titles))
    plot.xaxis.axis_line_color = None
    plot.xaxis.major_tick_line_color = None
    if sum(map(len, titles)) > 90:
        plot.xaxis.major_label_orientation = 0.5
    lines = np.stack(heights, axis=1)
    source = ColumnDataSource(
        {
            "xs": [list(range(len(titles)))] * len(chosen),
            "ys": [line.round(4).tolist() for line in lines],
            "value": scores,
            "number": [str(trial.number) for trial in chosen],
            "score": [number(float(score)) for score in scores],
            "params": [params_text(trial.params) for trial in chosen],
        }
    )
    palette = Cividis256[:225]
    if objective.direction == "minimize":
        palette = palette[::-1]
    mapper = LinearColorMapper(palette=palette, low=low, high=high)
    drawn = plot.multi_line(
        "xs",
        "ys",
        source=source,
        line_color={"field": "value", "transform": mapper},
        line_alpha=0.25 + 0.45 * min(1.0, 60 / len(chosen)),
        line_width=1.5,
        hover_line_color="#D55E00",
        hover_line_alpha=1.0,
    )
    plot.line(list(range(len(titles))), lines[-1], color=BEST, line_width=3)
    for position in range(len(titles)):
        plot.add_layout(
            Span(location=position, dimension="height", line_color=NEUTRAL, line_alpha=0.5)
        )
    ticks = [(i, at, text) for i, axis in enumerate(axes) for at, text in axis.ticks()]
    ticks += [
        (len(axes), 0.0, number(float(f"{low:.4g}"))),
        (len(axes), 1.0, number(float(f"{high:.4g}"))),
    ]
    ticks += [(i, _OFF, "inactive") for i, axis in enumerate(axes) if np.isnan(axis.column).any()]
    for position, at, text in ticks:
        plot.add_layout(
            Label(
                x=position,
                y=at,
                text=text,
                x_offset=5,
                text_baseline="middle",
                text_font_size="11px",
                text_color=NEUTRAL,
            )
        )
    plot.add_layout(
        ColorBar(
            color_mapper=mapper,
            width=8,
            padding=4,
            background_fill_alpha=0.0,
            major_label_text_color=NEUTRAL,
            bar_line_color=None,
        ),
        "right",
    )
    tooltips = [("trial", "@number"), ("score", "@score"), ("params", "@params")]
    hover(plot, tooltips, [drawn], line_policy="interp")
    return plot
