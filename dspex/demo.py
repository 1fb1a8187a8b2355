"""The demonstration: a real pipeline on real data, as a user would write it.

Knows: only the public functions, and scikit-learn as its user.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import dspex

__all__ = ["run_demo"]


def digits_pipeline() -> tuple[Any, dict[str, Any]]:
    """A scaler + PCA + SVC pipeline, and what may vary in it.

    Examples
    --------
    >>> pipeline, space = digits_pipeline()
    >>> sorted(space)
    ['pca__n_components', 'scale', 'svc__C', 'svc__gamma']
    """
    from sklearn.decomposition import PCA
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import MinMaxScaler, StandardScaler
    from sklearn.svm import SVC

    pipeline = Pipeline(
        [("scale", StandardScaler()), ("pca", PCA(n_components=32)), ("svc", SVC(gamma=0.01))]
    )
    space = {
        "scale": dspex.Choice({"standard": StandardScaler(), "minmax": MinMaxScaler()}),
        "pca__n_components": dspex.Int(8, 60),
        "svc__C": dspex.Float(0.1, 1000, log=True),
        "svc__gamma": dspex.Float(1e-4, 1, log=True),
    }
    return pipeline, space


def run_demo(*, trials: int, workers: int | None, seed: int, output: Path) -> str:
    """Run the demonstration and return what to print.

    Parameters
    ----------
    trials : int
    workers : int or None
        The size of the embedded cluster.
    seed : int
    output : Path
        Where the store and the report go; made where it is missing.

    Returns
    -------
    str
        A table, and the paths of the store and the report.
    """
    from sklearn.base import clone
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    X, X_held, y, y_held = train_test_split(
        digits.data, digits.target, test_size=0.25, random_state=0, stratify=digits.target
    )
    pipeline, space = digits_pipeline()
    output.mkdir(parents=True, exist_ok=True)
    store = output / "studies.db"
    with warnings.catch_warnings():
        # Few trials on purpose, so that the demonstration is short.
        warnings.filterwarnings("ignore", message="with .* trials", category=UserWarning)
        result = dspex.optimize(
            pipeline,
            (X, y),
            space=space,
            metric="accuracy",
            trials=trials,
            cluster_nodes=workers,
            parallel_evaluations=8,
            seed=seed,
            study=f"digits-{seed}",
            storage=str(store),
        )
    default = clone(pipeline).fit(X, y)
    rows = [
        ("default params", result.baseline_score, default.score(X_held, y_held)),
        ("best params", result.best_score, result.best_program.score(X_held, y_held)),
    ]
    report = result.report(str(output / "report.html"))
    params = [
        f"{name} = {value:.4g}" if isinstance(value, float) else f"{name} = {value}"
        for name, value in result.best_trial.params.items()
    ]
    lines = [
        "",
        f"{'accuracy':16}{'5-fold':>10}{'held out':>12}",
        *(f"{name:16}{cv or 0:>10.4f}{held:>12.4f}" for name, cv, held in rows),
        "",
        f"best params   {params[0]}",
        *(f"{'':14}{each}" for each in params[1:]),
        f"study         {result.study} in {store}",
        f"report        {report}",
    ]
    return "\n".join(lines)
