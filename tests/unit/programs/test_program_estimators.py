"""Estimators are scored exactly as scikit-learn scores them, and finished as users expect."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn.cluster import DBSCAN, KMeans
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_diabetes, load_iris
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest, RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import make_scorer, mean_absolute_error
from sklearn.model_selection import (
    KFold,
    RepeatedStratifiedKFold,
    ShuffleSplit,
    TimeSeriesSplit,
    cross_val_score,
    cross_validate,
)
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from dspex.programs import Prepared, RunningTrial, build
from dspex.programs.sklearn import EstimatorProgram
from dspex.space import Float, Space
from dspex.testing.programs import measure

X, y = load_iris(return_X_y=True)
DX, dy = load_diabetes(return_X_y=True)
FRAME = pd.DataFrame(X, columns=["a", "b", "c", "d"]).assign(
    kind=pd.Categorical(np.array(["u", "v", "w"])[np.arange(150) % 3]),
    word=np.array(["p", "q"])[np.arange(150) % 2],
)
TEXTS = ["a good film", "a bad film", "good and long", "bad and long"] * 10
COLUMNS = ColumnTransformer(
    [("number", StandardScaler(), ["a", "b"]), ("word", OneHotEncoder(), ["kind", "word"])]
)
C = {"C": Float(0.1, 10, log=True)}


def folds(prepared: Prepared, params: dict[str, Any] | None = None) -> list[dict[str, float]]:
    if params is None:
        params = prepared.space.resolve(prepared.defaults or {})
    return [measure(prepared.program, params, fold=each)[0] for each in range(prepared.folds)]


def column(scores: Sequence[dict[str, float]], name: str) -> list[float]:
    return [each[name] for each in scores]


def configured(prepared: Prepared, params: dict[str, Any] | None = None) -> Any:
    assert isinstance(prepared.program, EstimatorProgram)
    return prepared.program.finish(params or prepared.space.resolve(prepared.defaults or {}))


# --- scores --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("estimator", "data", "metric", "cv"),
    [
        (SVC(), (X, y), None, None),
        (SVC(), (X.tolist(), y.tolist()), "accuracy", 4),
        (SVC(), (sp.csr_matrix(X), y), "balanced_accuracy", 3),
        (SVC(), (sp.csc_array(X), y), "balanced_accuracy", 3),
        (SVC(kernel="precomputed"), (X @ X.T, y), None, 3),
        (make_pipeline(StandardScaler(), PCA(2), LogisticRegression()), (X, y), "f1_macro", None),
        (make_pipeline(COLUMNS, GaussianNB()), (FRAME, pd.Series(y)), "neg_log_loss", None),
        (make_pipeline(COLUMNS, SVC()), (FRAME, FRAME["word"]), None, None),
        (Ridge(), (DX, dy), None, None),
        (Ridge(), (DX, np.c_[dy, dy]), "r2", 4),
        (Ridge(), (DX, dy), make_scorer(mean_absolute_error, greater_is_better=False), 3),
        (Ridge(), (DX, dy), lambda estimator, X, y: float(estimator.predict(X).sum()), 3),
        (make_pipeline(TfidfVectorizer(), LogisticRegression()), (TEXTS, [0, 1] * 20), None, 3),
        (KNeighborsClassifier(), (X, np.eye(3, dtype=int)[y]), None, 3),
        (KMeans(random_state=0, n_init=1), X, None, 3),
        (KMeans(random_state=0, n_init=1), (X, y), "adjusted_rand_score", 3),
        (
            DecisionTreeClassifier(random_state=0),
            (X, y),
            "accuracy",
            KFold(3, shuffle=True, random_state=1),
        ),
        (
            RandomForestClassifier(5, random_state=0),
            (X, y),
            None,
            RepeatedStratifiedKFold(n_splits=2, n_repeats=2, random_state=0),
        ),
        (Ridge(), (DX, dy), None, TimeSeriesSplit(3)),
        (Ridge(), (DX, dy), None, ShuffleSplit(3, random_state=0)),
        (
            Ridge(),
            (DX, dy),
            None,
            [(np.arange(400), np.arange(400, 442)), (np.arange(9, 442), np.arange(9))],
        ),
    ],
)
def test_fold_scores_equal_cross_val_score_bit_by_bit(
    estimator: Any, data: Any, metric: Any, cv: Any
) -> None:
    features, target = data if isinstance(data, tuple) else (data, None)
    expected = cross_val_score(estimator, features, target, scoring=metric, cv=cv)
    prepared = build(estimator, data, metric=metric, cv=cv)
    name = metric if isinstance(metric, str) else "score"
    assert prepared.folds == len(expected)
    assert column(folds(prepared), name) == expected.tolist()


def test_several_metrics_equal_cross_validate() -> None:
    metrics = {
        "accuracy": "accuracy",
        "loss": "neg_log_loss",
        "mine": lambda estimator, X, y: float(estimator.classes_.size),
    }
    expected = cross_validate(GaussianNB(), X, y, scoring=metrics)
    prepared = build(GaussianNB(), (X, y), metric=metrics)
    for name in metrics:
        assert column(folds(prepared), name) == expected[f"test_{name}"].tolist()
    assert [each.name for each in prepared.goal.objectives] == ["accuracy"]


def test_two_directions_are_two_objectives_and_the_rest_is_recorded() -> None:
    prepared = build(
        SVC(),
        (X, y),
        space=C,
        metric={
            "accuracy": "accuracy",
            "vectors": lambda estimator, X, y: float(len(estimator.support_)),
            "f1": "f1_macro",
        },
        direction={"accuracy": "maximize", "vectors": "minimize"},
        constraints={"vectors": ("le", 60)},
    )
    assert [each.sign for each in prepared.goal.objectives] == [-1.0, 1.0]
    assert set(folds(prepared)[0]) == {"accuracy", "vectors", "f1"}


def test_a_callable_may_measure_several_numbers() -> None:
    prepared = build(
        SVC(), (X, y), metric=lambda e, X, y: {"a": 1.0, "b": 2.0}, direction={"b": "minimize"}
    )
    assert folds(prepared)[0] == {"a": 1.0, "b": 2.0}


def test_a_score_that_is_no_number_is_handed_on() -> None:
    prepared = build(SVC(), (X, y), space=C, metric=lambda estimator, X, y: float("nan"))
    assert np.isnan(folds(prepared)[0]["score"])


def test_what_a_fit_raises_is_the_trials_failure() -> None:
    prepared = build(SVC(), (X, y), space={"C": Float(-2, 2)})
    with pytest.raises(ValueError, match="'C' parameter"):
        measure(prepared.program, {"C": -1.0})


def test_clusterers_and_outlier_detectors_are_scored_by_a_metric() -> None:
    clusters = build(DBSCAN(), X, metric=lambda e, X: float(len(set(e.fit_predict(X)))), cv=2)
    assert all(score["score"] >= 1 for score in folds(clusters))
    outliers = build(
        IsolationForest(n_estimators=5), X, metric=lambda e, X: float(e.score_samples(X).mean())
    )
    assert all(score["score"] < 0 for score in folds(outliers))


# --- splits --------------------------------------------------------------------------------


def test_a_splitter_without_a_random_state_splits_alike_in_every_process() -> None:
    first = build(SVC(), (X, y), space=C, cv=KFold(3, shuffle=True))
    again = build(SVC(), (X, y), space=C, cv=KFold(3, shuffle=True))
    assert first.identity == again.identity
    assert folds(first) == folds(again)
    shuffled = first.data.splits[0][1]
    assert shuffled.dtype == np.int32
    assert not np.array_equal(shuffled, np.arange(50))
    other = build(SVC(), (X, y), space=C, cv=KFold(3, shuffle=True, random_state=5))
    assert other.identity["cv"] != first.identity["cv"]


def test_masks_and_generators_of_splits_are_read_once() -> None:
    def splits() -> Any:
        yield np.arange(150) < 100, np.arange(150) >= 100
        yield [*range(50, 150)], [-150, *range(1, 50)]

    prepared = build(SVC(), (X, y), space=C, cv=splits())
    assert prepared.folds == 2
    assert prepared.data.splits[1][1].tolist() == list(range(50))
    assert folds(prepared) == folds(prepared)


# --- validation data -----------------------------------------------------------------------


def test_validation_data_is_scored_by_a_fit_on_all_training_data() -> None:
    prepared = build(SVC(), (X[::2], y[::2]), space=C, validation_data=(X[1::2], y[1::2]))
    expected = SVC(C=2.0).fit(X[::2], y[::2]).score(X[1::2], y[1::2])
    assert prepared.folds == 1
    assert measure(prepared.program, {"C": 2.0}) == [{"score": expected}]
    assert configured(prepared, {"C": 2.0}).shape_fit_ == (75, 4)


def test_an_estimator_that_writes_into_its_input_gets_a_copy() -> None:
    data = (DX.copy(), dy.copy())
    prepared = build(Ridge(copy_X=False), data, validation_data=(DX, dy))
    expected = Ridge().fit(DX, dy).score(DX, dy)
    for _ in range(2):
        assert measure(prepared.program, {"alpha": 1.0})[0]["score"] == pytest.approx(expected)
    configured(prepared, {"alpha": 1.0})
    assert np.array_equal(data[0], DX)


def test_a_bad_parameter_is_named_with_the_estimator_that_has_it() -> None:
    space = Space({"svc__C": Float(-2, -1)})
    prepared = build(make_pipeline(SVC()), load_iris(return_X_y=True), space=space)
    prepared.program.prepare(prepared.data)
    params = {"svc__C": -1.5}
    with pytest.raises(ValueError, match="The 'C' parameter of SVC must be"):
        prepared.program.evaluate(params, RunningTrial(0, 0, params, 0))
