"""How a user's callable wants to be called.

Knows: parameter lists, and the roles that dspex can fill. Must not know: what is done with them.

The rule: a parameter whose name is a role gets that role; the others get the roles that are left,
by position. Required parameters are always filled, optional ones where there is something to
fill them with, ``*args`` with the data where there is some. So ``f(params)``, ``f(params, data)``,
``f(params, data, trial)``, ``f(params, trial)`` and ``f(params, *, trial)`` all mean what they say,
and an option with a default of the function's own stays as it is.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

from dspex.errors import InvalidArgumentError

__all__ = ["Call", "plan"]

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


@final
@dataclass(frozen=True, slots=True)
class Call:
    """Which roles go where.

    Examples
    --------
    >>> call = plan(lambda params, data: None, ("params", "data", "trial"), offered=("data",))
    >>> call.positional, call.takes("data"), call.takes("trial")
    (('params', 'data'), True, False)
    """

    positional: tuple[str, ...]
    keywords: tuple[str, ...]

    def takes(self, role: str) -> bool:
        """Whether the callable is given this role."""
        return role in self.positional or role in self.keywords

    def __call__(self, function: Callable[..., Any], roles: Mapping[str, Any]) -> Any:
        """Call ``function`` with what fills the roles."""
        return function(
            *(roles[each] for each in self.positional),
            **{each: roles[each] for each in self.keywords},
        )


def plan(
    function: Callable[..., Any], roles: Sequence[str], *, offered: Sequence[str], skip: int = 0
) -> Call:
    """Decide how to call ``function``.

    Parameters
    ----------
    function : callable
    roles : sequence of str
        In the order of positions, such as ``("params", "data", "trial")``.
    offered : sequence of str
        The roles that fill optional parameters too; ``trial`` does so only by its name.
    skip : int
        How many leading parameters to leave out, 1 for ``self``.

    Raises
    ------
    InvalidArgumentError
        Where it requires more, or something else.
    """
    try:
        parameters = list(inspect.signature(function).parameters.values())[skip:]
    except (TypeError, ValueError):  # some builtins have no signature
        return Call(tuple(roles[:1]), ())
    # What a partial has bound by keyword shows as an option, and is none.
    bound = function.keywords if isinstance(function, functools.partial) else {}
    parameters = [each for each in parameters if each.name not in bound]
    by_position = [each for each in parameters if each.kind in _POSITIONAL]
    left = [role for role in roles if all(role != each.name for each in by_position)]
    positional: list[str] = []
    for parameter in by_position:
        required = parameter.default is parameter.empty
        named = parameter.name in roles
        role = parameter.name if named else (left[0] if left else None)
        if role is None:
            if required:
                raise _misfit(function, parameter, roles)
            break
        if not required and not named and role not in offered:
            break
        positional.append(role)
        if not named:
            left.pop(0)
    if any(each.kind is each.VAR_POSITIONAL for each in parameters):
        positional += [role for role in left if role in offered]
    keywords = []
    for parameter in parameters:
        if parameter.kind is parameter.KEYWORD_ONLY:
            if parameter.name in roles:
                keywords.append(parameter.name)
            elif parameter.default is parameter.empty:
                raise _misfit(function, parameter, roles)
    call = Call(tuple(positional), tuple(keywords))
    if roles[0] == "params" and not call.takes("params"):
        raise InvalidArgumentError(
            f"a program is called with params; {_name(function)} takes no argument; give it one"
        )
    return call


def _misfit(
    function: Callable[..., Any], parameter: inspect.Parameter, roles: Sequence[str]
) -> InvalidArgumentError:
    return InvalidArgumentError(
        f"it is called with at most ({', '.join(roles)}); {_name(function)} also requires "
        f"{parameter.name!r}; bind it with functools.partial, or wrap the function, as in "
        "`lambda params: f(**params)`"
    )


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__qualname__", None) or type(function).__qualname__
