"""Programs that are scikit-learn estimators and pipelines.

Knows: how to fit and score one fold, and how to fit the best on all the data.
Must not know: how splits, metrics and params came about (`splits`, `metrics`, `params`).

Each fold is scikit-learn's own ``cross_validate`` on one split, so a trial's scores equal
``cross_val_score`` bit by bit. Parameters ``random_state=None`` are seeded from the evaluation's
seed, which differs between folds, as scikit-learn's draws do; ``n_jobs`` is 1 while evaluating,
for an evaluation owns one core. The best program keeps the user's ``n_jobs``; its
``random_state=None`` are seeded from a constant, so that the same params give the same model.

Metadata: groups go to the splitter, the rest to the final step's fit, and ``sample_weight`` to the
scorers that take it, as in scikit-learn's search classes. Where the user has enabled scikit-learn's
metadata routing, its requests decide instead. That and the rest of scikit-learn's configuration
(``transform_output`` ...) are taken along to wherever an evaluation runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, final

from dspex.programs.base import RunningTrial
from dspex.programs.metrics import Metrics, WeightedScorer
from dspex.programs.params import configure, final_step
from dspex.programs.splits import Split
from dspex.space import Space
from dspex.study.measurement import Measurement

__all__ = ["Dataset", "EstimatorProgram"]

_FINAL_SEED = 0


@final
@dataclass(frozen=True, slots=True)
class Dataset:
    """What an estimator learns from and is scored on.

    Attributes
    ----------
    X, y : array-like
        y is None where there is no target.
    splits : tuple of (train, test)
        Indices; empty where there is validation data.
    metadata : dict
        What goes to fit (and the scorers), by the name that the user gave it.
    validation : (X, y) or None
    """

    X: Any
    y: Any
    splits: tuple[Split, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    validation: tuple[Any, Any] | None = None


@final
class EstimatorProgram:
    """A scikit-learn estimator, cross-validated or scored on validation data.

    Parameters
    ----------
    estimator : scikit-learn estimator
        Never changed; evaluations work on clones.
    space : Space
    metrics : Metrics
    folds : int
    refit : bool
        Whether the best program is fitted on all the data.
    config : mapping of str to object
        scikit-learn's global configuration, as the user has set it (``sklearn.get_config``).
    """

    def __init__(
        self,
        estimator: Any,
        space: Space,
        metrics: Metrics,
        *,
        folds: int,
        refit: bool,
        config: Mapping[str, Any],
    ) -> None:
        self._estimator = estimator
        self._space = space
        self._metrics = metrics
        self._folds = folds
        self._refit = refit
        self._config = dict(config)
        self._data: Dataset | None = None

    def space(self) -> Space | None:
        """The space that it is tuned over."""
        return self._space

    def folds(self) -> int:
        """How many splits there are."""
        return self._folds

    def prepare(self, data: Dataset) -> None:
        """Take the data, which may be read-only."""
        self._data = data

    def evaluate(self, params: Mapping[str, Any], trial: RunningTrial) -> Measurement:
        """Fit and score one fold."""
        data = self._given()
        model = configure(self._estimator, params, seed=trial.seed, one_core=True)
        with self._configuration():
            if data.validation is None:
                return self._fold(model, data, data.splits[trial.fold])
            return self._validate(model, data)

    def finish(self, params: Mapping[str, Any]) -> Any:
        """The estimator with params set, fitted on all the data unless ``refit=False``."""
        model = configure(self._estimator, params, seed=_FINAL_SEED)
        if not self._refit:
            return model
        with self._configuration():
            return self._fit(model, self._given())

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_data": None}  # data travels on its own road

    def _given(self) -> Dataset:
        if self._data is None:
            raise RuntimeError("prepare(data) comes before evaluate and finish")
        return self._data

    def _configuration(self) -> AbstractContextManager[None]:
        from sklearn import config_context

        # scikit-learn keeps it for each thread of each process, so it has to travel.
        return config_context(**self._config)  # type: ignore[no-any-return]

    @property
    def _routing(self) -> bool:
        return bool(self._config["enable_metadata_routing"])

    def _fit_params(self, model: Any, data: Dataset) -> dict[str, Any]:
        if self._routing:
            return dict(data.metadata)
        prefix, _ = final_step(model)
        return {
            key if prefix and "__" in key else prefix + key: value
            for key, value in data.metadata.items()
        }

    def _scoring(self, data: Dataset, test: Any) -> Any:
        weights = data.metadata.get("sample_weight")
        if self._routing or weights is None:
            return self._metrics.scoring
        from sklearn.utils import _safe_indexing

        return WeightedScorer(self._metrics.scorers, _safe_indexing(weights, test))

    def _fold(self, model: Any, data: Dataset, split: Split) -> Measurement:
        from sklearn.model_selection import cross_validate

        try:
            outcome = cross_validate(
                model,
                data.X,
                data.y,
                cv=[split],
                scoring=self._scoring(data, split[1]),
                params=self._fit_params(model, data),
                error_score="raise",
            )
        except ValueError as error:
            # scikit-learn words a bad parameter of a step as one of cross_validate's own.
            if type(error) is type(error.__cause__):
                raise error.__cause__ from None
            raise
        return Measurement(
            {
                key.removeprefix("test_"): values[0]
                for key, values in outcome.items()
                if key.startswith("test_")
            }
        )

    def _validate(self, model: Any, data: Dataset) -> Measurement:
        from sklearn.metrics import check_scoring

        assert data.validation is not None
        X, y = data.validation
        self._fit(model, data)
        score = check_scoring(model, scoring=self._metrics.scoring)
        return Measurement(score(model, X) if y is None else score(model, X, y))

    def _fit(self, model: Any, data: Dataset) -> Any:
        params = self._fit_params(model, data)
        target = () if data.y is None else (data.y,)
        try:
            return model.fit(data.X, *target, **params)
        except ValueError as error:
            # A fit that writes into its input needs a copy: data is read-only (`data.sealed`).
            if "read-only" not in str(error):
                raise
            from copy import deepcopy

            return model.fit(deepcopy(data.X), *deepcopy(target), **deepcopy(params))
