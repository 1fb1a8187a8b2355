"""What a study wants: objectives with a direction, and constraints on what is measured.

Knows: names, directions, bounds. Must not know: how the numbers are measured.
Inside dspex every objective is *minimised* (a loss); users see scores with their own sign.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, final

import numpy as np
from numpy.typing import NDArray

from dspex.errors import InvalidArgumentError
from dspex.study.measurement import SCORE

__all__ = ["Constraint", "Direction", "Goal", "Objective"]

Direction = Literal["maximize", "minimize"]

# {operator: how far a value is on the wrong side of the bound, <= 0 where it is met}
_EXCESS: dict[str, Callable[[float, float], float]] = {
    "le": lambda value, bound: value - bound,
    "ge": lambda value, bound: bound - value,
}


@final
@dataclass(frozen=True, slots=True)
class Objective:
    """One measured name and the direction in which it is better."""

    name: str
    direction: Direction

    @property
    def sign(self) -> float:
        """What turns a score into a loss: -1 when maximising, else +1."""
        return -1.0 if self.direction == "maximize" else 1.0


@final
@dataclass(frozen=True, slots=True)
class Constraint:
    """A bound on a measured name: ``value <= bound`` ("le") or ``value >= bound`` ("ge")."""

    name: str
    operator: Literal["le", "ge"]
    bound: float

    def violation(self, value: float) -> float:
        """How far ``value`` breaks the bound; 0 where it is met."""
        return max(0.0, _EXCESS[self.operator](value, self.bound))


@final
@dataclass(frozen=True, slots=True)
class Goal:
    """The objectives (at least one) and the constraints of a study.

    Examples
    --------
    >>> goal = Goal.of({"auc": "maximize", "latency": "minimize"})
    >>> [objective.sign for objective in goal.objectives]
    [-1.0, 1.0]
    """

    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...] = ()

    @classmethod
    def of(
        cls,
        direction: str | Mapping[str, str],
        constraints: Mapping[str, tuple[str, float]] | None = None,
        *,
        name: str = SCORE,
    ) -> Goal:
        """Build a goal from the arguments of ``optimize``.

        Parameters
        ----------
        direction : "maximize", "minimize", or mapping of measured name to one of them
        constraints : mapping of measured name to ("le" | "ge", bound), optional
        name : str
            The objective's name where `direction` is a plain word.

        Raises
        ------
        InvalidArgumentError
            For an unknown direction or operator, or no objective.
        """
        named = {name: direction} if isinstance(direction, str) else dict(direction)
        if not named:
            raise InvalidArgumentError(
                "a study has at least one objective; got direction={}; "
                'name one, as in {"auc": "maximize"}'
            )
        objectives = []
        for each, word in named.items():
            if word not in ("maximize", "minimize"):
                raise InvalidArgumentError(
                    f'a direction is "maximize" or "minimize"; got {word!r} for {each!r}; pass '
                    '"maximize" where more is better, "minimize" where less is'
                )
            objectives.append(Objective(str(each), word))  # type: ignore[arg-type]
        return cls(
            tuple(objectives),
            tuple(_constraint(each, rule) for each, rule in (constraints or {}).items()),
        )

    def losses(self, scores: Mapping[str, float]) -> NDArray[np.float64]:
        """The objectives of one measurement as losses, shape (objectives,)."""
        return np.array([o.sign * scores[o.name] for o in self.objectives])

    def violation(self, measured: Mapping[str, float]) -> float:
        """The summed violation of all constraints; 0 where all are met."""
        return sum(c.violation(measured[c.name]) for c in self.constraints)

    def missing(self, measured: Mapping[str, float]) -> tuple[str, ...]:
        """The names that the goal needs and `measured` lacks."""
        needed = [each.name for each in self.objectives] + [each.name for each in self.constraints]
        return tuple(name for name in needed if name not in measured)

    def describe(self) -> dict[str, Any]:
        """The goal as JSON, for the head of a log."""
        return {
            "direction": {o.name: o.direction for o in self.objectives},
            "constraints": {c.name: [c.operator, c.bound] for c in self.constraints},
        }

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> Goal:
        """The inverse of `describe`."""
        return cls.of(description["direction"], description["constraints"])


def _constraint(name: str, rule: tuple[str, float]) -> Constraint:
    try:
        operator, bound = rule
        if operator not in _EXCESS:
            raise ValueError
        return Constraint(name, operator, float(bound))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise InvalidArgumentError(
            f'a constraint is ("le", bound) or ("ge", bound); got {rule!r} for {name!r}'
        ) from None
