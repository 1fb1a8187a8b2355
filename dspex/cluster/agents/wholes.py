"""The state of an object that is no `Agent`, as a whole: as pickle sees it, without its class.

Knows: the protocol by which objects tell pickle what they are made of (PEP 307). Must not know:
agents.

The class is left out, as one that was defined in a notebook would travel with each turn.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, final

__all__ = ["Whole", "made_again", "shown", "taken"]


@final
class TheClass:
    """Stands for the class of the object."""


class Whole(NamedTuple):
    """What an object is made of."""

    make: Any
    args: tuple[Any, ...]
    state: Any
    items: list[Any] | None
    pairs: list[Any] | None


def taken(instance: Any) -> Whole:
    """Take an object apart.

    Raises
    ------
    TypeError
        Where it says that it cannot be pickled.

    Examples
    --------
    >>> from collections import Counter
    >>> made_again(Counter, taken(Counter("abba")))
    Counter({'a': 2, 'b': 2})
    """
    cls = type(instance)
    reduced = instance.__reduce_ex__(4)
    if not isinstance(reduced, tuple):
        raise TypeError(f"{cls.__qualname__} objects are pickled by name, and have no state")
    parts: tuple[Any, ...] = (*reduced, None, None, None)
    make, args, state, items, pairs = parts[:5]
    return Whole(
        TheClass if make is cls else make,
        tuple(TheClass if each is cls else each for each in args),
        state,
        None if items is None else list(items),
        None if pairs is None else list(pairs),
    )


def made_again(cls: type, whole: Whole) -> Any:
    """Make it again, of a class of the same name."""
    make: Callable[..., Any] = cls if whole.make is TheClass else whole.make
    instance = make(*(cls if each is TheClass else each for each in whole.args))
    if whole.state is not None:
        _set_state(instance, whole.state)
    if whole.items is not None:
        instance.extend(whole.items)
    for key, value in whole.pairs or ():
        instance[key] = value
    return instance


def _set_state(instance: Any, state: Any) -> None:
    if hasattr(instance, "__setstate__"):
        instance.__setstate__(state)
        return
    slots = None
    if isinstance(state, tuple) and len(state) == 2:
        state, slots = state
    if state:
        instance.__dict__.update(state)
    for name, value in (slots or {}).items():
        setattr(instance, name, value)


def shown(instance: Any) -> Any:
    """Its state for people: what it says of itself, or where it says nothing, itself."""
    state = instance.__getstate__()
    return instance if state is None else state
