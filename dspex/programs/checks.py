"""What can be known to be wrong with an estimator's data, weights or space, before any work.

Knows: scikit-learn's tags and rules. Must not know: what happens afterwards.
Only cheap checks: what needs a fit to be found fails the first trials, with its traceback.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np

from dspex.errors import (
    InvalidArgumentError,
    InvalidDataError,
    InvalidMetricError,
    InvalidSpaceError,
)
from dspex.programs.goals import close_to
from dspex.programs.metrics import Metrics
from dspex.programs.params import configure, final_step, parameter_of
from dspex.space import Space

__all__ = ["check_data", "check_kind", "check_metadata", "check_space"]

_TRIED = 32
"""How many params are tried on the estimator, without a fit, at well below a millisecond each."""


def check_kind(estimator: Any) -> None:
    """Raise where scikit-learn cannot tell what kind of estimator it is."""
    from sklearn.utils import get_tags

    if not hasattr(type(estimator), "__sklearn_tags__"):
        raise InvalidArgumentError(
            "an estimator has scikit-learn's tags, which tell classifiers from regressors; "
            f"{type(estimator).__name__} has none; derive it from sklearn.base.BaseEstimator "
            "(after ClassifierMixin or RegressorMixin)"
        )
    get_tags(estimator)


def check_data(name: str, X: Any, y: Any, estimator: Any) -> tuple[Any, Any]:
    """The data in a form that can be indexed.

    Raises
    ------
    InvalidDataError
        For data that is empty, ragged or one-dimensional, and targets that are missing, too few,
        NaN or all alike.
    """
    from sklearn.base import is_classifier, is_regressor
    from sklearn.utils import get_tags, indexable
    from sklearn.utils.validation import _num_samples

    if X is None:
        raise InvalidDataError(f"an estimator is fitted on data; got {name}=None; pass (X, y)")
    if isinstance(X, tuple) and len(X) > 2 and all(hasattr(each, "shape") for each in X):
        raise InvalidDataError(
            f"{name} is (X, y), or X alone; got a tuple of {len(X)}; sample weights and groups "
            "go into metadata="
        )
    tags = get_tags(estimator)
    supervised = is_classifier(estimator) or is_regressor(estimator) or tags.target_tags.required
    if supervised and y is None:
        raise InvalidDataError(
            f"{type(estimator).__name__} learns from a target; {name} has none; pass "
            f"{name}=(X, y), a tuple of two"
        )
    try:
        count = _num_samples(X)
        targets = None if y is None else _num_samples(y)
    except TypeError as error:
        raise InvalidDataError(f"{name} is one sample per row; {error}; pass arrays") from error
    if count == 0:
        raise InvalidDataError(f"an estimator is fitted on samples; {name} has none")
    if targets is not None and targets != count:
        raise InvalidDataError(
            f"X and y have one row per sample; {name} has {count} in X and {targets} in y"
        )
    if (
        isinstance(X, np.ndarray)
        and X.ndim == 1
        and X.dtype.kind in "fiub"
        and tags.input_tags.two_d_array
        and not tags.input_tags.one_d_array
    ):
        raise InvalidDataError(
            f"X is two-dimensional, samples by features; {name} has shape {X.shape}; "
            "use X.reshape(-1, 1) for one feature"
        )
    if y is not None and supervised:
        _check_target(name, y, estimator, classifier=is_classifier(estimator))
    return tuple(indexable(X, y))


def _check_target(name: str, y: Any, estimator: Any, *, classifier: bool) -> None:
    target = y.to_numpy() if hasattr(y, "to_numpy") else y
    if hasattr(target, "toarray"):
        return
    try:
        target = np.asarray(target)
    except ValueError:  # ragged: multilabel sets
        return
    if target.dtype.kind == "f":
        missing = int((~np.isfinite(target)).sum())
    elif target.dtype.kind == "O":
        missing = sum(each is None or each != each for each in target.ravel().tolist())
    else:
        missing = 0
    if missing:
        raise InvalidDataError(
            f"a target is known and finite for every sample; {missing} of {len(target)} in "
            f"{name} are missing or infinite; drop those rows"
        )
    if not classifier:
        return
    if target.ndim == 1 and bool(np.all(target == target[0])):
        raise InvalidDataError(
            f"a classifier learns at least two classes; all of y in {name} is "
            f"{target[:1].tolist()[0]!r}; check the target"
        )
    if type(final_step(estimator)[1]).__module__.startswith("sklearn."):
        from sklearn.utils.multiclass import check_classification_targets

        try:
            check_classification_targets(y)
        except ValueError as error:
            raise InvalidDataError(
                f"a classifier learns classes; y in {name} holds something else: {error} For "
                "whole numbers in an object array use y.astype(int)"
            ) from error


def check_metadata(metadata: Any, X: Any) -> dict[str, Any]:
    """The metadata as a dict, its lengths checked.

    Raises
    ------
    InvalidDataError
    """
    from sklearn.utils.validation import _num_samples

    if metadata is None:
        return {}
    if not isinstance(metadata, Mapping) or not all(isinstance(key, str) for key in metadata):
        raise InvalidArgumentError(
            'metadata is a dict such as {"groups": g, "sample_weight": w}; got '
            f"{metadata!r} of type {type(metadata).__name__}"
        )
    count = _num_samples(X)
    for key in ("groups", "sample_weight"):
        value = metadata.get(key)
        if value is not None and _num_samples(value) != count:
            raise InvalidDataError(
                f"metadata has one value per sample; {key!r} has {_num_samples(value)} for "
                f"{count} samples"
            )
    return {key: value for key, value in metadata.items() if value is not None}


def check_space(estimator: Any, space: Space, fit_keys: list[str], metrics: Metrics) -> None:
    """Set params on clones of the estimator, and see that it takes them.

    Parameters
    ----------
    estimator, space
    fit_keys : list of str
        What is passed to the fit of the final step, such as ``["sample_weight"]``.
    metrics : Metrics

    Raises
    ------
    InvalidSpaceError
        For a parameter that the estimator does not have.
    InvalidArgumentError
        Where a final step does not take the metadata.
    InvalidMetricError
        Where a final step cannot be scored.
    """
    known = sorted(estimator.get_params(deep=True))
    for name in space.names:
        parameter = parameter_of(name)
        if "." not in name and parameter not in known and not _may_come(parameter, space):
            raise InvalidSpaceError(
                f"the variables of an estimator are its parameters; "
                f"{type(estimator).__name__} has no {name!r}; {close_to(name, known)}",
                name=name,
            )
    defaults = space.defaults()
    tried = [*space.sample(_TRIED, seed=0), *([] if defaults is None else [defaults])]
    missing: set[str] = set()
    scored = False
    for params in tried:
        try:
            model = configure(estimator, space.resolve(params))
        except (ValueError, TypeError, AttributeError) as error:
            raise InvalidSpaceError(
                f"every params of the space fit the estimator; these do not: {params}: {error}; "
                "put variables of one option into a Component, or give them .when(...)"
            ) from error
        check_fit_keys(model, fit_keys)
        lacking = metrics.lacking(model)
        missing |= lacking
        scored = scored or not lacking
    # One that can sometimes be scored may be tuned; its other params fail, with the reason.
    if not scored:
        raise InvalidMetricError(
            f"a metric scores what an estimator answers; {type(final_step(estimator)[1]).__name__} "
            f"has no method {' or '.join(sorted(missing))} for it with any params tried; choose "
            "another metric, or another estimator or setting of it"
        )


def check_fit_keys(model: Any, keys: list[str]) -> None:
    """Raise where the fit of the step meant by a key of metadata does not take it."""
    for key in keys:
        owner, name = _owner(model, key)
        if not hasattr(owner, "fit"):  # "passthrough"
            continue
        parameters = inspect.signature(owner.fit).parameters
        if any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
            continue
        if name not in parameters:
            raise InvalidArgumentError(
                f"metadata is passed to the splitter (groups) and to a step's fit; "
                f"{type(owner).__name__}.fit takes no {name!r}; "
                f"{close_to(name, ['groups', *list(parameters)[2:]])}"
            )


def _owner(model: Any, key: str) -> tuple[Any, str]:
    """The step that a key means, and the name of the parameter of its fit."""
    if "__" not in key:
        return final_step(model)[1], key
    while hasattr(model, "steps") and "__" in key:
        step, _, key = key.partition("__")
        steps = dict(model.steps)
        if step not in steps:
            raise InvalidArgumentError(
                f"metadata names a step before two underscores; there is no step {step!r}; "
                f"{close_to(step, list(steps))}"
            )
        model = steps[step]
    return model, key


def _may_come(parameter: str, space: Space) -> bool:
    """Whether an object that the space sets may bring this parameter."""
    parts = parameter.split("__")
    return any("__".join(parts[:stop]) in space.names for stop in range(1, len(parts)))
