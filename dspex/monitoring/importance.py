r"""Which variables the score depends on, by PED-ANOVA.

Knows: how the best trials differ from all trials, variable by variable. Must not know: pictures.

The importance of a variable is the Pearson divergence between its distribution among the best
trials (the top :math:`\gamma'`) and among all trials (:math:`\gamma = 1`). On a grid of values
:math:`x`, with densities smoothed by a kernel,

.. math::

    v \propto \sum_x p(x \mid \gamma)
    \Bigl(\frac{p(x \mid \gamma')}{p(x \mid \gamma)} - 1\Bigr)^2

It takes the strategy's preference for good regions out, needs no model and costs milliseconds.
Two things are ours: a conditional variable is judged among the trials where it is active, weighted
by :math:`\alpha^2 / \beta` (its share of the best, its share of all), and the divergence that as
many trials drawn at random would show is subtracted, so that a variable without influence gets
about nothing even in a short study.

Sources: Watanabe, Bansal, Hutter 2023, "PED-ANOVA: efficiently quantifying hyperparameter
importance in arbitrary subspaces" (IJCAI), Eq. 16 and Algorithm 1; the weights as in
"Conditional PED-ANOVA" (arXiv 2601.20800), Theorem 4.2; Scott 1992 for the kernel's width.

Notation: n trials, d variables, g cells of a variable's grid, r random draws.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dspex.monitoring.views import best_trial, objective_named, scores_of
from dspex.space import Leaf, Space
from dspex.study.goal import Goal
from dspex.study.trial import Trial

__all__ = ["MINIMUM_TRIALS", "importances"]

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

MINIMUM_TRIALS = 10
"""With fewer completed trials nothing can be said."""

_CELLS = 50
_DRAWS = 40
_TOP = 0.1  # gamma' of the paper
_LEAST_TOP = 8


def importances(
    trials: Sequence[Trial], space: Space, goal: Goal, *, objective: str | None = None
) -> dict[str, float]:
    """How much the score depends on each variable.

    Parameters
    ----------
    trials : sequence of Trial
        Only completed ones count.
    space : Space
    goal : Goal
    objective : str, optional
        The objective to explain; the first by default.

    Returns
    -------
    dict of str to float
        From the most to the least important; the sum is 1. All are 0 where nothing can be said:
        with fewer than `MINIMUM_TRIALS` completed trials, equal scores, or differences that
        chance explains as well.

    Examples
    --------
    >>> from dspex.space import Float
    >>> from dspex.study.trial import TrialState
    >>> space = Space({"x": Float(0, 1), "y": Float(0, 1)})
    >>> trials = [
    ...     Trial(
    ...         i, p, TrialState.COMPLETED, p["x"], {}, (), (), None, None, 0.0, None, 1, None, ""
    ...     )
    ...     for i, p in enumerate(space.sample(100, seed=1))
    ... ]
    >>> list(importances(trials, space, Goal.of("maximize")))
    ['x', 'y']
    """
    chosen = objective_named(goal, objective)
    completed = [trial for trial in trials if trial.score is not None]
    names = space.names
    scores = scores_of(completed, goal, chosen)
    completed = [t for t, score in zip(completed, scores, strict=True) if math.isfinite(score)]
    losses = chosen.sign * scores[np.isfinite(scores)]
    if len(completed) < MINIMUM_TRIALS or best_trial(completed, goal) is None:
        return dict.fromkeys(names, 0.0)
    rows = space.rows([trial.params for trial in completed])
    unit = space.to_unit(rows)
    violations = np.array([trial.violation for trial in completed])
    subsets = _subsets(losses, violations)
    raw = {}
    for column, leaf in enumerate(space.leaves):
        cells, width, ordered = _cells(leaf, rows[:, column], unit[:, column])
        raw[leaf.name] = _excess(cells, width, ordered, subsets)
    total = sum(raw.values())
    if total <= 0:
        return dict.fromkeys(names, 0.0)
    ranked = sorted(names, key=lambda name: -raw[name])
    return {name: raw[name] / total for name in ranked}


def _subsets(losses: FloatArray, violations: FloatArray) -> BoolArray:
    """The best trials in row 0, as many random ones in each of the others, shape (1 + r, n)."""
    n = len(losses)
    top = max(math.ceil(_TOP * n), min(_LEAST_TOP, n // 3))
    ranked = np.lexsort((losses, violations))
    edge = ranked[top - 1]
    better = (violations < violations[edge]) | (
        (violations == violations[edge]) & (losses <= losses[edge])
    )
    # Equal scores at the edge are all in or all out, whatever their numbers.
    if better.sum() > n // 2:
        better &= (losses < losses[edge]) | (violations < violations[edge])
    subsets = np.zeros((1 + _DRAWS, n), dtype=bool)
    subsets[0] = better
    # A fixed seed: the same trials have the same importances, always.
    rng = np.random.default_rng(0)
    for draw in subsets[1:]:
        draw[rng.permutation(n)[: better.sum()]] = True
    return subsets


def _cells(leaf: Leaf, raw: FloatArray, unit: FloatArray) -> tuple[NDArray[np.int64], int, bool]:
    """Each trial's cell of the grid (-1 where inactive), how many there are, and if ordered."""
    active = np.isfinite(raw)
    if leaf.kind == "choice":
        return np.where(active, raw, -1).astype(np.int64), len(leaf.labels), leaf.ordered
    width = min(_CELLS, leaf.cardinality or _CELLS)
    scaled = np.floor(np.where(active, unit, 0.0) * width)
    return np.where(active, np.minimum(scaled, width - 1), -1).astype(np.int64), width, True


def _excess(cells: NDArray[np.int64], width: int, ordered: bool, subsets: BoolArray) -> float:
    """The divergence of row 0 of `subsets` from all trials, less what the other rows show; >= 0."""
    active = cells >= 0
    n_active = int(active.sum())
    if n_active < 2 or width < 2:
        return 0.0
    everywhere = _density(np.bincount(cells[active], minlength=width), ordered)
    beta = n_active / len(cells)
    found = []
    for subset in subsets:
        inside = subset & active
        alpha = inside.sum() / max(subset.sum(), 1)
        density = _density(np.bincount(cells[inside], minlength=width), ordered)
        # Eq. 16 of the paper; the quotient is at least prior / g in both, so never divides by 0.
        divergence = float(everywhere @ (density / everywhere - 1.0) ** 2)
        found.append(alpha**2 / beta * divergence)
    return float(max(0.0, found[0] - np.mean(found[1:])))


def _density(counts: NDArray[np.int64], ordered: bool) -> FloatArray:
    """A smoothed distribution over the cells with a uniform prior of one trial, shape (g,)."""
    width, n = len(counts), int(counts.sum())
    weights = counts.astype(np.float64)
    if ordered and n:
        centre = np.arange(width)
        mean = weights @ centre / n
        deviation = math.sqrt(weights @ (centre - mean) ** 2 / max(1, n - 1))
        # Scott's rule, in cells; not narrower than what keeps 90 % within half a cell.
        sigma = max(1.059 * deviation * n**-0.2, 0.5 / 1.64)
        kernel = np.exp(-0.5 * ((centre[:, None] - centre) / sigma) ** 2)
        weights = (kernel / kernel.sum(axis=0)) @ weights
    return np.asarray((weights + 1.0 / width) / (n + 1))
