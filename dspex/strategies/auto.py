"""Which strategy fits a space and a budget, and why.

Knows: the strengths of each strategy as rules, in order. Must not know: how any of them works.
"""

from __future__ import annotations

from dspex.space import Space

__all__ = ["choose"]


def choose(space: Space, *, objectives: int, trials: int | None) -> tuple[str, str]:
    """The name of a strategy, and one sentence that says why.

    Parameters
    ----------
    space : Space
    objectives : int
    trials : int or None
        The study's budget; None where it is not known.

    Examples
    --------
    >>> choose(Space({"kernel": ["rbf", "linear"]}), objectives=1, trials=100)
    ('grid', 'grid, because the space has only 2 different params and 100 trials try them all')
    """
    # Three cases, in this order.
    # 1. Everything can be tried: nothing beats that.
    size = space.cardinality
    if size is not None and trials is not None and size <= trials:
        return "grid", (
            f"grid, because the space has only {size} different params and {trials} trials "
            "try them all"
        )
    # 2. A smooth space and a budget that lets CMA-ES learn a covariance matrix.
    # 3. Anything else.
    return "tpe", "tpe, because it serves every kind of variable at any budget"
