"""Improve machine-learning programs on a Dask cluster.

``dspex.optimize(program, training_data, metric=...)`` evaluates many candidates in parallel and
returns the best. Names are imported when they are first used: ``import dspex`` loads neither
numpy nor Dask nor scikit-learn.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dspex.api import optimize
    from dspex.cluster.foundation.connecting import connect
    from dspex.programs import suggest_space
    from dspex.programs.base import Program, RunningTrial
    from dspex.results import OptimizationResult, Study, load
    from dspex.space import Bool, Choice, Component, Derived, Float, Int, Space
    from dspex.storage import delete_study, studies
    from dspex.strategies.base import Strategy
    from dspex.study.measurement import Measurement
    from dspex.study.trial import Trial, TrialState

__version__ = "0.1.0"

# {public name: where it lives}
_HOMES = {
    "Bool": "dspex.space",
    "Choice": "dspex.space",
    "Component": "dspex.space",
    "Derived": "dspex.space",
    "Float": "dspex.space",
    "Int": "dspex.space",
    "Measurement": "dspex.study.measurement",
    "OptimizationResult": "dspex.results",
    "Program": "dspex.programs.base",
    "RunningTrial": "dspex.programs.base",
    "Space": "dspex.space",
    "Strategy": "dspex.strategies.base",
    "Study": "dspex.results",
    "Trial": "dspex.study.trial",
    "TrialState": "dspex.study.trial",
    "connect": "dspex.cluster.foundation.connecting",
    "delete_study": "dspex.storage",
    "load": "dspex.results",
    "optimize": "dspex.api",
    "studies": "dspex.storage",
    "suggest_space": "dspex.programs",
}

__all__ = [
    "Bool",
    "Choice",
    "Component",
    "Derived",
    "Float",
    "Int",
    "Measurement",
    "OptimizationResult",
    "Program",
    "RunningTrial",
    "Space",
    "Strategy",
    "Study",
    "Trial",
    "TrialState",
    "connect",
    "delete_study",
    "load",
    "optimize",
    "studies",
    "suggest_space",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'dspex' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
