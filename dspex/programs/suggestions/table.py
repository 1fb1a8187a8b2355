"""The words in which the tables of suggestions are written.

Knows: how a suggested variable becomes one of a space. Must not know: which are suggested.

A suggestion takes the estimator's present value as its default where that lies in its range, so
that trial 0 is the user's own configuration.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, final

from dspex.space import Bool, Choice, Float, Int

__all__ = ["Suggestion", "Table", "one_of", "real", "switch", "whole"]


@final
@dataclass(frozen=True)
class Suggestion:
    """A variable to be made.

    Attributes
    ----------
    make : callable
        Float, Int, Choice or Bool.
    args, options
        What it is made with.
    conditions : tuple of (parameter, values)
        Other parameters of the same estimator, and the values that switch it on.
    needs : tuple of (parameter, values)
        What the user's estimator must be set to for this to be suggested at all.
    """

    make: Callable[..., Any]
    args: tuple[Any, ...]
    options: tuple[tuple[str, Any], ...] = ()
    conditions: tuple[tuple[str, tuple[Any, ...]], ...] = ()
    needs: tuple[tuple[str, tuple[Any, ...]], ...] = ()

    def when(self, parameter: str, *values: Any) -> Suggestion:
        """The same, active only while another suggested parameter has one of these values."""
        return replace(self, conditions=(*self.conditions, (parameter, values)))

    def given(self, parameter: str, *values: Any) -> Suggestion:
        """The same, suggested only for estimators set to one of these values."""
        return replace(self, needs=(*self.needs, (parameter, values)))

    def fits(self, present: Mapping[str, Any]) -> bool:
        """Whether it may be suggested beside these present values of the estimator."""
        return all(
            any(type(present.get(name)) is type(each) and present[name] == each for each in values)
            for name, values in self.needs
        )

    def variable(self, prefix: str, present: Any) -> Any:
        """The variable, for an estimator found under ``prefix``."""
        made = self.make(*self.args, **dict(self.options))
        if made.accepts(present):
            made = self.make(*self.args, **dict(self.options), default=present)
        for name, values in self.conditions:
            made = made.when(prefix + name, one_of=values)
        return made


Table: TypeAlias = Mapping[str, Mapping[str, Suggestion]]
"""{class name: {parameter: suggestion}}"""


def real(low: float, high: float, *, log: bool = False) -> Suggestion:
    """A real number."""
    return Suggestion(Float, (low, high), (("log", log),))


def whole(low: int, high: int, *, log: bool = False) -> Suggestion:
    """A whole number."""
    return Suggestion(Int, (low, high), (("log", log),))


def one_of(*options: Any) -> Suggestion:
    """One of several; an option may be a suggestion itself."""
    made = [
        each.make(*each.args, **dict(each.options)) if isinstance(each, Suggestion) else each
        for each in options
    ]
    return Suggestion(Choice, (made,))


def switch() -> Suggestion:
    """False or True."""
    return Suggestion(Bool, ())
