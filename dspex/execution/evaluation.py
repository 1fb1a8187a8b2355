"""One evaluation: the single place where a program is called.

Knows: how a program's return value, exception or iterator becomes an outcome.
Must not know: processes, queues, deadlines (`pool`), or which objectives a study has (the engine
judges missing names). Whatever a program does is data here: only errors that are not its own fly.

The child, thread mode and the in-process executor all call `evaluate`, so that a trial comes out
the same wherever it runs (G2): the global generators are seeded from the trial's own seed, but in
threads, which share them with each other and with whatever else their process does.
"""

from __future__ import annotations

import math
import os
import random
import time
import traceback
from collections.abc import Callable, Iterator
from types import TracebackType

import numpy as np

import dspex
from dspex.engine.ports import Evaluation
from dspex.errors import InvalidArgumentError
from dspex.programs.base import Program, RunningTrial
from dspex.space import Space
from dspex.study.measurement import Measurement, as_measurement
from dspex.study.records import Failed, Measured
from dspex.study.trial import ErrorInfo, TrialState

__all__ = ["INVALID_SCORE", "evaluate"]

INVALID_SCORE = "InvalidScore"
"""The kind of failure of a program that measured something which is not a finite number."""

_OUR_FILES = os.path.join(os.path.dirname(dspex.__file__), "")
# A log is read by people and kept for ever: the end of a text says most.
_MOST_CHARACTERS = 20_000


class _InvalidScoreError(Exception):
    """A program handed back something that is no score; never leaves this module."""


def evaluate(
    program: Program,
    space: Space,
    evaluation: Evaluation,
    *,
    seed: int,
    retry_on: tuple[type[BaseException], ...] = (),
    worker: str,
    should_stop: Callable[[], bool] = lambda: False,
    passes: tuple[type[BaseException], ...] = (KeyboardInterrupt,),
    seed_globals: bool = True,
) -> Measured | Failed:
    """Run one evaluation to its outcome.

    Parameters
    ----------
    program : Program
        Loaded and told its data.
    space : Space
        Turns the labels of ``evaluation.params`` into what the program gets.
    evaluation : Evaluation
        Its ``seconds_left`` is not looked at here: a program cannot be ended from within.
    seed : int
        The root seed of the study's evaluations.
    retry_on : tuple of exception classes, optional
        Errors to be reported with ``may_retry``.
    worker : str
        Where this runs, for the record.
    should_stop : callable, optional
        Whether nobody waits for this evaluation any more.
    passes : tuple of exception classes, optional
        What is not the program's failure, and flies on. In the user's own process an interrupt
        comes from the user; in a child it can only come from the program, which passes ``()``.
    seed_globals : bool, default True
        Seed the generators of `random` and ``numpy.random``. False where other threads draw from
        them too: there only ``trial.rng`` and ``trial.seed`` are reproducible.

    Returns
    -------
    Measured or Failed

    Examples
    --------
    >>> from dspex.space import Float, Space
    >>> class Square:
    ...     def evaluate(self, params, trial):
    ...         return params["x"] ** 2
    >>> space = Space({"x": Float(-1, 1)})
    >>> outcome = evaluate(Square(), space, Evaluation(0, 0, 0, {"x": 0.5}), seed=1, worker="w")
    >>> outcome.steps[-1].score
    0.25
    >>> evaluate(Square(), space, Evaluation(0, 0, 0, {}), seed=1, worker="w").error.kind
    'KeyError'
    """
    started = time.time()
    clock = time.perf_counter()
    try:
        steps = _steps(program, space, evaluation, seed, should_stop, seed_globals)
        return Measured(
            trial=evaluation.trial,
            fold=evaluation.fold,
            attempt=evaluation.attempt,
            steps=steps,
            worker=worker,
            started=started,
            seconds=time.perf_counter() - clock,
        )
    except BaseException as error:
        if isinstance(error, passes):
            raise
        return Failed(
            trial=evaluation.trial,
            fold=evaluation.fold,
            attempt=evaluation.attempt,
            state=TrialState.FAILED,
            error=_error_info(error),
            worker=worker,
            started=started,
            seconds=time.perf_counter() - clock,
            may_retry=isinstance(error, retry_on),
        )


def _steps(
    program: Program,
    space: Space,
    evaluation: Evaluation,
    seed: int,
    should_stop: Callable[[], bool],
    seed_globals: bool,
) -> tuple[Measurement, ...]:
    params = space.resolve(evaluation.params)
    trial = RunningTrial(evaluation.trial, evaluation.fold, params, seed, should_stop)
    if seed_globals:
        # `random_state=None` and everything else that draws from them is reproducible too.
        random.seed(trial.seed)
        np.random.seed(trial.seed)
    returned = program.evaluate(params, trial)
    if isinstance(returned, Measurement) and not trial.reported:
        steps: tuple[Measurement, ...] = (returned,)
    elif isinstance(returned, Iterator):
        yielded = _drain(returned, should_stop)
        steps = (*trial.reported, *yielded)
    else:
        steps = (*trial.reported, _as_step(returned))
    if not steps:
        raise _InvalidScoreError(
            "a program that is an iterator measures at least once; got no measurement; "
            "`yield` a number, a dict of numbers or a Measurement"
        )
    for number, step in enumerate(steps):
        _check(number, step)
    return steps


def _drain(iterator: Iterator[object], should_stop: Callable[[], bool]) -> list[Measurement]:
    steps: list[Measurement] = []
    try:
        for value in iterator:
            steps.append(_as_step(value))
            if should_stop():
                break
    finally:
        # A generator's own `finally` runs now, in its evaluation, not when it is collected.
        close = getattr(iterator, "close", None)
        if close is not None:
            close()
    return steps


def _as_step(value: object) -> Measurement:
    try:
        return as_measurement(value)
    except InvalidArgumentError as error:
        raise _InvalidScoreError(str(error)) from None


def _check(number: int, step: Measurement) -> None:
    # A log holds no NaN and no infinity, in any of its numbers.
    if not step.is_finite:
        what, values = "score", step.scores
    elif not all(map(math.isfinite, step.constraints.values())):
        what, values = "measured constraint", step.constraints
    elif step.cost is not None and not math.isfinite(step.cost):
        what, values = "cost", {"cost": step.cost}
    elif step.feedback is not None and not isinstance(step.feedback, str):
        raise _InvalidScoreError(
            f"feedback is a string; got {step.feedback!r} of type {type(step.feedback).__name__}; "
            "pass str(feedback)"
        )
    else:
        return
    name, value = next((n, v) for n, v in values.items() if not math.isfinite(v))
    raise _InvalidScoreError(
        f"a {what} is a finite number; {name!r} is {value} in measurement {number}; "
        "return a finite number, or raise an exception that says what went wrong"
    )


def _error_info(error: BaseException) -> ErrorInfo:
    if isinstance(error, _InvalidScoreError):
        return ErrorInfo(kind=INVALID_SCORE, message=str(error))
    try:
        message = str(error)
    except Exception as broken:
        message = f"<its __str__ raised {type(broken).__name__}>"
    lines = traceback.format_exception(type(error), error, _below_us(error.__traceback__))
    return ErrorInfo(
        kind=type(error).__name__,
        message=message[-_MOST_CHARACTERS:],
        traceback="".join(lines)[-_MOST_CHARACTERS:],
    )


def _below_us(frames: TracebackType | None) -> TracebackType | None:
    """Leave out the dspex frames at the top, unless nothing else is there."""
    frame = frames
    while frame is not None and frame.tb_frame.f_code.co_filename.startswith(_OUR_FILES):
        frame = frame.tb_next
    return frames if frame is None else frame
