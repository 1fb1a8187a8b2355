"""The conformance suite of the Program protocol: what every program must do.

Knows: the contract of `dspex.programs.base`, and ways to test it from outside.
Must not know: any program. Subclass `ProgramSuite`, say how to make a program, and pytest
collects the rest; nothing here needs pytest itself.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import cloudpickle

from dspex.programs.base import FoldedProgram, Program, RunningTrial
from dspex.space import Space
from dspex.study.measurement import Measurement

__all__ = ["ProgramSuite", "frozen", "measure"]


def frozen(data: Any) -> Any:
    """A copy of the data whose arrays are read-only, as data in shared memory is.

    Examples
    --------
    >>> import numpy as np
    >>> frozen((np.zeros(2), "text"))[0].flags.writeable
    False
    """
    buffers: list[Any] = []
    stream = cloudpickle.dumps(data, protocol=5, buffer_callback=buffers.append)
    return cloudpickle.loads(stream, buffers=[bytes(each.raw()) for each in buffers])


def measure(
    program: Program, params: Mapping[str, Any], *, number: int = 0, fold: int = 0, seed: int = 7
) -> list[dict[str, float]]:
    """Evaluate once, and list the scores of all measurements."""
    outcome = program.evaluate(params, RunningTrial(number, fold, params, seed))
    steps = list(outcome) if isinstance(outcome, Iterator) else [outcome]
    assert steps, "an evaluation measures at least once"
    assert all(isinstance(step, Measurement) for step in steps)
    return [dict(step.scores) for step in steps]


class ProgramSuite:
    """Subclass it and override `make`.

    A subclass is a test class: its methods are tests, each with a program of its own.

    Examples
    --------
    >>> class TestMine(ProgramSuite):
    ...     def make(self):
    ...         return MyProgram(), MyData(), Space({"x": Float(0, 1)})
    """

    samples: int = 3
    """How many params of the space are evaluated."""

    def make(self) -> tuple[Program, Any, Space]:
        """Make a new program, the data that it is prepared with, and a space for its params."""
        raise NotImplementedError

    def test_it_keeps_the_protocol(self) -> None:
        """It has the methods, and its own space is a Space or None."""
        program, _, _ = self.make()
        assert isinstance(program, Program)
        own = program.space()
        assert own is None or isinstance(own, Space)

    def test_folds_are_counted_from_one(self) -> None:
        """At least one, and as many after prepare as before."""
        program, data, _ = self.make()
        before = _folds(program)
        program.prepare(data)
        assert 1 <= before == _folds(program)

    def test_every_fold_of_every_params_is_measured(self) -> None:
        """Whatever the space holds can be evaluated."""
        program, params = self._prepared()
        for each in params:
            for fold in range(_folds(program)):
                assert measure(program, each, fold=fold)

    def test_the_same_evaluation_gives_the_same_measurement(self) -> None:
        """Whatever was evaluated in between, and in whatever order (G2)."""
        program, params = self._prepared()
        first = [measure(program, each, number=i) for i, each in enumerate(params)]
        again = [measure(program, each, number=i) for i, each in reversed(list(enumerate(params)))]
        assert first == again[::-1]

    def test_a_copy_in_another_process_measures_the_same(self) -> None:
        """Pickled, and on read-only data, as in shared memory."""
        program, data, space = self.make()
        travelled = cloudpickle.loads(cloudpickle.dumps(program))
        program.prepare(data)
        travelled.prepare(frozen(data))
        for each in self._params(space):
            assert measure(program, each) == measure(travelled, each)

    def test_evaluating_changes_neither_params_nor_data(self) -> None:
        """The next evaluation in this process uses them too."""
        program, data, space = self.make()
        before = cloudpickle.dumps(data)
        program.prepare(data)
        for each in self._params(space):
            given = copy.copy(each)
            measure(program, given)
            assert list(given) == list(each)
            assert all(given[name] is each[name] for name in each)
        assert cloudpickle.dumps(data) == before

    def test_finishing_gives_a_program_and_disturbs_no_evaluation(self) -> None:
        """Finishing may come while others evaluate."""
        program, params = self._prepared()
        before = measure(program, params[0])
        assert program.finish(params[-1]) is not None
        assert measure(program, params[0]) == before

    def _prepared(self) -> tuple[Program, list[dict[str, Any]]]:
        program, data, space = self.make()
        program.prepare(data)
        return program, self._params(space)

    def _params(self, space: Space) -> list[dict[str, Any]]:
        return [space.resolve(each) for each in space.sample(self.samples, seed=3)]


def _folds(program: Program) -> int:
    return program.folds() if isinstance(program, FoldedProgram) else 1
