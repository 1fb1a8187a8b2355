"""The tree-structured Parzen estimator: more like the good trials, less like the others.

Knows: which trials are good, how many candidates to draw, how to choose among them.
Must not know: how densities are computed (`parzen`), which trials are kept (`history`).

Of n trials the best ``k = min(ceil(n / 10), 25)`` are good. A candidate is drawn from the mixture
l of kernels on the good ones; the candidate with the highest l/g is suggested, g being the
mixture of kernels on all others: told or not, failed or not (a constant liar). What a study has
suggested and not been told thus repels the next suggestions, in one batch or in many.

What differs from the usual form, and why (measured on six functions, benchmarks/suggestion.py):

- good trials weigh by their rank, so that the model moves with the best of them;
- their kernels may be narrower, which is what limits the end of a search;
- kernels of g have one width: g needs no sorting, and its cost stays constant when only a bounded
  sample of the trials stands in it;
- the first trials are quasi-random.

Sources: Bergstra et al. 2011, "Algorithms for hyper-parameter optimization", NeurIPS 24, §4;
Watanabe 2023, arXiv:2304.11127.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from dspex.errors import InvalidArgumentError
from dspex.space import Space
from dspex.strategies.history import ELITES, History
from dspex.strategies.parzen import Features, Mixture, log_sum_exp, neighbour_bandwidths
from dspex.strategies.sobol import sobol_rows
from dspex.study.seeds import generator
from dspex.study.table import ActiveTrials, CompletedTrials

__all__ = ["TPE"]

FloatArray = NDArray[np.float64]

# Bandwidths, in units. Of k good ones of n trials at least _GOOD / (k + 2), less where n is large
# and k is not; of all others one width, max(_OTHERS, 2 / (n + 2)).
_GOOD = 0.4
_SETTLED = 400
_OTHERS = 0.025
# A repeat of a row that was tried is taken only where neither a candidate nor _DRAWS rows are new.
_REPEAT = 1e9
_DRAWS = 64
_LOST = 30.0  # exp(-30) is nothing beside 1
_PART = 32


@final
class TPE:
    """Suggest rows that look like the good trials and unlike the others.

    Serves every kind of variable, conditions, constraints, failures and several objectives (the
    good trials are then those of the first fronts).

    Parameters
    ----------
    startup : int
        Trials with losses before the model is asked; until then the rows are quasi-random.
    candidates : int
        Candidates drawn for one suggestion.

    Examples
    --------
    >>> import dspex
    >>> study = dspex.Study({"x": dspex.Float(0, 1)}, TPE(), direction="minimize", seed=1)
    >>> for _ in range(40):
    ...     trial = study.ask()
    ...     study.tell(trial, (trial.params["x"] - 0.3) ** 2)
    >>> round(study.best_trial.params["x"], 1)
    0.3
    """

    name = "tpe"
    seedable = True

    def __init__(self, *, startup: int = 10, candidates: int = 32) -> None:
        for option, value in (("startup", startup), ("candidates", candidates)):
            if value < 1:
                raise InvalidArgumentError(f"{option} of TPE is at least 1; got {value!r}")
        self.startup = startup
        self.candidates = candidates

    def options(self) -> dict[str, Any]:
        """Its options."""
        return {"startup": self.startup, "candidates": self.candidates}

    def begin(self, space: Space, *, objectives: int, seed: int, trials: int | None) -> None:
        """Start a study; any space and any number of objectives will do."""
        self._space = space
        self._seed = seed
        self._features = Features(space)
        self._startup = sobol_rows(space, seed)
        self._prior = np.full((1, len(space)), np.nan)
        self._prior[0, self._features.numeric] = 0.5
        self._finite = space.cardinality is not None
        self._told = 0
        self._behind = False
        self._forget()

    def tell(self, completed: CompletedTrials) -> None:
        """Learn from ended trials."""
        if not self._behind:
            self._learn(completed)
        self._told += len(completed)

    def ask(self, n: int, completed: CompletedTrials, active: ActiveTrials) -> FloatArray:
        """Suggest ``n`` rows that keep away from each other and from the active ones."""
        if self._behind or self._told != len(completed):
            self._forget()
            self._learn(completed)
            self._told = len(completed)
        first = len(completed) + len(active)
        if self._history.finite < self.startup:
            return self._startup.rows(first, n)
        pending = active.rows
        # In parts, which bound the memory; what one part chose is pending in the next.
        for done in range(0, n, _PART):
            rows = self._suggest(min(_PART, n - done), first + done, pending)
            pending = np.concatenate([pending, rows])
        return pending[len(active) :]

    def dump(self) -> dict[str, Any]:
        """How much was told; the rest follows from the completed trials."""
        return {"told": self._told}

    def load(self, state: dict[str, Any]) -> None:
        """Continue; what was learned is learned again at the next `ask`."""
        self._forget()
        self._told = int(state["told"])
        self._behind = self._told > 0

    def __repr__(self) -> str:
        return f"TPE(startup={self.startup}, candidates={self.candidates})"

    # --- learning --------------------------------------------------------------------------

    def _forget(self) -> None:
        self._told = 0
        self._behind = False
        self._history = History(len(self._space), self._seed)
        self._tried: set[bytes] = set()
        self._width = math.nan
        self._mixture: tuple[list[int], float, Mixture] | None = None
        # Of the prior, then of each slot of the history.
        prior = self._features.kernels(self._prior, np.ones(1), 1.0)
        self._kernels = np.repeat(prior, 1 + len(self._history.units), axis=0)

    def _learn(self, completed: CompletedTrials) -> None:
        if not len(completed):
            return
        history, rows = self._history, completed.rows
        changed = history.add(self._space.to_unit(rows), completed)
        if self._finite:
            self._tried.update(map(_key, rows))
        width = max(_OTHERS, 2.0 / (history.count + 2.0))
        if width != self._width:
            self._width = width
            changed = list(range(history.filled))
        fresh = self._features.kernels(history.units[changed], *self._others())
        self._kernels[[1 + slot for slot in changed]] = fresh

    def _others(self) -> tuple[FloatArray, float]:
        return np.maximum(self._width, self._features.finest), self._width / 2.0

    # --- suggesting ------------------------------------------------------------------------

    def _suggest(self, n: int, first: int, active: FloatArray) -> FloatArray:
        space, features = self._space, self._features
        positions, _, good = self._good()
        draws = [
            self._stream(first + i).random((self.candidates, len(space) + 1)) for i in range(n)
        ]
        rows = space.from_unit(good.sample(np.concatenate(draws)))
        units = space.to_unit(rows)
        phi = features.of(units)
        log_l = good.log_density(phi)
        log_l[~space.feasible(rows)] = -np.inf
        log_g = self._log_others(phi, positions, active)
        liars = features.kernels(units, *self._others()) if n > 1 else phi
        tried = self._tried.union(map(_key, active)) if self._finite else set()
        chosen = np.empty((n, len(space)))
        for i in range(n):
            part = slice(i * self.candidates, (i + 1) * self.candidates)
            gain = log_l[part] - log_g[part]
            if self._finite:
                gain[[_key(row) in tried for row in rows[part]]] -= _REPEAT
            best = part.start + int(np.argmax(gain))
            chosen[i] = rows[best]
            if gain.max() < -_REPEAT / 2:  # no candidate is new, or none meets the constraints
                chosen[i] = self._anything(first + i, tried)
            tried.add(_key(chosen[i]))
            # What was chosen repels the next; terms that are lost in rounding are not added.
            left = slice(part.stop, None)
            term = phi[left] @ liars[best]
            near = term > log_g[left] - _LOST
            log_g[left][near] = np.logaddexp(log_g[left][near], term[near])
        return chosen

    def _good(self) -> tuple[list[int], float, Mixture]:
        """The positions of the good trials, their least bandwidth, and the mixture l."""
        # The last kernel is the prior.
        elites = self._history.elites
        k = min(math.ceil(0.1 * self._history.count), ELITES, len(elites.positions))
        positions = elites.positions[:k]
        # In steps, so that the mixture changes only where the good trials do.
        least = _GOOD / (k + 2) * 2.0 ** (-0.5 * (self._history.count // _SETTLED).bit_length())
        if self._mixture is not None and self._mixture[:2] == (positions, least):
            return self._mixture
        units = elites.units(k)
        numeric = self._features.numeric
        s = neighbour_bandwidths(units[:, numeric], np.maximum(self._features.finest, least))
        mixture = Mixture(
            self._features,
            np.vstack([units, self._prior]),
            np.vstack([np.where(np.isnan(s), 1.0, s), np.ones((1, len(numeric)))]),
            blur=1.0 / (k + 1),
            weights=np.append(_rank_weights(k), 1.0),
        )
        self._mixture = positions, least, mixture
        return self._mixture

    def _log_others(self, phi: FloatArray, good: Sequence[int], active: FloatArray) -> FloatArray:
        """Up to a constant, the logarithm of g."""
        history, features = self._history, self._features
        terms = phi @ self._kernels[: 1 + history.filled].T
        terms[:, [1 + slot for slot in history.slots(good)]] = -np.inf
        log_g = log_sum_exp(terms)
        if len(active):
            pending = features.kernels(self._space.to_unit(active), *self._others())
            log_g = np.logaddexp(log_g, log_sum_exp(phi @ pending.T))
        return log_g

    def _anything(self, number: int, tried: set[bytes]) -> FloatArray:
        """A random row, a new one where 64 draws find one."""
        rows = self._space.sample_rows(generator(self._seed, "tpe-random", number), _DRAWS)
        return next((row for row in rows if _key(row) not in tried), rows[0])

    def _stream(self, number: int) -> np.random.Generator:
        return generator(self._seed, "tpe", number)


def _key(row: FloatArray) -> bytes:
    return row.tobytes()


def _rank_weights(k: int) -> FloatArray:
    """Weights of the k best, falling with the logarithm of the rank; they add up to k."""
    weights = np.log(k + 1.0) - np.log(np.arange(1.0, k + 1.0)) + 0.1
    normalised: FloatArray = weights * (k / weights.sum())
    return normalised
