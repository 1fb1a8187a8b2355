"""Checking params that people wrote, and writing them as a log does.

Knows: names, activity, what each column accepts. Must not know: units, constraints.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dspex.errors import InvalidParamsError
from dspex.space.activity import holds
from dspex.space.codec import outside, unknown
from dspex.space.description import condition_words
from dspex.space.labels import Scalar, plain, same
from dspex.space.leaf import Leaf, match
from dspex.space.resolving import Resolver

__all__ = ["normalise"]


def normalise(
    params: Mapping[str, Any], leaves: Sequence[Leaf], resolver: Resolver
) -> dict[str, Scalar]:
    """Params as labels and plain numbers, in the order of the columns.

    Raises
    ------
    InvalidParamsError
        For an unknown name, a value outside, a variable that is missing or inactive, or a derived
        value that differs from the computed one.
    """
    if not isinstance(params, Mapping):
        raise InvalidParamsError(
            f"params are a mapping of name to value; got {params!r}; pass a dict",
            variable=None,
            rule="must be a mapping",
            value=params,
        )
    derived = {each.name for each in resolver.computed}
    for name in params:
        if name not in resolver.leaves and name not in derived:
            raise unknown(name, params[name], {**resolver.leaves, **dict.fromkeys(derived)})

    given = dict(params)
    raw: dict[str, float] = {}
    clean: dict[str, Scalar] = {}
    for leaf in leaves:
        name = leaf.name
        if not holds(leaf.clauses, raw):
            if name in params:
                raise _inactive(leaf, resolver.leaves, params)
            continue
        if name not in given:
            raise _missing(leaf, clean)
        matched = match(leaf, given[name], resolver.leaves, given)
        if matched is None:
            raise outside(leaf, given[name])
        raw[name] = matched[0]
        clean[name] = leaf.value(matched[0])
        for child, value in matched[1].items():
            if child in params and not same(plain(params[child]), plain(value)):
                raise _said_twice(leaf, child, params)
            given[child] = value
    _check_derived(params, resolver, clean, derived)
    return clean


def _check_derived(
    params: Mapping[str, Any], resolver: Resolver, clean: dict[str, Scalar], derived: set[str]
) -> None:
    if derived.isdisjoint(params):
        return
    resolved = resolver.resolve(clean)
    for name in sorted(derived.intersection(params)):
        if name not in resolved:
            raise InvalidParamsError(
                f"{name!r} is derived from an inactive variable, so it is absent; got "
                f"{params[name]!r}; drop it",
                variable=name,
                rule="must be absent",
                value=params[name],
            )
        if not same(resolved[name], params[name]) and not _equal(resolved[name], params[name]):
            raise InvalidParamsError(
                f"{name!r} is derived and must be {resolved[name]!r}; got {params[name]!r}; "
                f"drop it, or change what it is computed from",
                variable=name,
                rule=f"must be {resolved[name]!r}",
                value=params[name],
            )


def _equal(one: Any, other: Any) -> bool:
    try:
        return bool(one == other)
    except (TypeError, ValueError):  # an array's == is an array
        return False


def _inactive(
    leaf: Leaf, leaves: Mapping[str, Leaf], params: Mapping[str, Any]
) -> InvalidParamsError:
    rule = f"is active only when {condition_words(leaf, leaves)}"
    parents = {c.parent: params[c.parent] for c in leaf.clauses if c.parent in params}
    return InvalidParamsError(
        f"{leaf.name!r} {rule}; got {leaf.name}={params[leaf.name]!r} with {parents}; drop it, or "
        f"change what it depends on",
        variable=leaf.name,
        rule=rule,
        value=params[leaf.name],
    )


def _said_twice(leaf: Leaf, child: str, params: Mapping[str, Any]) -> InvalidParamsError:
    return InvalidParamsError(
        f"{leaf.name!r} and {child!r} say the same; got {params[leaf.name]!r} and "
        f"{params[child]!r}; drop one of them",
        variable=child,
        rule=f"must agree with {leaf.name!r}",
        value=params[child],
    )


def _missing(leaf: Leaf, clean: Mapping[str, Scalar]) -> InvalidParamsError:
    return InvalidParamsError(
        f"{leaf.name!r} is active, so params must hold it; got only {dict(clean)} so far; add it",
        variable=leaf.name,
        rule="must be given",
        value=None,
    )
