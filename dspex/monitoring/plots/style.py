"""How every picture looks: colours, figures, axes, and what is drawn of very many trials.

Knows: Bokeh's figures. Must not know: which picture is drawn.
The colours are those of Okabe and Ito (2008), which people with any kind of colour vision tell
apart (the blue a little lighter, for dark pages); text and grid are greys that are readable on
white and on black, because the background is left to the page. States differ in their markers,
too.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from bokeh.io import output_notebook, show
from bokeh.models import BasicTickFormatter, HoverTool, Label, Model, Range1d
from bokeh.plotting import figure
from bokeh.resources import INLINE
from numpy.typing import NDArray

from dspex.study.trial import TrialState

__all__ = [
    "BEST",
    "COLOURS",
    "MAX_POINTS",
    "NEUTRAL",
    "POINT",
    "RAMP",
    "displayed",
    "empty",
    "hover",
    "new_figure",
    "point_alpha",
    "style_legend",
    "thinned",
]

FloatArray = NDArray[np.float64]
IndexArray = NDArray[np.intp]

POINT = "#1A80BB"
BEST = "#009E73"
NEUTRAL = "#7a828c"

RAMP = tuple(
    "#" + "".join(f"{round(a + (b - a) * i / 63):02x}" for a, b in zip(start, end, strict=True))
    for start, end in [((0xC3, 0xC9, 0xD0), (0x1A, 0x80, 0xBB))]
    for i in range(64)
)
"""From a light grey (bad, early) to `POINT` (good, late); both ends show on white and black."""

# {state: colour}
COLOURS = {
    TrialState.COMPLETED: "#1A80BB",
    TrialState.PRUNED: "#CC79A7",
    TrialState.FAILED: "#D55E00",
    TrialState.TIMED_OUT: "#E69F00",
    TrialState.RUNNING: "#56B4E9",
    TrialState.WAITING: "#999999",
    TrialState.PAUSED: "#999999",
}

MAX_POINTS = 2000
"""More trials than this are thinned, or merged where a picture allows it."""

_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
_TOOLS = "pan,box_zoom,wheel_zoom,save,reset"


def new_figure(title: str, **options: Any) -> figure:
    """An empty figure of the house."""
    defaults: dict[str, Any] = {
        "height": 340,
        "sizing_mode": "stretch_width",
        "min_width": 260,
        "tools": _TOOLS,
        "active_drag": "box_zoom",
        "toolbar_location": "right",
        "toolbar_inner": True,
    }
    plot = figure(title=title, **{**defaults, **options})
    plot.toolbar.autohide = True
    plot.toolbar.logo = None
    plot.background_fill_alpha = 0.0
    plot.border_fill_alpha = 0.0
    plot.outline_line_color = None
    plot.title.text_font = _FONT
    plot.title.text_font_size = "14px"
    plot.title.text_font_style = "bold"
    plot.title.text_color = NEUTRAL
    for axis in plot.axis:
        axis.axis_line_color = NEUTRAL
        axis.axis_line_alpha = 0.6
        axis.major_tick_line_color = NEUTRAL
        axis.major_tick_line_alpha = 0.6
        axis.major_tick_in = 0
        axis.minor_tick_line_color = None
        axis.major_label_text_color = NEUTRAL
        axis.major_label_text_font = _FONT
        axis.major_label_text_font_size = "12px"
        axis.axis_label_text_color = NEUTRAL
        axis.axis_label_text_font = _FONT
        axis.axis_label_text_font_style = "normal"
        axis.axis_label_text_font_size = "12px"
        if isinstance(axis.formatter, BasicTickFormatter):
            axis.formatter.use_scientific = True
            axis.formatter.power_limit_high = 6
            axis.formatter.power_limit_low = -4
    for grid in plot.grid:
        grid.grid_line_color = NEUTRAL
        grid.grid_line_alpha = 0.18
    return plot


def style_legend(plot: figure, *, place: str = "above") -> None:
    """Lay the legend over the plot, small and without a box."""
    legend = plot.legend[0] if plot.legend else None
    if legend is None:
        return
    plot.add_layout(legend, place)
    legend.orientation = "horizontal"
    legend.border_line_color = None
    legend.background_fill_alpha = 0.0
    legend.label_text_color = NEUTRAL
    legend.label_text_font = _FONT
    legend.label_text_font_size = "12px"
    legend.padding = 0
    legend.margin = 4
    legend.spacing = 14
    legend.click_policy = "hide"


def empty(title: str, message: str) -> figure:
    """A figure that says why there is nothing to see."""
    plot = new_figure(title, height=200, x_range=Range1d(0, 1), y_range=Range1d(0, 1))
    plot.axis.visible = False
    plot.grid.visible = False
    plot.toolbar_location = None
    plot.add_layout(
        Label(
            x=0.5,
            y=0.5,
            text=message,
            text_align="center",
            text_baseline="middle",
            text_color=NEUTRAL,
            text_font=_FONT,
            text_font_size="15px",
        )
    )
    return plot


def hover(plot: figure, tooltips: Sequence[tuple[str, str]], renderers: Any, **more: Any) -> None:
    """Show a small table beside the pointer; what users wrote is escaped by Bokeh."""
    plot.add_tools(HoverTool(tooltips=list(tooltips), renderers=renderers, **more))


def displayed(plot: Any) -> Any:
    """The same plot, which a notebook shows as a picture when it ends a cell."""
    if "IPython" in sys.modules and isinstance(plot, Model):
        plot._ipython_display_ = lambda: _show_in_notebook(plot)
    return plot


def _show_in_notebook(plot: Any) -> None:
    # Inline, because a cluster's notebooks often have no way out to a network.
    output_notebook(INLINE, hide_banner=True)
    show(plot)


def thinned(positions: IndexArray, limit: int = MAX_POINTS) -> IndexArray:
    """At most ``limit`` of the positions, evenly, with the first and the last.

    Examples
    --------
    >>> [int(each) for each in thinned(np.arange(10), limit=4)]
    [0, 3, 6, 9]
    """
    if len(positions) <= limit:
        return positions
    return positions[np.linspace(0, len(positions) - 1, limit).round().astype(np.intp)]


def point_alpha(n: int) -> float:
    """How opaque points are, so that many of them still show where they are dense.

    Examples
    --------
    >>> point_alpha(50), round(point_alpha(2000), 2)
    (0.85, 0.22)
    """
    return max(0.2, min(0.85, 0.85 * math.sqrt(140 / max(n, 1))))
