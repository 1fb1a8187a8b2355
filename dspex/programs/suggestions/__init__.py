"""The search space that a known estimator brings along.

Knows: how to find the estimators in an estimator, and the tables of what to vary in each.
Must not know: data; a suggestion fits any data that the estimator fits.

The tables (`linear`, `kernels`, `trees`, `steps`) are keyed by class name, so that nothing is
imported to look; a subclass of a known class gets what its base gets.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from dspex.errors import InvalidArgumentError, InvalidSpaceError
from dspex.programs.params import is_estimator
from dspex.programs.suggestions import kernels, linear, steps, trees
from dspex.programs.suggestions.table import Suggestion, Table
from dspex.space import Space

__all__ = ["known_estimators", "suggest_space"]

_TABLES: Mapping[str, Table] = {
    "sklearn": {**linear.TABLE, **kernels.TABLE, **trees.TABLE, **steps.TABLE},
    "xgboost": trees.XGBOOST,
    "lightgbm": trees.LIGHTGBM,
}


def known_estimators() -> list[str]:
    """The names of the classes that have a suggestion.

    Examples
    --------
    >>> {"SVC", "Ridge", "XGBClassifier"} <= set(known_estimators())
    True
    """
    return sorted(name for table in _TABLES.values() for name in table)


def suggest_space(estimator: Any) -> Space:
    """What is worth varying in an estimator, in the steps of a pipeline, in what others wrap.

    Variables are called like the estimator's parameters (``"svc__C"``), and their defaults are
    the values that it has now, where these lie in the suggested range.

    Parameters
    ----------
    estimator : scikit-learn estimator
        Nested ones (pipelines, column transformers, ensembles) are looked into.

    Raises
    ------
    InvalidArgumentError
        Where it is no estimator.
    InvalidSpaceError
        Where nothing in it is known.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from sklearn.linear_model import Ridge
    >>> suggest_space(make_pipeline(StandardScaler(), Ridge())).names
    ('ridge__alpha',)
    """
    if not is_estimator(estimator):
        remedy = "pass an object of it" if isinstance(estimator, type) else "pass an estimator"
        raise InvalidArgumentError(
            f"spaces are suggested for scikit-learn estimators; got {estimator!r}; {remedy}"
        )
    variables: dict[str, Any] = {}
    for prefix, part in _parts(estimator):
        present = part.get_params(deep=False)
        for name, suggestion in _known(part).items():
            if name in present and suggestion.fits(present):
                variables[prefix + name] = suggestion.variable(prefix, present[name])
    if not variables:
        raise InvalidSpaceError(
            f"a study varies something; no variables are known for {type(estimator).__name__}; "
            'pass space={"parameter": variable}'
        )
    return Space(variables)


def _parts(estimator: Any) -> Iterator[tuple[str, Any]]:
    """The estimator and those in it, with the prefix of their parameters."""
    parts = {"": estimator}
    for name, value in estimator.get_params(deep=True).items():
        if is_estimator(value):
            parts[f"{name}__"] = value
    searching = [prefix for prefix, part in parts.items() if _searches(part)]
    for prefix, part in parts.items():
        inside = (each for each in searching if prefix != each)
        if not any(prefix.startswith(each) for each in inside):
            yield prefix, part


def _searches(estimator: Any) -> bool:
    """Whether it varies what it wraps by itself, as GridSearchCV does."""
    return hasattr(estimator, "param_grid") or hasattr(estimator, "param_distributions")


def _known(estimator: Any) -> Mapping[str, Suggestion]:
    for base in type(estimator).__mro__:
        table = _TABLES.get(base.__module__.partition(".")[0], {})
        if base.__name__ in table:
            return table[base.__name__]
    return {}
