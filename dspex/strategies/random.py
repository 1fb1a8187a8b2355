"""Random search: independent rows, drawn as the space says.

Knows: nothing of outcomes. The row of a trial follows from the seed and its number alone.

Source: Bergstra & Bengio 2012, "Random search for hyper-parameter optimization", JMLR 13.
"""

from __future__ import annotations

from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from dspex.space import Space
from dspex.strategies.blocks import BLOCK, Blocks
from dspex.study.seeds import generator
from dspex.study.table import ActiveTrials, CompletedTrials

__all__ = ["Random"]


@final
class Random:
    """Draw independent rows.

    Examples
    --------
    >>> import dspex
    >>> study = dspex.Study({"x": dspex.Float(0, 1)}, Random(), direction="minimize", seed=1)
    >>> 0 <= study.ask().params["x"] <= 1
    True
    """

    name = "random"
    seedable = True

    def options(self) -> dict[str, Any]:
        """No options."""
        return {}

    def begin(self, space: Space, *, objectives: int, seed: int, trials: int | None) -> None:
        """Start a study; any space and any number of objectives will do."""
        self._rows = Blocks(
            lambda block: space.sample_rows(generator(seed, "random", block), BLOCK)
        )

    def ask(self, n: int, completed: CompletedTrials, active: ActiveTrials) -> NDArray[np.float64]:
        """Rows of the next ``n`` numbers."""
        return self._rows.rows(len(completed) + len(active), n)

    def tell(self, completed: CompletedTrials) -> None:
        """Nothing is learned."""

    def dump(self) -> dict[str, Any]:
        """Nothing was learned."""
        return {}

    def load(self, state: dict[str, Any]) -> None:
        """Nothing is to be restored."""

    def __repr__(self) -> str:
        return "Random()"
