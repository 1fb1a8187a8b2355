"""What every strategy is: a seeded ask/tell algorithm over rows of a space.

Knows: the protocol. Must not know: trials' states, clusters, programs, scores' signs (it sees
losses: every objective is minimised).

Laws, held by the conformance suite in `dspex.testing`:

1. ``ask`` changes nothing that is learned; ``tell`` is the only teacher. Asking twice gives the
   same rows.
2. The number of the first suggested trial is ``len(completed) + len(active)``; all randomness is
   ``study.seeds.generator(seed, purpose, number)``, so there is no generator state.
3. Rows lie in the space, meet its constraints, and have NaN exactly where a variable is inactive.
4. ``load(dump())`` into a new object of the same options gives the same suggestions.
5. Fewer rows than asked for mean that the space is exhausted.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from dspex.space import Space
from dspex.study.table import ActiveTrials, CompletedTrials

__all__ = ["Strategy"]


@runtime_checkable
class Strategy(Protocol):
    """One algorithm that says what to try next."""

    @property
    def name(self) -> str:
        """The word by which ``optimize(strategy=...)`` and ``Trial.proposed_by`` know it."""

    @property
    def seedable(self) -> bool:
        """Whether it keeps the laws above; what does not cannot be reproducible (G2)."""

    def options(self) -> dict[str, Any]:
        """Its options as JSON, for the head of a log."""

    def begin(self, space: Space, *, objectives: int, seed: int, trials: int | None) -> None:
        """Start a study: called once, before anything else.

        Parameters
        ----------
        space : Space
        objectives : int
            How many losses a trial has, at least 1.
        seed : int
            The study's root seed.
        trials : int or None
            The study's budget; None where it is not known.

        Raises
        ------
        InvalidArgumentError
            Where this strategy cannot serve this space or that many objectives.
        """

    def ask(self, n: int, completed: CompletedTrials, active: ActiveTrials) -> NDArray[np.float64]:
        """Suggest up to ``n`` rows, shape (<= n, d).

        ``completed`` are all trials told so far, in order; ``active`` those suggested and not told.
        """

    def tell(self, completed: CompletedTrials) -> None:
        """Learn from trials that ended since the last ``tell``, in order."""

    def dump(self) -> dict[str, Any]:
        """What was learned, as JSON."""

    def load(self, state: dict[str, Any]) -> None:
        """Continue from what `dump` gave; called after `begin`."""
