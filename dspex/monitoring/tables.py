"""A study as text, as a small card for notebooks, and as a frame.

Knows: how a study is summed up in a few lines. Must not know: Bokeh, storage.
pandas is imported only by `trials_dataframe`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from dspex.errors import MissingDependencyError
from dspex.monitoring.summary import StudySummary
from dspex.monitoring.views import (
    FAILURES,
    best_trial,
    improvements,
    params_text,
    pareto_front,
    scores_of,
)
from dspex.monitoring.wording import (
    count,
    duration,
    metric_name,
    number,
    plain_value,
    share,
    stop_sentence,
    strategy_reason,
)
from dspex.space import Space
from dspex.study.goal import Goal
from dspex.study.trial import Trial

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["result_html", "result_text", "trials_dataframe"]

_SPARK_WIDTH, _SPARK_HEIGHT = 260, 64


def trials_dataframe(trials: Sequence[Trial]) -> pd.DataFrame:
    """One row per trial.

    Columns: ``number state score``, ``scores.NAME`` where several numbers were measured,
    ``params.NAME`` (NaN where inactive), ``seconds started finished worker attempts
    proposed_by violation error``. Times are in UTC.

    Raises
    ------
    MissingDependencyError
        Where pandas is not installed.
    """
    try:
        import pandas as pd
    except ImportError as error:
        raise MissingDependencyError(
            "trials_dataframe() needs pandas, which is not installed; `pip install pandas`, "
            "or read result.trials, a sequence of the same trials"
        ) from error
    rows = list(map(_cells, trials))
    first = ["number", "state", "score"]
    last = ["seconds", "started", "finished", "worker", "attempts"]
    last += ["proposed_by", "violation", "error"]
    fixed = {*first, *last}
    middle = {name: None for row in rows for name in row if name not in fixed}
    scores = [name for name in middle if name.startswith("scores.")]
    params = [name for name in middle if name.startswith("params.")]
    frame = pd.DataFrame(rows, columns=[*first, *scores, *params, *last])
    for name in params:
        values = [row.get(name, np.nan) for row in rows]
        if any(value is None for value in values):
            # None is a label; pandas would make it the NaN of an inactive variable.
            frame[name] = pd.Series(values, dtype=object)
    return frame


def _cells(trial: Trial) -> dict[str, Any]:
    return {
        "number": trial.number,
        "state": trial.state.name,
        "score": trial.score,
        # A single score stands in its own column already.
        **(
            {f"scores.{name}": value for name, value in trial.scores.items()}
            if len(trial.scores) > 1
            else {}
        ),
        **{f"params.{name}": value for name, value in trial.params.items()},
        "seconds": trial.seconds,
        "started": _instant(trial.started),
        "finished": _instant(trial.finished),
        "worker": trial.worker,
        "attempts": trial.attempts,
        "proposed_by": trial.proposed_by,
        "violation": trial.violation,
        "error": None if trial.error is None else str(trial.error),
    }


def _instant(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def result_text(trials: Sequence[Trial], space: Space, goal: Goal, summary: StudySummary) -> str:
    """A study in a few lines of plain text."""
    trials = list(trials)
    title = f"Study {summary.name!r}" if summary.name else "Study"
    lines = [f"{title}: {_headline(trials, goal, summary)}"]
    best = best_trial(trials, goal)
    if best is not None:
        lines.append(f"  best params: {params_text(best.params, 400) or 'none'}")
    lines += [f"  {name}: {value}" for name, value in _facts(trials, goal, summary)]
    return "\n".join(lines)


def _headline(trials: Sequence[Trial], goal: Goal, summary: StudySummary) -> str:
    best = best_trial(trials, goal)
    if best is None or best.score is None:
        return "no trial completed yet"
    text = f"best {metric_name(goal)} {number(best.score)} (trial {best.number})"
    if summary.baseline_score is not None:
        gain = best.score - summary.baseline_score
        text += f", defaults {number(summary.baseline_score)} ({gain:+.3g})"
    if best.violation > 0:
        text += ", which breaks a constraint"
    return text


def _facts(trials: Sequence[Trial], goal: Goal, summary: StudySummary) -> Iterator[tuple[str, str]]:
    """What a card says besides the best."""
    if len(goal.objectives) > 1:
        names = " and ".join(objective.name for objective in goal.objectives)
        yield "Pareto front", f"{count(len(pareto_front(trials, goal)), 'trial')} over {names}"
    failed = sum(trial.state in FAILURES for trial in trials)
    ended = sum(trial.state.is_final for trial in trials)
    yield (
        "trials",
        f"{count(ended, 'trial')} done" + (f", {failed:,} of them failed" if failed else ""),
    )
    busy = "" if summary.busy != summary.busy else f", slots {share(summary.busy)} busy"
    yield "time", f"{duration(summary.wall_time)}{busy}"
    if summary.stop_reason:
        yield "stopped", stop_sentence(summary.stop_reason)
    if summary.strategy:
        yield "strategy", strategy_reason(summary.strategy, summary.reason)
    if summary.storage:
        yield "kept in", summary.storage


_CARD = """\
<div style="border:1px solid rgba(127,127,127,.35);border-radius:8px;padding:12px 16px;\
max-width:48em;font-size:13px;line-height:1.5;overflow:auto">
<div style="font-size:15px;font-weight:600">{title}</div>
<div style="margin:2px 0 8px">{headline}</div>
<div style="display:flex;flex-wrap:wrap;gap:8px 28px;align-items:flex-start">
<table style="border-collapse:collapse;margin:0;color:inherit;font-size:inherit">{params}</table>
<table style="border-collapse:collapse;margin:0;color:inherit;font-size:inherit">{facts}</table>
</div>{spark}</div>"""

_ROW = (
    '<tr style="background:none"><td style="padding:1px 12px 1px 0;text-align:left;opacity:.7">'
    '{}</td><td style="padding:1px 0;text-align:left">{}</td></tr>'
)


def result_html(trials: Sequence[Trial], space: Space, goal: Goal, summary: StudySummary) -> str:
    """A study as a small card for notebooks: no script, nothing loaded, colours of the theme."""
    trials = list(trials)
    best = best_trial(trials, goal)
    params = {} if best is None else best.params
    shown = list(params.items())[:12]
    rows = [
        _ROW.format(escape(name), f"<code>{escape(plain_value(v))}</code>") for name, v in shown
    ]
    if len(params) > len(shown):
        rows.append(_ROW.format("…", f"{len(params) - len(shown)} more"))
    facts = [
        _ROW.format(escape(name), escape(text)) for name, text in _facts(trials, goal, summary)
    ]
    return _CARD.format(
        title=escape(f"Study {summary.name}" if summary.name else "Study"),
        headline=escape(_headline(trials, goal, summary)),
        params="".join(rows),
        facts="".join(facts),
        spark=_sparkline(trials, goal),
    )


def _sparkline(trials: Sequence[Trial], goal: Goal) -> str:
    """The best score so far over the trials, as a small SVG; empty with fewer than two scores."""
    objective = goal.objectives[0]
    scores = scores_of(trials, goal, objective)
    feasible = np.array([trial.violation == 0 for trial in trials], dtype=bool)
    steps = improvements(scores, feasible, objective.sign)
    if len(steps) < 2:
        return ""
    low, high = float(scores[steps].min()), float(scores[steps].max())
    right, bottom = _SPARK_WIDTH - 8, _SPARK_HEIGHT - 8
    xs = 4 + steps / (len(trials) - 1) * (right - 4)
    ys = 4 + (high - scores[steps]) / (high - low) * (bottom - 4)
    path = f"M{xs[0]:.1f} {ys[0]:.1f}" + "".join(
        f"H{x:.1f}V{y:.1f}" for x, y in zip(xs[1:], ys[1:], strict=True)
    )
    label = (
        f"best {objective.name} so far: {number(scores[steps[0]])} to {number(scores[steps[-1]])}"
    )
    return (
        f'<svg width="{_SPARK_WIDTH}" height="{_SPARK_HEIGHT}" role="img" '
        f'aria-label="{escape(label)}"><title>{escape(label)}</title>'
        f'<path d="{path}H{right}" fill="none" stroke="#1A80BB" stroke-width="2"/>'
        f'<circle cx="{xs[-1]:.1f}" cy="{ys[-1]:.1f}" r="3.5" fill="#1A80BB"/></svg>'
    )
