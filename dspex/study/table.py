"""The columns of a study: one row per trial, in numpy arrays that grow by doubling.

Knows: rows, losses, states and times by trial number. Must not know: records, events, strategies.
About 150 bytes a trial, and 8 per fold and objective; what only some trials have (errors, extra
scores, steps along the way) lies in dictionaries by number.

Notation: n trials, d columns of the space, o objectives, f folds.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

__all__ = ["ActiveTrials", "Columns", "CompletedTrials"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@final
class Columns:
    """Named arrays of one length that grow together.

    Parameters
    ----------
    **fields : tuple of (dtype, fill value, shape of one row)

    Examples
    --------
    >>> columns = Columns(loss=("f8", float("nan"), ()))
    >>> columns.extend(2)
    >>> columns["loss"].shape
    (2,)
    """

    __slots__ = ("_arrays", "_capacity", "_fills", "_length")

    def __init__(self, **fields: tuple[str, Any, tuple[int, ...]]) -> None:
        self._length = 0
        self._capacity = 16
        self._fills = {name: fill for name, (_, fill, _) in fields.items()}
        self._arrays: dict[str, NDArray[Any]] = {
            name: np.full((self._capacity, *shape), fill, dtype=dtype)
            for name, (dtype, fill, shape) in fields.items()
        }

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self._arrays[name][: self._length]

    def whole(self, name: str) -> NDArray[Any]:
        """A column with its spare rows: quicker than a slice where one row is wanted."""
        return self._arrays[name]

    def extend(self, count: int) -> None:
        """Add ``count`` rows of fill values; earlier views keep their (old) memory."""
        needed = self._length + count
        if needed > self._capacity:
            self._capacity = max(needed, 2 * self._capacity)
            for name, array in self._arrays.items():
                grown = np.full(
                    (self._capacity, *array.shape[1:]), self._fills[name], dtype=array.dtype
                )
                grown[: self._length] = array[: self._length]
                self._arrays[name] = grown
        self._length = needed

    @property
    def nbytes(self) -> int:
        """The memory of all arrays, in bytes."""
        return sum(array.nbytes for array in self._arrays.values())


@final
class CompletedTrials:
    """Ended trials in the order in which a strategy is told of them; immutable.

    Trials that failed are among them: their losses are NaN. A strategy that learns from scores
    takes `finite`; one that counts takes `numbers`. Arrays are cut out of the table only when
    they are read, so a strategy that needs no history pays nothing for it.

    Parameters
    ----------
    order : array of int, shape (m,)
        The trials' numbers.
    rows : array of float, shape (n, d)
    losses : array of float, shape (n, o)
    violations : array of float, shape (n,)
        Indexed by trial number, as they stand in the table.
    """

    def __init__(
        self, order: IntArray, rows: FloatArray, losses: FloatArray, violations: FloatArray
    ) -> None:
        self.numbers = order
        self._rows, self._losses, self._violations = rows, losses, violations

    def __len__(self) -> int:
        return len(self.numbers)

    @cached_property
    def rows(self) -> FloatArray:
        """Rows of the space, shape (m, d); NaN where a variable is inactive."""
        return self._rows[self.numbers]

    @cached_property
    def losses(self) -> FloatArray:
        """Objectives, to be minimised, shape (m, o); NaN for trials that gave none."""
        return self._losses[self.numbers]

    @cached_property
    def violations(self) -> FloatArray:
        """The summed violation of the study's constraints, shape (m,); 0 where all are met."""
        return self._violations[self.numbers]

    @cached_property
    def finite(self) -> NDArray[np.bool_]:
        """Which of them have losses, shape (m,)."""
        return np.asarray(np.isfinite(self.losses).all(axis=1))

    def since(self, start: int) -> CompletedTrials:
        """Those from position ``start`` on."""
        return CompletedTrials(self.numbers[start:], self._rows, self._losses, self._violations)


@final
class ActiveTrials:
    """Trials suggested whose outcome the strategy has not been told; immutable.

    Parameters
    ----------
    numbers : array of int, shape (m,)
    rows : array of float, shape (n, d)
        Indexed by trial number.
    """

    def __init__(self, numbers: IntArray, rows: FloatArray) -> None:
        self.numbers = numbers
        self._rows = rows

    def __len__(self) -> int:
        return len(self.numbers)

    @cached_property
    def rows(self) -> FloatArray:
        """Rows of the space, shape (m, d)."""
        return self._rows[self.numbers]
