"""Every strategy of dspex keeps the laws of its protocol."""

from __future__ import annotations

import optuna

from dspex.strategies import CMAES, TPE, Grid, Optuna, Random, Sobol, Strategy
from dspex.testing.strategies import SPACES, SeededStrategySuite, StrategySuite


class TestRandom(SeededStrategySuite):
    def make(self) -> Strategy:
        return Random()


class TestSobol(SeededStrategySuite):
    def make(self) -> Strategy:
        return Sobol()


class TestGrid(SeededStrategySuite):
    # Not the numbers: their grid has a million rows.
    spaces = tuple(name for name in SPACES if name != "numbers")

    def make(self) -> Strategy:
        return Grid(resolution=4)

    def test_as_many_rows_as_asked_unless_the_space_is_exhausted(self) -> None:
        # A grid over continuous variables ends before the space does.
        self.spaces = tuple(name for name in SPACES if SPACES[name]().cardinality is not None)
        super().test_as_many_rows_as_asked_unless_the_space_is_exhausted()


class TestTPE(SeededStrategySuite):
    def make(self) -> Strategy:
        return TPE()


class TestCMAES(SeededStrategySuite):
    spaces = ("one number", "numbers", "ordered", "constrained")
    objectives = (1,)

    def make(self) -> Strategy:
        return CMAES()


class TestOptunaTPE(StrategySuite):
    trials = 20
    batches = (1, 7)
    spaces = ("mixed", "conditional", "constrained")

    def make(self) -> Strategy:
        return Optuna(optuna.samplers.TPESampler(seed=1))


class TestOptunaRandom(StrategySuite):
    def make(self) -> Strategy:
        return Optuna(optuna.samplers.RandomSampler(seed=1))
