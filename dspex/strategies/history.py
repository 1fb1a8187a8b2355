"""What a model of good and bad keeps of the trials told: the best few, and a bounded rest.

Knows: an order of trials (feasible before infeasible, then by loss or by front), and which to
keep. Must not know: densities.
The kept trials follow from the sequence of trials alone, not from how it was cut into tells;
memory and the cost of one more trial do not grow with their number.

Source for the reservoir: Vitter 1985, "Random sampling with a reservoir", algorithm R, with the
random numbers derived from the seed and the position.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence
from typing import final

import numpy as np
from numpy.typing import NDArray

from dspex.study.seeds import derive_seed
from dspex.study.table import CompletedTrials

__all__ = ["ELITES", "Elites", "History", "fronts"]

FloatArray = NDArray[np.float64]

ELITES = 25
RECENT = 256
RESERVOIR = 256


@final
class Elites:
    """The best trials so far, best first.

    One objective: by violation, then loss. Several: by violation, then front of Pareto, then
    the least crowded first. Among equals the earlier is better.

    Attributes
    ----------
    positions : list of int
        Where in the sequence of told trials they stand.
    """

    def __init__(self) -> None:
        self.positions: list[int] = []
        self._keys: list[tuple[float, float, int]] = []
        # {position: (violation, losses, units)}
        self._kept: dict[int, tuple[float, FloatArray, FloatArray]] = {}

    def units(self, count: int) -> FloatArray:
        """The best ``count`` in units, shape (count, d)."""
        return np.array([self._kept[each][2] for each in self.positions[:count]])

    def add(self, position: int, violation: float, losses: FloatArray, unit: FloatArray) -> None:
        """Take one more trial that has losses into account."""
        self._kept[position] = violation, losses, unit
        if len(losses) == 1:
            insort(self._keys, (violation, float(losses[0]), position))
            for _, _, dropped in self._keys[ELITES:]:
                del self._kept[dropped]
            del self._keys[ELITES:]
            self.positions = [key[2] for key in self._keys]
            return
        # Twice as many are kept: a crowded one may come back when its neighbours are dominated.
        known: NDArray[np.int64] = np.array(list(self._kept), dtype=np.int64)
        violations = np.array([self._kept[each][0] for each in known])
        front, crowding = fronts(np.array([self._kept[each][1] for each in known]))
        ranked = known[np.lexsort((known, -crowding, front, violations))].tolist()
        for dropped in ranked[2 * ELITES :]:
            del self._kept[dropped]
        self.positions = ranked[:ELITES]


def fronts(losses: FloatArray) -> tuple[NDArray[np.intp], FloatArray]:
    """The Pareto front (from 0) and the crowding distance in it of each row, (m, o) -> (m,), (m,).

    Source: Deb et al. 2002, "A fast and elitist multiobjective genetic algorithm: NSGA-II".

    Examples
    --------
    >>> fronts(np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]))[0].tolist()
    [0, 0, 1]
    """
    m = len(losses)
    below: NDArray[np.bool_] = np.all(losses[:, None] <= losses[None], axis=2)
    dominates = below & ~below.T
    front = np.zeros(m, dtype=np.intp)
    left = np.ones(m, dtype=bool)
    rank = 0
    while left.any():
        now = left & ~dominates[left].any(axis=0)
        front[now] = rank
        left &= ~now
        rank += 1
    crowding = np.zeros(m)
    for each in range(rank):
        members = np.flatnonzero(front == each)
        for column in losses[members].T:
            order = np.argsort(column, kind="stable")
            width = column[order[-1]] - column[order[0]] or 1.0
            ordered = members[order]
            crowding[ordered[[0, -1]]] = np.inf
            crowding[ordered[1:-1]] += (column[order[2:]] - column[order[:-2]]) / width
    return front, crowding


@final
class History:
    """The trials that a model looks at.

    Parameters
    ----------
    columns : int
        Columns of a row.
    seed : int
        The study's.

    Attributes
    ----------
    count, finite : int
        How many trials were told, and how many of them have losses.
    elites : Elites
    units : array, shape (RECENT + RESERVOIR, columns)
        The most recent trials in a ring, then a random sample of the older ones.
    """

    def __init__(self, columns: int, seed: int) -> None:
        self.count = 0
        self.finite = 0
        self.elites = Elites()
        self.units = np.full((RECENT + RESERVOIR, columns), np.nan)
        self._seed = seed
        self._position = [-1] * (RECENT + RESERVOIR)  # of the trial in each slot
        self._slot: dict[int, int] = {}  # {position: slot}

    @property
    def filled(self) -> int:
        """How many slots hold a trial; they come first."""
        return min(self.count, RECENT + RESERVOIR)

    def slots(self, positions: Sequence[int]) -> list[int]:
        """The slots of those trials that have one."""
        return [self._slot[each] for each in positions if each in self._slot]

    def add(self, units: FloatArray, completed: CompletedTrials) -> list[int]:
        """Take ended trials into account; returns the slots that changed."""
        changed: set[int] = set()
        losses, violations = completed.losses, completed.violations
        for i, finite in enumerate(completed.finite):
            changed.update(self._keep(units[i]))
            if finite:
                self.elites.add(self.count, float(violations[i]), losses[i], units[i])
                self.finite += 1
            self.count += 1
        return sorted(changed)

    def _keep(self, unit: FloatArray) -> list[int]:
        slot, aged = self.count % RECENT, self.count - RECENT
        changed = [slot]
        if aged >= 0:
            place = aged
            if aged >= RESERVOIR:
                place = derive_seed(self._seed, "reservoir", aged) % (aged + 1)
            if place < RESERVOIR:
                self._put(RECENT + place, aged, self.units[slot])
                changed.append(RECENT + place)
        self._put(slot, self.count, unit)
        return changed

    def _put(self, slot: int, position: int, unit: FloatArray) -> None:
        old = self._position[slot]
        if self._slot.get(old) == slot:
            del self._slot[old]
        self.units[slot] = unit
        self._position[slot] = position
        self._slot[position] = slot
