"""Suggestions for trees and ensembles of them.

Knows: ranges. Sources: Probst, Boulesteix and Bischl 2019, "Tunability" (which parameters of
forests and boosting pay); Probst and Boulesteix 2018, "To tune or not to tune the number of
trees" (not in forests: more is better, so it stays the user's); auto-sklearn's component spaces;
Bischl et al. 2023; the parameter pages of XGBoost and LightGBM.
"""

from __future__ import annotations

from dspex.programs.suggestions.table import Table, one_of, real, switch, whole

__all__ = ["LIGHTGBM", "TABLE", "XGBOOST"]

_BALANCE = one_of(None, "balanced")
_DEPTH = one_of(None, whole(2, 30))
_FEATURES = one_of("sqrt", "log2", real(0.1, 1.0))
_ANY_FEATURES = one_of(None, "sqrt", "log2", real(0.1, 1.0))
_LEAF = whole(1, 50, log=True)
_SPLIT = whole(2, 50, log=True)

_TREE = {
    "max_depth": _DEPTH,
    "min_samples_split": _SPLIT,
    "min_samples_leaf": _LEAF,
    "max_features": _ANY_FEATURES,
    "ccp_alpha": one_of(0.0, real(1e-5, 1e-1, log=True)),
}
_FOREST = {
    "max_features": _FEATURES,
    "min_samples_split": _SPLIT,
    "min_samples_leaf": _LEAF,
    "max_depth": _DEPTH,
    "bootstrap": switch().given("oob_score", False).given("max_samples", None),
}
_BOOSTING = {
    "learning_rate": real(1e-3, 1.0, log=True),
    "n_estimators": whole(20, 500, log=True),
    "max_depth": whole(1, 10),
    "min_samples_leaf": _LEAF,
    "subsample": real(0.3, 1.0),
    "max_features": _ANY_FEATURES,
}
_HISTOGRAM = {
    "learning_rate": real(1e-3, 1.0, log=True),
    "max_iter": whole(20, 500, log=True),
    "max_leaf_nodes": whole(3, 255, log=True),
    "min_samples_leaf": whole(1, 200, log=True),
    "l2_regularization": one_of(0.0, real(1e-8, 1e2, log=True)),
    "max_features": real(0.2, 1.0),
}
# The default is 1.0 in older releases of scikit-learn, and None, which means the same, in newer.
_BAGGING = {"max_samples": one_of(None, real(0.1, 1.0)), "max_features": real(0.1, 1.0)}
_CRITERION = one_of("gini", "entropy")

TABLE: Table = {
    "DecisionTreeClassifier": {**_TREE, "criterion": _CRITERION, "class_weight": _BALANCE},
    "DecisionTreeRegressor": _TREE,
    "ExtraTreeClassifier": {**_TREE, "criterion": _CRITERION, "class_weight": _BALANCE},
    "ExtraTreeRegressor": _TREE,
    "RandomForestClassifier": {**_FOREST, "criterion": _CRITERION, "class_weight": _BALANCE},
    "RandomForestRegressor": _FOREST,
    "ExtraTreesClassifier": {**_FOREST, "criterion": _CRITERION, "class_weight": _BALANCE},
    "ExtraTreesRegressor": _FOREST,
    "GradientBoostingClassifier": _BOOSTING,
    "GradientBoostingRegressor": _BOOSTING,
    "HistGradientBoostingClassifier": _HISTOGRAM,
    "HistGradientBoostingRegressor": _HISTOGRAM,
    "AdaBoostClassifier": {
        "n_estimators": whole(20, 500, log=True),
        "learning_rate": real(1e-2, 2.0, log=True),
    },
    "AdaBoostRegressor": {
        "n_estimators": whole(20, 500, log=True),
        "learning_rate": real(1e-2, 2.0, log=True),
        "loss": one_of("linear", "square", "exponential"),
    },
    "BaggingClassifier": _BAGGING,
    "BaggingRegressor": _BAGGING,
    "IsolationForest": {
        "n_estimators": whole(50, 500, log=True),
        "max_samples": one_of("auto", real(0.1, 1.0)),
        "max_features": real(0.1, 1.0),
    },
}

_XGB = {
    "learning_rate": one_of(None, real(1e-3, 1.0, log=True)),
    "n_estimators": one_of(None, whole(20, 1000, log=True)),
    "max_depth": one_of(None, whole(1, 12)),
    "min_child_weight": one_of(None, real(1e-1, 1e2, log=True)),
    "subsample": one_of(None, real(0.3, 1.0)),
    "colsample_bytree": one_of(None, real(0.2, 1.0)),
    "reg_lambda": one_of(None, real(1e-4, 1e3, log=True)),
    "reg_alpha": one_of(None, real(1e-4, 1e3, log=True)),
}
XGBOOST: Table = {"XGBClassifier": _XGB, "XGBRegressor": _XGB}

_LGBM = {
    "learning_rate": real(1e-3, 1.0, log=True),
    "n_estimators": whole(20, 1000, log=True),
    "num_leaves": whole(3, 255, log=True),
    "min_child_samples": whole(1, 200, log=True),
    "subsample": real(0.3, 1.0).given("subsample_freq", 1),
    "colsample_bytree": real(0.2, 1.0),
    "reg_lambda": one_of(0.0, real(1e-4, 1e3, log=True)),
    "reg_alpha": one_of(0.0, real(1e-4, 1e3, log=True)),
}
LIGHTGBM: Table = {"LGBMClassifier": _LGBM, "LGBMRegressor": _LGBM}
