"""What a picture of a study must be told besides its trials.

Knows: the facts of a session, as plain values. Must not know: where they come from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import final

__all__ = ["StudySummary"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class StudySummary:
    """The facts of a study that its trials do not tell.

    Attributes
    ----------
    name, storage : str or None
        Where its log is.
    strategy, reason : str
        What suggested the trials, and why it was chosen.
    stop_reason : str
    wall_time : float
        Seconds.
    busy : float
        The share of the slots' time spent in evaluations, 0 to 1; NaN where it is not known.
    baseline_score : float or None
        The score of the program's own defaults.
    versions : mapping of str to str

    Examples
    --------
    >>> StudySummary(name="digits", strategy="tpe").name
    'digits'
    """

    name: str | None = None
    storage: str | None = None
    strategy: str = ""
    reason: str = ""
    stop_reason: str = ""
    wall_time: float = 0.0
    busy: float = float("nan")
    baseline_score: float | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
