"""One ask/tell run of either side, in a process of its own; prints one line of JSON.

    python suggest.py cost SIDE STRATEGY TRIALS SEED
    python suggest.py best SIDE STRATEGY TRIALS SEED FUNCTION

SIDE is dspex or optuna. Both go through the same loop: ask one trial, compute a number that costs
nothing, tell it. The clock includes all bookkeeping of the side; imports are done before.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Params = Mapping[str, Any]
Ask = Callable[[], tuple[Any, Params]]
Tell = Callable[[Any, float], None]


# --- functions on the unit cube, all with the minimum 0 --------------------------------------


def branin(u: np.ndarray) -> float:
    x, y = 15 * u[0] - 5, 15 * u[1]
    bowl = (y - 5.1 / (4 * math.pi**2) * x**2 + 5 / math.pi * x - 6) ** 2
    return float(bowl + 10 * (1 - 1 / (8 * math.pi)) * math.cos(x) + 10 - 0.39788735772973816)


_A = np.array(
    [
        [10, 3, 17, 3.5, 1.7, 8],
        [0.05, 10, 17, 0.1, 8, 14],
        [3, 3.5, 1.7, 10, 17, 8],
        [17, 8, 0.05, 10, 0.1, 14],
    ]
)
_P = 1e-4 * np.array(
    [
        [1312, 1696, 5569, 124, 8283, 5886],
        [2329, 4135, 8307, 3736, 1004, 9991],
        [2348, 1451, 3522, 2883, 3047, 6650],
        [4047, 8828, 8732, 5743, 1091, 381],
    ]
)
_ALPHA = np.array([1.0, 1.2, 3.0, 3.2])


def hartmann6(u: np.ndarray) -> float:
    return float(3.322368011415515 - _ALPHA @ np.exp(-(_A * (u - _P) ** 2).sum(axis=1)))


def rosenbrock8(u: np.ndarray) -> float:
    x = 15 * u - 5
    return float((100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum())


FUNCTIONS = {"branin": (branin, 2), "hartmann6": (hartmann6, 6), "rosenbrock8": (rosenbrock8, 8)}

NUMBERS = [f"x{i}" for i in range(6)]
KINDS = ["a", "b", "c", "d"]


def mixed(params: Params) -> float:
    """Six floats, one whole number on a logarithmic scale, one label."""
    total = sum((params[name] - 0.3) ** 2 for name in NUMBERS)
    return total + (math.log10(params["n"]) - 2) ** 2 + 0.1 * KINDS.index(params["kind"])


# --- sides -----------------------------------------------------------------------------------


def dspex_side(strategy: str, seed: int, dimensions: int | None) -> tuple[Ask, Tell]:
    import dspex

    space: dict[str, Any]
    if dimensions is None:
        space = {name: dspex.Float(0, 1) for name in NUMBERS}
        space |= {"n": dspex.Int(1, 10_000, log=True), "kind": KINDS}
    else:
        space = {f"u{i}": dspex.Float(0, 1) for i in range(dimensions)}
    study = dspex.Study(space, strategy, direction="minimize", seed=seed)

    def ask() -> tuple[Any, Params]:
        trial = study.ask()
        return trial, trial.params

    return ask, study.tell


def optuna_side(strategy: str, seed: int, dimensions: int | None) -> tuple[Ask, Tell]:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    samplers = {"random": optuna.samplers.RandomSampler, "tpe": optuna.samplers.TPESampler}
    study = optuna.create_study(sampler=samplers[strategy](seed=seed))

    def ask() -> tuple[Any, Params]:
        trial = study.ask()
        if dimensions is not None:
            return trial, {f"u{i}": trial.suggest_float(f"u{i}", 0, 1) for i in range(dimensions)}
        params: dict[str, Any] = {name: trial.suggest_float(name, 0, 1) for name in NUMBERS}
        params["n"] = trial.suggest_int("n", 1, 10_000, log=True)
        params["kind"] = trial.suggest_categorical("kind", KINDS)
        return trial, params

    def tell(trial: Any, value: float) -> None:
        study.tell(trial, value)

    return ask, tell


SIDES = {"dspex": dspex_side, "optuna": optuna_side}


def main() -> None:
    what, side, strategy, trials, seed, *rest = sys.argv[1:]
    function, dimensions = FUNCTIONS[rest[0]] if what == "best" else (None, None)

    def run(count: int, seed: int) -> tuple[float, list[float]]:
        ask, tell = SIDES[side](strategy, seed, dimensions)
        best, marks = math.inf, [time.perf_counter()]
        for _ in range(count):
            trial, params = ask()
            value = (
                mixed(params) if function is None else function(np.fromiter(params.values(), float))
            )
            tell(trial, value)
            best = min(best, value)
            marks.append(time.perf_counter())
        return best, marks

    run(15, 0)  # imports and first calls
    best, marks = run(int(trials), int(seed))
    steps = np.diff(marks)
    around = {n: float(np.median(steps[n - 100 : n])) for n in (1000, 10_000) if n <= len(steps)}
    print(json.dumps({"seconds": marks[-1] - marks[0], "best": best, "step_at": around}))


if __name__ == "__main__":
    main()
