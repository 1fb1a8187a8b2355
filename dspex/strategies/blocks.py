"""Rows by trial number, made in blocks.

Knows: that row ``i`` stands in block ``i // BLOCK``. Must not know: how a block is made.
Making rows by the block keeps them a pure function of the trial's number, whatever the sizes of
the asks, at a cost per row that is vectorised away.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import numpy as np
from numpy.typing import NDArray

__all__ = ["BLOCK", "Blocks"]

BLOCK = 64
"""Rows in a block; a power of two, for the balance of Sobol points."""


@final
class Blocks:
    """Rows by number, from a function that makes one block.

    Parameters
    ----------
    make : callable
        Takes the block's index, returns its rows, shape (BLOCK, d). It must be pure.

    Examples
    --------
    >>> blocks = Blocks(lambda index: np.arange(BLOCK)[:, None] + BLOCK * index)
    >>> blocks.rows(62, 4).ravel().tolist()
    [62, 63, 64, 65]
    """

    def __init__(self, make: Callable[[int], NDArray[np.float64]]) -> None:
        self._make = make
        self._index = -1
        self._block = np.empty((0, 0))

    def rows(self, first: int, n: int) -> NDArray[np.float64]:
        """The rows of the numbers from ``first`` to ``first + n - 1``."""
        pieces = []
        number, last = first, first + n
        while number < last:
            index, offset = divmod(number, BLOCK)
            if index != self._index:
                self._block, self._index = self._make(index), index
            pieces.append(self._block[offset : offset + last - number])
            number += len(pieces[-1])
        return np.concatenate(pieces)
