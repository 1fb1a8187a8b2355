"""Suggestions for linear models, naive Bayes and discriminant analysis.

Knows: ranges. Sources: auto-sklearn's component spaces (Feurer et al. 2015, with its 2.0 source);
van Rijn and Hutter 2018, "Hyperparameter importance across datasets"; Bischl et al. 2023,
"Hyperparameter optimization: foundations, algorithms, best practices", table of search spaces;
scikit-learn's user guide for which combinations are allowed.
"""

from __future__ import annotations

from dspex.programs.suggestions.table import Table, one_of, real, switch

__all__ = ["TABLE"]

_BALANCE = one_of(None, "balanced")
_STRENGTH = real(1e-4, 1e4, log=True)
_SHRINKING = real(1e-5, 1e2, log=True)

_SGD = {
    "penalty": one_of("l2", "l1", "elasticnet"),
    "alpha": real(1e-7, 1e-1, log=True),
    "l1_ratio": real(0.0, 1.0).when("penalty", "elasticnet"),
    "learning_rate": one_of("optimal", "invscaling", "constant", "adaptive"),
    "eta0": real(1e-5, 1e-1, log=True).when("learning_rate", "invscaling", "constant", "adaptive"),
    "average": switch(),
}

TABLE: Table = {
    "LogisticRegression": {
        "C": _STRENGTH,
        "class_weight": _BALANCE,
        "l1_ratio": real(0.0, 1.0).given("solver", "saga"),
    },
    "Ridge": {"alpha": _STRENGTH},
    "RidgeClassifier": {"alpha": _STRENGTH, "class_weight": _BALANCE},
    "Lasso": {"alpha": _SHRINKING},
    "LassoLars": {"alpha": _SHRINKING},
    "ElasticNet": {"alpha": _SHRINKING, "l1_ratio": real(0.01, 1.0)},
    "MultiTaskLasso": {"alpha": _SHRINKING},
    "MultiTaskElasticNet": {"alpha": _SHRINKING, "l1_ratio": real(0.01, 1.0)},
    "SGDClassifier": {
        "loss": one_of("hinge", "log_loss", "modified_huber", "squared_hinge", "perceptron"),
        **_SGD,
        "class_weight": _BALANCE,
    },
    "SGDRegressor": {
        "loss": one_of("squared_error", "huber", "epsilon_insensitive"),
        **_SGD,
    },
    "Perceptron": {
        "penalty": one_of(None, "l2", "l1", "elasticnet"),
        "alpha": real(1e-7, 1e-1, log=True).when("penalty", "l2", "l1", "elasticnet"),
        "class_weight": _BALANCE,
    },
    "HuberRegressor": {"epsilon": real(1.0, 3.0), "alpha": real(1e-6, 1e2, log=True)},
    "QuantileRegressor": {"alpha": one_of(0.0, real(1e-5, 1e1, log=True))},
    "BayesianRidge": {
        name: real(1e-10, 1e-3, log=True) for name in ("alpha_1", "alpha_2", "lambda_1", "lambda_2")
    },
    "ARDRegression": {
        **{
            name: real(1e-10, 1e-3, log=True)
            for name in ("alpha_1", "alpha_2", "lambda_1", "lambda_2")
        },
        "threshold_lambda": real(1e3, 1e5, log=True),
    },
    "PoissonRegressor": {"alpha": real(1e-6, 1e2, log=True)},
    "GammaRegressor": {"alpha": real(1e-6, 1e2, log=True)},
    "TweedieRegressor": {"alpha": real(1e-6, 1e2, log=True)},
    "LinearSVC": {"C": _STRENGTH, "class_weight": _BALANCE},
    "LinearSVR": {"C": _STRENGTH, "epsilon": one_of(0.0, real(1e-3, 1.0, log=True))},
    "GaussianNB": {"var_smoothing": real(1e-12, 1e-1, log=True)},
    "MultinomialNB": {"alpha": real(1e-3, 1e2, log=True), "fit_prior": switch()},
    "ComplementNB": {"alpha": real(1e-3, 1e2, log=True), "norm": switch()},
    "BernoulliNB": {"alpha": real(1e-3, 1e2, log=True), "fit_prior": switch()},
    "CategoricalNB": {"alpha": real(1e-3, 1e2, log=True), "fit_prior": switch()},
    "LinearDiscriminantAnalysis": {
        "solver": one_of("svd", "lsqr").given("covariance_estimator", None),
        "shrinkage": one_of(None, "auto", real(0.0, 1.0))
        .when("solver", "lsqr")
        .given("covariance_estimator", None),
    },
    "QuadraticDiscriminantAnalysis": {"reg_param": real(0.0, 1.0)},
}
