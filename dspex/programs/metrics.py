"""From ``metric=`` to what measures a fitted estimator.

Knows: scikit-learn's scorers, their names, and what tells a scorer from a metric function.
Must not know: splits, search spaces.

Scores carry the scorer's name where the user gave a name, and "score" otherwise. Weights reach a
scorer where it takes them, as in scikit-learn's search classes (`GridSearchCV`).
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, final

from dspex.errors import InvalidMetricError
from dspex.programs.goals import Measured, close_to
from dspex.programs.params import final_step, is_estimator
from dspex.study.measurement import SCORE

__all__ = ["Metrics", "WeightedScorer", "metrics_of"]

Scorer = Callable[..., Any]

# {what people say: the name of scikit-learn's scorer}, where no similar spelling leads to it
_SPOKEN = {
    "auc": "roc_auc",
    "logloss": "neg_log_loss",
    "mae": "neg_mean_absolute_error",
    "mape": "neg_mean_absolute_percentage_error",
    "mse": "neg_mean_squared_error",
    "rmse": "neg_root_mean_squared_error",
}


@final
@dataclass(frozen=True, slots=True)
class Metrics:
    """What measures, and what is known of it.

    Attributes
    ----------
    scorers : dict of str to scorer
        A scorer is called ``(estimator, X, y)``, and ``(estimator, X)`` where there is no y.
    measured : Measured
    description : object
        As JSON, for the study's identity.
    """

    scorers: Mapping[str, Scorer]
    measured: Measured
    description: Any

    @property
    def scoring(self) -> Any:
        """The ``scoring`` argument of scikit-learn's functions.

        A lone callable may return a dict (scikit-learn allows it), so it goes as it is; an
        estimator's own score is None there, which heeds the estimator's requests for metadata.
        """
        if self.scorers.get(SCORE) is _own_score:
            return None
        if self.measured.names is None:
            return self.scorers[SCORE]
        return dict(self.scorers)

    def lacking(self, model: Any) -> set[str]:
        """The methods that scorers need and an unfitted model does not have."""
        if any(is_estimator(each) for each in final_step(model)[1].get_params().values()):
            return set()  # what wraps others may only answer once fitted
        lacking: set[str] = set()
        for scorer in self.scorers.values():
            # Private to scikit-learn's scorers; without it the first trials tell.
            needed = "score" if scorer is _own_score else getattr(scorer, "_response_method", ())
            methods = (needed,) if isinstance(needed, str) else tuple(needed)
            if methods and not any(hasattr(model, each) for each in methods):
                lacking.update(methods)
        return lacking

    def check(self, estimator: Any, X: Any, y: Any, split: tuple[Any, Any]) -> None:
        """Try scikit-learn's own scorers on a dummy that fits the data's kind.

        Raises
        ------
        InvalidMetricError
            Where a scorer cannot score this target at all, as "f1" with three classes.
        """
        from sklearn.base import is_classifier, is_regressor
        from sklearn.dummy import DummyClassifier, DummyRegressor
        from sklearn.utils import _safe_indexing

        if y is None or not (is_classifier(estimator) or is_regressor(estimator)):
            return
        train, test = split
        dummy = DummyClassifier(strategy="prior") if is_classifier(estimator) else DummyRegressor()
        dummy.fit(_safe_indexing(X, train), _safe_indexing(y, train))
        data = _safe_indexing(X, test), _safe_indexing(y, test)
        for name, scorer in self.scorers.items():
            if not _is_made(scorer):
                continue
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # a dummy predicts badly, and is warned of it
                    scorer(dummy, *data)
            except (ValueError, TypeError, AttributeError) as error:
                raise InvalidMetricError(
                    f"a metric can score the target of the data; {name!r} cannot: {error}"
                ) from error


@final
class WeightedScorer:
    """Several scorers as one, given the weights of the samples where they take them.

    Parameters
    ----------
    scorers : mapping of str to scorer
    weights : array of shape (samples,)
        Of the samples that are scored.
    """

    def __init__(self, scorers: Mapping[str, Scorer], weights: Any) -> None:
        self._scorers = scorers
        self._weights = weights

    def __call__(self, estimator: Any, X: Any, y: Any = None) -> dict[str, Any]:
        """Measure a fitted estimator."""
        data = (X,) if y is None else (X, y)
        scores: dict[str, Any] = {}
        for name, scorer in self._scorers.items():
            weights = {"sample_weight": self._weights} if _takes_weights(scorer, estimator) else {}
            score = scorer(estimator, *data, **weights)
            scores |= score if isinstance(score, Mapping) else {name: score}
        return scores


def metrics_of(metric: Any, estimator: Any, *, has_target: bool = True) -> Metrics:
    """Read ``metric=`` for an estimator; scorers get y where there is a target.

    Raises
    ------
    InvalidMetricError
        For an unknown name, a metric function in place of a scorer, or no way to score at all.

    Examples
    --------
    >>> from sklearn.svm import SVC
    >>> metrics_of("accuracy", SVC()).measured.names
    ('accuracy',)
    """
    if metric is None:
        if not hasattr(estimator, "score"):
            raise InvalidMetricError(
                f"without a metric an estimator scores itself; {type(estimator).__name__} has no "
                "method `score`; pass metric= (a scorer's name, or a callable (estimator, X, y))"
            )
        return _metrics({SCORE: _own_score}, None)
    if isinstance(metric, str):
        return _metrics({metric: _scorer(metric, has_target)}, metric)
    if isinstance(metric, Mapping):
        if not metric:
            raise InvalidMetricError("a metric measures something; got {}; name a scorer")
        scorers = {str(name): _scorer(each, has_target) for name, each in metric.items()}
        return _metrics(scorers, dict(metric))
    if not callable(metric):
        names = isinstance(metric, list | tuple) and all(isinstance(each, str) for each in metric)
        remedy = f"pass {dict(zip(metric, metric, strict=True))}" if names else "pass one of these"
        raise InvalidMetricError(
            "a metric is a scorer's name, a scorer (estimator, X, y), or a dict of several; got "
            f"{metric!r} of type {type(metric).__name__}; {remedy}"
        )
    return _metrics({SCORE: _scorer(metric, has_target)}, metric)


def _metrics(scorers: Mapping[str, Scorer], description: Any) -> Metrics:
    rising = {name for name, each in scorers.items() if _is_made(each) or each is _own_score}
    # What a user's lone function returns, a number or a dict, is known when it has run.
    known = len(scorers) > 1 or bool(rising) or isinstance(description, Mapping)
    return Metrics(
        scorers, Measured(tuple(scorers) if known else None, rising, "maximize"), description
    )


def _own_score(estimator: Any, X: Any, y: Any = None, **weights: Any) -> Any:
    return estimator.score(X, **weights) if y is None else estimator.score(X, y, **weights)


def _scorer(metric: Any, has_target: bool) -> Scorer:
    from sklearn.metrics import get_scorer, get_scorer_names

    if isinstance(metric, str):
        names = get_scorer_names()
        if metric not in names:
            spoken = _SPOKEN.get(metric.lower())
            remedy = close_to(metric, names) if spoken is None else f"did you mean {spoken!r}?"
            raise InvalidMetricError(
                f"a metric's name is one of scikit-learn's scorers; got {metric!r}; {remedy}"
            )
        return get_scorer(metric)  # type: ignore[no-any-return]
    if not callable(metric):
        raise InvalidMetricError(
            f"a metric is a scorer's name or a callable (estimator, X, y); got {metric!r}"
        )
    if not _is_made(metric):
        _refuse_metric_function(metric, has_target)
    return metric  # type: ignore[no-any-return]


def _refuse_metric_function(metric: Any, has_target: bool) -> None:
    name = getattr(metric, "__name__", repr(metric))
    module = getattr(metric, "__module__", None) or ""
    try:
        signature = inspect.signature(metric)
        first = next(iter(signature.parameters), "")
    except (TypeError, ValueError):  # some builtins have no signature
        return
    if module.startswith("sklearn.metrics.") or first in ("y", "y_true", "y_pred", "labels_true"):
        from sklearn.metrics import get_scorer_names

        word = name.removesuffix("_score")
        known = [each for each in (word, name, f"neg_{name}") if each in get_scorer_names()]
        by_name = f'metric="{known[0]}" or ' if known else ""
        raise InvalidMetricError(
            f"a metric is called (estimator, X, y); {name}{signature} compares predictions with "
            f"the truth; pass {by_name}metric=sklearn.metrics.make_scorer({name}, ...)"
        )
    try:
        signature.bind(*[None] * (3 if has_target else 2))
    except TypeError:
        form = "(estimator, X, y)" if has_target else "(estimator, X) where there is no target"
        raise InvalidMetricError(
            f"a metric is called {form}; {name}{signature} cannot be; give it these parameters"
        ) from None


def _is_made(scorer: Any) -> bool:
    """Whether it is one of scikit-learn's scorers, or was made by ``make_scorer``."""
    return type(scorer).__module__ == "sklearn.metrics._scorer"


def _takes_weights(scorer: Scorer, estimator: Any) -> bool:
    if scorer is _own_score:
        while hasattr(estimator, "steps"):
            estimator = estimator.steps[-1][1]
        return hasattr(estimator, "score") and _names_weights(estimator.score)
    if _is_made(scorer):
        from sklearn.utils.metadata_routing import get_routing_for_object

        return "sample_weight" in get_routing_for_object(scorer).score.requests
    return _names_weights(scorer)


def _names_weights(function: Callable[..., Any]) -> bool:
    return "sample_weight" in inspect.signature(function).parameters
