"""What may vary, as a user writes it: the base of all variables, and numbers.

Knows: conditions, ranges and defaults; `options` and `derived` hold the other kinds.
Must not know: columns, arrays, how a space walks its variables.

Variables are immutable; `Variable.when` makes a new one. Two are equal when they describe
themselves alike (`repr`).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Self, final

from dspex.errors import InvalidSpaceError
from dspex.space.conditions import Condition
from dspex.space.ranges import Range, real

__all__ = ["ABSENT", "Float", "Int", "Variable"]


class _Absent:
    """The default of ``default=`` where None may be an option."""

    def __repr__(self) -> str:
        return "None"

    def __reduce__(self) -> str:
        return "ABSENT"  # pickles to the module's one object


ABSENT = _Absent()


class Variable:
    """Anything that a space may hold; the base of the six kinds."""

    conditions: tuple[Condition, ...] = ()

    def when(
        self,
        other: str,
        *,
        equals: Any = ABSENT,
        one_of: Iterable[Any] | None = None,
        satisfies: Callable[[Any], bool] | None = None,
    ) -> Self:
        """Make a conditional copy, active only while another variable has certain values.

        Several conditions on one variable must all hold. A variable whose condition names an
        inactive variable is inactive.

        Parameters
        ----------
        other : str
            The other variable's name: a sibling's, or a full one from the top of the space.
        equals : object
            The one value (a label, the object itself, or a number) that switches this one on.
        one_of : iterable
            Several of them.
        satisfies : callable
            A function of the other variable's label or number that says whether.

        Raises
        ------
        InvalidSpaceError
            Where not exactly one of the three is given.

        Examples
        --------
        >>> Int(1, 9).when("kernel", equals="poly")
        Int(1, 9).when('kernel', equals='poly')
        """
        given = (equals is not ABSENT) + (one_of is not None) + (satisfies is not None)
        if given != 1:
            raise InvalidSpaceError(
                f"when() takes exactly one of equals=, one_of= and satisfies=; got {given} of them"
            )
        if isinstance(one_of, str):
            raise InvalidSpaceError(
                f"one_of= takes several values; got the string {one_of!r}; use equals="
            )
        values = (equals,) if one_of is None else tuple(one_of)
        clone = copy.copy(self)
        object.__setattr__(
            clone,
            "conditions",
            (
                *self.conditions,
                Condition(other, None if satisfies is not None else values, satisfies),
            ),
        )
        return clone

    def accepts(self, value: Any) -> bool:
        """Whether ``value`` is one of this variable's, as a label, number, or object."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return ".".join([self._words(), *map(repr, self.conditions)])

    def _words(self) -> str:
        raise NotImplementedError

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and repr(self) == repr(other)

    def __hash__(self) -> int:
        return hash(repr(self))


class _Number(Variable):
    """What Float and Int share: a range and a default in it."""

    range: Range
    default: float | int | None

    def _settle(self, bounds: Range, default: Any) -> None:
        object.__setattr__(self, "range", bounds)
        number = real(default)
        if default is not None and (rule := bounds.fault(number)):
            raise InvalidSpaceError(
                f"a default {rule}; got default={default!r} for {self._words()}", value=default
            )
        nearest = None if number is None else bounds.nearest(number)
        if nearest is not None and bounds.kind == "int":
            nearest = int(nearest)
        object.__setattr__(self, "default", nearest)

    def accepts(self, value: Any) -> bool:
        """Whether it is a number of this range."""
        return not self.range.fault(real(value))

    def _words(self) -> str:
        bounds = self.range
        words = [bounds.show(bounds.low), bounds.show(bounds.high)]
        if bounds.log:
            words.append("log=True")
        if bounds.step is not None and (bounds.kind == "float" or bounds.step != 1):
            words.append(f"step={bounds.show(bounds.step)}")
        if getattr(self, "default", None) is not None:
            words.append(f"default={self.default!r}")
        return f"{type(self).__name__}({', '.join(words)})"


@final
@dataclass(frozen=True, init=False, repr=False, eq=False)
class Float(_Number):
    """A real number between two bounds, both included.

    Parameters
    ----------
    low, high : float
        Finite; equal bounds make a constant.
    log : bool
        Whether to vary it on a logarithmic scale; needs ``low > 0``.
    step : float, optional
        Only ``low``, ``low + step``, ... ; `high` is lowered to the last of them. Not with `log`.
    default : float, optional

    Raises
    ------
    InvalidSpaceError
        Where bounds, scale, step and default contradict each other.

    Examples
    --------
    >>> Float(1e-3, 1e3, log=True)
    Float(0.001, 1000.0, log=True)
    >>> Float(0, 1, step=0.3)
    Float(0.0, 0.9, step=0.3)
    """

    range: Range
    default: float | None
    conditions: tuple[Condition, ...] = ()

    def __init__(
        self,
        low: float,
        high: float,
        *,
        log: bool = False,
        step: float | None = None,
        default: float | None = None,
    ) -> None:
        self._settle(Range("float", low, high, bool(log), step), default)


@final
@dataclass(frozen=True, init=False, repr=False, eq=False)
class Int(_Number):
    """A whole number between two bounds, both included.

    Parameters
    ----------
    low, high : int
        Between -2**53 and 2**53, beyond which float64 is not exact.
    log : bool
        Whether to vary it on a logarithmic scale; needs ``low > 0``.
    step : int
        Only ``low``, ``low + step``, ... ; `high` is lowered to the last of them.
    default : int, optional

    Raises
    ------
    InvalidSpaceError
        Where bounds, scale, step and default contradict each other.

    Examples
    --------
    >>> Int(1, 10, step=4)
    Int(1, 9, step=4)
    """

    range: Range
    default: int | None
    conditions: tuple[Condition, ...] = ()

    def __init__(
        self, low: int, high: int, *, log: bool = False, step: int = 1, default: int | None = None
    ) -> None:
        self._settle(Range("int", low, high, bool(log), step), default)
