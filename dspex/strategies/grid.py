"""Exhaustive search: every row of a finite space once, in an order shuffled by the seed.

Knows: all rows of the grid. Must not know: losses; only which rows were tried counts.
Rows that somebody else tried (initial trials) are not tried again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from dspex.errors import InvalidArgumentError
from dspex.space import Space
from dspex.space.leaf import Leaf
from dspex.study.seeds import generator
from dspex.study.table import ActiveTrials, CompletedTrials

__all__ = ["MOST_ROWS", "Grid"]

FloatArray = NDArray[np.float64]

MOST_ROWS = 1_000_000
"""A larger grid is refused: it is held in memory."""


@final
class Grid:
    """Try every row of a grid once.

    Parameters
    ----------
    resolution : int, optional
        How many values a continuous variable takes, ends included, evenly spaced (on the
        logarithmic scale where the variable is). Needed where there is one.

    Examples
    --------
    >>> import dspex
    >>> space = {"kernel": ["rbf", "linear"], "C": dspex.Float(0.1, 10, log=True)}
    >>> study = dspex.Study(space, Grid(resolution=3), direction="maximize", seed=0)
    >>> len(study.ask(100))
    6
    """

    name = "grid"
    seedable = True

    def __init__(self, *, resolution: int | None = None) -> None:
        if resolution is not None and resolution < 1:
            raise InvalidArgumentError(f"resolution of Grid is at least 1; got {resolution!r}")
        self.resolution = resolution

    def options(self) -> dict[str, Any]:
        """Its options."""
        return {"resolution": self.resolution}

    def begin(self, space: Space, *, objectives: int, seed: int, trials: int | None) -> None:
        """Start a study with any number of objectives.

        Raises
        ------
        InvalidArgumentError
            For a continuous variable without a `resolution`, or more than `MOST_ROWS` rows.
        """
        rows = _grid(space, [self._values(leaf) for leaf in space.leaves])
        self._rows = rows[generator(seed, "grid").permutation(len(rows))]
        self._index = {key: i for i, key in enumerate(_keys(self._rows))}
        self._forget()

    def ask(self, n: int, completed: CompletedTrials, active: ActiveTrials) -> FloatArray:
        """The next ``n`` rows that nobody tried; fewer where the grid is exhausted."""
        if self._told != len(completed):
            self._forget()
            self.tell(completed)
        running = {self._index.get(key) for key in _keys(active.rows)}
        free = (
            i for i in range(self._next, len(self._rows)) if not self._tried[i] and i not in running
        )
        return self._rows[[i for i, _ in zip(free, range(n), strict=False)]]

    def tell(self, completed: CompletedTrials) -> None:
        """Strike out what was tried."""
        self._told += len(completed)
        for key in _keys(completed.rows):
            if (i := self._index.get(key)) is not None:
                self._tried[i] = True
        while self._next < len(self._rows) and self._tried[self._next]:
            self._next += 1

    def dump(self) -> dict[str, Any]:
        """Nothing: what was tried follows from the completed trials."""
        return {}

    def load(self, state: dict[str, Any]) -> None:
        """Continue; what was tried is learned again at the next `ask`."""
        self._forget()

    def __repr__(self) -> str:
        return f"Grid(resolution={self.resolution})"

    def _forget(self) -> None:
        self._told = 0
        self._next = 0
        self._tried = np.zeros(len(self._rows), dtype=bool)

    def _values(self, leaf: Leaf) -> FloatArray:
        if leaf.cardinality is not None:
            return leaf.values()
        if self.resolution is None:
            raise InvalidArgumentError(
                f"a grid needs finite variables; {leaf.name!r} is continuous; pass "
                "strategy=dspex.strategies.Grid(resolution=5), or give the variable a step"
            )
        if leaf.law is not None:
            # The middles of quantiles: the ends of a law may be infinite.
            return leaf.law.from_unit((np.arange(self.resolution) + 0.5) / self.resolution)
        spaced = np.geomspace if leaf.log else np.linspace
        values: FloatArray = spaced(leaf.low, leaf.high, self.resolution)
        return values


def _grid(space: Space, values: Sequence[FloatArray]) -> FloatArray:
    """All different valid rows: grown column by column, each where it is active."""
    rows = np.array([[each[0] for each in values]])
    for j, column in enumerate(values):
        # Later columns hold any value: they cannot decide whether this one is active.
        active = ~np.isnan(space.activate(rows)[:, j])
        size = int(active.sum()) * len(column) + int((~active).sum())
        if size > MOST_ROWS:
            raise InvalidArgumentError(
                f"a grid has at most {MOST_ROWS:,} rows; this one has {size:,} or more after "
                f'{j + 1} of {len(values)} variables; lower the resolution, or use strategy="tpe"'
            )
        grown = np.repeat(rows[active], len(column), axis=0)
        grown[:, j] = np.tile(column, int(active.sum()))
        rows = np.concatenate([grown, rows[~active]])
    rows = space.activate(rows)
    return rows[space.feasible(rows)]


def _keys(rows: FloatArray) -> Iterator[bytes]:
    """What identifies a row: its values to 12 digits, so that a row typed by hand is known."""
    with np.errstate(divide="ignore", invalid="ignore"):
        digits = 11.0 - np.floor(np.log10(np.abs(rows)))
    digits = np.where(np.isfinite(digits), np.minimum(digits, 300.0), 0.0)
    # Divided again: 1 and 10 have the same digits.
    scale = 10.0**digits
    rounded = np.rint(rows * scale) / scale
    return (row.tobytes() for row in np.where(np.isnan(rows), np.inf, rounded + 0.0))
