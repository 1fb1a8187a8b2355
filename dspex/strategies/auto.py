"""Which strategy fits a space and a budget, and why.

Knows: the strengths of each strategy as rules, in order. Must not know: how any of them works.
"""

from __future__ import annotations

from dspex.space import Space

__all__ = ["choose"]

# Measured against TPE on eight functions of 2 to 10 variables: ahead of it on most from here on.
_CMAES_TRIALS = 100  # for each variable, and at least
_CMAES_LEAST = 500
_CMAES_COLUMNS = 2
# A whole number with fewer values than this is closer to a choice than to a number.
_FINE = 20


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
    # 2. Numbers only, and a budget that pays for learning how they belong together.
    enough = max(_CMAES_LEAST, _CMAES_TRIALS * len(space))
    if _smooth(space) and objectives == 1 and trials is not None and trials >= enough:
        return "cmaes", (
            f"cmaes, because all {len(space)} variables are numbers and {trials} trials are "
            f"enough (from {enough} on) to learn how they depend on each other"
        )
    # 3. Anything else.
    kind = "conditional variables" if space.is_conditional else "every kind of variable"
    goals = "" if objectives == 1 else " and several objectives"
    return "tpe", f"tpe, because it serves {kind}{goals} and learns from few trials"


def _smooth(space: Space) -> bool:
    """Whether CMA-ES can turn here: several columns, all fine-grained and always active."""
    return (
        len(space) >= _CMAES_COLUMNS
        and not space.is_conditional
        and all(
            leaf.cardinality is None or (leaf.kind != "choice" and leaf.cardinality >= _FINE)
            for leaf in space.leaves
        )
    )
