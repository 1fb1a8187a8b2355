"""From what a user wrote to a strategy, and the reason for it in words.

Knows: the names of the strategies and where each lives. Must not know: how any of them works.
"""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from importlib import import_module
from typing import Any

from dspex.errors import InvalidArgumentError, UnknownStrategyError
from dspex.space import Space
from dspex.strategies.auto import choose
from dspex.strategies.base import Strategy

__all__ = ["NAMES", "create", "make"]

# {the word of `optimize(strategy=...)`: (file, class)}
_CLASSES = {
    "cmaes": ("cmaes", "CMAES"),
    "grid": ("grid", "Grid"),
    "random": ("random", "Random"),
    "sobol": ("sobol", "Sobol"),
    "tpe": ("tpe", "TPE"),
}

NAMES = ("auto", *_CLASSES)
"""The words that `make` understands."""


def create(name: str, **options: Any) -> Strategy:
    """The strategy of this name, with options as its ``options()`` gave them."""
    file, cls = _CLASSES[name]
    strategy: Strategy = getattr(import_module(f"dspex.strategies.{file}"), cls)(**options)
    return strategy


def make(
    strategy: object,
    *,
    space: Space,
    objectives: int,
    trials: int | None,
    seedable_needed: bool = False,
) -> tuple[Strategy, str]:
    """A strategy from what the user passed.

    Parameters
    ----------
    strategy : str, Strategy or Optuna sampler
        A name, ``"auto"``, an object of `dspex.strategies` with its options, or a sampler.
    space : Space
    objectives : int
    trials : int or None
        The study's budget; None where it is not known.
    seedable_needed : bool
        Whether the study is to be reproducible.

    Returns
    -------
    (Strategy, str)
        The strategy, not begun, and in one sentence why it is this one.

    Raises
    ------
    UnknownStrategyError
        For an unknown name; lists the known ones.
    InvalidArgumentError
        For anything else that is no strategy, and for a strategy that cannot be reproducible
        where that is needed.

    Examples
    --------
    >>> from dspex.space import Float
    >>> strategy, reason = make("random", space=Space({"x": Float(0, 1)}), objectives=1, trials=9)
    >>> strategy.name, reason
    ('random', 'random, because you asked for it')
    """
    made, reason = _resolve(strategy, space, objectives, trials)
    if seedable_needed and not made.seedable:
        raise InvalidArgumentError(
            f"a reproducible study needs a strategy whose suggestions follow from the seed alone; "
            f"{made.name!r} keeps random state of its own; leave out seed=, pass "
            "reproducible=False, or choose a strategy of dspex"
        )
    return made, reason


def _resolve(
    strategy: object, space: Space, objectives: int, trials: int | None
) -> tuple[Strategy, str]:
    if isinstance(strategy, str):
        if strategy == "auto":
            name, reason = choose(space, objectives=objectives, trials=trials)
            return create(name), reason
        if strategy not in _CLASSES:
            raise _unknown(strategy)
        return create(strategy), f"{strategy}, because you asked for it"
    if _is_optuna_sampler(strategy):
        adapter: Callable[[Any], Strategy] = import_module("dspex.strategies.optuna_adapter").Optuna
        made = adapter(strategy)
        return made, f"{made.name}, because you passed this sampler"
    if isinstance(strategy, Strategy) and not isinstance(strategy, type):
        return strategy, f"{strategy.name}, because you passed this strategy"
    raise InvalidArgumentError(
        f"a strategy is a name, an object of dspex.strategies or an Optuna sampler; got "
        f"{strategy!r} of type {type(strategy).__name__}; names are {_known()}"
    )


def _unknown(name: str) -> UnknownStrategyError:
    close = get_close_matches(name.lower().replace("-", "").replace("_", ""), NAMES, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return UnknownStrategyError(
        f"no strategy is called {name!r}; {hint}known are {_known()}", name=name
    )


def _known() -> str:
    return ", ".join(f'"{name}"' for name in NAMES)


def _is_optuna_sampler(value: object) -> bool:
    """Told by the classes' names, so that optuna is not imported for those who do not use it."""
    return any(
        cls.__module__.startswith("optuna.samplers") and cls.__name__ == "BaseSampler"
        for cls in type(value).__mro__
    )
