"""How one trial of a program is evaluated.

Knows: the kinds of programs (functions, classes, scikit-learn estimators, anything that keeps the
`Program` protocol), their data, metrics and splits. Must not know: strategies, clusters, logs.

`build` is the door: what is wrong with a program, its data, its metric or its space is said there,
before any work is spent. scikit-learn is imported only once an estimator comes along.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dspex.programs.base import FoldedProgram, Program, RunningTrial
    from dspex.programs.prepared import Prepared, build
    from dspex.programs.suggestions import suggest_space

__all__ = ["FoldedProgram", "Prepared", "Program", "RunningTrial", "build", "suggest_space"]

_HOMES = {
    "FoldedProgram": "dspex.programs.base",
    "Prepared": "dspex.programs.prepared",
    "Program": "dspex.programs.base",
    "RunningTrial": "dspex.programs.base",
    "build": "dspex.programs.prepared",
    "suggest_space": "dspex.programs.suggestions",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
