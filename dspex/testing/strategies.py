"""The conformance suite of the Strategy protocol: the laws of `dspex.strategies.base`, as tests.

Knows: the protocol, and how a study treats a strategy. Must not know: any strategy.
Subclass `StrategySuite`, or `SeededStrategySuite` for one that says it is seedable, say how to
make it, and pytest collects the rest; nothing here needs pytest itself.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import final

import cloudpickle
import numpy as np
from numpy.typing import ArrayLike, NDArray

from dspex.space import Bool, Choice, Component, Float, Int, Space
from dspex.strategies.base import Strategy
from dspex.study.table import ActiveTrials, CompletedTrials

__all__ = ["SPACES", "SeededStrategySuite", "Session", "StrategySuite"]

FloatArray = NDArray[np.float64]
NAN = float("nan")

SPACES: Mapping[str, Callable[[], Space]] = {
    "one number": lambda: Space({"x": Float(-1, 2)}),
    "numbers": lambda: Space(
        {
            "x": Float(-5, 10),
            "rate": Float(1e-5, 1, log=True),
            "share": Float(0, 1, step=0.25),
            "depth": Int(1, 12),
            "width": Int(1, 1000, log=True),
        }
    ),
    "ordered": lambda: Space({"size": Choice(["s", "m", "l"], ordered=True), "x": Float(0, 1)}),
    "mixed": lambda: Space(
        {"kind": ["a", "b", "c", "d"], "flag": Bool(), "x": Float(0, 1), "n": Int(1, 9)}
    ),
    "conditional": lambda: Space(
        {
            "model": Component(
                {
                    "svc": ("svc", {"C": Float(1e-3, 1e3, log=True), "kernel": ["rbf", "linear"]}),
                    "knn": ("knn", {"k": Int(1, 30)}),
                    "bayes": "bayes",
                }
            ),
            "depth": Choice([None, Int(3, 20)]),
            "layers": Int(1, 3),
            "dropout": Float(0, 0.5).when("layers", satisfies=lambda layers: layers > 1),
        }
    ),
    "constrained": lambda: Space(
        {"x": Float(0, 1), "y": Float(0, 1)}, constraints=[lambda p: p["x"] + p["y"] <= 1]
    ),
    "finite": lambda: Space({"kernel": ["rbf", "linear", "poly"], "flag": Bool()}),
    "finite conditional": lambda: Space(
        {"kernel": ["rbf", "poly"], "degree": Int(2, 4).when("kernel", equals="poly")}
    ),
}
"""{name: a space to try strategies on}"""


@final
class Session:
    """A study in miniature: a strategy, a space, and the trials so far.

    Parameters
    ----------
    strategy : Strategy
        Not begun.
    space : Space
    seed, objectives, trials : int
        As `Strategy.begin` takes them.

    Examples
    --------
    >>> from dspex.strategies import Random
    >>> session = Session(Random(), Space({"x": Float(0, 1)}), seed=1)
    >>> numbers = session.ask(3)
    >>> session.tell(numbers[:2], [0.5, float("nan")])
    >>> len(session.completed), len(session.active)
    (2, 1)
    """

    def __init__(
        self,
        strategy: Strategy,
        space: Space,
        *,
        seed: int = 0,
        objectives: int = 1,
        trials: int | None = None,
    ) -> None:
        self.strategy = strategy
        self.space = space
        self.rows = np.empty((0, len(space)))
        self.losses = np.empty((0, objectives))
        self.violations = np.empty(0)
        self._told: list[int] = []
        strategy.begin(space, objectives=objectives, seed=seed, trials=trials)

    @property
    def completed(self) -> CompletedTrials:
        """What was told, in order."""
        order = np.array(self._told, dtype=np.int64)
        return CompletedTrials(order, self.rows, self.losses, self.violations)

    @property
    def active(self) -> ActiveTrials:
        """What was suggested and not told."""
        told = set(self._told)
        left = [number for number in range(len(self.rows)) if number not in told]
        return ActiveTrials(np.array(left, dtype=np.int64), self.rows)

    def peek(self, n: int) -> FloatArray:
        """What the strategy suggests now, as a copy; no trial comes of it."""
        return self.strategy.ask(n, self.completed, self.active).copy()

    def ask(self, n: int) -> list[int]:
        """New trials of the strategy's; their numbers."""
        return self.add(self.peek(n))

    def add(self, rows: FloatArray) -> list[int]:
        """New trials with these rows; their numbers."""
        first = len(self.rows)
        self.rows = np.concatenate([self.rows, rows])
        self.losses = np.concatenate([self.losses, np.full((len(rows), self.losses.shape[1]), NAN)])
        self.violations = np.concatenate([self.violations, np.zeros(len(rows))])
        return list(range(first, len(self.rows)))

    def tell(
        self,
        numbers: Iterable[int],
        losses: ArrayLike,
        violations: ArrayLike = 0.0,
    ) -> None:
        """End trials, and tell the strategy."""
        ended, start = list(map(int, numbers)), len(self._told)
        self.losses[ended] = np.asarray(losses, dtype=np.float64).reshape(
            len(ended), self.losses.shape[1]
        )
        self.violations[ended] = violations
        self._told += ended
        self.strategy.tell(self.completed.since(start))

    def play(self, trials: int, *, batch: int = 1, pending: int = 0) -> None:
        """Suggest, evaluate and tell; failures, violations and late trials among them."""
        while len(self.rows) < trials:
            if not self.ask(min(batch, trials - len(self.rows))):
                break
            ready = self.active.numbers[: max(0, len(self.active) - pending)].tolist()
            # Not in order: a later trial may end first.
            for number in [*ready[1::2], *ready[::2]]:
                self.tell([number], self.judge(number), 0.5 if number % 5 == 4 else 0.0)

    def judge(self, number: int) -> FloatArray:
        """A smooth loss per objective; NaN for every seventh trial, which fails."""
        units = np.nan_to_num(self.space.to_unit(self.rows[[number]])[0], nan=0.5)
        targets = 0.3 + 0.4 * np.arange(self.losses.shape[1])
        losses: FloatArray = ((units[None, :] - targets[:, None]) ** 2).sum(axis=1)
        return losses if number % 7 != 6 else np.full_like(losses, NAN)


class StrategySuite:
    """What holds for every strategy. Subclass it and override `make`.

    A subclass is a test class: its methods are tests.

    Examples
    --------
    >>> class TestMine(StrategySuite):
    ...     spaces = ("numbers", "finite")
    ...
    ...     def make(self):
    ...         return MyStrategy()
    """

    spaces: tuple[str, ...] = tuple(SPACES)
    """The names in `SPACES` of the spaces that the strategy serves."""

    objectives: tuple[int, ...] = (1, 2)
    """The numbers of objectives that it serves."""

    trials: int = 60
    """How long the studies are."""

    batches: tuple[int, ...] = (1, 7, 64)
    """The sizes of asks."""

    def make(self) -> Strategy:
        """Make a new strategy, always with the same options."""
        raise NotImplementedError

    def sessions(self, seed: int = 0) -> Iterable[Session]:
        """A new session on each space and number of objectives."""
        for name in self.spaces:
            for objectives in self.objectives:
                yield Session(self.make(), SPACES[name](), seed=seed, objectives=objectives)

    def test_it_keeps_the_protocol(self) -> None:
        """It has the methods; its name and options go into a log."""
        strategy = self.make()
        assert isinstance(strategy, Strategy)
        assert strategy.name
        assert strategy.name == self.make().name
        assert json.loads(json.dumps(strategy.options())) == strategy.options()

    def test_rows_lie_in_the_space(self) -> None:
        """Valid, within the constraints, NaN exactly where inactive; for any size of ask."""
        for session in self.sessions():
            for batch in self.batches:
                session.play(len(session.rows) + self.trials // 3 + batch, batch=batch, pending=3)
            _assert_valid(session.space, session.rows)

    def test_as_many_rows_as_asked_unless_the_space_is_exhausted(self) -> None:
        """Fewer mean that every row of a finite space was suggested."""
        for session in self.sessions():
            for n in self.batches:
                got = len(session.ask(n))
                assert got <= n
                if got < n:
                    different = {row.tobytes() for row in session.rows}
                    every = {row.tobytes() for row in session.space.enumerate_rows()}
                    assert every <= different
                session.tell(
                    session.active.numbers, np.zeros_like(session.losses[session.active.numbers])
                )

    def test_it_goes_on_where_all_trials_fail(self) -> None:
        """Trials without losses are told too."""
        for session in self.sessions():
            for _ in range(self.trials // 4):
                for number in session.ask(1):
                    session.tell([number], session.losses[[number]])
            _assert_valid(session.space, session.rows)

    def test_it_goes_on_where_all_losses_are_equal(self) -> None:
        """There is nothing to learn then, and nothing to divide by."""
        for session in self.sessions():
            for _ in range(self.trials // 2):
                for number in session.ask(1):
                    session.tell([number], np.zeros_like(session.losses[[number]]))
            _assert_valid(session.space, session.rows)

    def test_it_takes_extreme_losses(self) -> None:
        """Any finite number is a loss."""
        for session in self.sessions():
            for loss in (0.0, 1e300, -1e300, 5e-324, *np.arange(self.trials // 4)):
                for number in session.ask(1):
                    session.tell([number], np.full_like(session.losses[[number]], loss))
            _assert_valid(session.space, session.rows)

    def test_it_takes_trials_that_it_did_not_suggest(self) -> None:
        """Initial trials of the user's come first, and are told as all others."""
        for session in self.sessions():
            rows = session.space.sample_rows(np.random.default_rng(3), 4)
            for number in session.add(rows):
                session.tell([number], session.judge(number))
            session.play(self.trials // 2)
            _assert_valid(session.space, session.rows)


class SeededStrategySuite(StrategySuite):
    """What holds beyond `StrategySuite` for a strategy that says it is seedable."""

    def test_it_says_that_it_is_seedable(self) -> None:
        """Else a study with a seed refuses it."""
        assert self.make().seedable

    def test_asking_changes_nothing(self) -> None:
        """Law 1: asked twice, it answers twice the same, whatever was asked in between."""
        for session in self._midways():
            first = session.peek(5)
            session.peek(3)
            assert np.array_equal(first, session.peek(5), equal_nan=True)

    def test_the_same_seed_gives_the_same_study(self) -> None:
        """And a strategy begun again starts afresh."""
        for one, two in zip(self._midways(), self._midways(), strict=True):
            assert np.array_equal(one.rows, two.rows, equal_nan=True)
            begun_again = Session(two.strategy, two.space, seed=0, objectives=two.losses.shape[1])
            begun_again.play(self.trials, batch=3, pending=4)
            assert np.array_equal(one.rows, begun_again.rows, equal_nan=True)

    def test_another_seed_gives_another_study(self) -> None:
        """Where there are enough rows for two orders to differ."""
        for one, two in zip(self._midways(seed=0), self._midways(seed=1), strict=True):
            if len(one.rows) >= 20:
                assert not np.array_equal(one.rows, two.rows, equal_nan=True)

    def test_another_process_gives_the_same_rows(self) -> None:
        """Nothing depends on the hashes of words or on what ran before."""
        rows = [session.rows for session in self._midways()]
        script = (
            "import sys, cloudpickle; suite = cloudpickle.load(sys.stdin.buffer); "
            "rows = [session.rows for session in suite._midways()]; "
            "sys.stdout.buffer.write(cloudpickle.dumps(rows))"
        )
        # By value: another process may not find the file of the subclass.
        module = sys.modules[type(self).__module__]
        by_value = type(self).__module__ != __name__
        if by_value:
            cloudpickle.register_pickle_by_value(module)
        try:
            suite = cloudpickle.dumps(self)
        finally:
            if by_value:
                cloudpickle.unregister_pickle_by_value(module)
        environment = {
            **os.environ,
            "PYTHONHASHSEED": "7",
            "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
        }
        answer = subprocess.run(
            [sys.executable, "-c", script],
            input=suite,
            capture_output=True,
            env=environment,
            check=False,
        )
        assert answer.returncode == 0, answer.stderr.decode()
        for here, there in zip(rows, cloudpickle.loads(answer.stdout), strict=True):
            assert np.array_equal(here, there, equal_nan=True)

    def test_what_was_dumped_goes_on_as_if_unbroken(self) -> None:
        """Law 4, at once and after further trials; a dump is JSON."""
        for session in self._midways():
            restored = self.make()
            restored.begin(session.space, objectives=session.losses.shape[1], seed=0, trials=None)
            restored.load(json.loads(json.dumps(session.strategy.dump())))
            for _ in range(3):
                expected = session.peek(4)
                again = restored.ask(4, session.completed, session.active)
                assert np.array_equal(expected, again, equal_nan=True)
                start = len(session.completed)
                for number in session.add(expected):
                    session.tell([number], session.judge(number))
                restored.tell(session.completed.since(start))

    def test_how_trials_are_told_does_not_matter(self) -> None:
        """One by one or at once, as a study that is resumed tells them."""
        for session in self._midways():
            resumed = self.make()
            resumed.begin(session.space, objectives=session.losses.shape[1], seed=0, trials=None)
            resumed.tell(session.completed)
            expected = session.peek(4)
            again = resumed.ask(4, session.completed, session.active)
            assert np.array_equal(expected, again, equal_nan=True)

    def _midways(self, seed: int = 0) -> Iterable[Session]:
        for session in self.sessions(seed):
            session.play(self.trials, batch=3, pending=4)
            yield session


def _assert_valid(space: Space, rows: FloatArray) -> None:
    assert rows.shape[1] == len(space)
    assert np.array_equal(
        space.activate(space.rows(list(map(space.params, rows)))), rows, equal_nan=True
    )
    assert space.feasible(rows).all()
    for row in rows:
        space.validate(space.params(row))
