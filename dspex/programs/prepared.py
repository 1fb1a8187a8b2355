"""The door: from the arguments of ``optimize`` to a program that can be evaluated.

Knows: which kind of program something is, and which arguments go with which kind.
Must not know: strategies, clusters, logs; how a kind evaluates (`callable`, `sklearn`).

An argument that does not apply to a kind of program is refused, never ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

from dspex.errors import InvalidArgumentError, InvalidMetricError, InvalidSpaceError
from dspex.programs.base import FoldedProgram, Program
from dspex.programs.callable import ClassProgram, FunctionProgram
from dspex.programs.data import refuse_dask
from dspex.programs.goals import Measured, goal_of
from dspex.programs.identity import content_hash
from dspex.programs.params import is_estimator
from dspex.space import Space
from dspex.study.goal import Goal

__all__ = ["Prepared", "build"]


@final
@dataclass(frozen=True, slots=True)
class Prepared:
    """A program with all that a study must know of it.

    Attributes
    ----------
    program : Program
    data : object
        What ``program.prepare`` takes, in every process that evaluates.
    space : Space
    goal : Goal
    defaults : dict or None
        The program's own params, in terms of the space: trial 0 and the baseline.
    folds : int
        How many evaluations make one trial.
    identity : dict
        What tells this program and data from others, as JSON, the same in every process:
        ``program``, ``data``, ``metric``, ``cv``, ``validation_data``, ``metadata``.
    summary : str
        One line for people.
    """

    program: Program
    data: Any
    space: Space
    goal: Goal
    defaults: dict[str, Any] | None
    folds: int
    identity: dict[str, Any]
    summary: str


def build(
    program: Any,
    training_data: Any = None,
    *,
    space: Any = None,
    metric: Any = None,
    direction: Any = None,
    constraints: Any = None,
    cv: Any = None,
    validation_data: Any = None,
    metadata: Any = None,
    refit: bool | None = None,
) -> Prepared:
    """Make a program of what the user passed, and find what is wrong with it.

    Parameters
    ----------
    program : scikit-learn estimator, callable, class, or Program
    training_data : object, optional
        A 2-tuple is ``(X, y)``, anything else is X.
    space : Space or mapping, optional
        None: the program's own.
    metric : str, callable, mapping or None
    direction : "maximize", "minimize" or mapping, optional
    constraints : mapping of str to ("le" | "ge", bound), optional
    cv : int, splitter or iterable, optional
    validation_data : (X, y), optional
    metadata : mapping, optional
    refit : bool, optional
        Whether the best program is fitted on all the data; None: where there is anything to fit.

    Raises
    ------
    InvalidArgumentError
        Or one of its kinds, which name what is wrong.

    Examples
    --------
    >>> from dspex.space import Float
    >>> def squared(params):
    ...     return params["x"] ** 2
    >>> prepared = build(squared, space={"x": Float(-1, 1)}, direction="minimize")
    >>> prepared.goal.objectives[0].direction, prepared.folds
    ('minimize', 1)
    """
    refuse_dask(training_data=training_data, validation_data=validation_data, metadata=metadata)
    if refit is not None and not isinstance(refit, bool):
        raise InvalidArgumentError(f"refit is True, False or None; got {refit!r}")
    kind = _kind(program)
    wanted = program.space() if space is None and kind == "program" else space
    wanted = None if wanted is None else Space.of(wanted)
    if wanted is not None and not len(wanted):
        raise InvalidSpaceError("a study varies something; the space has no variable; name one")
    if kind == "estimator":
        from dspex.programs.assembly import build_estimator

        return Prepared(
            **build_estimator(
                program,
                training_data,
                space=wanted,
                metric=metric,
                direction=direction,
                constraints=constraints,
                cv=cv,
                validation_data=validation_data,
                metadata=metadata,
                refit=refit is not False,
            )
        )
    for name, value in {
        "cv": cv,
        "validation_data": validation_data,
        "metadata": metadata,
        "refit": True if refit else None,
    }.items():
        if value is not None:
            raise InvalidArgumentError(
                f"{name} applies to scikit-learn estimators; {_name(program)} is a {kind}, which "
                f"handles its data itself; drop {name}"
            )
    if kind != "class" and metric is not None:
        raise InvalidMetricError(
            f"a {kind} measures itself, by what it returns; got metric={metric!r} for "
            f"{_name(program)}; drop metric, or call it in the program"
        )
    if wanted is None:
        raise InvalidSpaceError(
            f"a {kind} has no search space of its own; {_name(program)} came without space=; "
            'pass one, such as space={"x": Float(0, 1)}'
        )
    has_data = training_data is not None
    measured = Measured()
    made: Program
    if kind == "program":
        made = program
    elif kind == "class":
        made = ClassProgram(program, names=wanted.names, metric=metric, has_data=has_data)
        if metric is not None:
            names = tuple(map(str, metric)) if isinstance(metric, Mapping) else None
            measured = Measured(names, default="maximize")
    else:
        made = FunctionProgram(program, names=wanted.names, has_data=has_data)
    if isinstance(made, FunctionProgram | ClassProgram):
        made.prepare(training_data)
    goal = goal_of(direction, constraints, measured)
    folds = made.folds() if isinstance(made, FoldedProgram) else 1
    if folds < 1:
        raise InvalidArgumentError(
            f"a program's folds() is a whole number of at least 1; {_name(program)} has {folds!r}"
        )
    return Prepared(
        program=made,
        data=training_data,
        space=wanted,
        goal=goal,
        defaults=wanted.defaults(),
        folds=folds,
        identity={
            "program": content_hash(program),
            "data": content_hash(training_data),
            "metric": None if metric is None else content_hash(metric),
            "cv": None,
            "validation_data": None,
            "metadata": None,
        },
        summary=f"{kind} {_name(program)} over {_count(len(wanted), 'variable')}",
    )


def _kind(program: Any) -> str:
    roots = {base.__module__.partition(".")[0] for base in type(program).__mro__}
    if "dspy" in roots:
        raise InvalidArgumentError(
            f"DSPy modules cannot be optimized in this release; got {_name(program)}; wrap it in "
            "a function f(params, data) that builds, runs and measures it"
        )
    if isinstance(program, type):
        if hasattr(program, "get_params") and hasattr(program, "fit"):
            raise InvalidArgumentError(
                f"an estimator is passed as an object; got the class {program.__qualname__}; pass "
                f"{program.__qualname__}()"
            )
        if all(hasattr(program, each) for each in ("space", "prepare", "evaluate", "finish")):
            raise InvalidArgumentError(
                f"a Program is passed as an object; got the class {program.__qualname__}; pass an "
                "object of it"
            )
        return "class"
    if isinstance(program, Program):
        return "program"
    if is_estimator(program):
        return "estimator"
    if callable(program):
        return "function"
    raise InvalidArgumentError(
        "a program is a scikit-learn estimator, a function f(params), f(params, data) or "
        "f(params, data, trial), a class built with params, or a dspex Program; got "
        f"{program!r} of type {type(program).__name__}"
    )


def _name(program: Any) -> str:
    return getattr(program, "__qualname__", None) or type(program).__qualname__


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
