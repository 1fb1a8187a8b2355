"""From variables as users write them to the columns of a space.

Knows: how variables nest, how names are found (a sibling first, then outwards to the top), what
order puts parents before children. Must not know: rows, units, params.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np

from dspex.errors import InvalidSpaceError
from dspex.space.conditions import Clause, Condition, name_of
from dspex.space.derived import Derived
from dspex.space.distributions import FromDistribution, from_distribution, is_distribution
from dspex.space.leaf import Leaf, match
from dspex.space.options import Bool, Choice, Component
from dspex.space.variables import ABSENT, Float, Int, Variable

__all__ = ["Computed", "compile_variables", "hint"]


@final
@dataclass(frozen=True)
class Computed:
    """A derived value of a space: its name, the columns that it reads, and when it is there."""

    name: str
    function: Callable[..., Any]
    of: tuple[str, ...]
    clauses: tuple[Clause, ...]


@final
@dataclass(frozen=True)
class _Place:
    """Where a variable stands: its name, the scopes in which it finds others, what opens it."""

    name: str
    scopes: tuple[str, ...]
    gate: Clause | None = None
    folded: bool = False


def hint(name: Any, known: Iterable[str]) -> str:
    """A remedy for a name that nobody has: close ones, else all of them (if they are few)."""
    names = list(known)
    close = difflib.get_close_matches(str(name), names, n=3, cutoff=0.6)
    if close:
        return f"did you mean {' or '.join(map(repr, close))}?"
    shown = ", ".join(map(repr, names[:12])) + (", ..." if len(names) > 12 else "")
    return f"the names are {shown}" if names else "there are no names"


def compile_variables(variables: Mapping[str, Any]) -> tuple[list[Leaf], list[Computed]]:
    """The columns, parents before children, and the derived values, inputs before outputs."""
    walk = _Walk()
    for name, given in variables.items():
        walk.add(given, _Place(_checked(name), ("",)))
    return walk.finish()


def as_variable(name: str, given: Any) -> Variable:
    """A variable from what a space may hold: a variable, a list, a scipy distribution."""
    if isinstance(given, Variable):
        return given
    if isinstance(given, tuple) and len(given) == 2 and all(map(_is_number, given)):
        kind = "Int" if all(isinstance(each, int) for each in given) else "Float"
        raise InvalidSpaceError(
            f"options are a list, a range of numbers is a Float or an Int; {given!r} for {name!r} "
            f"could be either; pass {list(given)!r}, or {kind}({given[0]!r}, {given[1]!r})",
            variable=name,
            value=given,
        )
    if isinstance(given, list | tuple | range) or (isinstance(given, np.ndarray) and given.ndim):
        return Choice(given)
    if is_distribution(given):
        return from_distribution(given)
    raise InvalidSpaceError(
        f"{name!r} must be a variable, a list of options or a frozen scipy distribution; got "
        f"{given!r}; a constant is a list of one, a choice of implementations a Component",
        variable=name,
        value=given,
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _checked(name: Any) -> str:
    if not isinstance(name, str) or not name:
        raise InvalidSpaceError(f"a variable's name is a string; got {name!r}")
    return name


class _Walk:
    def __init__(self) -> None:
        self.leaves: dict[str, Leaf] = {}
        self.computed: dict[str, Derived] = {}
        self.places: dict[str, _Place] = {}
        self.conditions: dict[str, tuple[Condition, ...]] = {}
        self.defaults: dict[str, Any] = {}

    def add(self, given: Any, place: _Place) -> None:
        name = place.name
        try:
            variable = as_variable(name, given)
        except InvalidSpaceError as error:
            if "variable" in error.__dict__:
                raise
            raise InvalidSpaceError(f"in {name!r}: {error}", variable=name) from error
        if name in self.places:
            raise InvalidSpaceError(
                f"each variable has a name of its own; two are called {name!r} (an option's "
                f"variables are named after the variable and the label); rename one",
                variable=name,
            )
        self.places[name] = place
        self.conditions[name] = variable.conditions
        if isinstance(variable, Derived):
            if place.folded:
                raise InvalidSpaceError(
                    f"an option is a value or a variable; {name!r} is derived; put it beside "
                    f"the choice",
                    variable=name,
                )
            self.computed[name] = variable
        elif isinstance(variable, Float | Int):
            bounds = variable.range
            self.leaves[name] = Leaf(
                name=name,
                kind=bounds.kind,
                low=bounds.low,
                high=bounds.high,
                log=bounds.log,
                step=bounds.step,
                folded=place.folded,
            )
            self.defaults[name] = ABSENT if variable.default is None else variable.default
        elif isinstance(variable, FromDistribution):
            self.leaves[name] = Leaf(
                name=name,
                kind=variable.kind,
                low=variable.law.low,
                high=variable.law.high,
                step=variable.range.step,
                folded=place.folded,
                law=variable.law,
                distribution=variable.words,
            )
            self.defaults[name] = ABSENT
        elif isinstance(variable, Choice | Bool | Component):
            self._add_options(variable, place)

    def _add_options(self, variable: Choice | Bool | Component, place: _Place) -> None:
        name = place.name
        folds = tuple(
            (i, f"{name}.{option.label}")
            for i, option in enumerate(variable.options)
            if isinstance(option.object, Variable)
        )
        labels = tuple(option.label for option in variable.options)
        objects = tuple(option.object for option in variable.options)
        alike = all(
            a is b or (type(a) is type(b) and a == b) for a, b in zip(labels, objects, strict=True)
        )
        self.leaves[name] = Leaf(
            name=name,
            kind="choice",
            low=0.0,
            high=float(len(labels) - 1),
            step=1.0,
            labels=labels,
            ordered=variable.ordered,
            objects=None if alike else objects,
            folds=folds,
            folded=place.folded,
        )
        self.defaults[name] = variable.default
        for i, option in enumerate(variable.options):
            inner = f"{name}.{option.label}"
            gate = Clause(name, (float(i),))
            if isinstance(option.object, Variable):
                self.add(option.object, _Place(inner, place.scopes, gate, folded=True))
            for sub, each in option.variables.items():
                scopes = (f"{inner}.", *place.scopes)
                self.add(each, _Place(f"{inner}.{_checked(sub)}", scopes, gate))

    # --- second pass: names are known ---------------------------------------------------

    def finish(self) -> tuple[list[Leaf], list[Computed]]:
        clauses = {name: self._clauses(name) for name in self.places}
        order = _ordered(self.leaves, {n: [c.parent for c in clauses[n]] for n in self.leaves})
        done: list[Leaf] = []
        for name in order:
            default, known = self._default(name)
            done.append(
                replace(
                    self.leaves[name], clauses=clauses[name], default=default, has_default=known
                )
            )
        reads = {name: self._reads(name) for name in self.computed}
        names = _ordered(
            self.computed, {n: [r for r in reads[n] if r in self.computed] for n in reads}
        )
        return done, [
            Computed(name, self.computed[name].function, reads[name], clauses[name])
            for name in names
        ]

    def _find(self, name: str, other: str, known: Mapping[str, Any], role: str) -> str:
        for scope in self.places[name].scopes:
            if scope + other in known:
                return scope + other
        reason = "is derived, not chosen" if other in self.computed else "is not in the space"
        raise InvalidSpaceError(
            f"{name!r} {role} {other!r}, which {reason}; {hint(other, known)}",
            variable=name,
            value=other,
        )

    def _clauses(self, name: str) -> tuple[Clause, ...]:
        place = self.places[name]
        clauses = [place.gate] if place.gate else []
        for condition in self.conditions[name]:
            parent = self._find(name, condition.other, self.leaves, "depends on")
            clauses.append(self._clause(name, condition, self.leaves[parent]))
        return tuple(clauses)

    def _clause(self, name: str, condition: Condition, parent: Leaf) -> Clause:
        function = condition.function
        if function is None:
            allowed = {
                raw
                for value in condition.values or ()
                for raw in self._raw_values(name, value, parent)
            }
            return Clause(parent.name, tuple(sorted(allowed)))
        if parent.kind != "choice":
            return Clause(parent.name, None, function, parent.kind == "int")
        try:
            held = [i for i, label in enumerate(parent.labels) if function(label)]
        except Exception as error:
            raise InvalidSpaceError(
                f"satisfies= takes every label of the other variable; {name_of(function)} of "
                f"{name!r} raised {error!r} for one of {list(parent.labels)}; handle it there",
                variable=name,
            ) from error
        if not held:
            raise InvalidSpaceError(
                f"a variable is active somewhere; {name!r} is not for any of "
                f"{list(parent.labels)}; correct {name_of(function)}",
                variable=name,
            )
        return Clause(parent.name, tuple(map(float, held)), function)

    def _raw_values(self, name: str, value: Any, parent: Leaf) -> list[float]:
        matched = match(replace(parent, folds=()), value, self.leaves, {})
        if matched is None:
            rule = (
                f"is one of {list(parent.labels)}"
                if parent.kind == "choice"
                else parent.fault(value)
            )
            raise InvalidSpaceError(
                f"{name!r} is active when {parent.name!r} is {value!r}, but {parent.name!r} "
                f"{rule}; correct the condition",
                variable=name,
                value=value,
            )
        return [matched[0]]

    def _default(self, name: str) -> tuple[Any, bool]:
        given = self.defaults[name]
        if given is ABSENT:
            return None, False
        leaf = self.leaves[name]
        matched = match(leaf, given, self.leaves, {})
        if matched is None:
            raise InvalidSpaceError(
                f"a default is one of the options; got {given!r} for {name!r}", variable=name
            )
        # The default of a choice may be a value of an option that is a variable.
        self.defaults.update(matched[1])
        return leaf.value(matched[0]), True

    def _reads(self, name: str) -> tuple[str, ...]:
        known = {n: None for n in self.places if n in self.computed or not self.leaves[n].folded}
        return tuple(
            self._find(name, other, known, "is computed from") for other in self.computed[name].of
        )


def _ordered(names: Iterable[str], parents: Mapping[str, Iterable[str]]) -> list[str]:
    """The names in their order, but each after its parents."""
    order: list[str] = []
    path: list[str] = []

    def visit(name: str) -> None:
        if name in path:
            circle = " -> ".join([*path[path.index(name) :], name])
            raise InvalidSpaceError(
                f"variables do not depend on each other in a circle; got {circle}; drop one of "
                f"these conditions",
                variable=name,
            )
        if name in done:
            return
        path.append(name)
        for parent in parents[name]:
            visit(parent)
        path.pop()
        done.add(name)
        order.append(name)

    done: set[str] = set()
    for name in names:
        visit(name)
    return order
