"""What one evaluation of a program says.

Knows: the numbers a program hands back. Must not know: trials, clusters, how scores are made.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, final

from dspex.errors import InvalidArgumentError

__all__ = ["SCORE", "Measurement", "as_measurement"]

SCORE = "score"
"""The name of a score that the program gave no name."""


@final
@dataclass(frozen=True, slots=True, init=False)
class Measurement:
    """The outcome of one evaluation.

    Parameters
    ----------
    score : float or mapping of str to float
        One number, or several by name. A single number is named ``"score"``.
    cost : float, optional
        What the evaluation cost, in a unit of the user's choice.
    feedback : str, optional
        Words for people (or for strategies that read them).
    constraints : mapping of str to float, optional
        Further measured numbers that only ``constraints=`` of the study reads.

    Raises
    ------
    InvalidArgumentError
        Where a value is not a number. NaN and infinities are let through here: the engine turns
        a trial with such a score into a failed one.

    Examples
    --------
    >>> Measurement(0.5).score
    0.5
    >>> Measurement({"auc": 0.9, "latency": 0.1}, cost=2.0).scores["latency"]
    0.1
    """

    scores: Mapping[str, float]
    cost: float | None = None
    feedback: str | None = None
    constraints: Mapping[str, float] = field(default_factory=dict)

    def __init__(
        self,
        score: float | Mapping[str, float] | None = None,
        *,
        scores: Mapping[str, float] | None = None,
        cost: float | None = None,
        feedback: str | None = None,
        constraints: Mapping[str, float] | None = None,
    ) -> None:
        if (score is None) == (scores is None):
            raise InvalidArgumentError(
                f"a measurement has either a score or scores; got score={score!r}, "
                f"scores={scores!r}; pass one of them"
            )
        given: Any = score if scores is None else scores
        named = given if isinstance(given, Mapping) else {SCORE: given}
        if not named:
            raise InvalidArgumentError("a measurement has at least one score; got none")
        set_field = object.__setattr__
        set_field(self, "scores", {str(k): _number(k, v) for k, v in named.items()})
        set_field(self, "cost", None if cost is None else _number("cost", cost))
        set_field(self, "feedback", feedback)
        set_field(
            self,
            "constraints",
            {str(k): _number(k, v) for k, v in (constraints or {}).items()},
        )

    @classmethod
    def of_checked(cls, scores: dict[str, float]) -> Measurement:
        """Bare scores that were checked before: on their way back from a worker or a log.

        Examples
        --------
        >>> Measurement.of_checked({"score": 0.5}) == Measurement(0.5)
        True
        """
        measurement = object.__new__(cls)
        set_field = object.__setattr__
        set_field(measurement, "scores", scores)
        set_field(measurement, "cost", None)
        set_field(measurement, "feedback", None)
        set_field(measurement, "constraints", {})
        return measurement

    @property
    def score(self) -> float:
        """The one score, or the first of several."""
        return next(iter(self.scores.values()))

    @property
    def is_finite(self) -> bool:
        """Whether every score is a finite number."""
        return all(map(math.isfinite, self.scores.values()))


def _number(name: object, value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise InvalidArgumentError(
            f"a score is a number; {name!r} is {value!r} of type {type(value).__name__}; "
            "return a number, a dict of numbers or a Measurement"
        ) from None


def as_measurement(value: object) -> Measurement:
    """Turn what a program returned into a `Measurement`.

    Examples
    --------
    >>> as_measurement({"loss": 2}).scores
    {'loss': 2.0}
    """
    if isinstance(value, Measurement):
        return value
    if isinstance(value, Mapping):
        return Measurement(scores=value)
    if value is None:
        raise InvalidArgumentError(
            "a program returns a number, a dict of numbers or a Measurement; got None; "
            "is a `return` missing?"
        )
    return Measurement(_number("score", value))
