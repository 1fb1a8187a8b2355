"""What a user may pass as strategy, what "auto" makes of a space, and what is refused."""

from __future__ import annotations

import subprocess
import sys

import optuna
import pytest

import dspex.strategies
from dspex.errors import InvalidArgumentError, UnknownStrategyError
from dspex.space import Bool, Choice, Float, Int, Space
from dspex.strategies import CMAES, TPE, Grid, Optuna, make
from dspex.strategies.auto import choose
from dspex.strategies.registry import NAMES

NUMBERS = Space({"x": Float(0, 1), "y": Float(0, 1)})
LABELS = Space({"kind": ["a", "b"], "flag": Bool()})


@pytest.mark.parametrize("name", [name for name in NAMES if name != "auto"])
def test_every_name_makes_its_strategy(name: str) -> None:
    strategy, reason = make(name, space=NUMBERS, objectives=1, trials=10)
    assert strategy.name == name
    assert reason == f"{name}, because you asked for it"


def test_an_object_is_taken_as_it_is() -> None:
    mine = TPE(startup=3)
    strategy, reason = make(mine, space=NUMBERS, objectives=1, trials=None)
    assert strategy is mine
    assert reason == "tpe, because you passed this strategy"


def test_a_sampler_of_optuna_is_wrapped() -> None:
    strategy, reason = make(
        optuna.samplers.RandomSampler(), space=NUMBERS, objectives=1, trials=None
    )
    assert isinstance(strategy, Optuna)
    assert reason == "optuna:RandomSampler, because you passed this sampler"


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(UnknownStrategyError, match="did you mean 'cmaes'") as caught:
        make("CMA-ES", space=NUMBERS, objectives=1, trials=10)
    assert all(f'"{name}"' in str(caught.value) for name in NAMES)
    with pytest.raises(UnknownStrategyError, match="no strategy is called 'gp'; "):
        make("gp", space=NUMBERS, objectives=1, trials=10)


@pytest.mark.parametrize("wrong", [TPE, 3, None, object()])
def test_what_is_no_strategy_is_refused(wrong: object) -> None:
    with pytest.raises(InvalidArgumentError, match="a strategy is a name"):
        make(wrong, space=NUMBERS, objectives=1, trials=10)


def test_reproducible_studies_refuse_what_keeps_random_state() -> None:
    sampler = optuna.samplers.RandomSampler(seed=1)
    with pytest.raises(InvalidArgumentError, match="reproducible=False"):
        make(sampler, space=NUMBERS, objectives=1, trials=10, seedable_needed=True)
    assert make("tpe", space=NUMBERS, objectives=1, trials=10, seedable_needed=True)


@pytest.mark.parametrize(
    ("space", "objectives", "trials", "name", "why"),
    [
        (LABELS, 1, 4, "grid", "only 4 different params"),
        (LABELS, 2, 4, "grid", "only 4 different params"),
        (LABELS, 1, 3, "tpe", "every kind of variable"),
        (LABELS, 1, None, "tpe", "every kind of variable"),
        (NUMBERS, 1, 100, "tpe", "learns from few trials"),
        (NUMBERS, 1, 500, "cmaes", "all 2 variables are numbers"),
        (NUMBERS, 2, 500, "tpe", "several objectives"),
        (Space({"x": Float(0, 1)}), 1, 5000, "tpe", "every kind"),
        (Space({"x": Float(0, 1), "n": Int(1, 5)}), 1, 5000, "tpe", "every kind"),
        (Space({"x": Float(0, 1), "n": Int(1, 500)}), 1, 5000, "cmaes", "numbers"),
        (Space({"x": Float(0, 1), "c": Choice(["a", "b"])}), 1, 5000, "tpe", "every kind"),
        (
            Space({"x": Float(0, 1), "n": Int(1, 9), "y": Float(0, 1).when("n", equals=2)}),
            1,
            5000,
            "tpe",
            "conditional variables",
        ),
    ],
)
def test_auto_chooses_and_says_why(
    space: Space, objectives: int, trials: int | None, name: str, why: str
) -> None:
    chosen, reason = choose(space, objectives=objectives, trials=trials)
    assert chosen == name
    assert reason.startswith(f"{name}, because ")
    assert why in reason
    assert make("auto", space=space, objectives=objectives, trials=trials)[0].name == name


def test_what_auto_chooses_serves_the_space() -> None:
    for space in (LABELS, NUMBERS):
        for trials in (1, 10, 10_000):
            strategy, _ = make("auto", space=space, objectives=1, trials=trials)
            strategy.begin(space, objectives=1, seed=0, trials=trials)


def test_names_are_pinned_and_importable() -> None:
    assert dspex.strategies.__all__ == [
        "CMAES",
        "TPE",
        "Grid",
        "Optuna",
        "Random",
        "Sobol",
        "Strategy",
        "make",
    ]
    for name in dspex.strategies.__all__:
        assert getattr(dspex.strategies, name).__name__ == name
        assert name in dir(dspex.strategies)
    with pytest.raises(AttributeError, match="no attribute 'GP'"):
        dspex.strategies.GP  # noqa: B018


def test_one_strategy_does_not_load_the_libraries_of_another() -> None:
    code = (
        "import sys; from dspex.strategies import Random, make; from dspex.space import *; "
        "make('random', space=Space({'x': Float(0, 1)}), objectives=1, trials=3)[0]; "
        "print([m for m in ('scipy', 'cmaes', 'optuna', 'sklearn') if m in sys.modules])"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("make_it", "rule"),
    [
        (lambda: TPE(startup=0), "startup of TPE is at least 1; got 0"),
        (lambda: TPE(candidates=0), "candidates of TPE is at least 1"),
        (lambda: Grid(resolution=0), "resolution of Grid is at least 1"),
        (lambda: CMAES(population=3), "population of CMAES is at least 4"),
        (lambda: CMAES(sigma=0), "sigma of CMAES"),
        (lambda: Optuna("tpe"), "takes an object of optuna.samplers"),  # type: ignore[arg-type]
    ],
)
def test_options_are_checked_at_the_door(make_it: object, rule: str) -> None:
    assert callable(make_it)
    with pytest.raises(InvalidArgumentError, match=rule):
        make_it()
