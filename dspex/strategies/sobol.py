"""Quasi-random search: the points of a scrambled Sobol sequence, by trial number.

Knows: the sequence. Must not know: outcomes. Nothing is learned.
Where a point breaks the space's constraints, a random row of the same number stands in for it.

Sources: Sobol 1967; Owen 1998 for the scrambling; `scipy.stats.qmc` does the work.
"""

from __future__ import annotations

from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from dspex.errors import InvalidArgumentError
from dspex.space import Space
from dspex.strategies.blocks import BLOCK, Blocks
from dspex.study.seeds import generator
from dspex.study.table import ActiveTrials, CompletedTrials

__all__ = ["Sobol", "sobol_rows"]


@final
class Sobol:
    """Spread rows evenly over the space.

    Examples
    --------
    >>> import dspex
    >>> study = dspex.Study({"x": dspex.Float(0, 1)}, Sobol(), direction="minimize", seed=1)
    >>> sorted(int(4 * trial.params["x"]) for trial in study.ask(4))
    [0, 1, 2, 3]
    """

    name = "sobol"
    seedable = True

    def options(self) -> dict[str, Any]:
        """No options."""
        return {}

    def begin(self, space: Space, *, objectives: int, seed: int, trials: int | None) -> None:
        """Start a study with any number of objectives.

        Raises
        ------
        InvalidArgumentError
            Where the space has more variables than the sequence has dimensions.
        """
        self._rows = sobol_rows(space, seed)

    def ask(self, n: int, completed: CompletedTrials, active: ActiveTrials) -> NDArray[np.float64]:
        """Points of the next ``n`` numbers."""
        return self._rows.rows(len(completed) + len(active), n)

    def tell(self, completed: CompletedTrials) -> None:
        """Nothing is learned."""

    def dump(self) -> dict[str, Any]:
        """Nothing was learned."""
        return {}

    def load(self, state: dict[str, Any]) -> None:
        """Nothing is to be restored."""

    def __repr__(self) -> str:
        return "Sobol()"


def sobol_rows(space: Space, seed: int) -> Blocks:
    """The rows of ``space`` along the sequence of this seed, by number.

    Raises
    ------
    InvalidArgumentError
        Where the space has more variables than the sequence has dimensions.
    """
    from scipy.stats import qmc

    if len(space) > qmc.Sobol.MAXDIM:
        raise InvalidArgumentError(
            f"a Sobol sequence has at most {qmc.Sobol.MAXDIM} dimensions; the space has "
            f'{len(space)} variables; use strategy="random"'
        )
    engine = qmc.Sobol(len(space), scramble=True, rng=generator(seed, "sobol"))

    def block(index: int) -> NDArray[np.float64]:
        start = index * BLOCK
        if start < engine.num_generated:
            engine.reset()
        if start > engine.num_generated:
            engine.fast_forward(start - engine.num_generated)
        rows: NDArray[np.float64] = space.from_unit(engine.random(BLOCK))
        wrong = ~space.feasible(rows)
        if wrong.any():
            rows[wrong] = space.sample_rows(generator(seed, "sobol", index), int(wrong.sum()))
        return rows

    return Blocks(block)
