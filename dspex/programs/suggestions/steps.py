"""Suggestions for what stands before a model, around it, or groups samples without a target.

Knows: ranges. Sources: auto-sklearn's component spaces for preprocessors; scikit-learn's user
guide. Numbers of components, features or clusters that depend on the data's shape are suggested
as shares, or left to the user, so that no suggestion fails for want of columns.
"""

from __future__ import annotations

from dspex.programs.suggestions.table import Table, one_of, real, switch, whole

__all__ = ["TABLE"]

_NGRAMS = one_of((1, 1), (1, 2), (1, 3))
_GAMMA = real(2**-15, 2**3, log=True)

TABLE: Table = {
    # preprocessing
    "PCA": {
        "n_components": one_of(None, real(0.5, 0.999)).given("svd_solver", "auto", "full"),
        "whiten": switch(),
    },
    "KernelPCA": {
        "kernel": one_of("linear", "rbf", "cosine"),
        "gamma": one_of(None, _GAMMA).when("kernel", "rbf"),
    },
    "PolynomialFeatures": {"degree": whole(1, 3), "interaction_only": switch()},
    "SplineTransformer": {"n_knots": whole(3, 12), "degree": whole(1, 4)},
    "KBinsDiscretizer": {
        "n_bins": whole(2, 20, log=True),
        "strategy": one_of("quantile", "uniform", "kmeans"),
    },
    "QuantileTransformer": {"output_distribution": one_of("uniform", "normal")},
    "RobustScaler": {
        "quantile_range": one_of((25.0, 75.0), (10.0, 90.0), (5.0, 95.0), (1.0, 99.0))
    },
    "Normalizer": {"norm": one_of("l2", "l1", "max")},
    "SimpleImputer": {
        "strategy": one_of("mean", "median").given("strategy", "mean", "median"),
        "add_indicator": switch(),
    },
    "KNNImputer": {"n_neighbors": whole(1, 20, log=True), "weights": one_of("uniform", "distance")},
    "TargetEncoder": {"smooth": one_of("auto", real(1e-1, 1e3, log=True))},
    "SelectPercentile": {"percentile": whole(10, 100)},
    "RFE": {"n_features_to_select": one_of(None, real(0.1, 1.0))},
    "SelectFromModel": {
        "threshold": one_of(None, "mean", "median", "0.5*mean", "1.5*mean"),
    },
    "Nystroem": {
        "gamma": one_of(None, _GAMMA).given("kernel", "rbf"),
        "n_components": whole(20, 500, log=True),
    },
    "RBFSampler": {
        "gamma": one_of("scale", _GAMMA),
        "n_components": whole(20, 2000, log=True),
    },
    "CountVectorizer": {
        "ngram_range": _NGRAMS.given("analyzer", "word"),
        "max_df": real(0.5, 1.0),
        "binary": switch(),
    },
    "TfidfVectorizer": {
        "ngram_range": _NGRAMS.given("analyzer", "word"),
        "max_df": real(0.5, 1.0),
        "sublinear_tf": switch(),
        "use_idf": switch(),
    },
    "TfidfTransformer": {
        "sublinear_tf": switch(),
        "use_idf": switch(),
        "norm": one_of("l2", "l1", None),
    },
    "HashingVectorizer": {
        "ngram_range": _NGRAMS.given("analyzer", "word"),
        "norm": one_of("l2", "l1", None),
    },
    # around a model
    "CalibratedClassifierCV": {"method": one_of("sigmoid", "isotonic")},
    "SelfTrainingClassifier": {"threshold": real(0.5, 0.99).given("criterion", "threshold")},
    # without a target
    "KMeans": {"n_clusters": whole(2, 20), "init": one_of("k-means++", "random")},
    "MiniBatchKMeans": {"n_clusters": whole(2, 20), "init": one_of("k-means++", "random")},
    "BisectingKMeans": {"n_clusters": whole(2, 20), "init": one_of("random", "k-means++")},
    "SpectralClustering": {
        "n_clusters": whole(2, 20),
        "gamma": real(1e-3, 1e2, log=True).given("affinity", "rbf"),
    },
    "AgglomerativeClustering": {
        "n_clusters": whole(2, 20).given("distance_threshold", None),
        "linkage": one_of("ward", "average", "complete", "single").given("metric", "euclidean"),
    },
    "Birch": {
        "threshold": real(0.05, 5.0, log=True),
        "branching_factor": whole(10, 200, log=True),
    },
    "DBSCAN": {"eps": real(0.01, 10.0, log=True), "min_samples": whole(2, 20)},
    "HDBSCAN": {"min_cluster_size": whole(2, 50, log=True)},
    "OPTICS": {"min_samples": whole(2, 20), "xi": real(0.01, 0.3)},
    "GaussianMixture": {
        "n_components": whole(1, 10),
        "covariance_type": one_of("full", "tied", "diag", "spherical"),
        "reg_covar": real(1e-8, 1e-1, log=True),
    },
    "BayesianGaussianMixture": {
        "n_components": whole(1, 10),
        "covariance_type": one_of("full", "tied", "diag", "spherical"),
        "reg_covar": real(1e-8, 1e-1, log=True),
    },
    "LocalOutlierFactor": {"n_neighbors": whole(2, 50, log=True), "p": one_of(1, 2)},
    "EllipticEnvelope": {"support_fraction": one_of(None, real(0.5, 1.0))},
}
