"""One of several options: Choice, Bool, and Component, whose options have variables of their own.

Knows: options, their labels and defaults. Must not know: columns, arrays, spaces.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, final

from dspex.errors import InvalidSpaceError
from dspex.space.conditions import Condition
from dspex.space.distributions import FromDistribution, from_distribution, is_distribution
from dspex.space.labels import Scalar, find, is_label, key, label_of, plain, same
from dspex.space.variables import ABSENT, Variable

__all__ = ["Bool", "Choice", "Component", "Option"]


@final
@dataclass(frozen=True)
class Option:
    """One option: its label, what it stands for, and the variables of its own."""

    label: Scalar
    object: Any
    variables: Mapping[str, Any] = field(default_factory=dict)


class _Options(Variable):
    """What Choice, Bool and Component share: options, and a default among them."""

    options: tuple[Option, ...]
    ordered: bool
    default: Any

    def _settle(self, options: tuple[Option, ...], ordered: bool, default: Any) -> None:
        name = type(self).__name__
        if not options:
            raise InvalidSpaceError(f"a {name} has at least one option; got none")
        _check_labels(name, options)
        object.__setattr__(self, "options", options)
        object.__setattr__(self, "ordered", ordered)
        if default is None and not self.accepts(None):
            default = ABSENT
        if default is not ABSENT and not self.accepts(default):
            raise InvalidSpaceError(
                f"a default is one of the options; got default={default!r}; the options are "
                f"{[option.label for option in options]}",
                value=default,
            )
        object.__setattr__(self, "default", default)

    def accepts(self, value: Any) -> bool:
        """Whether it is a label, an option, or fits an option that is a variable."""
        labels = [option.label for option in self.options]
        if find(labels, [option.object for option in self.options], value):
            return True
        return any(
            option.object.accepts(value)
            for option in self.options
            if isinstance(option.object, Variable)
        )


def _check_labels(name: str, options: tuple[Option, ...]) -> None:
    seen: dict[tuple[type, Scalar], Option] = {}
    for option in options:
        if not is_label(option.label):
            raise InvalidSpaceError(
                f"a label is a str, int, finite float, bool or None; got {option.label!r} in a "
                f"{name}; use strings as the keys",
                value=option.label,
            )
        if key(option.label) in seen:
            raise InvalidSpaceError(
                f"the labels of a {name} differ; two options are called {option.label!r}; "
                f"drop one, or name them with a dict of label -> object",
                value=option.label,
            )
        seen[key(option.label)] = option
    for option in options:
        twin = seen.get(key(plain(option.object))) if is_label(plain(option.object)) else None
        if twin is not None and twin is not option and not same(twin.object, option.object):
            raise InvalidSpaceError(
                f"a label does not stand for one option and equal another; in this {name} "
                f"{twin.label!r} is the label of {twin.object!r} and the object of "
                f"{option.label!r}; choose other labels",
                value=twin.label,
            )


@final
@dataclass(frozen=True, init=False, repr=False, eq=False)
class Choice(_Options):
    """One of several options.

    Parameters
    ----------
    options : list, or dict of label to object
        Plain values (str, int, float, bool, None) are their own labels; functions and classes are
        called by their name, lists and tuples of plain values and objects whose repr is stable by
        their repr. What has no such name needs the dict form. An option may be a variable.
    ordered : bool
        Whether neighbours are alike.
    default : object, optional
        A label or an option (or, for an option that is a variable, a value of it).

    Raises
    ------
    InvalidSpaceError
        For no options, options that cannot be told apart or named, or a default not among them.

    Examples
    --------
    >>> Choice(["rbf", "linear"], default="rbf")
    Choice(['rbf', 'linear'], default='rbf')
    >>> from dspex.space import Int
    >>> Choice([None, Int(3, 20)])
    Choice([None, Int(3, 20)])
    """

    options: tuple[Option, ...]
    ordered: bool
    default: Any
    conditions: tuple[Condition, ...] = ()

    def __init__(
        self,
        options: Iterable[Any] | Mapping[Any, Any],
        *,
        ordered: bool = False,
        default: Any = ABSENT,
    ) -> None:
        self._settle(_named(options), bool(ordered), default)

    def _words(self) -> str:
        if any(_needs_label(option) for option in self.options):
            pairs = (f"{option.label!r}: {option.object!r}" for option in self.options)
            text = f"{{{', '.join(pairs)}}}"
        else:
            text = f"[{', '.join(_shown(option) for option in self.options)}]"
        ordered = ", ordered=True" if self.ordered else ""
        return f"Choice({text}{ordered}{_default_words(self.default)})"


@final
@dataclass(frozen=True, init=False, repr=False, eq=False)
class Bool(_Options):
    """False or True.

    Parameters
    ----------
    default : bool, optional

    Examples
    --------
    >>> Bool(True)
    Bool(True)
    """

    options: tuple[Option, ...]
    ordered: bool
    default: Any
    conditions: tuple[Condition, ...] = ()

    def __init__(self, default: bool | None = None) -> None:
        self._settle((Option(False, False), Option(True, True)), False, default)

    def _words(self) -> str:
        return "Bool()" if self.default is ABSENT else f"Bool({self.default!r})"


@final
@dataclass(frozen=True, init=False, repr=False, eq=False)
class Component(_Options):
    """One of several implementations, each with variables of its own.

    Parameters
    ----------
    options : dict of label to object, or to (object, {name: variable})
        The variables are active while their implementation is chosen; in a space, under the name
        ``"clf"``, the variable ``"C"`` of the implementation ``"svc"`` is called ``"clf.svc.C"``.
        They may have conditions and may be components themselves.
    default : object, optional
        A label or an object.

    Raises
    ------
    InvalidSpaceError
        For no options, or a default not among them.

    Examples
    --------
    >>> from dspex.space import Int
    >>> Component({"mean": (min, {"trim": Int(0, 3)}), "median": max})
    Component({'mean': (<built-in function min>, {'trim': Int(0, 3)}),
               'median': <built-in function max>})
    """

    options: tuple[Option, ...]
    ordered: bool
    default: Any
    conditions: tuple[Condition, ...] = ()

    def __init__(self, options: Mapping[Any, Any], *, default: Any = ABSENT) -> None:
        if not isinstance(options, Mapping):
            raise InvalidSpaceError(
                f"a Component is a dict of label -> object or (object, variables); got "
                f"{options!r}; use Choice for a plain list"
            )
        self._settle(
            tuple(_implementation(label, each) for label, each in options.items()), False, default
        )

    def _words(self) -> str:
        pairs = (
            f"{option.label!r}: ({option.object!r}, {option.variables!r})"
            if option.variables
            else f"{option.label!r}: {option.object!r}"
            for option in self.options
        )
        return f"Component({{{', '.join(pairs)}}}{_default_words(self.default)})"


def _implementation(label: Any, given: Any) -> Option:
    if isinstance(given, tuple) and len(given) == 2 and isinstance(given[1], Mapping):
        return Option(plain(label), _coerced(given[0]), dict(given[1]))
    return Option(plain(label), _coerced(given))


def _named(options: Any) -> tuple[Option, ...]:
    if isinstance(options, Mapping):
        return tuple(Option(plain(label), _coerced(each)) for label, each in options.items())
    if isinstance(options, str | bytes | set | frozenset) or not isinstance(options, Iterable):
        raise InvalidSpaceError(
            f"the options of a Choice are a list or a dict of label -> object; got {options!r}; "
            f"put them in a list (a set has no order that is the same in every process)"
        )
    objects = [_coerced(each) for each in options]
    nouns = [_noun(each) for each in objects]
    counts = {noun: nouns.count(noun) for noun in nouns}
    taken: dict[str, int] = {}
    named = []
    for each, noun in zip(objects, nouns, strict=True):
        if noun is None:
            named.append(Option(label_of(each), plain(each)))
            continue
        taken[noun] = taken.get(noun, 0) + 1
        named.append(Option(noun if counts[noun] == 1 else f"{noun}{taken[noun]}", each))
    return tuple(named)


def _coerced(option: Any) -> Any:
    option = from_distribution(option) if is_distribution(option) else option
    if isinstance(option, Variable) and option.conditions:
        raise InvalidSpaceError(
            f"a variable that is an option is active when it is chosen, and has no condition of "
            f"its own; got {option!r}; put the condition on the variable around it"
        )
    return option


def _noun(option: Any) -> str | None:
    if not isinstance(option, Variable):
        return None
    if isinstance(option, FromDistribution):
        return option.kind
    return type(option).__name__.lower()


def _needs_label(option: Option) -> bool:
    if isinstance(option.object, Variable):
        noun = _noun(option.object) or ""
        return not (isinstance(option.label, str) and option.label.startswith(noun))
    try:
        return key(label_of(option.object)) != key(option.label)
    except InvalidSpaceError:
        return True


def _shown(option: Option) -> str:
    return repr(option.object if isinstance(option.object, Variable) else option.label)


def _default_words(default: Any) -> str:
    return "" if default is ABSENT else f", default={default!r}"
