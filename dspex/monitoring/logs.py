"""A study's events in the standard ``logging``, under the logger ``"dspex"``.

Knows: which event deserves which level. Must not know: handlers, files (those are the user's).
The logger gets a `logging.NullHandler`, as libraries should: without one Python would print every
warning to stderr by itself, a second time and into the middle of the progress bar.
"""

from __future__ import annotations

import logging
from typing import final

from dspex.engine.ports import Notice, StudyEnded, StudyEvent, StudyStarted, TrialEnded
from dspex.monitoring.wording import (
    duration,
    metric_name,
    number,
    share,
    short_error,
    strategy_reason,
)
from dspex.study.goal import Goal
from dspex.study.trial import TrialState

__all__ = ["LogObserver"]

_FAILURES = (TrialState.FAILED, TrialState.TIMED_OUT)

logging.getLogger("dspex").addHandler(logging.NullHandler())


@final
class LogObserver:
    """Writes what happens to a study: start, notices and end at INFO, failed trials at WARNING.

    Every ended trial is told at DEBUG.

    Parameters
    ----------
    logger : logging.Logger, optional
        By default the logger ``"dspex"``.

    Examples
    --------
    >>> observer = LogObserver()
    >>> observer(Notice(message="a worker joined"))
    """

    def __init__(self, logger: logging.Logger | None = None) -> None:
        self._log = logger or logging.getLogger("dspex")
        self._goal: Goal | None = None
        self._study = "study"

    def __call__(self, event: StudyEvent) -> None:
        """Log one event."""
        match event:
            case StudyStarted():
                self._started(event)
            case TrialEnded() if event.state in _FAILURES:
                trial = event.trial
                self._log.warning(
                    "%s: trial %d %s: %s",
                    self._study,
                    trial.number,
                    "timed out" if trial.state is TrialState.TIMED_OUT else "failed",
                    short_error(trial),
                )
            case TrialEnded() if self._log.isEnabledFor(logging.DEBUG):
                self._log.debug(
                    "%s: trial %d ended: %s", self._study, event.trial.number, event.trial.score
                )
            case Notice():
                self._log.info("%s: %s", self._study, event.message)
            case StudyEnded():
                self._ended(event)

    def _started(self, event: StudyStarted) -> None:
        self._goal = event.goal
        self._study = f"study {event.study!r}" if event.study else "study"
        self._log.info(
            "%s started: strategy %s; %s, %d done before, kept in %s",
            self._study,
            strategy_reason(event.strategy, event.reason),
            "no limit of trials" if event.trials is None else f"{event.trials} trials in all",
            event.resumed,
            event.storage or "memory",
        )

    def _ended(self, event: StudyEnded) -> None:
        progress = event.progress
        best = progress.best
        name = metric_name(self._goal) if self._goal else "score"
        self._log.info(
            "%s ended (%s) after %s: %d trials done, %d failed, best %s %s, slots %s busy",
            self._study,
            event.reason,
            duration(progress.elapsed),
            progress.done,
            progress.failed,
            name,
            "none" if best is None else f"{number(best.score)} (trial {best.number})",
            share(progress.busy),
        )
