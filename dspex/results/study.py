"""A study for people with a loop of their own: ask, evaluate as you like, tell.

Knows: a strategy, the study's state and log. Must not know: programs, executors.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, final

import numpy as np

from dspex.errors import InvalidArgumentError
from dspex.results.opening import Resume, circumstances, kept_strategy, open_study
from dspex.results.result import TrialSequence
from dspex.space import Space
from dspex.storage import resolve_storage
from dspex.strategies import make
from dspex.study.goal import Goal
from dspex.study.measurement import Measurement, as_measurement
from dspex.study.records import Asked, Failed, Measured
from dspex.study.trial import ErrorInfo, Trial, TrialState

__all__ = ["Study"]


@final
class Study:
    """Ask a strategy for trials and tell it how they went.

    Parameters
    ----------
    space : Space or mapping of str to variable
    strategy : str or Strategy
        As for `dspex.optimize`.
    direction : "maximize", "minimize", or mapping of measured name to one of them
    constraints : mapping of measured name to ("le" | "ge", bound), optional
    seed : int, optional
        With it, the same asks and tells give the same params.
    trials : int, optional
        A budget, for strategies that plan; not enforced.
    study, storage : str, optional
        Keep the log under this name, in this store; memory otherwise.
    resume : "auto", "never", "must" or "force"

    Examples
    --------
    >>> import dspex
    >>> study = dspex.Study({"x": dspex.Float(-1, 1)}, "tpe", direction="minimize", seed=0)
    >>> for _ in range(30):
    ...     trial = study.ask()
    ...     study.tell(trial, trial.params["x"] ** 2)
    >>> study.best_trial.score < 0.05
    True
    """

    def __init__(
        self,
        space: Space | Mapping[str, Any],
        strategy: Any = "auto",
        *,
        direction: str | Mapping[str, str],
        constraints: Mapping[str, tuple[str, float]] | None = None,
        seed: int | None = None,
        trials: int | None = None,
        study: str | None = None,
        storage: str | None = None,
        resume: Resume = "auto",
    ) -> None:
        self.space = Space.of(space)
        self.goal = Goal.of(direction, constraints)
        objectives = len(self.goal.objectives)
        store = resolve_storage(storage, study)
        self._strategy, self.reason = make(
            kept_strategy(store, study) if strategy == "auto" else strategy,
            space=self.space,
            objectives=objectives,
            trials=trials,
        )
        head = {
            "space": self.space.describe(),
            "goal": self.goal.describe(),
            "strategy": {"name": self._strategy.name, "options": self._strategy.options()},
            "seed": seed,
            "reproducible": False,
            "k": None,
            "block": None,
            "folds": 1,
            "cv": None,
            "metric": None,
            "data": None,
            "program": None,
            **circumstances(),
        }
        opened = open_study(
            store,
            study,
            space=self.space,
            goal=self.goal,
            head=head,
            resume=resume,
        )
        self._state, self._log = opened.state, opened.log
        self._told = 0
        self._strategy.begin(
            self.space, objectives=objectives, seed=opened.head["seed"], trials=trials
        )
        self._active = [n for n in range(len(self._state)) if not self._state.is_final(n)]

    def ask(self, n: int | None = None) -> Any:
        """Suggest what to try next.

        Parameters
        ----------
        n : int, optional
            How many; None for one.

        Returns
        -------
        Trial or list of Trial
            One for ``n=None``; else a list, shorter than ``n`` where the space is exhausted.
        """
        count = 1 if n is None else n
        if count < 1:
            raise InvalidArgumentError(f"n is at least 1; got {n!r}")
        state, told = self._state, self._state.n_ended
        completed = state.completed(told)
        if told > self._told:
            self._strategy.tell(completed.since(self._told))
            self._told = told
        active = state.active(np.array(self._active, dtype=np.int64))
        rows = self._strategy.ask(count, completed, active)
        first = len(state)
        params = [self.space.params(row) for row in rows]
        by = [self._strategy.name] * len(rows)
        state.extend(rows, by)
        if params:
            self._log.append([Asked(first=first, told=told, by=by, params=params)])
        self._active.extend(range(first, first + len(rows)))
        trials = [state.trial(number) for number in range(first, first + len(rows))]
        if n is not None:
            return trials
        if not trials:
            raise InvalidArgumentError("the space is exhausted: every point of it was suggested")
        return trials[0]

    def tell(
        self,
        trial: Trial | int,
        measurement: Measurement | float | Mapping[str, float] | BaseException,
        *,
        seconds: float = 0.0,
        started: float = 0.0,
    ) -> None:
        """Say how a trial went.

        Parameters
        ----------
        trial : Trial or int
            What `ask` gave, or its number.
        measurement : Measurement, float, mapping or exception
            An exception makes the trial a failed one.
        seconds, started : float
            Its duration, and the unix time of its start, where they matter to you.

        Raises
        ------
        InvalidArgumentError
            For an unknown trial, one that has its outcome already, or missing names.
        """
        number = trial.number if isinstance(trial, Trial) else trial
        if number not in range(len(self._state)):
            raise InvalidArgumentError(
                f"a trial has a number from 0 to {len(self._state) - 1}; got {number!r}"
            )
        if self._state.is_final(number):
            raise InvalidArgumentError(
                f"a trial has one outcome; trial {number} is "
                f"{self._state.state_of(number).name} already"
            )
        record = self._record(number, measurement, seconds=seconds, started=started)
        self._state.apply(record)
        self._log.append([record])
        self._active.remove(number)

    def _record(
        self, number: int, measurement: Any, *, seconds: float, started: float
    ) -> Measured | Failed:
        where: dict[str, Any] = {
            "trial": number,
            "fold": 0,
            "attempt": 0,
            "worker": "here",
            "started": started,
            "seconds": seconds,
        }
        if not isinstance(measurement, BaseException):
            outcome = as_measurement(measurement)
            missing = self.goal.missing({**outcome.constraints, **outcome.scores})
            if missing:
                raise InvalidArgumentError(
                    f"the study needs {', '.join(map(repr, missing))}; got {sorted(outcome.scores)}"
                )
            if outcome.is_finite:
                return Measured(**where, steps=(outcome,))
            measurement = InvalidArgumentError(f"a score is finite; got {dict(outcome.scores)}")
        error = ErrorInfo(type(measurement).__name__, str(measurement))
        return Failed(**where, state=TrialState.FAILED, error=error)

    @property
    def trials(self) -> TrialSequence:
        """All trials, by number."""
        return TrialSequence(self._state)

    @property
    def best_trial(self) -> Trial | None:
        """The best completed trial so far."""
        return self._state.best()

    def close(self) -> None:
        """Sync the log and give the study up; may be called twice."""
        self._log.close()

    def __enter__(self) -> Study:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        ended, failed = self._state.n_ended, self._state.n_failed
        return (
            f"<Study {self._strategy.name}, {ended}/{len(self._state)} trials ended, "
            f"{failed} failed>"
        )
