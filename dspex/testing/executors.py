"""The conformance suite of the Executor port: what every executor must do.

Knows: the contract of `dspex.engine.ports.Executor`, and ways to test it from outside.
Must not know: any executor. Subclass `ExecutorSuite` (or `IsolatingExecutorSuite`), say how to
make an executor, and pytest collects the rest; nothing here needs pytest itself.
"""

from __future__ import annotations

import contextlib
import pathlib
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

from dspex.engine.ports import CapacityChanged, Evaluation, Executor, Job, Lost, Notice, Outcome
from dspex.study.records import Failed, Measured
from dspex.study.trial import TrialState
from dspex.testing.probe import Probe, probe_space, wait_for

__all__ = ["ExecutorSuite", "IsolatingExecutorSuite", "collect", "evaluations"]


def evaluations(
    do: str, count: int = 1, *, first: int = 0, x: float = 1.0, seconds_left: float | None = None
) -> list[Evaluation]:
    """Make evaluations of the probe, one trial each."""
    return [
        Evaluation(number, 0, 0, {"do": do, "x": x}, seconds_left)
        for number in range(first, first + count)
    ]


def collect(executor: Executor, count: int, *, seconds: float = 60.0) -> list[Outcome]:
    """Poll until ``count`` outcomes are there, and show that no further one follows."""
    outcomes: list[Outcome] = []

    def take(timeout: float) -> None:
        arrived = executor.poll(timeout)
        outcomes.extend(o for o in arrived if not isinstance(o, CapacityChanged | Notice))

    deadline = time.monotonic() + seconds
    while len(outcomes) < count:
        assert time.monotonic() < deadline, f"{len(outcomes)} of {count} outcomes in {seconds} s"
        take(0.2)
    take(0.0)
    assert len(outcomes) == count, f"{len(outcomes)} outcomes of {count} evaluations"
    return outcomes


def _start(outcome: Outcome) -> float:
    assert not isinstance(outcome, Lost)
    return outcome.started


class ExecutorSuite:
    """Subclass it and override `executor`.

    Attributes
    ----------
    memory_limit : int or None
        What every job of the suite gets.

    Examples
    --------
    >>> from dspex.execution.inprocess import InProcessExecutor
    >>> class TestMine(ExecutorSuite):
    ...     def executor(self):
    ...         return contextlib.closing(InProcessExecutor())
    >>> TestMine().test_each_evaluation_has_exactly_one_outcome()
    """

    memory_limit: int | None = None
    _slots: int = 0

    def executor(self) -> contextlib.AbstractContextManager[Executor]:
        """Make an executor that is not open yet; leaving the context ends it."""
        raise NotImplementedError

    @contextlib.contextmanager
    def opened(self, **changes: Any) -> Iterator[tuple[Executor, pathlib.Path]]:
        """Open an executor of a probe whose gate files lie in a new directory."""
        with tempfile.TemporaryDirectory() as directory:
            fields: dict[str, Any] = {
                "program": Probe(),
                "space": probe_space(),
                "data": directory,
                "seed": 7,
                "memory_limit": self.memory_limit,
            }
            with self.executor() as executor:
                capacity = executor.open(Job(**{**fields, **changes}))
                assert capacity.workers >= 0, capacity
                assert capacity.slots >= 0, capacity
                self._slots = capacity.slots
                yield executor, pathlib.Path(directory)

    # --- outcomes --------------------------------------------------------------------------

    def test_each_evaluation_has_exactly_one_outcome(self) -> None:
        """However many are submitted, in however many batches."""
        with self.opened() as (executor, _):
            wanted = Counter[tuple[int, int, int]]()
            batch = [
                Evaluation(trial, fold, trial % 3, {"do": "measure", "x": float(trial)})
                for trial in range(100)
                for fold in range(2)
            ]
            for begin in range(0, len(batch), 37):
                executor.submit(batch[begin : begin + 37])
            wanted.update((e.trial, e.fold, e.attempt) for e in batch)
            outcomes = collect(executor, len(batch))
            assert Counter((o.trial, o.fold, o.attempt) for o in outcomes) == wanted
            for outcome in outcomes:
                assert isinstance(outcome, Measured), outcome
                assert outcome.steps[-1].score == outcome.trial
                assert outcome.worker
                assert outcome.seconds >= 0

    def test_submitting_nothing_is_nothing(self) -> None:
        """An empty batch has no outcome."""
        with self.opened() as (executor, _):
            executor.submit([])
            assert collect(executor, 0) == []

    def test_work_goes_on_after_outcomes_were_taken(self) -> None:
        """An executor serves many rounds."""
        with self.opened() as (executor, _):
            for round_ in range(3):
                executor.submit(evaluations("measure", 5, first=5 * round_))
                trials = sorted(outcome.trial for outcome in collect(executor, 5))
                assert trials == list(range(5 * round_, 5 * round_ + 5))

    def test_a_failure_is_data(self) -> None:
        """What a program raises, or measures wrongly, fails its own evaluation alone."""
        with self.opened(retry_on=(LookupError, ValueError)) as (executor, _):
            asked = ["raise", "nan", "none", "infinity", "leave", "measure"]
            executor.submit(
                [Evaluation(n, 0, 0, {"do": do, "x": 1.0}) for n, do in enumerate(asked)]
            )
            by_trial = {outcome.trial: outcome for outcome in collect(executor, len(asked))}
            *failed, measured = (by_trial[number] for number in range(len(asked)))
            assert isinstance(measured, Measured), measured
            for outcome in failed:
                assert isinstance(outcome, Failed), outcome
                assert outcome.state is TrialState.FAILED
                assert outcome.error.message
            raised = failed[0]
            assert isinstance(raised, Failed)
            assert raised.error.kind == "ValueError"
            assert raised.may_retry
            assert "on purpose" in raised.error.traceback

    def test_all_measurements_come_in_order(self) -> None:
        """Reported ones first, then those that a generator yields."""
        with self.opened() as (executor, _):
            executor.submit(evaluations("steps", x=1.0))
            (outcome,) = collect(executor, 1)
            assert isinstance(outcome, Measured), outcome
            assert [step.score for step in outcome.steps] == [11.0, 1.0, 2.0]

    def test_randomness_depends_on_seed_trial_and_fold_alone(self) -> None:
        """Not on the attempt, nor on what ran before (G2)."""
        numbers: list[dict[tuple[int, int], Any]] = []
        for order in (1, -1):
            batch = [
                Evaluation(trial, fold, order + 1, {"do": "globals", "x": 0.0})
                for trial in range(3)
                for fold in range(2)
            ][::order]
            with self.opened() as (executor, _):
                for each in batch:
                    executor.submit([each])
                outcomes = collect(executor, len(batch))
            drawn: dict[tuple[int, int], Any] = {}
            for outcome in outcomes:
                assert isinstance(outcome, Measured), outcome
                drawn[outcome.trial, outcome.fold] = dict(outcome.steps[-1].scores)
            numbers.append(drawn)
        assert numbers[0] == numbers[1]
        assert len({scores["numpy"] for scores in numbers[0].values()}) == 6

    # --- order and cancelling --------------------------------------------------------------

    def test_work_starts_in_order_of_trial_and_fold(self) -> None:
        """Whatever the order of submission; exactly so where there is one slot."""
        with self.opened() as (executor, _):
            batch = [
                Evaluation(trial, fold, 0, {"do": "measure", "x": 1.0})
                for trial in range(8)
                for fold in range(3)
            ]
            executor.submit(batch[1::2] + batch[::2])
            outcomes = collect(executor, len(batch))
            assert all(isinstance(outcome, Measured) for outcome in outcomes)
            order = [(each.trial, each.fold) for each in sorted(outcomes, key=_start)]
            wanted = [(each.trial, each.fold) for each in batch]
            if self._slots == 1:
                assert order == wanted
            else:  # chunks overlap
                assert order.index(wanted[0]) < order.index(wanted[-1])

    def test_a_cancelled_trial_is_forgotten(self) -> None:
        """Queued evaluations of it do not run; at most one outcome each may come back."""
        with self.opened() as (executor, _):
            executor.submit(evaluations("measure", 50))
            executor.cancel(range(10, 50))
            executor.submit(evaluations("measure", 5, first=100))
            seen = Counter[int]()
            deadline = time.monotonic() + 60
            while not {*range(10), *range(100, 105)} <= set(seen):
                assert time.monotonic() < deadline, seen
                for each in executor.poll(0.2):
                    if not isinstance(each, CapacityChanged | Notice):
                        seen[each.trial] += 1
            assert max(seen.values()) == 1, seen

    def test_cancelling_what_is_unknown_is_nothing(self) -> None:
        """A trial that ended, or was never submitted."""
        with self.opened() as (executor, _):
            executor.cancel([])
            executor.cancel([3, 4])
            executor.submit(evaluations("measure", 1, first=3))
            collect(executor, 1)
            executor.cancel([3])
            assert collect(executor, 0) == []

    # --- its end ---------------------------------------------------------------------------

    def test_close_twice(self) -> None:
        """Also with work queued, and before anything was opened."""
        with self.executor() as executor:
            executor.close()
            executor.close()
        with self.opened() as (executor, _):
            executor.submit(evaluations("measure", 1000))
            executor.close()
            executor.close()


class IsolatingExecutorSuite(ExecutorSuite):
    """The suite of executors whose evaluations run in processes of their own, and may die there."""

    def test_a_running_trial_can_be_cancelled(self) -> None:
        """A program that looks is told to stop; one that does not is ended; the slot serves on."""
        for do in ("gate", "loop"):
            with self.opened() as (executor, directory):
                executor.submit(evaluations(do))
                self._until(executor, directory / "entered-0-0")
                executor.cancel([0])
                executor.submit(evaluations("measure", first=1))
                seen: list[int] = []
                deadline = time.monotonic() + 60
                while 1 not in seen:
                    assert time.monotonic() < deadline, seen
                    seen += [
                        each.trial
                        for each in executor.poll(0.2)
                        if not isinstance(each, CapacityChanged | Notice)
                    ]
                assert sorted(seen) in ([1], [0, 1])

    def test_a_death_fails_its_own_trial_alone(self) -> None:
        """Neighbours and the rest of the queue are measured."""
        with self.opened() as (executor, _):
            batch = evaluations("measure", 20)
            batch[7:8] = evaluations("exit", first=7)
            executor.submit(batch)
            for outcome in collect(executor, 20):
                if outcome.trial == 7:
                    assert isinstance(outcome, Failed), outcome
                    assert outcome.error.kind == "child died"
                    assert "code 3" in outcome.error.message
                else:
                    assert isinstance(outcome, Measured), outcome

    def test_a_time_limit_is_real(self) -> None:
        """It ends loops, and the rest of the queue is measured."""
        with self.opened() as (executor, _):
            batch = evaluations("measure", 10, seconds_left=60.0)
            batch[4:5] = evaluations("loop", first=4, seconds_left=0.2)
            executor.submit(batch)
            for outcome in collect(executor, 10):
                if outcome.trial == 4:
                    assert isinstance(outcome, Failed), outcome
                    assert outcome.state is TrialState.TIMED_OUT
                    assert outcome.seconds >= 0.2
                else:
                    assert isinstance(outcome, Measured), outcome

    @staticmethod
    def _until(executor: Executor, path: pathlib.Path) -> None:
        def is_there() -> bool:
            assert not [
                each
                for each in executor.poll(0.0)
                if not isinstance(each, CapacityChanged | Notice)
            ]
            return path.exists()

        wait_for(is_there)
