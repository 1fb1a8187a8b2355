"""What goes into the engine and what comes out: events in the past tense, commands as orders.

Knows: their fields. Must not know: who makes events, who performs commands.
`Measured` and `Failed` (`study.records`), `Lost` and `CapacityChanged` (`engine.ports`) are
events too: what an executor reports goes into the engine as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from dspex.engine.ports import CapacityChanged, Evaluation, Lost
from dspex.errors import DspexError
from dspex.study.records import Failed, Measured, Record
from dspex.study.table import ActiveTrials, CompletedTrials

__all__ = [
    "Abort",
    "Append",
    "Cancel",
    "Command",
    "Ended",
    "Evaluate",
    "Event",
    "Finish",
    "StopRequested",
    "Suggest",
    "Suggested",
]


# --- events --------------------------------------------------------------------------------


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Suggested:
    """The strategy answered a `Suggest`; fewer rows than asked for mean an exhausted space."""

    rows: NDArray[np.float64]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class StopRequested:
    """Time is up (``"timeout"``) or a person wants to stop (``"interrupted"``)."""

    reason: str


Event: TypeAlias = Suggested | Measured | Failed | Lost | CapacityChanged | StopRequested


# --- commands ------------------------------------------------------------------------------


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Suggest:
    """Tell the strategy ``new``, ask it for ``n`` rows, and answer with `Suggested`."""

    n: int
    new: CompletedTrials
    completed: CompletedTrials
    active: ActiveTrials


@final
@dataclass(frozen=True, slots=True)
class Evaluate:
    """Submit evaluations to the executor."""

    evaluations: Sequence[Evaluation]


@final
@dataclass(frozen=True, slots=True)
class Cancel:
    """Have the executor forget these trials."""

    trials: Sequence[int]


@final
@dataclass(frozen=True, slots=True)
class Append:
    """Add a record to the log; the engine's state has it already."""

    record: Record


@final
@dataclass(frozen=True, slots=True)
class Ended:
    """Tell observers that a trial reached its final state."""

    trial: int


@final
@dataclass(frozen=True, slots=True)
class Finish:
    """The study is over, in order."""

    reason: str


@final
@dataclass(frozen=True, slots=True)
class Abort:
    """The study cannot go on; everything recorded is kept."""

    error: DspexError


Command: TypeAlias = Suggest | Evaluate | Cancel | Append | Ended | Finish | Abort
