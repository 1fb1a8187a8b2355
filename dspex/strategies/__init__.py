"""What to try next: one seeded ask/tell algorithm per file.

Every file loads the libraries that it needs when it is used, so choosing one strategy does not
import another's.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dspex.strategies.base import Strategy
from dspex.strategies.registry import make

if TYPE_CHECKING:
    from dspex.strategies.cmaes import CMAES
    from dspex.strategies.grid import Grid
    from dspex.strategies.optuna_adapter import Optuna
    from dspex.strategies.random import Random
    from dspex.strategies.sobol import Sobol
    from dspex.strategies.tpe import TPE

__all__ = ["CMAES", "TPE", "Grid", "Optuna", "Random", "Sobol", "Strategy", "make"]

# {class: its file}
_HOMES = {
    "CMAES": "cmaes",
    "TPE": "tpe",
    "Grid": "grid",
    "Optuna": "optuna_adapter",
    "Random": "random",
    "Sobol": "sobol",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
