"""Bars of importances.

Knows: how they are drawn. Must not know: how they are computed (`monitoring.importance`).
"""

from __future__ import annotations

from collections.abc import Mapping

from bokeh.models import ColumnDataSource, LabelSet, Range1d
from bokeh.plotting import figure

from dspex.monitoring.importance import MINIMUM_TRIALS
from dspex.monitoring.plots.style import NEUTRAL, POINT, empty, hover, new_figure
from dspex.monitoring.wording import share
from dspex.study.goal import Objective

__all__ = ["draw_importance"]

_MOST_BARS = 15


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
