"""Optuna's samplers as strategies, and dspex's trials as an Optuna study.

Knows: how a column is said in Optuna's words. Must not know: how samplers work.
This is the only file that imports optuna, and does so when it is used.

A sampler keeps random state of its own and learns from Optuna's trials, so the laws of `base`
about repeated asks do not hold here, and a study with such a strategy cannot be reproducible.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import ModuleType
from typing import TYPE_CHECKING, Any, final

import numpy as np
from numpy.typing import NDArray

from dspex.errors import InvalidArgumentError, MissingDependencyError
from dspex.space import Space
from dspex.space.leaf import Leaf
from dspex.study.goal import Goal
from dspex.study.seeds import generator
from dspex.study.table import ActiveTrials, CompletedTrials
from dspex.study.trial import Trial, TrialState

if TYPE_CHECKING:
    import optuna

__all__ = ["Optuna", "to_optuna"]

FloatArray = NDArray[np.float64]

VIOLATION = "violation"
"""The user attribute of an Optuna trial that holds the summed violation of constraints."""

# How often a sampler may suggest what breaks the space's constraints before any row will do.
_ATTEMPTS = 32


@final
class Optuna:
    """Suggest what an Optuna sampler suggests.

    Conditional variables are asked for as in a define-by-run objective: parents first, and
    children only where they are active. Where the study has constraints, a sampler's own
    ``constraints_func`` finds the summed violation in ``trial.user_attrs["violation"]``.

    Parameters
    ----------
    sampler : optuna.samplers.BaseSampler

    Raises
    ------
    MissingDependencyError
        Where optuna is not installed.

    Examples
    --------
    >>> import dspex, optuna
    >>> strategy = Optuna(optuna.samplers.RandomSampler(seed=1))
    >>> study = dspex.Study({"x": dspex.Float(0, 1)}, strategy, direction="minimize")
    >>> 0 <= study.ask().params["x"] <= 1
    True
    """

    seedable = False

    def __init__(self, sampler: optuna.samplers.BaseSampler) -> None:
        base = _optuna().samplers.BaseSampler
        if not isinstance(sampler, base):
            raise InvalidArgumentError(
                f"Optuna(sampler) takes an object of optuna.samplers; got {sampler!r} of type "
                f"{type(sampler).__name__}; pass for example Optuna(optuna.samplers.TPESampler())"
            )
        self.sampler = sampler

    @property
    def name(self) -> str:
        """The sampler's class, after "optuna:"."""
        return f"optuna:{type(self.sampler).__name__}"

    def options(self) -> dict[str, Any]:
        """The sampler's class; its own options are not known here."""
        return {"sampler": type(self.sampler).__name__}

    def begin(self, space: Space, *, objectives: int, seed: int, trials: int | None) -> None:
        """Start a study of Optuna, in memory. Any space will do that the sampler can serve."""
        self._space = space
        self._seed = seed
        self._columns = [_distribution(leaf) for leaf in space.leaves]
        self._study = _new_study(["minimize"] * objectives, self.sampler)
        self._running: dict[int, optuna.Trial] = {}
        self._told = 0

    def ask(self, n: int, completed: CompletedTrials, active: ActiveTrials) -> FloatArray:
        """Ask the sampler ``n`` times."""
        if self._told < len(completed):
            self.tell(completed.since(self._told))
        first = len(completed) + len(active)
        return np.array([self._suggest(first + i) for i in range(n)])

    def tell(self, completed: CompletedTrials) -> None:
        """Tell Optuna's study what became of the trials."""
        state = _optuna().trial.TrialState
        self._told += len(completed)
        told = zip(
            completed.numbers.tolist(),
            completed.rows,
            completed.losses.tolist(),
            completed.violations.tolist(),
            completed.finite.tolist(),
            strict=True,
        )
        for number, row, losses, violation, finite in told:
            trial = self._running.pop(number, None)
            if trial is None:
                params = self._space.params(row)
                self._study.add_trial(
                    self._frozen(params, losses if finite else None, {VIOLATION: violation})
                )
                continue
            trial.set_user_attr(VIOLATION, violation)
            if finite:
                self._study.tell(trial, losses)
            else:
                self._study.tell(trial, state=state.FAIL)

    def dump(self) -> dict[str, Any]:
        """Nothing: the completed trials are told again."""
        return {}

    def load(self, state: dict[str, Any]) -> None:
        """Continue; the sampler's own random state starts anew."""

    def __repr__(self) -> str:
        return f"Optuna({self.sampler!r})"

    def _suggest(self, number: int) -> FloatArray:
        state = _optuna().trial.TrialState
        for _ in range(_ATTEMPTS):
            trial = self._study.ask()
            row = self._define_by_run(trial)
            if self._space.feasible(row[None])[0]:
                self._running[number] = trial
                return row
            self._study.tell(trial, state=state.FAIL)
        anything: FloatArray = self._space.sample_rows(generator(self._seed, "optuna", number), 1)[
            0
        ]
        return anything

    def _define_by_run(self, trial: optuna.Trial) -> FloatArray:
        # Columns not asked for yet hold any value: they cannot decide whether an earlier is active.
        row = np.array([[leaf.low for leaf in self._space.leaves]])
        for j, (leaf, distribution) in enumerate(
            zip(self._space.leaves, self._columns, strict=True)
        ):
            if not np.isnan(self._space.activate(row)[0, j]):
                row[0, j] = _raw(leaf, trial._suggest(leaf.name, distribution))
        active: FloatArray = self._space.activate(row)[0]
        return active

    def _frozen(
        self, params: dict[str, Any], losses: list[float] | None, notes: dict[str, Any]
    ) -> optuna.trial.FrozenTrial:
        named = dict(zip(self._space.names, self._columns, strict=True))
        return _frozen_trial(params, {name: named[name] for name in params}, losses, notes)


def to_optuna(trials: Iterable[Trial], space: Space, goal: Goal) -> optuna.Study:
    """An Optuna study in memory with the same ended trials; scores keep the user's sign.

    Parameters
    ----------
    trials : iterable of Trial
    space : Space
    goal : Goal

    Raises
    ------
    MissingDependencyError
        Where optuna is not installed (``pip install 'dspex[optuna]'``).
    """
    study = _new_study([objective.direction for objective in goal.objectives], None)
    columns = {leaf.name: _distribution(leaf) for leaf in space.leaves}
    for trial in trials:
        if not trial.state.is_final:
            continue
        notes = {"number": trial.number, VIOLATION: trial.violation, **_notes(trial)}
        values = None
        if trial.state is TrialState.COMPLETED:
            values = [trial.scores[objective.name] for objective in goal.objectives]
        used = {name: columns[name] for name in trial.params}
        study.add_trial(_frozen_trial(dict(trial.params), used, values, notes))
    return study


def _notes(trial: Trial) -> dict[str, Any]:
    told = {"proposed_by": trial.proposed_by, "scores": dict(trial.scores), "worker": trial.worker}
    return told if trial.error is None else {**told, "error": str(trial.error)}


def _optuna() -> ModuleType:
    try:
        import optuna
    except ImportError as error:
        raise MissingDependencyError(
            "this needs Optuna, which is not installed; pip install 'dspex[optuna]'",
            extra="optuna",
        ) from error
    return optuna


def _new_study(directions: list[Any], sampler: optuna.samplers.BaseSampler | None) -> optuna.Study:
    library = _optuna()
    # Optuna announces every new study on stderr; here it is a detail.
    verbosity = library.logging.get_verbosity()
    library.logging.set_verbosity(max(verbosity, library.logging.WARNING))
    try:
        study: optuna.Study = library.create_study(directions=directions, sampler=sampler)
    finally:
        library.logging.set_verbosity(verbosity)
    return study


def _frozen_trial(
    params: dict[str, Any],
    distributions: dict[str, Any],
    values: list[float] | None,
    notes: dict[str, Any],
) -> optuna.trial.FrozenTrial:
    trial = _optuna().trial
    state = trial.TrialState.FAIL if values is None else trial.TrialState.COMPLETE
    frozen: optuna.trial.FrozenTrial = trial.create_trial(
        params=params, distributions=distributions, values=values, state=state, user_attrs=notes
    )
    return frozen


def _distribution(leaf: Leaf) -> optuna.distributions.BaseDistribution:
    """A column in Optuna's words; a scipy distribution becomes its range."""
    made: optuna.distributions.BaseDistribution
    words = _optuna().distributions
    if leaf.kind == "choice":
        made = words.CategoricalDistribution(leaf.labels)
    elif leaf.kind == "float":
        made = words.FloatDistribution(leaf.low, leaf.high, log=leaf.log, step=leaf.step)
    else:
        step = int(leaf.step or 1)
        # Optuna has no logarithmic whole numbers in steps.
        made = words.IntDistribution(
            int(leaf.low), int(leaf.high), log=leaf.log and step == 1, step=step
        )
    return made


def _raw(leaf: Leaf, value: Any) -> float:
    if leaf.kind == "choice":
        # By type too: 0, 0.0 and False are equal, and may be different labels.
        return float(
            next(
                i
                for i, label in enumerate(leaf.labels)
                if label == value and type(label) is type(value)
            )
        )
    if leaf.cardinality is None:
        return float(value)
    values = leaf.values() if leaf.law is not None else None
    if values is None:
        nearest = leaf.range.nearest(float(value))
        return float(value) if nearest is None else float(nearest)
    return float(values[np.argmin(np.abs(values - value))])
