"""From ``direction`` and ``constraints`` to a goal.

Knows: which names a program measures, where that is known before it runs, and in which of them
more is better by convention. Must not know: how they are measured.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, final

from dspex.errors import InvalidArgumentError, InvalidMetricError
from dspex.study.goal import Goal
from dspex.study.measurement import SCORE

__all__ = ["Measured", "close_to", "goal_of"]


@final
@dataclass(frozen=True, slots=True)
class Measured:
    """What is known of a program's scores before the first evaluation.

    Attributes
    ----------
    names : tuple of str or None
        What it measures; None where only running it tells.
    rising : collection of str
        The names of which more is better by convention, so that minimising them is a mistake.
    default : str or None
        The direction where the user gave none; None where it has to be given.
    """

    names: tuple[str, ...] | None = None
    rising: Collection[str] = ()
    default: str | None = None


def goal_of(direction: Any, constraints: Any, measured: Measured) -> Goal:
    """The goal of a study.

    Raises
    ------
    InvalidArgumentError
        Without a direction where one is needed, or for a name that is not measured.
    InvalidMetricError
        For "minimize" beside a score of which more is better.

    Examples
    --------
    >>> goal_of(None, None, Measured(names=("auc", "size"), default="maximize")).objectives
    (Objective(name='auc', direction='maximize'),)
    """
    if direction is None:
        direction = measured.default
    if direction is None:
        raise InvalidArgumentError(
            "a program that measures itself needs a direction; got direction=None; pass "
            'direction="maximize" or "minimize", or a dict such as {"auc": "maximize"}'
        )
    if not isinstance(direction, str | Mapping):
        raise InvalidArgumentError(
            'direction is "maximize", "minimize" or a dict of measured name to one of them; '
            f"got {direction!r}"
        )
    if constraints is not None and not isinstance(constraints, Mapping):
        raise InvalidArgumentError(
            'constraints is a dict such as {"latency": ("le", 0.1)}; '
            f"got {constraints!r} of type {type(constraints).__name__}"
        )
    first = measured.names[0] if measured.names else SCORE
    goal = Goal.of(direction, constraints, name=first)
    for objective in goal.objectives:
        _check_name("direction", objective.name, measured.names)
        if objective.direction == "minimize" and objective.name in measured.rising:
            raise InvalidMetricError(
                f"of scikit-learn's scores more is better; got direction='minimize' for "
                f"{objective.name!r}; drop it (errors are negated scorers, such as "
                '"neg_mean_squared_error", and are maximised too), or write a scorer '
                "(estimator, X, y) of your own"
            )
    for constraint in goal.constraints:
        _check_name("constraints", constraint.name, measured.names)
    return goal


def close_to(name: str, known: Sequence[str], *, shown: int = 12) -> str:
    """Words that point from a misspelt name to the known ones."""
    close = get_close_matches(name, known, n=3, cutoff=0.5)
    if close:
        return f"did you mean {' or '.join(map(repr, close))}?"
    more = f" and {len(known) - shown} more" if len(known) > shown else ""
    return f"known are {', '.join(map(repr, known[:shown]))}{more}"


def _check_name(argument: str, name: str, names: tuple[str, ...] | None) -> None:
    if names is not None and name not in names:
        raise InvalidArgumentError(
            f"{argument} names what the metric measures; got {name!r}; {close_to(name, names)}"
        )
