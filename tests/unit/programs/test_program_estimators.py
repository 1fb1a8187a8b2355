"""Estimators are scored exactly as scikit-learn scores them, and finished as users expect."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import cloudpickle
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import sklearn
from sklearn.cluster import DBSCAN, KMeans
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_diabetes, load_iris
from sklearn.decomposition import PCA
from sklearn.ensemble import BaggingClassifier, IsolationForest, RandomForestClassifier
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import make_scorer, mean_absolute_error
from sklearn.model_selection import (
    GroupKFold,
    KFold,
    LeaveOneGroupOut,
    RepeatedStratifiedKFold,
    ShuffleSplit,
    TimeSeriesSplit,
    cross_val_score,
    cross_validate,
)
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils.validation import check_is_fitted

from dspex.programs import Prepared, RunningTrial, build
from dspex.programs.sklearn import EstimatorProgram
from dspex.space import Choice, Component, Float, Int, Space
from dspex.testing.programs import frozen, measure

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


# --- metadata ------------------------------------------------------------------------------

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
        ("metadata", {"metadata": {"sample_weight": WEIGHTS}}),
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
