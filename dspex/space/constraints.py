"""Constraints on params: functions that say whether a combination is allowed.

Knows: the functions, and what params look like to them (as programs get them).
Must not know: rows, variables.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, final

from dspex.errors import InvalidParamsError
from dspex.space.conditions import name_of
from dspex.space.labels import Scalar
from dspex.space.resolving import Resolver

__all__ = ["Constraint", "Constraints"]

Constraint: TypeAlias = Callable[[Mapping[str, Any]], bool]


@final
class Constraints:
    """All constraints of a space."""

    def __init__(self, functions: Sequence[Constraint], resolver: Resolver) -> None:
        self.functions = tuple(functions)
        self._resolver = resolver

    def __bool__(self) -> bool:
        return bool(self.functions)

    def met(self, params: Mapping[str, Scalar]) -> bool:
        """Whether the params meet them all."""
        return self._broken(params) is None

    def check(self, params: Mapping[str, Scalar]) -> None:
        """Raise `InvalidParamsError`, naming the first constraint that the params break."""
        broken = self._broken(params)
        if broken is not None:
            raise InvalidParamsError(
                f"params meet the space's constraints; {dict(params)} does not meet "
                f"{name_of(broken)}; change the values",
                variable=None,
                rule=name_of(broken),
                value=dict(params),
            )

    def _broken(self, params: Mapping[str, Scalar]) -> Constraint | None:
        if not self.functions:
            return None
        resolved = self._resolver.resolve(params)
        for function in self.functions:
            try:
                if not function(resolved):
                    return function
            except Exception as error:
                error.add_note(
                    f"raised by the space's constraint {name_of(function)} for {resolved}; "
                    f"inactive variables are absent from params"
                )
                raise
        return None
