"""How numbers are said to people: one wording for bar, log, plots, tables and report.

Knows: numbers. Must not know: who prints them.
"""

from __future__ import annotations

import math
from typing import Any

from dspex.study.goal import Goal
from dspex.study.trial import Trial

__all__ = [
    "count",
    "duration",
    "metric_name",
    "number",
    "plain_value",
    "share",
    "short_error",
    "stop_sentence",
    "strategy_reason",
]

# {StudyEnded.reason: the sentence for people}; an unknown reason is printed as it is.
_STOPPED = {
    "trials": "all trials are done",
    "timeout": "the time is up",
    "target_score": "the target score is reached",
    "interrupted": "interrupted",
    "max_failures": "too many trials failed",
    "error": "an error ended it",
    "space_exhausted": "every point of the space was tried",
}


def number(value: float | None) -> str:
    """A score: five significant digits, whole numbers whole.

    Examples
    --------
    >>> number(0.98765432), number(1200.0), number(None)
    ('0.98765', '1200', '-')
    """
    if value is None or math.isnan(value):
        return "-"
    if math.isfinite(value) and value == int(value) and abs(value) < 1e15:
        return str(int(value))
    return f"{value:.5g}"


def plain_value(value: Any) -> str:
    """A value of ``params`` as a cell of a table: numbers short, labels as they are.

    Examples
    --------
    >>> plain_value(0.1 + 0.2), plain_value(True), plain_value("rbf"), plain_value(None)
    ('0.3', 'True', 'rbf', 'None')
    """
    return number(value) if isinstance(value, float) else str(value)


def duration(seconds: float | None) -> str:
    """Seconds in words.

    Examples
    --------
    >>> duration(0.21), duration(42.4), duration(200), duration(7500), duration(100_000)
    ('0.2 s', '42 s', '3 min 20 s', '2 h 05 min', '1 d 3 h')
    """
    if seconds is None or not math.isfinite(seconds):
        return "?"
    if seconds < 9.95:
        return f"{max(seconds, 0.0):.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"


def share(value: float | None) -> str:
    """A share of 1 in per cent.

    Examples
    --------
    >>> share(0.974), share(None)
    ('97 %', '-')
    """
    return "-" if value is None or math.isnan(value) else f"{value:.0%}".replace("%", " %")


def count(n: int, noun: str) -> str:
    """A number of things.

    Examples
    --------
    >>> count(1, "worker"), count(12000, "trial")
    ('1 worker', '12,000 trials')
    """
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def metric_name(goal: Goal) -> str:
    """The name of the (first) objective."""
    return goal.objectives[0].name


def strategy_reason(strategy: str, reason: str) -> str:
    """A strategy's name and why it was chosen, the name once.

    Examples
    --------
    >>> strategy_reason("tpe", "tpe, because trials are few"), strategy_reason("grid", "as asked")
    ('tpe, because trials are few', 'grid (as asked)')
    """
    if not reason or reason == strategy:
        return strategy
    return reason if reason.startswith(strategy) else f"{strategy} ({reason})"


def short_error(trial: Trial, width: int = 120) -> str:
    r"""The first line of what made a trial fail.

    Examples
    --------
    >>> from dspex.study.trial import ErrorInfo, TrialState
    >>> trial = Trial(
    ...     3,
    ...     {},
    ...     TrialState.FAILED,
    ...     None,
    ...     {},
    ...     (),
    ...     (),
    ...     None,
    ...     None,
    ...     0.0,
    ...     None,
    ...     1,
    ...     ErrorInfo("ValueError", "no such thing\nreally"),
    ...     "random",
    ... )
    >>> short_error(trial)
    'ValueError: no such thing'
    """
    if trial.error is None:
        return trial.state.name.lower().replace("_", " ")
    lines = str(trial.error).strip().splitlines() or [trial.error.kind]
    line = lines[0]
    return line if len(line) <= width else line[: width - 1] + "…"


def stop_sentence(reason: str) -> str:
    """Why a study ended, in words.

    Examples
    --------
    >>> stop_sentence("timeout"), stop_sentence("the cluster closed")
    ('the time is up', 'the cluster closed')
    """
    return _STOPPED.get(reason, reason)
