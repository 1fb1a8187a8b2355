"""When a variable is active.

Knows: `Condition` as a user writes it, `Clause` as a space has compiled it: one column (the
parent) and the raw values of it, or the function of its value, that switch a variable on.
Must not know: how a space is walked.

A variable is active when all its clauses hold; a clause never holds for an inactive parent.
Conditions see what params hold: labels and plain numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from dspex.errors import InvalidSpaceError

__all__ = ["Clause", "Condition", "name_of"]


def name_of(function: Callable[..., Any]) -> str:
    """A function's qualified name, the same in every process.

    Examples
    --------
    >>> name_of(name_of)
    'dspex.space.conditions.name_of'
    """
    function = getattr(function, "func", function)  # functools.partial
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}.{named.__qualname__}"


@final
@dataclass(frozen=True, eq=False)
class Condition:
    """What `Variable.when` was given: another variable's name, and values or a function."""

    other: str
    values: tuple[Any, ...] | None
    function: Callable[[Any], bool] | None

    def __post_init__(self) -> None:
        other: object = self.other
        if not isinstance(other, str) or not other:
            raise InvalidSpaceError(
                f"a condition names another variable by a string; got {self.other!r}"
            )
        if self.function is not None and not callable(self.function):
            raise InvalidSpaceError(
                f"satisfies= takes a function of the other variable's value; got "
                f"{self.function!r}; use equals= for a value"
            )
        if self.values == ():
            raise InvalidSpaceError(
                f"a variable is active somewhere; one_of= for {self.other!r} is empty; name values"
            )

    def __repr__(self) -> str:
        if self.function is not None:
            return f"when({self.other!r}, satisfies={name_of(self.function)})"
        values = self.values or ()
        if len(values) == 1:
            return f"when({self.other!r}, equals={values[0]!r})"
        return f"when({self.other!r}, one_of={list(values)!r})"


@final
@dataclass(frozen=True)
class Clause:
    """One condition of a space's column.

    Attributes
    ----------
    parent : str
        The name of the column that decides.
    allowed : tuple of float or None
        The parent's raw values that switch on; None where only `function` can say.
    function : callable or None
        From ``satisfies=``; of the parent's number.
    """

    parent: str
    allowed: tuple[float, ...] | None
    function: Callable[[Any], bool] | None = field(default=None, compare=False)
    whole: bool = False

    def mask(self, column: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Where the clause holds, for the parent's raw values, NaN where it is inactive."""
        if self.allowed is not None:
            if len(self.allowed) == 1:
                return np.equal(column, self.allowed[0])
            return np.isin(column, self.allowed)
        known = ~np.isnan(column)
        values, where = np.unique(column[known], return_inverse=True)
        holds = np.fromiter((self.holds(each) for each in values.tolist()), bool, len(values))
        mask = np.zeros(len(column), dtype=bool)
        mask[known] = holds[where]
        return mask

    def holds(self, value: float) -> bool:
        """Whether the clause holds for one raw value."""
        if self.allowed is not None:
            return value in self.allowed
        if value != value or self.function is None:
            return False
        return bool(self.function(int(value) if self.whole else value))
