"""The pictures of a study: ``result.plot.history()`` and its neighbours.

Knows: which pictures there are, and what each is drawn from. Must not know: how they look.
Bokeh is imported with the first picture.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any, final

from dspex.errors import InvalidArgumentError
from dspex.monitoring.importance import importances
from dspex.monitoring.views import objective_named
from dspex.space import Space
from dspex.study.goal import Goal
from dspex.study.trial import Trial

__all__ = ["Plots"]


@final
class Plots:
    """Pictures of a study's trials, each a Bokeh figure or layout.

    In a notebook a picture shows itself where it ends a cell; elsewhere ``bokeh.io.show`` and
    ``bokeh.io.save`` take it. A study with too few trials gives a picture that says so.

    Parameters
    ----------
    trials : sequence of Trial
        Read when the first picture is drawn.
    space : Space
    goal : Goal

    Examples
    --------
    >>> from dspex.space import Float
    >>> plots = Plots([], Space({"x": Float(0, 1)}), Goal.of("maximize"))
    >>> plots.history().title.text
    'score, higher is better'
    """

    def __init__(self, trials: Sequence[Trial], space: Space, goal: Goal) -> None:
        self._given = trials
        self._space = space
        self._goal = goal
        self._found: dict[str, dict[str, float]] = {}

    def __repr__(self) -> str:
        return (
            "<Plots: history, pareto, importance, slice, contour, parallel_coordinates, timeline>"
        )

    def __call__(self) -> Any:
        """The history."""
        return self.history()

    @cached_property
    def _trials(self) -> list[Trial]:
        return list(self._given)

    def history(self, objective: str | None = None) -> Any:
        """Scores in the order of trials, and the best so far.

        Parameters
        ----------
        objective : str, optional
            One objective. By default the only one; with several the Pareto front of the first
            two, and below it each over the trials.
        """
        from bokeh.layouts import column

        from dspex.monitoring.plots.history import draw_history
        from dspex.monitoring.plots.style import displayed

        if objective is not None or len(self._goal.objectives) == 1:
            chosen = objective_named(self._goal, objective)
            return displayed(draw_history(self._trials, self._goal, chosen))
        each = [draw_history(self._trials, self._goal, o) for o in self._goal.objectives]
        return displayed(column([self.pareto(), *each], sizing_mode="stretch_width"))

    def pareto(self, x: str | None = None, y: str | None = None) -> Any:
        """Two objectives against each other, and which trials no other one dominates.

        Parameters
        ----------
        x, y : str, optional
            Names of two objectives; the first two by default.

        Raises
        ------
        InvalidArgumentError
            Where the study has one objective only.
        """
        from dspex.monitoring.plots.pareto import draw_pareto
        from dspex.monitoring.plots.style import displayed

        names = [objective.name for objective in self._goal.objectives]
        if len(names) < 2:
            raise InvalidArgumentError(
                f"a Pareto front needs two objectives; this study has {names[0]!r} only; "
                "plot.history() shows it"
            )
        pair = [
            objective_named(self._goal, x or names[0]),
            objective_named(self._goal, y or names[1]),
        ]
        return displayed(draw_pareto(self._trials, self._goal, pair[0], pair[1]))

    def timeline(self) -> Any:
        """Workers as rows, trials as bars coloured by state."""
        from dspex.monitoring.plots.style import displayed
        from dspex.monitoring.plots.timeline import draw_timeline

        return displayed(draw_timeline(self._trials))

    def slice(self, params: Iterable[str] | None = None, *, objective: str | None = None) -> Any:
        """The score against each variable alone.

        Parameters
        ----------
        params : iterable of str, optional
            Names of variables; by default the twelve most important.
        objective : str, optional
            The first by default.
        """
        from dspex.monitoring.plots.slices import draw_slices
        from dspex.monitoring.plots.style import displayed

        chosen = objective_named(self._goal, objective)
        ranking = list(self._importances(chosen.name))
        return displayed(
            draw_slices(self._trials, self._space, self._goal, chosen, params, ranking)
        )

    def contour(
        self, x: str | None = None, y: str | None = None, *, objective: str | None = None
    ) -> Any:
        """The score as a map over two variables, and the trials on it.

        Parameters
        ----------
        x, y : str, optional
            Names of two variables; by default the two most important.
        objective : str, optional
            The first by default.

        Raises
        ------
        InvalidArgumentError
            Where the study has one variable only, or none of a name.
        """
        from dspex.monitoring.plots.axes import chosen_leaves
        from dspex.monitoring.plots.contour import draw_contour
        from dspex.monitoring.plots.style import displayed

        chosen = objective_named(self._goal, objective)
        ranked = [name for name in self._importances(chosen.name) if name not in (x, y)]
        names = [each if each is not None else ranked.pop(0) if ranked else "" for each in (x, y)]
        if "" in names or names[0] == names[1]:
            got = " and ".join(repr(name) for name in names if name)
            raise InvalidArgumentError(
                f"a map is drawn over two variables; got {got}; plot.slice() shows one"
            )
        first, second = chosen_leaves(self._space, names, (), 2)
        return displayed(
            draw_contour(self._trials, self._space, self._goal, chosen, (first, second))
        )

    def importance(self, objective: str | None = None) -> Any:
        """How much the score depends on each variable."""
        from dspex.monitoring.plots.importance import draw_importance
        from dspex.monitoring.plots.style import displayed

        chosen = objective_named(self._goal, objective)
        completed = sum(trial.score is not None for trial in self._trials)
        return displayed(draw_importance(self._importances(chosen.name), chosen, completed))

    def parallel_coordinates(
        self, params: Iterable[str] | None = None, *, objective: str | None = None
    ) -> Any:
        """One line per trial across its params, coloured by score.

        Parameters
        ----------
        params : iterable of str, optional
            Names of variables; by default the twelve most important.
        objective : str, optional
            The first by default.
        """
        from dspex.monitoring.plots.parallel import draw_parallel_coordinates
        from dspex.monitoring.plots.style import displayed

        chosen = objective_named(self._goal, objective)
        ranking = list(self._importances(chosen.name))
        return displayed(
            draw_parallel_coordinates(
                self._trials, self._space, self._goal, chosen, params, ranking
            )
        )

    def _importances(self, objective: str) -> dict[str, float]:
        found = self._found.get(objective)
        if found is None:
            found = importances(self._trials, self._space, self._goal, objective=objective)
            self._found[objective] = found
        return found
