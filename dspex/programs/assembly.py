"""The door for scikit-learn estimators: their data, metric, splits and space put together.

Knows: in which order things can be checked. Must not know: how one fold is measured (`sklearn`).
"""

from __future__ import annotations

from typing import Any

from dspex.errors import InvalidArgumentError, InvalidDataError, InvalidParamsError
from dspex.programs.checks import check_data, check_kind, check_metadata, check_space
from dspex.programs.data import pair, sealed
from dspex.programs.goals import goal_of
from dspex.programs.identity import content_hash, fingerprint
from dspex.programs.metrics import Metrics, metrics_of
from dspex.programs.params import parameter_of
from dspex.programs.routing import route
from dspex.programs.sklearn import Dataset, EstimatorProgram
from dspex.programs.splits import describe_splits, splits_of, splitter_of
from dspex.programs.suggestions import suggest_space
from dspex.space import Space

__all__ = ["build_estimator", "present_params"]


def build_estimator(
    estimator: Any,
    training_data: Any,
    *,
    space: Space | None,
    metric: Any,
    direction: Any,
    constraints: Any,
    cv: Any,
    validation_data: Any,
    metadata: Any,
    refit: bool,
) -> dict[str, Any]:
    """The fields of `Prepared` for an estimator; the parameters are those of `build`."""
    import sklearn
    from sklearn.base import is_classifier

    check_kind(estimator)
    chosen = suggest_space(estimator) if space is None else space
    raw_X, raw_y = pair(training_data)
    metrics = metrics_of(metric, estimator, has_target=raw_y is not None)
    goal = goal_of(direction, constraints, metrics.measured)
    if validation_data is not None and cv is not None:
        raise InvalidArgumentError(
            f"a trial is measured by cross-validation or on validation data; got cv={cv!r} and "
            "validation_data; drop one of them"
        )
    X, y = check_data("training_data", raw_X, raw_y, estimator)
    given = check_metadata(metadata, X)
    splitter = splitter_of(cv, y, classifier=is_classifier(estimator))
    routed = route(given, estimator, splitter, metrics)
    carried = {name: sealed(value) for name, value in routed.fit.items()}
    X, y = sealed(X), sealed(y)
    data: Dataset
    if validation_data is None:
        splits = splits_of(splitter, X, y, routed.split)
        metrics.check(estimator, X, y, splits[0])
        data = Dataset(X, y, splits, carried)
        described = describe_splits(splitter, splits)
    else:
        _refuse_groups(routed.split)
        data = Dataset(X, y, (), carried, _validation(validation_data, X, y, estimator))
        described = None
    folds = max(1, len(data.splits))
    check_space(estimator, chosen, [] if routed.by_request else list(routed.fit), metrics)
    program = EstimatorProgram(
        estimator, chosen, metrics, folds=folds, refit=refit, config=sklearn.get_config()
    )
    program.prepare(data)
    return {
        "program": program,
        "data": data,
        "space": chosen,
        "goal": goal,
        "defaults": present_params(estimator, chosen),
        "folds": folds,
        "identity": {
            "program": content_hash(estimator),
            "data": content_hash(training_data),
            "metric": _described(metrics),
            "cv": described,
            "validation_data": content_hash(validation_data),
            "metadata": content_hash(metadata),
        },
        "summary": _summary(estimator, chosen, metrics, data),
    }


def present_params(estimator: Any, space: Space) -> dict[str, Any] | None:
    """What the estimator is set to, in terms of the space; else the space's own defaults.

    Examples
    --------
    >>> from sklearn.svm import SVC
    >>> from dspex.space import Choice, Float
    >>> present_params(SVC(C=3.0), Space({"C": Float(1, 9)}))
    {'C': 3.0}
    >>> present_params(SVC(C=30.0), Space({"C": Float(1, 9)})) is None
    True
    """
    values = estimator.get_params(deep=True)
    present = {
        leaf.name: values[parameter_of(leaf.name)]
        for leaf in space.leaves
        if not leaf.folded and parameter_of(leaf.name) in values
    }
    while True:
        try:
            return space.normalise(present)
        except InvalidParamsError as error:
            # An estimator has a value for every parameter, params only for the active ones.
            inactive = str(getattr(error, "rule", "")).startswith("is active only")
            if not inactive or error.variable not in present:  # type: ignore[attr-defined]
                return space.defaults()
            del present[error.variable]  # type: ignore[attr-defined]


def _validation(validation_data: Any, X: Any, y: Any, estimator: Any) -> tuple[Any, Any]:
    if y is not None and not (isinstance(validation_data, tuple) and len(validation_data) == 2):
        raise InvalidDataError(
            "validation_data is (X, y) where the training data is; got "
            f"{type(validation_data).__name__}; pass a tuple of two"
        )
    validation_X, validation_y = check_data("validation_data", *pair(validation_data), estimator)
    features = [each.shape[1] for each in (X, validation_X) if len(getattr(each, "shape", ())) == 2]
    if len(set(features)) > 1:
        raise InvalidDataError(
            f"training and validation data have the same features; got {features[0]} and "
            f"{features[1]}"
        )
    return sealed(validation_X), sealed(validation_y)


def _refuse_groups(split: dict[str, Any]) -> None:
    if split:
        raise InvalidArgumentError(
            f"{', '.join(sorted(split))} in metadata is for a splitter; with validation_data "
            "there is none; drop it"
        )


def _described(metrics: Metrics) -> Any:
    return fingerprint(metrics.description)


def _summary(estimator: Any, space: Space, metrics: Metrics, data: Dataset) -> str:
    names = ", ".join(metrics.scorers)
    how = f"{len(data.splits)} folds" if data.validation is None else "validation data"
    variables = f"{len(space)} variable{'' if len(space) == 1 else 's'}"
    return f"{type(estimator).__name__} over {variables}, {names} on {how}"
