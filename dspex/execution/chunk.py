"""A chunk in progress, as its parent knows it: what is done, what runs, whom to hold to account.

Knows: what a child says about a chunk. Must not know: pipes, processes, when to look.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

from dspex.engine.ports import Evaluation
from dspex.errors import ProgramLoadError
from dspex.execution.frames import BEGIN, END, LOAD_FAILED, LOADED, OUTCOME, unpack_outcome
from dspex.study.records import Failed, Measured
from dspex.study.trial import ErrorInfo, TrialState

__all__ = ["Chunk", "ChunkResult"]


@final
@dataclass(frozen=True, slots=True)
class ChunkResult:
    """What became of a chunk: each of its evaluations stands in exactly one of the two.

    Attributes
    ----------
    outcomes : list of Measured or Failed
    unstarted : list of Evaluation
        To be given to somebody again. After a chunk that is no longer wanted this includes the
        one that was cut off.
    """

    outcomes: list[Measured | Failed]
    unstarted: list[Evaluation]


@final
class Chunk:
    """A chunk in progress, and what is known of it so far."""

    def __init__(self, evaluations: Sequence[Evaluation], worker: str) -> None:
        self.evaluations = evaluations
        self.worker = worker
        self.outcomes: list[Measured | Failed] = []
        self.is_begun = False
        self.is_ended = False
        self._began = 0.0
        self._began_unix = 0.0
        self._current_since = 0.0

    def take(self, kind: str, *rest: Any) -> None:
        """Learn from one message of the child.

        Raises
        ------
        ProgramLoadError
            Where the message says so.
        """
        if kind == OUTCOME:
            parts, self._current_since = rest
            now = self.evaluations[len(self.outcomes)]
            self.outcomes.append(
                unpack_outcome(
                    parts,
                    trial=now.trial,
                    fold=now.fold,
                    attempt=now.attempt,
                    worker=self.worker,
                )
            )
        elif kind == BEGIN:
            self._began, self._began_unix = rest
            self._current_since = self._began
            self.is_begun = True
        elif kind == END:
            self.is_ended = True
        elif kind == LOAD_FAILED:
            raise ProgramLoadError(
                f"the program and its data must load in an evaluator process on {self.worker}; "
                f"they raised there; see the traceback:\n{rest[0]}"
            )
        else:
            assert kind == LOADED, kind

    @property
    def current(self) -> Evaluation | None:
        """What runs now, as far as is known."""
        done = len(self.outcomes)
        if self.is_ended or not self.is_begun or done == len(self.evaluations):
            return None
        return self.evaluations[done]

    @property
    def deadline(self) -> float:
        """When what runs now has to be ended, by the monotonic clock that all processes share."""
        current = self.current
        if current is None or current.seconds_left is None:
            return float("inf")
        return self._current_since + current.seconds_left

    def fail_current(self, state: TrialState, error: ErrorInfo) -> None:
        """Charge the evaluation that runs, if one does."""
        current = self.current
        if current is None:
            return
        self.outcomes.append(
            Failed(
                trial=current.trial,
                fold=current.fold,
                attempt=current.attempt,
                state=state,
                error=error,
                worker=self.worker,
                started=self._began_unix + self._current_since - self._began,
                seconds=max(0.0, time.monotonic() - self._current_since),
            )
        )

    def result(self) -> ChunkResult:
        """Say what came of it so far; the rest is unstarted."""
        return ChunkResult(self.outcomes, list(self.evaluations[len(self.outcomes) :]))
