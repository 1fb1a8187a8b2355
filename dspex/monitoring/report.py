"""One self-contained HTML file about a study.

Knows: what a report says, in which order. Must not know: how its pictures are drawn (`plots`).

The page opens without a network and loads nothing: BokehJS is inside, and a Content-Security-
Policy in its head forbids every request, so that a browser holds what is promised here. All text
of users (names, labels, errors) is escaped by Jinja; the page's own script evaluates none of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources
from math import isnan
from pathlib import Path
from typing import Any, final

from dspex.monitoring.plots import Plots
from dspex.monitoring.summary import StudySummary
from dspex.monitoring.views import (
    FAILURES,
    best_trial,
    better,
    in_order,
    params_text,
    pareto_front,
)
from dspex.monitoring.wording import (
    count,
    duration,
    number,
    plain_value,
    share,
    short_error,
    stop_sentence,
)
from dspex.space import Space
from dspex.study.goal import Goal
from dspex.study.trial import Trial

__all__ = ["StudySummary", "write_report"]

_MOST_ROWS = 200
_MOST_GROUPS = 20
_MOST_NUMBERS = 12


def write_report(
    path: str | Path,
    trials: Sequence[Trial],
    space: Space,
    goal: Goal,
    summary: StudySummary,
) -> Path:
    """Write the report of a study.

    Parameters
    ----------
    path : str or Path
        Of the HTML file; an existing one is replaced.
    trials : sequence of Trial
    space : Space
    goal : Goal
    summary : StudySummary

    Returns
    -------
    Path
        The file, absolute.
    """
    target = Path(path).expanduser().resolve()
    page = render_report(list(trials), space, goal, summary)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(page, encoding="utf-8")
    return target


def render_report(trials: list[Trial], space: Space, goal: Goal, summary: StudySummary) -> str:
    """The report as text."""
    from bokeh.embed import components
    from bokeh.resources import Resources
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    template = resources.files("dspex.monitoring").joinpath("report.html.jinja")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    pictures = _pictures(Plots(trials, space, goal))
    headings = {name: _taken_title(picture) for name, picture in pictures.items()}
    script, divs = components(pictures)
    library = Resources(mode="inline", components=["bokeh"])
    best = best_trial(trials, goal)
    return environment.from_string(template.read_text(encoding="utf-8")).render(
        title=summary.name or "Study",
        goal=goal,
        best=best,
        headline=_headline(best, goal, summary),
        cards=list(_cards(trials, goal, summary)),
        params=[] if best is None else [(k, plain_value(v)) for k, v in best.params.items()],
        space_of={leaf.name: _range(leaf) for leaf in space.leaves},
        best_scores=_best_scores(best, goal),
        front=_front(trials, goal),
        facts=list(_facts(summary)),
        plots={name: Markup(div) for name, div in divs.items()},
        headings=headings,
        table=_table(trials, space, goal),
        failures=_failures(trials),
        library=Markup(library.render_js()),
        script=Markup(script),
        written=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    )


def _pictures(plots: Plots) -> dict[str, Any]:
    return {
        "history": plots.history(),
        "importance": plots.importance(),
        "slice": plots.slice(),
        "parallel": plots.parallel_coordinates(),
        "timeline": plots.timeline(),
    }


def _taken_title(picture: Any) -> str:
    """The title of a single figure, which becomes a heading of the page instead."""
    title = getattr(picture, "title", None)
    if title is None:
        return ""
    title.visible = False
    return str(title.text)


# --- the head ------------------------------------------------------------------------------


@final
@dataclass(frozen=True, slots=True)
class _Card:
    label: str
    value: str
    note: str = ""


def _headline(best: Trial | None, goal: Goal, summary: StudySummary) -> dict[str, str]:
    """The best score, in the words of the page's head."""
    objective = goal.objectives[0]
    if best is None or best.score is None:
        return {"metric": objective.name, "value": "no trial completed", "note": ""}
    note = f"trial {best.number}, {better(objective)} is better"
    if summary.baseline_score is not None:
        gain = best.score - summary.baseline_score
        note += f"; the defaults give {number(summary.baseline_score)} ({gain:+.3g})"
    if best.violation > 0:
        note += "; breaks a constraint"
    return {"metric": objective.name, "value": number(best.score), "note": note}


def _cards(trials: Sequence[Trial], goal: Goal, summary: StudySummary) -> Iterator[_Card]:
    ended = sum(trial.state.is_final for trial in trials)
    failed = sum(trial.state in FAILURES for trial in trials)
    open_ = len(trials) - ended
    yield _Card("Trials", f"{ended:,}", f"{open_:,} not ended" if open_ else "")
    yield _Card("Failed", f"{failed:,}", share(failed / ended) if ended else "")
    yield _Card("Wall time", duration(summary.wall_time), _compute(trials))
    if not isnan(summary.busy):
        yield _Card("Slots busy", share(summary.busy), _workers(trials))
    if summary.stop_reason:
        yield _Card("Stopped", stop_sentence(summary.stop_reason))
    if summary.strategy:
        reason = summary.reason.removeprefix(summary.strategy).lstrip(", ")
        yield _Card("Strategy", summary.strategy, reason)


def _compute(trials: Sequence[Trial]) -> str:
    return f"{duration(sum(trial.seconds for trial in trials))} of evaluations"


def _workers(trials: Sequence[Trial]) -> str:
    return count(len({trial.worker for trial in trials if trial.worker}), "worker")


def _range(leaf: Any) -> str:
    """What a variable may be, for the table of params."""
    if leaf.kind == "choice":
        labels = [plain_value(label) for label in leaf.labels]
        shown = ", ".join(labels[:6])
        return shown + (f", … ({len(labels)})" if len(labels) > 6 else "")
    return f"{number(leaf.low)} to {number(leaf.high)}" + (", log" if leaf.log else "")


def _best_scores(best: Trial | None, goal: Goal) -> list[tuple[str, str, str]]:
    """Everything the best trial measured, where that is more than the headline says."""
    if best is None or len(best.scores) < 2:
        return []
    wanted = {o.name: o.direction for o in goal.objectives}
    bounds = {
        c.name: f"{'≤' if c.operator == 'le' else '≥'} {number(c.bound)}" for c in goal.constraints
    }
    return [
        (name, number(value), wanted.get(name, bounds.get(name, "recorded only")))
        for name, value in best.scores.items()
    ]


def _front(trials: Sequence[Trial], goal: Goal) -> list[list[str]]:
    """The Pareto front as rows of a table: number, scores, params; empty with one objective."""
    if len(goal.objectives) < 2:
        return []
    return [
        [
            str(trial.number),
            *(number(trial.scores[o.name]) for o in goal.objectives),
            params_text(trial.params, 400),
        ]
        for trial in pareto_front(trials, goal)[:_MOST_ROWS]
    ]


def _facts(summary: StudySummary) -> Iterator[tuple[str, str]]:
    if summary.storage:
        yield "kept in", summary.storage
    yield from summary.versions.items()


# --- trials --------------------------------------------------------------------------------


def _table(trials: Sequence[Trial], space: Space, goal: Goal) -> dict[str, Any]:
    """The best trials and all kinds of failures as cells of text, with the numbers to sort by."""
    ranked = in_order(trials, goal)
    failed = [trial for trial in trials if trial.state in FAILURES]
    shown = [*ranked[:_MOST_ROWS], *failed[:_MOST_ROWS]]
    others = [o.name for o in goal.objectives[1:]]
    names = [leaf.name for leaf in space.leaves]
    rows = []
    for trial in shown:
        cells = [_cell(trial.number), _cell(trial.score)]
        cells += [_cell(trial.scores.get(name)) for name in others]
        cells += [
            _cell(str(value) if (value := trial.params[name]) is None else value)
            if name in trial.params
            else {"text": "", "sort": ""}
            for name in names
        ]
        cells.append({"text": duration(trial.seconds), "sort": repr(trial.seconds)})
        state = trial.state.name.lower().replace("_", " ")
        note = short_error(trial) if trial.error else ""
        if trial.violation > 0:
            note = f"breaks a constraint by {number(trial.violation)}"
        rows.append({"cells": cells, "state": state, "note": note})
    return {
        "columns": ["trial", goal.objectives[0].name, *others, *names, "time"],
        "rows": rows,
        "of": len(trials),
        "more_failed": max(0, len(failed) - _MOST_ROWS),
    }


def _cell(value: Any) -> dict[str, str]:
    if value is None or isinstance(value, bool | str):
        text = "" if value is None else str(value)
        return {"text": text, "sort": text}
    return {"text": plain_value(value), "sort": repr(float(value))}


def _failures(trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """Failures that say the same, the most frequent first."""
    groups: dict[str, list[Trial]] = {}
    for trial in trials:
        if trial.state in FAILURES:
            groups.setdefault(short_error(trial, 300), []).append(trial)
    ranked = sorted(groups.items(), key=lambda item: -len(item[1]))
    return [
        {
            "error": error,
            "count": count(len(members), "trial"),
            "numbers": ", ".join(str(trial.number) for trial in members[:_MOST_NUMBERS])
            + (" …" if len(members) > _MOST_NUMBERS else ""),
            "params": params_text(members[0].params, 400),
            "first": members[0].number,
            "traceback": members[0].error.traceback[-8000:] if members[0].error else "",
        }
        for error, members in ranked[:_MOST_GROUPS]
    ]
