"""Deriving every suggestion of a log again, to show that nothing else decided.

Knows: what each `Asked` record says that the strategy was told.
Must not know: programs; nothing is evaluated.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from dspex.space import Space
from dspex.strategies.base import Strategy
from dspex.strategies.registry import create
from dspex.study.goal import Goal
from dspex.study.records import Asked, Record
from dspex.study.state import StudyState

__all__ = ["Verification", "verify"]


@final
@dataclass(frozen=True, slots=True)
class Verification:
    """What came out.

    Attributes
    ----------
    derived : int
        Suggestions that came out the same.
    different : tuple of int
        The numbers of trials whose params did not.
    not_derivable : str
        Why nothing could be derived, in words; empty where it could.
    """

    derived: int = 0
    different: tuple[int, ...] = ()
    not_derivable: str = ""


def verify(head: Mapping[str, Any], records: Iterable[Record]) -> Verification:
    """Ask the recorded strategy again for every trial, and compare.

    Parameters
    ----------
    head : mapping
        As the last session left it.
    records : iterable of Record
        A whole log.

    Returns
    -------
    Verification

    Examples
    --------
    >>> from dspex.results.verify import Verification
    >>> Verification(derived=3).different
    ()
    """
    space = Space.from_description(head["space"])
    hindrance = _hindrance(head, space)
    if hindrance:
        return Verification(not_derivable=hindrance)
    goal = Goal.from_description(head["goal"])
    strategy = create(head["strategy"]["name"], **head["strategy"]["options"])
    strategy.begin(
        space, objectives=len(goal.objectives), seed=head["seed"], trials=head.get("trials")
    )
    state = StudyState(space, goal, folds=head["folds"], reproducible=head["reproducible"])
    replay = _Replay(state, strategy, head.get("block"))
    derived: list[int] = []
    different: list[int] = []
    for record in records:
        if isinstance(record, Asked):
            for number, same in replay.derive(record):
                (derived if same else different).append(number)
        state.apply(record)
    return Verification(len(derived), tuple(different))


def _hindrance(head: Mapping[str, Any], space: Space) -> str:
    if head["strategy"]["name"].startswith("optuna"):
        return "Optuna's samplers keep a state of their own, which no log holds"
    if space.describe() != head["space"]:
        return "the space has constraints or conditions that are functions, which no log holds"
    return ""


@final
class _Replay:
    """Asks the strategy what it was asked then."""

    def __init__(self, state: StudyState, strategy: Strategy, block: int | None) -> None:
        self._state = state
        self._strategy = strategy
        self._block = block
        self._told = 0
        self._given = 0  # trials that no strategy proposed; they come first

    def derive(self, record: Asked) -> list[tuple[int, bool]]:
        state = self._state
        last = record.first + len(record.params)
        if all(by != self._strategy.name for by in record.by):
            self._given = last
            return []
        first, count = record.first, len(record.params)
        if self._block is not None:
            # A block is always asked for as a whole, even where only a part became trials.
            start = record.first // self._block * self._block
            first = max(start, self._given)
            count = start + self._block - first
        completed = state.completed(record.told)
        if record.told > self._told:
            self._strategy.tell(completed.since(self._told))
            self._told = record.told
        numbers = np.setdiff1d(np.arange(first), completed.numbers)
        rows = self._strategy.ask(count, completed, state.active(numbers))
        wanted = state.space.rows(record.params)
        offset = record.first - first
        return [
            (
                record.first + index,
                offset + index < len(rows)
                and np.array_equal(rows[offset + index], row, equal_nan=True),
            )
            for index, row in enumerate(wanted)
        ]
