"""Known estimators bring a space whose defaults are the user's own configuration."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    BaggingClassifier,
    RandomForestClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.feature_selection import SelectPercentile
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF
from sklearn.linear_model import LogisticRegression, Ridge, SGDClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler
from sklearn.svm import SVC
from sklearn.utils import all_estimators

from dspex.errors import InvalidArgumentError, InvalidSpaceError
from dspex.programs import suggest_space
from dspex.programs.params import configure
from dspex.programs.suggestions import known_estimators

CLASSES = dict(all_estimators())
NEEDS_AN_ESTIMATOR = ("RFE", "SelectFromModel")
OTHERS = {"XGBClassifier", "XGBRegressor", "LGBMClassifier", "LGBMRegressor"}
KNOWN = [name for name in known_estimators() if name not in OTHERS]


def test_many_common_estimators_are_known() -> None:
    assert len(KNOWN) >= 60
    assert set(KNOWN) <= set(CLASSES)


@pytest.mark.parametrize("name", KNOWN)
def test_every_suggestion_fits_its_estimator_and_begins_at_its_defaults(name: str) -> None:
    cls = CLASSES[name]
    estimator = cls(estimator=Ridge()) if name in NEEDS_AN_ESTIMATOR else cls()
    space = suggest_space(estimator)
    defaults = space.defaults()
    assert defaults is not None
    present = estimator.get_params()
    resolved = space.resolve(defaults)
    assert resolved == {key: present[key] for key in resolved}
    for params in space.sample(10, seed=1):
        configure(estimator, space.resolve(params))


def fake(module: str, name: str, **present: Any) -> Any:
    def get_params(self: Any, deep: bool = True) -> dict[str, Any]:
        return present

    methods = {"get_params": get_params, "set_params": None, "fit": None}
    return type(name, (), {"__module__": module, **methods})()


def test_boosting_libraries_are_known_without_being_imported() -> None:
    xgb = suggest_space(fake("xgboost.sklearn", "XGBClassifier", max_depth=None, learning_rate=0.3))
    assert xgb.names[0].startswith("learning_rate")
    assert xgb.defaults() == {
        "learning_rate": "float",
        "learning_rate.float": 0.3,
        "max_depth": None,
    }
    lgbm = suggest_space(fake("lightgbm.sklearn", "LGBMRegressor", num_leaves=31, subsample=1.0))
    assert lgbm.names == ("num_leaves",)
    with pytest.raises(InvalidSpaceError):
        suggest_space(fake("mine", "XGBClassifier", max_depth=None))


def test_a_present_value_outside_its_range_leaves_no_default() -> None:
    assert suggest_space(SVC(C=1e9)).defaults() is None


def test_conditions_hold_under_the_prefix_of_a_step() -> None:
    space = suggest_space(make_pipeline(StandardScaler(), SVC(kernel="linear")))
    assert space.defaults() == {
        "svc__C": 1.0,
        "svc__kernel": "linear",
        "svc__class_weight": None,
    }
    kernels = {params["svc__kernel"]: set(params) for params in space.sample(60, seed=0)}
    assert "svc__degree" in kernels["poly"]
    assert "svc__degree" not in kernels["rbf"]
    assert "svc__gamma" not in kernels["linear"]


@pytest.mark.parametrize(
    ("estimator", "names"),
    [
        (BaggingClassifier(Ridge()), {"max_samples", "max_features", "estimator__alpha"}),
        (
            Pipeline([("a", Pipeline([("b", PolynomialFeatures()), ("c", Ridge())]))]),
            {"a__b__degree", "a__b__interaction_only", "a__c__alpha"},
        ),
        (
            make_pipeline(
                FeatureUnion([("p", PCA(svd_solver="randomized")), ("s", SelectPercentile())]),
                Ridge(),
            ),
            {"featureunion__p__whiten", "featureunion__s__percentile", "ridge__alpha"},
        ),
        (
            make_pipeline(ColumnTransformer([("poly", PolynomialFeatures(), [0])]), Ridge()),
            {
                "columntransformer__poly__degree",
                "columntransformer__poly__interaction_only",
                "ridge__alpha",
            },
        ),
        (
            VotingClassifier([("lr", LogisticRegression())]),
            {"lr__C", "lr__class_weight"},
        ),
        (
            StackingClassifier([("r", Ridge())], final_estimator=LogisticRegression()),
            {"r__alpha", "final_estimator__C", "final_estimator__class_weight"},
        ),
        (make_pipeline("passthrough", Ridge()), {"ridge__alpha"}),
        (Pipeline([("s", None), ("r", Ridge())]), {"r__alpha"}),
        (GaussianProcessRegressor(kernel=RBF()), {"alpha", "normalize_y"}),
    ],
)
def test_what_is_nested_is_found(estimator: Any, names: set[str]) -> None:
    assert {name.partition(".")[0] for name in suggest_space(estimator).names} == names


def test_what_searches_by_itself_is_left_alone() -> None:
    search = GridSearchCV(SVC(), {"C": [1, 2]})
    with pytest.raises(InvalidSpaceError, match="GridSearchCV"):
        suggest_space(search)
    space = suggest_space(make_pipeline(PCA(), search))
    assert all(name.startswith("pca__") for name in space.names)


def test_only_what_the_users_settings_allow_is_suggested() -> None:
    assert "l1_ratio" not in suggest_space(LogisticRegression()).names
    assert "l1_ratio" in suggest_space(LogisticRegression(solver="saga")).names
    assert "bootstrap" not in suggest_space(RandomForestClassifier(oob_score=True)).names
    assert "kernel" not in suggest_space(SVC(kernel="precomputed")).names


class MyClassifier(SGDClassifier):  # type: ignore[misc]
    def __init__(self, alpha: float = 1e-3) -> None:
        super().__init__(alpha=alpha)


def test_a_subclass_gets_what_its_base_gets_as_far_as_it_has_it() -> None:
    assert suggest_space(MyClassifier()).defaults() == {"alpha": 1e-3}


def test_spaces_are_suggested_for_estimators_only() -> None:
    with pytest.raises(InvalidArgumentError, match="pass an object"):
        suggest_space(SVC)
    with pytest.raises(InvalidArgumentError, match="scikit-learn estimators"):
        suggest_space(print)


def test_the_room_is_imported_without_scikit_learn() -> None:
    import subprocess
    import sys

    code = (
        "import sys; from dspex.programs import build, suggest_space; "
        "build(lambda p: 1.0, space={'x': [1, 2]}, direction='maximize'); "
        "print([m for m in ('sklearn', 'pandas', 'joblib') if m in sys.modules])"
    )
    root = importlib.import_module("dspex").__path__[0].removesuffix("dspex")
    printed = subprocess.run(
        [sys.executable, "-c", code],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert printed.stdout.strip() == "[]"
