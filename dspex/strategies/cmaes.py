"""CMA-ES: a normal distribution that moves and turns towards the better trials.

Knows: units of numbers, generations, restarts. Must not know: choices without an order.

The `cmaes` library holds the distribution. Trials may end in any order and many at once, so a
generation is whatever ``population`` trials with losses end one after the other, whichever
distribution suggested them: with few trials in flight that is the usual algorithm, with many its
asynchronous form. When the library says that a distribution has converged or degenerated, a new
one starts elsewhere with twice the population (IPOP).

What was learned follows from the sequence of ended trials alone, so there is nothing to save; the
library's generator is seeded anew for every trial.

Sources: Hansen 2016, arXiv:1604.00772; Auger & Hansen 2005 for IPOP; Hamano et al. 2022,
arXiv:2205.13482, for why discrete columns must be kept moving.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

import numpy as np
from numpy.typing import NDArray

from dspex.errors import InvalidArgumentError
from dspex.space import Space
from dspex.study.seeds import derive_seed, generator
from dspex.study.table import ActiveTrials, CompletedTrials

if TYPE_CHECKING:
    from cmaes import CMA

__all__ = ["CMAES"]

FloatArray = NDArray[np.float64]

# How often a row that breaks the space's constraints is drawn again before any row will do.
_ATTEMPTS = 32


@final
class CMAES:
    """Search a space of numbers with a covariance matrix adaptation evolution strategy.

    Parameters
    ----------
    population : int, optional
        Trials in a generation, at least 4. The default, 4 + 3 log(d), is doubled at each restart.
    sigma : float
        The initial standard deviation, as a share of each variable's range.

    Examples
    --------
    >>> import dspex
    >>> space = {"x": dspex.Float(-5, 5), "y": dspex.Float(-5, 5)}
    >>> study = dspex.Study(space, CMAES(), direction="minimize", seed=1)
    >>> for _ in range(150):
    ...     trial = study.ask()
    ...     study.tell(trial, (trial.params["x"] - 1) ** 2 + (trial.params["y"] + 2) ** 2)
    >>> study.best_trial.score < 0.01
    True
    """

    name = "cmaes"
    seedable = True

    def __init__(self, *, population: int | None = None, sigma: float = 0.25) -> None:
        if population is not None and population < 4:
            raise InvalidArgumentError(
                f"population of CMAES is at least 4; got {population!r}; leave it out for a default"
            )
        if not 0 < sigma <= 1:
            raise InvalidArgumentError(
                f"sigma of CMAES is a share of the range, above 0 and at most 1; got {sigma!r}"
            )
        self.population = population
        self.sigma = sigma

    def options(self) -> dict[str, Any]:
        """Its options."""
        return {"population": self.population, "sigma": self.sigma}

    def begin(self, space: Space, *, objectives: int, seed: int, trials: int | None) -> None:
        """Start a study.

        Raises
        ------
        InvalidArgumentError
            For several objectives, conditional variables, and choices without an order.
        """
        if objectives > 1:
            raise InvalidArgumentError(
                f'CMA-ES minimises one objective; the study has {objectives}; use strategy="tpe"'
            )
        if space.is_conditional:
            raise InvalidArgumentError(
                "CMA-ES needs variables that are always active; the space has conditional ones; "
                'use strategy="tpe"'
            )
        unordered = [
            leaf.name
            for leaf in space.leaves
            if leaf.kind == "choice" and not leaf.ordered and len(leaf.labels) > 2
        ]
        if unordered:
            raise InvalidArgumentError(
                f"CMA-ES needs numbers or ordered choices; {', '.join(map(repr, unordered))} "
                'have no order; use strategy="tpe", or Choice(..., ordered=True) if they have one'
            )
        self._space = space
        self._seed = seed
        # 0 for what has no neighbours to move to
        self._steps = np.array(
            [0.0 if leaf.law is not None else leaf.step or 0.0 for leaf in space.leaves]
        )
        self._low = np.array([leaf.low for leaf in space.leaves])
        self._high = np.array([leaf.high for leaf in space.leaves])
        self._told = 0
        self._behind = False
        self._forget()

    def ask(self, n: int, completed: CompletedTrials, active: ActiveTrials) -> FloatArray:
        """Draw ``n`` rows from the distribution."""
        if self._behind or self._told != len(completed):
            self._forget()
            self._learn(completed)
            self._told = len(completed)
            self._behind = False
        first = len(completed) + len(active)
        return np.array([self._draw(first + i) for i in range(n)])

    def tell(self, completed: CompletedTrials) -> None:
        """Learn from ended trials, a generation at a time; those without losses are passed over."""
        if not self._behind:
            self._learn(completed)
        self._told += len(completed)

    def dump(self) -> dict[str, Any]:
        """How much was told; the rest follows from the completed trials."""
        return {"told": self._told}

    def load(self, state: dict[str, Any]) -> None:
        """Continue; what was learned is learned again at the next `ask`."""
        self._forget()
        self._told = int(state["told"])
        self._behind = self._told > 0

    def __repr__(self) -> str:
        return f"CMAES(population={self.population}, sigma={self.sigma})"

    # --- learning --------------------------------------------------------------------------

    def _forget(self) -> None:
        self._restarts = 0
        self._distribution = self._start(np.full(len(self._space), 0.5), self.population)
        self._generation: list[tuple[FloatArray, float, float]] = []  # (unit, loss, violation)

    def _start(self, mean: FloatArray, population: int | None) -> CMA:
        from cmaes import CMA

        bounds = np.tile([0.0, 1.0], (len(mean), 1))
        return CMA(mean=mean, sigma=self.sigma, bounds=bounds, population_size=population, seed=0)

    def _learn(self, completed: CompletedTrials) -> None:
        finite = completed.finite
        units = self._space.to_unit(completed.rows[finite])
        losses, violations = completed.losses[finite, 0], completed.violations[finite]
        for told in zip(units, losses.tolist(), violations.tolist(), strict=True):
            self._generation.append(told)
            if len(self._generation) == self._distribution.population_size:
                self._distribution.tell(_ranked(self._generation))
                self._generation = []
                if self._distribution.should_stop():
                    self._restart()

    def _restart(self) -> None:
        self._restarts += 1
        rng = generator(self._seed, "cmaes-restart", self._restarts)
        self._distribution = self._start(
            rng.random(len(self._space)), 2 * self._distribution.population_size
        )

    # --- suggesting ------------------------------------------------------------------------

    def _draw(self, number: int) -> FloatArray:
        for attempt in range(_ATTEMPTS):
            seed = derive_seed(self._seed, "cmaes", number, attempt)
            self._distribution.reseed_rng(seed % 2**32)
            row = self._space.from_unit(self._distribution.ask()[None])
            row = self._moved(row, generator(self._seed, "cmaes-move", number, attempt))
            if self._space.feasible(row)[0]:
                drawn: FloatArray = row[0]
                return drawn
        anything: FloatArray = self._space.sample_rows(
            generator(self._seed, "cmaes-random", number), 1
        )[0]
        return anything

    def _moved(self, row: FloatArray, rng: np.random.Generator) -> FloatArray:
        """Now and then move a discrete column, which a narrow distribution would stop."""
        if not self._steps.any():
            return row
        d = len(self._steps)
        direction = np.where(rng.random(d) < 0.5 / d, np.sign(rng.random(d) - 0.5), 0.0)
        moved = row + direction * self._steps
        inside = (moved >= self._low) & (moved <= self._high)
        return np.where(inside, moved, row)


def _ranked(generation: list[tuple[FloatArray, float, float]]) -> list[tuple[FloatArray, float]]:
    """Solutions with one value each: what breaks constraints is worse than all that does not."""
    worst = max((loss for _, loss, violation in generation if violation == 0), default=0.0)
    return [
        (unit, loss if violation == 0 else worst + violation)
        for unit, loss, violation in generation
    ]
