"""A value that is computed from other variables.

Knows: the function and the names that it reads. Must not know: when it is computed (`resolving`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

from dspex.errors import InvalidSpaceError
from dspex.space.conditions import Condition, name_of
from dspex.space.variables import Variable

__all__ = ["Derived"]


@final
@dataclass(frozen=True, init=False, repr=False, eq=False)
class Derived(Variable):
    """Computed from other variables; the program gets it beside them.

    It is no column of the space and does not stand in ``trial.params``; it is absent while one of
    the variables that it reads is inactive.

    Parameters
    ----------
    function : callable
        Called with the values of `of` in their order, as the program gets them.
    of : list of str
        Names of variables: a sibling's, or a full one from the top of the space. They may be
        derived themselves.

    Raises
    ------
    InvalidSpaceError
        Where `function` cannot be called, or `of` names nothing.

    Examples
    --------
    >>> from dspex.space import Int, Space
    >>> space = Space({"width": Int(1, 3), "area": Derived(lambda w: w * w, of=["width"])})
    >>> space.resolve({"width": 3})
    {'width': 3, 'area': 9}
    """

    function: Callable[..., Any]
    of: tuple[str, ...]
    conditions: tuple[Condition, ...] = ()

    def __init__(self, function: Callable[..., Any], of: Sequence[str]) -> None:
        if not callable(function):
            raise InvalidSpaceError(f"a Derived is computed by a function; got {function!r}")
        if isinstance(of, str) or not of or not all(isinstance(name, str) for name in of):
            raise InvalidSpaceError(
                f"a Derived names the variables that it reads, as a list of strings; got of={of!r}"
            )
        object.__setattr__(self, "function", function)
        object.__setattr__(self, "of", tuple(of))

    def accepts(self, value: Any) -> bool:
        """Nothing is chosen for it."""
        return False

    def _words(self) -> str:
        return f"Derived({name_of(self.function)}, of={list(self.of)!r})"
