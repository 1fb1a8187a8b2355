"""Variables that follow a frozen scipy distribution.

Knows: how to recognise one (by its methods, so scipy is not imported), which of them are a plain
Float or Int, and how to go through quantile function and cdf for the others.
Must not know: spaces, columns.

Far tails are cut where float64 can no longer tell their quantiles apart: a continuous
distribution at the quantiles 2**-53 and 1 - 2**-53, a discrete one at 2**-40 and 1 - 2**-40.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from dspex.errors import InvalidSpaceError
from dspex.space.conditions import Condition
from dspex.space.ranges import Range, real
from dspex.space.variables import Float, Int, Variable

__all__ = [
    "Continuous",
    "Discrete",
    "FromDistribution",
    "Words",
    "from_distribution",
    "is_distribution",
    "law_of",
]

FloatArray = NDArray[np.float64]

Words: TypeAlias = tuple[str, tuple[Any, ...], tuple[tuple[str, Any], ...]]
"""A distribution's name, its arguments, and its keywords with their values."""

_CONTINUOUS_TAIL = 2.0**-53
_DISCRETE_TAIL = 2.0**-40
_MOST_VALUES = 2**20


def is_distribution(value: Any) -> bool:
    """Whether this looks like a frozen scipy distribution."""
    if isinstance(value, type):
        return False
    return _quantiles(value) is not None and all(
        callable(getattr(value, name, None)) for name in ("cdf", "support")
    )


def _quantiles(frozen: Any) -> Any:
    """The quantile function, which scipy's newer distributions call icdf; None without one."""
    return getattr(frozen, "ppf", None) or getattr(frozen, "icdf", None)


@final
@dataclass(frozen=True, eq=False)
class Continuous:
    """The unit map of a continuous distribution: its cdf and quantile function."""

    frozen: Any
    low: float
    high: float

    def to_unit(self, values: FloatArray) -> FloatArray:
        """The share of the distribution below each value."""
        return np.asarray(self.frozen.cdf(values), dtype=np.float64)

    def from_unit(self, unit: FloatArray) -> FloatArray:
        """The quantiles."""
        inside = np.clip(unit, _CONTINUOUS_TAIL, 1 - _CONTINUOUS_TAIL)
        return np.clip(
            np.asarray(_quantiles(self.frozen)(inside), dtype=np.float64), self.low, self.high
        )


@final
@dataclass(frozen=True, eq=False)
class Discrete:
    """The unit map of a discrete distribution: each value has a bin as wide as its probability.

    Attributes
    ----------
    values : array, shape (k,)
        The whole numbers that have a probability, ascending.
    edges : array, shape (k + 1,)
        The bins' edges in the unit interval, from 0 to 1.
    """

    values: FloatArray
    edges: FloatArray

    def to_unit(self, values: FloatArray) -> FloatArray:
        """The middle of each value's bin."""
        where = np.minimum(np.searchsorted(self.values, values), len(self.values) - 1)
        middle = (self.edges[where] + self.edges[where + 1]) / 2
        return np.where(np.isnan(values), np.nan, middle)

    def from_unit(self, unit: FloatArray) -> FloatArray:
        """The value in whose bin each number falls."""
        where = np.searchsorted(self.edges[1:-1], unit, side="right")
        return np.where(np.isnan(unit), np.nan, self.values[where])

    @property
    def low(self) -> float:
        """The least value."""
        return float(self.values[0])

    @property
    def high(self) -> float:
        """The largest value."""
        return float(self.values[-1])


@final
@dataclass(frozen=True, init=False, repr=False, eq=False)
class FromDistribution(Variable):
    """A number that follows a frozen distribution; `from_distribution` makes it."""

    kind: Literal["float", "int"]
    law: Continuous | Discrete
    words: Words
    conditions: tuple[Condition, ...] = ()

    def __init__(
        self, kind: Literal["float", "int"], law: Continuous | Discrete, words: Words
    ) -> None:
        object.__setattr__(self, "kind", kind)
        object.__setattr__(self, "law", law)
        object.__setattr__(self, "words", words)

    @property
    def range(self) -> Range:
        """The bounds between which its values lie."""
        step = 1 if self.kind == "int" else None
        return Range(self.kind, self.law.low, self.law.high, False, step)

    def accepts(self, value: Any) -> bool:
        """Whether it is a number that the distribution gives."""
        number = real(value)
        if self.range.fault(number) or number is None:
            return False
        return not isinstance(self.law, Discrete) or bool(np.isin(number, self.law.values))

    def _words(self) -> str:
        name, args, keywords = self.words
        shown = [repr(each) for each in args] + [f"{k}={v!r}" for k, v in keywords]
        return f"{name}({', '.join(shown)})"


def _words_of(frozen: Any) -> Words:
    family = getattr(frozen, "dist", frozen)
    name = str(getattr(family, "name", None) or type(family).__name__)
    args = tuple(real(each) for each in getattr(frozen, "args", ()))
    keywords = tuple((k, real(v)) for k, v in getattr(frozen, "kwds", {}).items())
    return name, args, keywords


def from_distribution(frozen: Any) -> Variable:
    """A variable that follows a frozen scipy distribution.

    ``uniform``, ``loguniform`` and ``randint`` become plain Float and Int.

    Raises
    ------
    InvalidSpaceError
        For one that gives arrays or NaN, or more whole numbers than can be tabulated.

    Examples
    --------
    >>> from scipy import stats
    >>> from_distribution(stats.uniform(1, 4)), from_distribution(stats.randint(1, 4))
    (Float(1.0, 5.0), Int(1, 3))
    >>> from_distribution(stats.norm(0, 1)).accepts(2.5)
    True
    """
    words = _words_of(frozen)
    name = words[0].lower()
    try:
        low, high = frozen.support()
    except TypeError as error:
        raise InvalidSpaceError(
            f"a variable follows a frozen distribution; {name} lacks its arguments ({error}); "
            f"call it with them"
        ) from error
    ends = real(low), real(high)
    if None in ends or any(math.isnan(float(each)) for each in (low, high)):
        raise InvalidSpaceError(
            f"a variable follows a distribution of one number; {name} gives the bounds {low!r} "
            f"and {high!r}; freeze it with valid, single arguments"
        )
    low, high, quantiles = float(low), float(high), _quantiles(frozen)
    if name == "uniform":
        return Float(low, high)
    if name == "randint":
        return Int(int(low), int(high))
    if name in ("loguniform", "reciprocal") and low > 0:
        middle = math.exp((math.log(low) + math.log(high)) / 2)
        if math.isclose(float(quantiles(0.5)), middle, rel_tol=1e-9):  # it has no loc
            return Float(low, high, log=True)
    if _is_discrete(frozen):
        return FromDistribution("int", _tabulated(frozen, name), words)
    low = max(low, float(quantiles(_CONTINUOUS_TAIL)))
    high = min(high, float(quantiles(1 - _CONTINUOUS_TAIL)))
    return FromDistribution("float", Continuous(frozen, low, high), words)


def _is_discrete(frozen: Any) -> bool:
    # Scipy's newer continuous distributions have a pmf too, and its discrete ones a pdf.
    if not callable(getattr(frozen, "pdf", None)):
        return True
    return any("discrete" in each.__name__.lower() for each in type(frozen).__mro__)


def _tabulated(frozen: Any, name: str) -> Discrete:
    low = math.floor(float(_quantiles(frozen)(_DISCRETE_TAIL)))
    # Asked first, for the quantiles of heavy tails can take scipy minutes.
    if not float(frozen.cdf(low + _MOST_VALUES)) >= 1 - _DISCRETE_TAIL:
        raise InvalidSpaceError(
            f"a discrete distribution has at most 2**20 likely values; {name} has more from "
            f"{low} on; use Int(low, high, log=True)"
        )
    high = math.ceil(float(_quantiles(frozen)(1 - _DISCRETE_TAIL)))
    values = np.arange(low, high + 1, dtype=np.float64)
    mass = np.asarray(frozen.pmf(values), dtype=np.float64)
    likely = mass > _DISCRETE_TAIL / 64
    if not math.isclose(float(mass[likely].sum()), 1, abs_tol=1e-6):
        raise InvalidSpaceError(
            f"a discrete distribution gives whole numbers; {name} does not; use Choice"
        )
    edges = np.concatenate([[0.0], np.cumsum(mass[likely])])
    return Discrete(values[likely], edges / edges[-1])


def law_of(words: Words) -> Continuous | Discrete | None:
    """The unit map of a described scipy distribution; None for one that scipy does not know."""
    from scipy import stats

    name, args, keywords = words
    family = getattr(stats, name, None)
    if not isinstance(family, stats.rv_continuous | stats.rv_discrete):
        return None
    variable = from_distribution(family(*args, **dict(keywords)))
    return variable.law if isinstance(variable, FromDistribution) else None
