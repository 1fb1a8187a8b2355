"""Groups and weights reach who takes them, as in scikit-learn."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import cloudpickle
import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.datasets import load_iris
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge
from sklearn.model_selection import (
    GroupKFold,
    LeaveOneGroupOut,
    cross_val_score,
)
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from dspex.programs import Prepared, build
from dspex.programs.sklearn import EstimatorProgram
from dspex.space import Float
from dspex.testing.programs import frozen, measure

X, y = load_iris(return_X_y=True)
FRAME = pd.DataFrame(X, columns=["a", "b", "c", "d"]).assign(
    kind=pd.Categorical(np.array(["u", "v", "w"])[np.arange(150) % 3]),
    word=np.array(["p", "q"])[np.arange(150) % 2],
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


WEIGHTS = np.linspace(0.1, 5, 150)
GROUPS = np.arange(150) % 10


class Recorder(GaussianNB):  # type: ignore[misc]
    """Remembers the weights that it was fitted and scored with."""

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Recorder:
        self.fitted_ = None if sample_weight is None else list(sample_weight)
        return super().fit(X, y, sample_weight)  # type: ignore[no-any-return]


def scored_weights(estimator: Any, X: Any, y: Any, sample_weight: Any = None) -> dict[str, float]:
    final = estimator[-1] if isinstance(estimator, Pipeline) else estimator
    return {
        "fitted": float(np.sum(final.fitted_ if final.fitted_ is not None else 0.0)),
        "scored": 0.0 if sample_weight is None else float(np.sum(sample_weight)),
    }


@pytest.mark.parametrize(
    "estimator",
    [
        Recorder(),
        make_pipeline(StandardScaler(), Recorder()),
        make_pipeline(StandardScaler(), make_pipeline(PCA(2), Recorder())),
    ],
)
def test_weights_reach_the_final_fit_and_the_scorer(estimator: Any) -> None:
    def metric(model: Any, X: Any, y: Any, sample_weight: Any = None) -> dict[str, float]:
        while isinstance(model, Pipeline):
            model = model[-1]
        return scored_weights(model, X, y, sample_weight)

    prepared = build(
        estimator,
        (X, y),
        metric=metric,
        direction={"fitted": "maximize"},
        metadata={"sample_weight": WEIGHTS},
    )
    for score, (train, test) in zip(folds(prepared), prepared.data.splits, strict=True):
        assert score["fitted"] == pytest.approx(WEIGHTS[train].sum())
        assert score["scored"] == pytest.approx(WEIGHTS[test].sum())
    best = configured(prepared)
    while isinstance(best, Pipeline):
        best = best[-1]
    assert best.fitted_ == WEIGHTS.tolist()


@pytest.mark.parametrize("metric", [None, "accuracy", {"a": "accuracy", "e": "neg_max_error"}])
def test_weights_are_used_as_by_grid_search(metric: Any) -> None:
    from sklearn.model_selection import GridSearchCV

    regression = isinstance(metric, dict)
    estimator = Ridge() if regression else SVC()
    metric = {"r2": "r2", "e": "neg_max_error"} if regression else metric
    search = GridSearchCV(estimator, {"tol": [1e-3]}, scoring=metric, refit=False, cv=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # max_error takes no weights, and the search says so
        search.fit(X, y, sample_weight=WEIGHTS)
    prepared = build(
        estimator,
        (X, y),
        space={"tol": Float(1e-3, 1e-2, default=1e-3)},
        metric=metric,
        cv=3,
        metadata={"sample_weight": WEIGHTS},
    )
    scores = folds(prepared, {"tol": 1e-3})
    for name in metric if isinstance(metric, dict) else [metric or "score"]:
        key = name if isinstance(metric, dict) else "score"
        expected = [search.cv_results_[f"split{fold}_test_{key}"][0] for fold in range(3)]
        assert column(scores, name) == expected


def test_fit_parameters_of_a_step_are_passed_by_name() -> None:
    prepared = build(
        make_pipeline(StandardScaler(), SVC()),
        (X, y),
        metadata={"standardscaler__sample_weight": WEIGHTS},
        cv=3,
    )
    expected = cross_val_score(
        make_pipeline(StandardScaler(), SVC()),
        X,
        y,
        params={"standardscaler__sample_weight": WEIGHTS},
        cv=3,
    )
    assert column(folds(prepared), "score") == expected.tolist()


@pytest.mark.parametrize("cv", [GroupKFold(3), LeaveOneGroupOut()])
def test_groups_go_to_the_splitter(cv: Any) -> None:
    prepared = build(SVC(), (X, y), space=C, cv=cv, metadata={"groups": GROUPS})
    for train, test in prepared.data.splits:
        assert not set(GROUPS[train]) & set(GROUPS[test])
    assert prepared.data.metadata == {}


def test_enabled_routing_decides_by_request() -> None:
    with sklearn.config_context(enable_metadata_routing=True):
        estimator = make_pipeline(
            StandardScaler().set_fit_request(sample_weight=False),
            SVC().set_fit_request(sample_weight=True).set_score_request(sample_weight=True),
        )
        metadata = {"sample_weight": WEIGHTS, "groups": GROUPS}
        prepared = build(estimator, (X, y), cv=GroupKFold(3), metadata=metadata)
        expected = cross_val_score(estimator, X, y, cv=GroupKFold(3), params=metadata)
        with pytest.raises(ValueError, match="not explicitly set"):
            build(SVC(), (X, y), metadata={"sample_weight": WEIGHTS})
    # Evaluators know nothing of this process' configuration.
    travelled = cloudpickle.loads(cloudpickle.dumps(prepared.program))
    travelled.prepare(frozen(prepared.data))
    params = prepared.space.resolve(prepared.defaults or {})
    scores = [measure(travelled, params, fold=each)[0]["score"] for each in range(3)]
    assert scores == expected.tolist()
    assert configured(prepared).predict(X).shape == (150,)


def test_the_configuration_of_scikit_learn_travels_too() -> None:
    def has_columns(estimator: Any, X: Any, y: Any) -> float:
        return float(hasattr(estimator[0].transform(X), "columns"))

    with sklearn.config_context(transform_output="pandas"):
        prepared = build(
            make_pipeline(StandardScaler(), SVC()), (FRAME[["a"]], y), metric=has_columns
        )
    assert folds(prepared)[0] == {"score": 1.0}
