"""What happened: trials, their columns, the records of a study and what they add up to."""

from dspex.study.goal import Constraint, Goal, Objective
from dspex.study.measurement import Measurement
from dspex.study.state import StudyState
from dspex.study.trial import ErrorInfo, Trial, TrialState

__all__ = [
    "Constraint",
    "ErrorInfo",
    "Goal",
    "Measurement",
    "Objective",
    "StudyState",
    "Trial",
    "TrialState",
]
