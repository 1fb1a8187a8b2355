"""What ended trials say about going on: targets that are met, failures that are too many.

Knows: the rules of a session, and the order in which trials are judged: by number where the study
is reproducible (so that the verdict does not depend on who was faster), else as they end.
Must not know: what a verdict leads to (`engine.engine`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, final

from dspex.engine.settings import Settings
from dspex.errors import AllTrialsFailedError
from dspex.study.state import StudyState

__all__ = ["FIRST_FAILURES", "Judge", "Verdict"]

FIRST_FAILURES = 10
"""How many trials must fail, and none succeed, before "auto" gives up."""


@final
@dataclass(frozen=True, slots=True)
class Verdict:
    """A rule that a trial fulfilled.

    Attributes
    ----------
    trial : int
    rule : "target_score", "max_failures" or "all_failed"
    """

    trial: int
    rule: Literal["target_score", "max_failures", "all_failed"]


@final
class Judge:
    """Looks at each ended trial once.

    Parameters
    ----------
    state : StudyState
    settings : Settings
    """

    def __init__(self, state: StudyState, settings: Settings) -> None:
        self._state = state
        self._settings = settings
        self._seen = 0
        self._failed = 0
        self._failed_here = 0  # in this session: a mended program gets its chance
        self._completed = 0

    def look(self, frontier: int, *, resumed: bool = False) -> Iterator[Verdict]:
        """Judge what has ended since the last look.

        Parameters
        ----------
        frontier : int
            Trials below it have all ended.
        resumed : bool
            Whether they ended in an earlier session.
        """
        state = self._state
        in_order = self._settings.reproducible
        until = frontier if in_order else state.n_ended
        while self._seen < until:
            number = self._seen if in_order else int(state.order[self._seen])
            self._seen += 1
            if state.is_completed(number):
                self._completed += 1
                if self._reaches_target(number):
                    yield Verdict(number, "target_score")
            else:
                self._failed += 1
                self._failed_here += not resumed
                if self._fails_too_often():
                    auto = self._settings.max_failures == "auto"
                    yield Verdict(number, "all_failed" if auto else "max_failures")

    def failure(self, rule: str, number: int) -> AllTrialsFailedError:
        """The error that says why nothing was completed, with the program's own traceback."""
        error = self._state.error_of(number)
        return AllTrialsFailedError(
            f"{rule}; trial {number} with params {self._state.trial(number).params} says {error}; "
            "mend the program, or pass max_failures= to go on\n"
            + (error.traceback if error is not None else ""),
            trial=number,
        )

    @property
    def nothing_completed(self) -> bool:
        """Whether trials ended, and all of them failed."""
        return not self._completed and self._failed > 0

    def _reaches_target(self, number: int) -> bool:
        target = self._settings.target_score
        if target is None or self._state.violation_of(number) > 0:
            return False
        return self._state.loss_of(number) <= self._state.goal.objectives[0].sign * target

    def _fails_too_often(self) -> bool:
        most = self._settings.max_failures
        if most == "auto":
            return not self._completed and self._failed_here >= FIRST_FAILURES
        return self._failed > most
