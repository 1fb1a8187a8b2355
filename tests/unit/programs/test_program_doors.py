"""What is wrong with an estimator's arguments is said before any work, with the remedy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dask.array
import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator
from sklearn.cluster import DBSCAN
from sklearn.datasets import load_iris
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import accuracy_score, mean_squared_error
from sklearn.model_selection import GroupKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from dspex.errors import (
    DspexError,
    InvalidArgumentError,
    InvalidDataError,
    InvalidMetricError,
    InvalidSpaceError,
)
from dspex.programs import build
from dspex.space import Derived, Float, Int

X, y = load_iris(return_X_y=True)
C = {"C": Float(0.1, 10, log=True)}
PIPELINE = make_pipeline(StandardScaler(), SVC())
ONES = np.ones(len(X))


def refused(error: type[DspexError], word: str, *args: Any, **options: Any) -> None:
    with pytest.raises(error, match=word) as caught:
        build(*args, **options)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ("metric", "word"),
    [
        ("acuracy", "did you mean 'accuracy'"),
        (accuracy_score, 'metric="accuracy" or metric=sklearn.metrics.make_scorer'),
        (mean_squared_error, "neg_mean_squared_error"),
        (lambda y_true, y_pred: 0.0, "make_scorer"),
        (lambda estimator, X: 0.0, "called .estimator, X, y."),
        ("f1", "multiclass"),
        ("roc_auc", "multi_class"),
        ("neg_log_loss", "no method predict_proba"),
        (["accuracy"], "dict of several.*pass {'accuracy': 'accuracy'}"),
        ("RMSE", "did you mean 'neg_root_mean_squared_error'"),
        ({}, "something"),
        ({"a": 3}, "callable"),
    ],
)
def test_metrics(metric: Any, word: str) -> None:
    refused(InvalidMetricError, word, SVC(), (X, y), space=C, metric=metric)


def test_a_classifiers_metric_is_none_for_a_regressor() -> None:
    refused(InvalidMetricError, "continuous", Ridge(), (X, X[:, 0]), metric="accuracy")


def test_an_estimator_without_a_score_needs_a_metric() -> None:
    refused(InvalidMetricError, "DBSCAN has no method `score`", DBSCAN(), X)


@pytest.mark.parametrize("metric", [None, "accuracy", {"accuracy": "accuracy"}])
def test_scores_of_scikit_learn_are_not_minimised(metric: Any) -> None:
    name = "score" if metric is None else "accuracy"
    for direction in ("minimize", {name: "minimize"}):
        refused(
            InvalidMetricError,
            "more is better",
            SVC(),
            (X, y),
            metric=metric,
            direction=direction,
        )


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"direction": {"acuracy": "maximize"}}, "did you mean 'accuracy'"),
        ({"constraints": {"latency": ("le", 1)}}, "known are 'accuracy'"),
        ({"constraints": {"accuracy": 3}}, "a constraint is"),
    ],
)
def test_names_of_what_is_measured(options: dict[str, Any], word: str) -> None:
    refused(InvalidArgumentError, word, SVC(), (X, y), metric="accuracy", **options)


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (None, "pass .X, y."),
        (X, "learns from a target"),
        ((X, None), "learns from a target"),
        ((X, y[:-1]), "150 in X and 149 in y"),
        (([], []), "has none"),
        ((X[:0], y[:0]), "has none"),
        ((X[:, 0], y), "reshape"),
        ((X, y, ONES), "metadata="),
        ((X, np.zeros(150)), "at least two classes"),
        ((X, [None, *"ab" * 74, "a"]), "1 of 150"),
        ((X, np.where(y == 0, np.nan, y)), "50 of 150"),
        ((X, pd.Series(y, dtype="Int64").where(y > 0)), "50 of 150"),
        ((X, X[:, 0]), "continuous"),
        ((X, y.astype(object)), "astype"),
        ((3, 4), "one sample per row"),
        ((dask.array.ones((9, 2)), y), "compute"),
        (dask.array.ones((9, 2)), "compute"),
    ],
)
def test_training_data(data: Any, word: str) -> None:
    refused(InvalidDataError, word, SVC(), data, space=C)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_regressors_target_is_finite(value: float) -> None:
    refused(InvalidDataError, "1 of 150", Ridge(), (X, np.r_[value, y[1:]]))


def test_one_dimensional_text_is_data() -> None:
    texts = np.array(["good film", "bad film"] * 20)
    pipeline = make_pipeline(TfidfVectorizer(), LogisticRegression())
    assert build(pipeline, (texts, [0, 1] * 20)).folds == 5


@pytest.mark.parametrize(
    ("cv", "word"),
    [
        (1, "at least 2"),
        (True, "at least 2"),
        ("5", "Expected `cv`"),
        (60, "cannot split these 150"),
        ([], "at least one split"),
        ([(range(100), range(100, 151))], "indices below 150"),
        ([(range(100), [])], "neither empty"),
        ([(np.zeros(9, bool), [1])], "mask of 9"),
        ([([0.5], [1])], "float64"),
        (GroupKFold(3), "groups"),
    ],
)
def test_splits(cv: Any, word: str) -> None:
    refused(InvalidArgumentError, word, SVC(), (X, y), space=C, cv=cv)


@pytest.mark.parametrize(
    ("options", "error", "word"),
    [
        ({"cv": 3, "validation_data": (X, y)}, InvalidArgumentError, "drop one"),
        ({"validation_data": X}, InvalidDataError, "tuple of two"),
        ({"validation_data": (X[:, :2], y)}, InvalidDataError, "got 4 and 2"),
        ({"validation_data": (X, y[:3])}, InvalidDataError, "validation_data has 150"),
        (
            {"validation_data": (X, y), "metadata": {"groups": y}},
            InvalidArgumentError,
            "for a splitter",
        ),
    ],
)
def test_validation_data(options: dict[str, Any], error: type[DspexError], word: str) -> None:
    refused(error, word, SVC(), (X, y), space=C, **options)


@pytest.mark.parametrize(
    ("metadata", "word"),
    [
        ([ONES], "metadata is a dict"),
        ({"sample_weight": ONES[:9]}, "9 for 150"),
        ({"groups": y}, "GroupKFold"),
        ({"weights": ONES}, "did you mean 'sample_weight'"),
        ({"svc__weights": ONES}, "did you mean 'sample_weight'"),
        ({"svm__sample_weight": ONES}, "did you mean 'svc'"),
    ],
)
def test_metadata(metadata: Any, word: str) -> None:
    refused(InvalidArgumentError, word, PIPELINE, (X, y), metadata=metadata)


def test_a_final_step_that_takes_no_weights() -> None:
    refused(
        InvalidArgumentError,
        "KNeighborsClassifier.fit takes no 'sample_weight'",
        Pipeline([("scale", StandardScaler()), ("clf", SVC())]),
        (X, y),
        space={"clf": [SVC(), KNeighborsClassifier()]},
        metadata={"sample_weight": ONES},
    )


@pytest.mark.parametrize(
    ("space", "word"),
    [
        ({"svc__c": Float(0, 1)}, "did you mean 'svc__C'"),
        ({"C": Float(0, 1)}, "known are"),
        ({"svc": [SVC(), KNeighborsClassifier()], "svc__C": Float(0.1, 1)}, "Component"),
        ({"svc__C": Float(0.1, 1), "svc__gama": Derived(abs, of=["svc__C"])}, "gama"),
        ({}, "no variable"),
    ],
)
def test_spaces(space: Mapping[str, Any], word: str) -> None:
    refused(InvalidSpaceError, word, PIPELINE, (X, y), space=space)


class Untagged:
    def get_params(self, deep: bool = True) -> dict[str, Any]:
        return {"a": 1}

    def set_params(self, **params: Any) -> Untagged:
        return self

    def fit(self, X: Any, y: Any) -> Untagged:
        return self


class Unknown(BaseEstimator):  # type: ignore[misc]
    def fit(self, X: Any, y: Any = None) -> Unknown:
        return self

    def score(self, X: Any, y: Any = None) -> float:
        return 0.0


def test_estimators() -> None:
    refused(InvalidArgumentError, "pass SVC()", SVC, (X, y))
    refused(InvalidArgumentError, "BaseEstimator", Untagged(), (X, y), space={"a": Int(0, 3)})
    refused(InvalidSpaceError, "pass space=", Unknown(), X)
    refused(InvalidSpaceError, "pass space=", StandardScaler(), X)


def test_a_splitter_by_groups_without_groups_names_the_remedy() -> None:
    words = r'GroupKFold.* should not be None; pass metadata=\{"groups": one value per sample\}'
    refused(InvalidArgumentError, words, PIPELINE, (X, y), cv=GroupKFold(3))
