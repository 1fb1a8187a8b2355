"""Suggestions for support vector machines, neighbours, kernel methods and neural networks.

Knows: ranges. Sources: Hsu, Chang and Lin 2016, "A practical guide to support vector
classification" (C from 2^-5, gamma from 2^-15 to 2^3); auto-sklearn's component spaces;
van Rijn and Hutter 2018 (for SVMs gamma and C matter most); scikit-learn's user guide.
"""

from __future__ import annotations

from dspex.programs.suggestions.table import Table, one_of, real, switch, whole

__all__ = ["TABLE"]

_GAMMA = one_of("scale", "auto", real(2**-15, 2**3, log=True))
# Above 1000 a fit on data that is not scaled may take hours, for a gain that is seldom seen.
_C = real(2**-5, 1e3, log=True)

_KERNEL = {
    "kernel": one_of("rbf", "linear", "poly", "sigmoid"),
    "gamma": _GAMMA.when("kernel", "rbf", "poly", "sigmoid"),
    "degree": whole(2, 5).when("kernel", "poly"),
    "coef0": real(-1.0, 1.0).when("kernel", "poly", "sigmoid"),
}
# A precomputed or callable kernel is a decision about the data, not a setting.
_SVM_KERNEL = {
    name: each.given("kernel", "rbf", "linear", "poly", "sigmoid") for name, each in _KERNEL.items()
}
_NEIGHBOURS = {
    "n_neighbors": whole(1, 30, log=True),
    "weights": one_of("uniform", "distance"),
    "p": one_of(1, 2).given("metric", "minkowski"),
}
_NETWORK = {
    "hidden_layer_sizes": one_of((50,), (100,), (200,), (50, 50), (100, 100), (100, 50, 25)),
    "activation": one_of("relu", "tanh"),
    "alpha": real(1e-7, 1e-1, log=True),
    "learning_rate_init": real(1e-4, 1e-1, log=True).given("solver", "adam", "sgd"),
    "batch_size": one_of("auto", 32, 64, 128).given("solver", "adam", "sgd"),
    "early_stopping": switch().given("solver", "adam", "sgd"),
}

TABLE: Table = {
    "SVC": {"C": _C, **_SVM_KERNEL, "class_weight": one_of(None, "balanced")},
    "NuSVC": {"nu": real(0.05, 0.5), **_SVM_KERNEL},
    "SVR": {"C": _C, **_SVM_KERNEL, "epsilon": real(1e-3, 1.0, log=True)},
    # libsvm's nu-SVR takes minutes on 60 samples where C is in the hundreds.
    "NuSVR": {"C": real(2**-5, 2**5, log=True), "nu": real(0.05, 1.0), **_SVM_KERNEL},
    "OneClassSVM": {"nu": real(0.01, 0.5), **_SVM_KERNEL},
    "KNeighborsClassifier": _NEIGHBOURS,
    "KNeighborsRegressor": _NEIGHBOURS,
    "NearestCentroid": {"metric": one_of("euclidean", "manhattan")},
    "KernelDensity": {
        "bandwidth": real(1e-2, 1e2, log=True),
        "kernel": one_of("gaussian", "tophat", "epanechnikov", "exponential"),
    },
    "KernelRidge": {
        "alpha": real(1e-6, 1e2, log=True),
        "kernel": one_of("linear", "rbf", "laplacian"),
        "gamma": one_of(None, real(2**-15, 2**3, log=True)).when("kernel", "rbf", "laplacian"),
    },
    "GaussianProcessRegressor": {
        "alpha": real(1e-10, 1.0, log=True),
        "normalize_y": switch(),
    },
    "MLPClassifier": _NETWORK,
    "MLPRegressor": _NETWORK,
    "LabelSpreading": {
        "alpha": real(0.01, 0.99),
        "gamma": real(1e-2, 1e2, log=True).given("kernel", "rbf"),
    },
}
