"""Params reach the estimator, the best program is fitted, the baseline and identity are told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cloudpickle
import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.decomposition import PCA
from sklearn.ensemble import BaggingClassifier, RandomForestClassifier
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils.validation import check_is_fitted

from dspex.programs import Prepared, RunningTrial, build
from dspex.programs.sklearn import EstimatorProgram
from dspex.space import Choice, Component, Float, Int, Space
from dspex.testing.programs import measure

X, y = load_iris(return_X_y=True)
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


# --- params --------------------------------------------------------------------------------


def test_components_and_options_are_cloned_and_configured() -> None:
    scaler = StandardScaler()
    forest = RandomForestClassifier(n_estimators=3)
    space = Space(
        {
            "scale": Choice([scaler, MinMaxScaler(), "passthrough"]),
            "clf": Component(
                {
                    "svc": (SVC(), {"C": Float(0.1, 10)}),
                    "forest": (forest, {"max_depth": Choice([None, Int(2, 5)])}),
                    "bag": (
                        BaggingClassifier(DecisionTreeClassifier(), n_estimators=2),
                        {
                            "max_samples": Float(0.5, 1.0),
                            "estimator": Component(
                                {"tree": (DecisionTreeClassifier(), {"max_depth": Int(1, 3)})}
                            ),
                        },
                    ),
                }
            ),
        }
    )
    pipeline = Pipeline([("scale", scaler), ("clf", SVC())])
    prepared = build(pipeline, (X, y), space=space, cv=2)
    params = space.normalise({"scale": "passthrough", "clf": "forest", "clf.forest.max_depth": 4})
    best = configured(prepared, space.resolve(params))
    assert best["scale"] == "passthrough"
    assert (best["clf"].max_depth, best["clf"].n_estimators) == (4, 3)
    assert best["clf"] is not forest
    assert not hasattr(forest, "estimators_")
    deep = space.normalise(
        {
            "scale": "StandardScaler()",
            "clf": "bag",
            "clf.bag.max_samples": 0.75,
            "clf.bag.estimator": "tree",
            "clf.bag.estimator.tree.max_depth": 2,
        }
    )
    bag = configured(prepared, space.resolve(deep))["clf"]
    assert (bag.max_samples, bag.estimator.max_depth) == (0.75, 2)
    assert len(folds(prepared, space.resolve(deep))) == 2


def test_unset_random_states_are_seeded_by_the_evaluation() -> None:
    def state(estimator: Any, X: Any, y: Any) -> dict[str, float]:
        return {
            "outer": float(estimator.random_state),
            "inner": float(estimator.estimator.random_state),
        }

    bag = BaggingClassifier(DecisionTreeClassifier(), n_estimators=2)
    prepared = build(bag, (X, y), metric=state, direction={"outer": "maximize"}, cv=2)
    params = prepared.space.resolve(prepared.defaults or {})
    drawn = [
        measure(prepared.program, params, number=number, fold=fold)[0]
        for number in range(2)
        for fold in range(2)
    ]
    values = [value for each in drawn for value in each.values()]
    assert len(set(values)) == 8
    assert measure(prepared.program, params, number=1, fold=1)[0] == drawn[3]
    fixed = build(
        bag.set_params(random_state=5), (X, y), metric=state, direction={"outer": "maximize"}
    )
    assert folds(fixed)[0]["outer"] == 5.0


def test_an_evaluation_uses_one_core_and_the_best_program_the_users() -> None:
    def cores(estimator: Any, X: Any, y: Any) -> float:
        return float(estimator.n_jobs)

    forest = RandomForestClassifier(n_estimators=2, n_jobs=2)
    prepared = build(forest, (X, y), metric=cores, cv=2)
    assert folds(prepared)[0] == {"score": 1.0}
    assert configured(prepared).n_jobs == 2


def test_logistic_regression_is_not_warned_of_cores() -> None:
    # Its n_jobs is deprecated: setting it, even to 1, would warn in every fit.
    assert folds(build(LogisticRegression(max_iter=500), (X, y)))


# --- the best program ----------------------------------------------------------------------


def test_the_best_program_is_fitted_on_all_the_data_unless_refit_is_false() -> None:
    prepared = build(SVC(), (X, y), space=C)
    assert prepared.program.finish({"C": 3.0}).shape_fit_ == (150, 4)
    unfitted = build(SVC(), (X, y), space=C, refit=False).program.finish({"C": 3.0})
    assert unfitted.C == 3.0
    with pytest.raises(NotFittedError):
        check_is_fitted(unfitted)
    assert build(SVC(), (X, y), space=C, refit=True).program.finish({"C": 3.0}).C == 3.0


def test_the_same_params_give_the_same_best_program() -> None:
    prepared = build(RandomForestClassifier(n_estimators=3), (X, y))
    one, other = configured(prepared), configured(prepared)
    assert np.array_equal(one.predict_proba(X), other.predict_proba(X))


def test_the_users_estimator_is_never_touched() -> None:
    pipeline = make_pipeline(StandardScaler(), SVC())
    before = repr(pipeline.get_params())
    prepared = build(pipeline, (X, y))
    folds(prepared)
    configured(prepared)
    assert repr(pipeline.get_params()) == before
    with pytest.raises(NotFittedError):
        check_is_fitted(pipeline)


# --- the baseline and the identity ---------------------------------------------------------


def test_the_estimators_present_params_are_the_defaults() -> None:
    assert build(SVC(C=3.0, kernel="poly", gamma=0.5, degree=2), (X, y)).defaults == {
        "C": 3.0,
        "kernel": "poly",
        "gamma": "float",
        "gamma.float": 0.5,
        "degree": 2,
        "coef0": 0.0,
        "class_weight": None,
    }
    outside = build(SVC(C=99.0), (X, y), space={"C": Float(0, 9)})
    assert outside.defaults is None
    own = build(SVC(C=99.0), (X, y), space={"C": Float(0, 9, default=2)})
    assert own.defaults == {"C": 2.0}


def test_a_components_default_is_the_present_step() -> None:
    space = {"clf": Component({"nb": GaussianNB(), "svc": (SVC(), {"C": Float(0.1, 10)})})}
    prepared = build(Pipeline([("clf", SVC())]), (X, y), space=space)
    assert prepared.defaults == {"clf": "svc", "clf.svc.C": 1.0}


@pytest.mark.parametrize(
    ("key", "other"),
    [
        ("data", {"training_data": (X, 2 - y)}),
        ("metric", {"metric": "accuracy"}),
        ("cv", {"cv": 3}),
        ("program", {"program": SVC(kernel="linear")}),
        ("metadata", {"metadata": {"sample_weight": np.ones(150)}}),
        ("validation_data", {"validation_data": (X, y)}),
    ],
)
def test_the_identity_names_what_differs(key: str, other: dict[str, Any]) -> None:
    first = build(SVC(), (X, y), space=C)
    options: dict[str, Any] = {"program": SVC(), "training_data": (X, y), "space": C, **other}
    second = build(options.pop("program"), options.pop("training_data"), **options)
    differing = {name for name in first.identity if first.identity[name] != second.identity[name]}
    assert differing == ({key} if key != "validation_data" else {key, "cv"})


def test_data_does_not_travel_with_the_program() -> None:
    prepared = build(SVC(), (np.tile(X, (50, 1)), np.tile(y, 50)), space=C)
    assert len(cloudpickle.dumps(prepared.program)) < 20_000


def test_preparing_comes_before_evaluating() -> None:
    program = cloudpickle.loads(cloudpickle.dumps(build(SVC(), (X, y), space=C).program))
    with pytest.raises(RuntimeError, match="prepare"):
        program.evaluate({"C": 1.0}, RunningTrial(0, 0, {}, 0))


def test_a_union_of_features_is_tuned_inside() -> None:
    union = FeatureUnion([("pca", PCA()), ("scale", StandardScaler())])
    prepared = build(Pipeline([("features", union), ("clf", SVC())]), (X, y))
    assert "features__pca__whiten" in prepared.space.names
    assert len(folds(prepared)) == 5
