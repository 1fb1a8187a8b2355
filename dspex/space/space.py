"""The search space: columns, conditions and constraints, and the ways between params and arrays.

Knows: how the parts of this room fit together. Must not know: trials, scores, strategies.

Notation: n rows, d columns. A row holds raw values (a number, or the index of a label) and NaN
where a variable is inactive. Params hold labels and plain numbers of the active variables.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Never, final, overload

import numpy as np
from numpy.typing import NDArray

from dspex.errors import InvalidArgumentError, InvalidSpaceError
from dspex.space.activity import Activity, holds
from dspex.space.codec import Codec, position
from dspex.space.compiling import Computed, compile_variables
from dspex.space.conditions import name_of
from dspex.space.constraints import Constraint, Constraints
from dspex.space.counting import cardinality, enumerate_rows
from dspex.space.description import describe, leaves_of, words
from dspex.space.encoding import UnitMap
from dspex.space.labels import Scalar
from dspex.space.leaf import Leaf
from dspex.space.normalising import normalise
from dspex.space.resolving import Resolver

__all__ = ["Space"]

FloatArray = NDArray[np.float64]

PATIENCE = 10_000
"""How many samples in a row may break the constraints before sampling gives up."""


@final
class Space:
    """What may vary, and between which bounds; immutable.

    Parameters
    ----------
    variables : mapping of name to variable
        A variable of this room, a list of options, or a frozen scipy distribution.
    constraints : sequence of callables
        Functions of params (as the program gets them) that say whether these are allowed.

    Attributes
    ----------
    leaves : tuple of Leaf
        The columns, parents before children. Nested variables are named with dots.
    names : tuple of str
        Their names.

    Raises
    ------
    InvalidSpaceError
        Where the space contradicts itself.

    Examples
    --------
    >>> from dspex.space import Float
    >>> space = Space(
    ...     {
    ...         "kernel": ["rbf", "linear"],
    ...         "C": Float(0.01, 100, log=True),
    ...         "gamma": Float(1e-4, 1, log=True).when("kernel", equals="rbf"),
    ...     }
    ... )
    >>> space.names
    ('kernel', 'C', 'gamma')
    >>> row = space.rows([{"kernel": "linear", "C": 1.0}])
    >>> row
    array([[ 1.,  1., nan]])
    >>> space.params(row[0])
    {'kernel': 'linear', 'C': 1.0}
    >>> space.to_unit(row)
    array([[0.75, 0.5 ,  nan]])
    """

    leaves: tuple[Leaf, ...]
    names: tuple[str, ...]
    _computed: tuple[Computed, ...]
    _constraints: Constraints
    _activity: Activity
    _units: UnitMap
    _codec: Codec
    _resolver: Resolver

    def __init__(
        self,
        variables: Mapping[str, Any],
        constraints: Iterable[Constraint] = (),
    ) -> None:
        if not isinstance(variables, Mapping):
            raise InvalidSpaceError(
                f"a space is a mapping of name to variable; got {variables!r}; pass a dict"
            )
        constraints = (constraints,) if callable(constraints) else tuple(constraints)
        for constraint in constraints:
            if not callable(constraint):
                raise InvalidSpaceError(
                    f"a constraint is a function of params; got {constraint!r}; constraints on "
                    f"what is measured belong to the study"
                )
        self._settle(*compile_variables(variables), constraints)

    def _settle(
        self,
        leaves: Sequence[Leaf],
        computed: Sequence[Computed],
        constraints: Sequence[Constraint],
    ) -> None:
        resolver = Resolver({leaf.name: leaf for leaf in leaves}, computed)
        self.__dict__.update(
            leaves=tuple(leaves),
            names=tuple(leaf.name for leaf in leaves),
            _computed=tuple(computed),
            _constraints=Constraints(constraints, resolver),
            _activity=Activity(leaves),
            _units=UnitMap(leaves),
            _codec=Codec(leaves),
            _resolver=resolver,
        )

    def __setattr__(self, name: str, value: object) -> Never:
        raise AttributeError(f"a space is immutable; got {name}={value!r}; make a new one")

    @classmethod
    def _made_of(cls, *parts: Any) -> Space:
        space = cls.__new__(cls)
        space._settle(*parts)
        return space

    def __reduce__(self) -> tuple[Any, ...]:
        # All else is derived from these, and rebuilt where they arrive.
        return Space._made_of, (self.leaves, self._computed, self._constraints.functions)

    @classmethod
    def of(cls, space: Space | Mapping[str, Any]) -> Space:
        """A space from a space or from a plain dict."""
        return space if isinstance(space, Space) else cls(space)

    def __len__(self) -> int:
        return len(self.leaves)

    @property
    def is_conditional(self) -> bool:
        """Whether some variable is not always active."""
        return bool(self._activity)

    # --- sampling -------------------------------------------------------------------------

    @overload
    def sample(self, n: None = None, *, seed: Any = None) -> dict[str, Scalar]: ...
    @overload
    def sample(self, n: int, *, seed: Any = None) -> list[dict[str, Scalar]]: ...
    def sample(
        self, n: int | None = None, *, seed: Any = None
    ) -> dict[str, Scalar] | list[dict[str, Scalar]]:
        """Draw params that meet the constraints.

        Parameters
        ----------
        n : int, optional
            How many; None for a single one, not in a list.
        seed : int or numpy Generator, optional

        Raises
        ------
        InvalidSpaceError
            Where 10,000 samples in a row break the constraints.

        Examples
        --------
        >>> from dspex.space import Int
        >>> Space({"x": Int(1, 6)}).sample(3, seed=1)
        [{'x': 4}, {'x': 6}, {'x': 1}]
        """
        if n is not None and n < 0:
            raise InvalidArgumentError(f"n is a whole number, at least 0; got n={n!r}")
        rows = self.sample_rows(np.random.default_rng(seed), 1 if n is None else n)
        params = [self.params(row) for row in rows]
        return params[0] if n is None else params

    def sample_rows(self, rng: np.random.Generator, n: int) -> FloatArray:
        """Draw rows that meet the constraints, shape (n, d)."""
        if not self._constraints:
            return self._activity.activate(self._units.from_unit(rng.random((n, len(self)))))
        found: list[FloatArray] = []
        missing, in_vain, batch = n, 0, n
        while missing > 0:
            rows = self._activity.activate(self._units.from_unit(rng.random((batch, len(self)))))
            good = rows[self.feasible(rows)][:missing]
            in_vain = 0 if len(good) else in_vain + batch
            if in_vain >= PATIENCE:
                raise InvalidSpaceError(
                    f"a space has params that meet its constraints; {in_vain} samples in a row "
                    f"did not meet {list(map(name_of, self._constraints.functions))}; loosen "
                    f"them, or write them into the variables' bounds and conditions"
                )
            found.append(good)
            missing -= len(good)
            batch = min(max(2 * batch, missing), 1024)
        return np.concatenate(found) if found else np.empty((0, len(self)))

    # --- params and rows ------------------------------------------------------------------

    def rows(self, params: Sequence[Mapping[str, Any]]) -> FloatArray:
        """Params (labels and numbers, as in a log) as rows, shape (n, d).

        An absent name is taken as inactive; `normalise` is what checks params.

        Raises
        ------
        InvalidParamsError
            For names and labels that are not in the space.
        """
        return self._codec.rows(params)

    def params(self, row: FloatArray) -> dict[str, Scalar]:
        """One row as params, without loss."""
        return self._codec.params(row)

    def normalise(self, params: Mapping[str, Any]) -> dict[str, Scalar]:
        """Check params, and write them as the log does: labels and plain numbers.

        A value that fits several options is taken as a label first, then as an option, then as a
        value of an option that is a variable; the program gets the same in each case.

        Parameters
        ----------
        params : mapping
            Labels, the options themselves, or what `resolve` gives.

        Raises
        ------
        InvalidParamsError
            Names the variable, the rule and the value.

        Examples
        --------
        >>> from dspex.space import Choice, Int
        >>> space = Space({"max_depth": Choice([None, Int(3, 20)])})
        >>> space.normalise({"max_depth": 7})
        {'max_depth': 'int', 'max_depth.int': 7}
        """
        clean = normalise(params, self.leaves, self._resolver)
        self._constraints.check(clean)
        return clean

    def validate(self, params: Mapping[str, Any]) -> None:
        """Raise `InvalidParamsError` where params do not lie in the space."""
        self.normalise(params)

    def resolve(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """What a program gets: objects for labels, derived values, options that are variables.

        Examples
        --------
        >>> from dspex.space import Choice, Int
        >>> space = Space({"max_depth": Choice([None, Int(3, 20)]), "f": [min, max]})
        >>> space.resolve({"max_depth": "int", "max_depth.int": 7, "f": "max"})
        {'max_depth': 7, 'f': <built-in function max>}
        """
        return self._resolver.resolve(params)

    def defaults(self) -> dict[str, Scalar] | None:
        """The params of all defaults; None where an active variable has none.

        Defaults that break a constraint count as none.
        """
        raw: dict[str, float] = {}
        params: dict[str, Scalar] = {}
        for leaf in self.leaves:
            if holds(leaf.clauses, raw):
                if not leaf.has_default:
                    return None
                params[leaf.name] = leaf.default
                raw[leaf.name] = position(leaf, leaf.default)
        return params if self._constraints.met(params) else None

    # --- the unit cube --------------------------------------------------------------------

    def to_unit(self, rows: FloatArray) -> FloatArray:
        """Rows to the unit cube, NaN where inactive. Shapes (n, d)."""
        return self._units.to_unit(np.asarray(rows, dtype=np.float64))

    def from_unit(self, unit: FloatArray) -> FloatArray:
        """Points of the unit cube to valid rows. Shapes (n, d).

        Children of inactive parents become NaN; a variable that is active though its unit is NaN
        gets its default, else the middle.
        """
        unit = np.asarray(unit, dtype=np.float64)
        lost = np.isnan(unit)
        if lost.any():
            unit = np.where(lost, self._middle, unit)
        return self._activity.activate(self._units.from_unit(unit))

    @cached_property
    def _middle(self) -> FloatArray:
        known = {leaf.name: leaf.default for leaf in self.leaves if leaf.has_default}
        unit = self.to_unit(self._codec.rows([known]))
        middle: FloatArray = np.where(np.isnan(unit), 0.5, unit)[0]
        return middle

    def activate(self, rows: FloatArray) -> FloatArray:
        """A copy of full rows with NaN exactly where a variable is inactive. Shapes (n, d)."""
        return self._activity.activate(rows)

    # --- constraints ----------------------------------------------------------------------

    def feasible(self, rows: FloatArray) -> NDArray[np.bool_]:
        """Which rows meet the constraints, shape (n,)."""
        if not self._constraints:
            return np.ones(len(rows), dtype=bool)
        met = (self._constraints.met(self.params(row)) for row in rows)
        return np.fromiter(met, bool, len(rows))

    # --- finite spaces --------------------------------------------------------------------

    @cached_property
    def cardinality(self) -> int | None:
        """How many different rows there are, conditions considered and constraints not.

        None where infinite, more than 2**53, or too many to be counted.
        """
        return cardinality(self.leaves)

    def enumerate_rows(self) -> Iterator[FloatArray]:
        """All rows of a finite space that meet the constraints, the last column fastest.

        Raises
        ------
        InvalidSpaceError
            Where a variable is continuous.
        """
        for row in enumerate_rows(self.leaves):
            if not self._constraints or self._constraints.met(self.params(row)):
                yield row

    # --- words ----------------------------------------------------------------------------

    def describe(self) -> dict[str, Any]:
        """The space as JSON, the same in every process; functions by their qualified names."""
        return describe(self.leaves, self._computed, self._constraints.functions)

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> Space:
        """A space of labels from what `describe` gave: enough to read a log, and to draw.

        What is decided or computed by functions is not there.
        """
        return cls._made_of(leaves_of(description), (), ())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Space) and self.describe() == other.describe()

    def __hash__(self) -> int:
        return hash(self.names)

    def __repr__(self) -> str:
        lines = words(self.leaves, self._computed, self._constraints.functions)
        return "\n  ".join(["Space(", *lines]) + "\n)" if lines else "Space()"
