"""What pictures and tables are drawn from: scores, the best so far, the Pareto front.

Knows: trials and the goal. Must not know: Bokeh, HTML, pandas.

Notation: n trials, o objectives. Scores have the user's sign; NaN where a trial has none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dspex.errors import InvalidArgumentError
from dspex.monitoring.wording import plain_value
from dspex.study.goal import Goal, Objective
from dspex.study.trial import Trial, TrialState

__all__ = [
    "FAILURES",
    "best_trial",
    "better",
    "improvements",
    "in_order",
    "objective_named",
    "params_text",
    "pareto_front",
    "pareto_mask",
    "scores_of",
]

FloatArray = NDArray[np.float64]

FAILURES = (TrialState.FAILED, TrialState.TIMED_OUT)


def objective_named(goal: Goal, name: str | None) -> Objective:
    """One objective of the goal; the first where no name is given.

    Raises
    ------
    InvalidArgumentError
        Where the goal has no objective of this name.
    """
    if name is None:
        return goal.objectives[0]
    for objective in goal.objectives:
        if objective.name == name:
            return objective
    known = ", ".join(repr(each.name) for each in goal.objectives)
    raise InvalidArgumentError(f"objective is one of the study's ({known}); got {name!r}")


def scores_of(trials: Sequence[Trial], goal: Goal, objective: Objective) -> FloatArray:
    """The scores of one objective, shape (n,); NaN for trials that are not completed."""
    first = objective.name == goal.objectives[0].name
    found = (
        None
        if trial.state is not TrialState.COMPLETED
        else trial.score
        if first
        else trial.scores.get(objective.name)
        for trial in trials
    )
    return np.array([np.nan if score is None else score for score in found], dtype=np.float64)


def better(objective: Objective) -> str:
    """Which scores are better: "higher" or "lower"."""
    return "higher" if objective.direction == "maximize" else "lower"


def improvements(scores: FloatArray, feasible: NDArray[np.bool_], sign: float) -> NDArray[np.intp]:
    """The positions at which a feasible score is better than all before it.

    Examples
    --------
    >>> scores = np.array([0.2, np.nan, 0.5, 0.4, 0.9])
    >>> feasible = np.array([True, True, True, True, False])
    >>> [int(each) for each in improvements(scores, feasible, sign=-1.0)]
    [0, 2]
    """
    losses = np.where(feasible & np.isfinite(scores), sign * scores, np.inf)
    before = np.minimum.accumulate(np.concatenate([[np.inf], losses]))[:-1]
    return np.flatnonzero(losses < before)


def in_order(
    trials: Sequence[Trial], goal: Goal, objective: Objective | None = None
) -> list[Trial]:
    """Completed trials, best first: least violation, then least loss, then number.

    Parameters
    ----------
    trials : sequence of Trial
    goal : Goal
    objective : Objective, optional
        The first by default.
    """
    chosen = objective or goal.objectives[0]
    losses = chosen.sign * scores_of(trials, goal, chosen)
    violations = np.array([trial.violation for trial in trials], dtype=np.float64)
    # The sort is stable, so equals stay in the order of their numbers.
    ranked = np.lexsort((losses, violations))
    return [trials[i] for i in ranked if np.isfinite(losses[i])]


def best_trial(trials: Sequence[Trial], goal: Goal) -> Trial | None:
    """The first of `in_order`, or None."""
    return next(iter(in_order(trials, goal)), None)


def pareto_mask(losses: FloatArray) -> NDArray[np.bool_]:
    """Which rows no other row dominates, shape (n,); rows with NaN never are.

    Examples
    --------
    >>> [bool(each) for each in pareto_mask(np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]))]
    [True, True, False]
    """
    mask = np.asarray(np.isfinite(losses).all(axis=1))
    candidates = np.flatnonzero(mask)
    # In lexicographic order nobody later dominates somebody earlier.
    order = candidates[np.lexsort(losses[candidates].T[::-1])]
    front = np.empty((0, losses.shape[1]))
    for index in order:
        row = losses[index]
        if ((front <= row).all(axis=1) & (front < row).any(axis=1)).any():
            mask[index] = False
        else:
            front = np.vstack([front, row])
    return mask


def pareto_front(trials: Sequence[Trial], goal: Goal) -> list[Trial]:
    """Feasible trials that no other one dominates, the best of the first objective first."""
    feasible = [trial for trial in in_order(trials, goal) if trial.violation == 0]
    if not feasible:
        return []
    losses = np.stack([o.sign * scores_of(feasible, goal, o) for o in goal.objectives], axis=1)
    return [trial for trial, kept in zip(feasible, pareto_mask(losses), strict=True) if kept]


def params_text(params: Mapping[str, Any], width: int = 160) -> str:
    """Params on one line.

    Examples
    --------
    >>> params_text({"C": 1 / 3, "kernel": "rbf"})
    'C=0.33333, kernel=rbf'
    """
    text = ", ".join(f"{name}={plain_value(value)}" for name, value in params.items())
    return text if len(text) <= width else text[: width - 1] + "…"
