"""Who is trained on what, and scored on what.

Knows: scikit-learn's splitters. Must not know: estimators' params, metrics.

Splits are computed once, at the door, and travel as index arrays, so that every worker and every
trial sees the same ones. A splitter that shuffles with ``random_state=None`` would make other ones
in the next process, and a resumed study would compare trials over different folds; so it gets the
fixed state 0, in a copy.
"""

from __future__ import annotations

import copy
import warnings
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dspex.errors import InvalidArgumentError
from dspex.programs.identity import class_name, content_hash

__all__ = ["Split", "describe_splits", "splits_of", "splitter_of"]

Split: TypeAlias = tuple[NDArray[np.integer[Any]], NDArray[np.integer[Any]]]


def splitter_of(cv: Any, y: Any, *, classifier: bool) -> Any:
    """The splitter that ``cv=`` means; None is five folds, stratified for classifiers.

    Examples
    --------
    >>> splitter_of(None, [0, 1] * 5, classifier=True)
    StratifiedKFold(n_splits=5, random_state=None, shuffle=False)
    """
    from sklearn.model_selection import check_cv

    if isinstance(cv, bool) or (isinstance(cv, int | np.integer) and cv < 2):
        raise InvalidArgumentError(
            f"cv is at least 2 folds, a splitter or an iterable of splits; got {cv!r}; to measure "
            "on data of its own pass validation_data=(X, y)"
        )
    try:
        splitter = check_cv(cv, y, classifier=classifier)
    except (TypeError, ValueError) as error:
        raise InvalidArgumentError(
            f"cv is a number of folds, a splitter or an iterable of splits; got {cv!r}; {error}"
        ) from error
    if getattr(splitter, "random_state", 0) is None and getattr(splitter, "shuffle", True):
        splitter = copy.copy(splitter)
        splitter.random_state = 0
    return splitter


def splits_of(splitter: Any, X: Any, y: Any, metadata: dict[str, Any]) -> tuple[Split, ...]:
    """The splits as arrays of indices, int32 where that is enough.

    Parameters
    ----------
    splitter : scikit-learn splitter
    X, y : array-like
    metadata : dict
        What the splitter takes, such as groups.

    Raises
    ------
    InvalidArgumentError
        Where the splitter cannot split this data, or ignores what it is given.
    """
    from sklearn.utils.validation import _num_samples

    count = _num_samples(X)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="The groups parameter is ignored")
            raw = list(splitter.split(X, y, **metadata))
    except UserWarning as warned:
        if "groups" not in str(warned):  # the caller's own filter has made it an error
            raise
        raise InvalidArgumentError(
            f"groups are for a splitter that keeps them together; {_text(splitter)} ignores them; "
            "pass cv=GroupKFold(5) or another group splitter, or drop groups"
        ) from None
    except (TypeError, ValueError, IndexError) as error:
        lacks_groups = "groups" not in metadata and "'groups'" in str(error)
        remedy = '; pass metadata={"groups": one value per sample}' if lacks_groups else ""
        raise InvalidArgumentError(
            f"cv splits the data; {_text(splitter)} cannot split these {count} samples: "
            f"{str(error).rstrip('.')}{remedy}"
        ) from error
    if not raw:
        raise InvalidArgumentError(f"cv makes at least one split; {_text(splitter)} made none")
    kind = np.int32 if count < 2**31 else np.int64
    try:
        return tuple((_indices(a, count, kind), _indices(b, count, kind)) for a, b in raw)
    except (TypeError, ValueError) as error:
        raise InvalidArgumentError(
            f"a split is a pair (train, test) of indices below {count}, neither empty; "
            f"{_text(splitter)} gave something else: {error}"
        ) from error


def describe_splits(splitter: Any, splits: tuple[Split, ...]) -> dict[str, Any]:
    """The splits as JSON, for the study's identity."""
    return {
        "splitter": _text(splitter),
        "folds": len(splits),
        "hash": content_hash([part for split in splits for part in split]),
    }


def _indices(part: Any, count: int, kind: type[np.integer[Any]]) -> NDArray[np.integer[Any]]:
    indices = np.asarray(part)
    if indices.dtype == bool:
        if len(indices) != count:
            raise ValueError(f"a mask of {len(indices)} values")
        indices = np.flatnonzero(indices)
    if indices.ndim != 1 or indices.size == 0:
        raise ValueError(f"an array of shape {indices.shape}")
    if not np.issubdtype(indices.dtype, np.integer):
        raise ValueError(f"an array of {indices.dtype}")
    if indices.min() < -count or indices.max() >= count:
        raise ValueError(f"indices from {indices.min()} to {indices.max()}")
    return np.ascontiguousarray(np.where(indices < 0, indices + count, indices), dtype=kind)


def _text(splitter: Any) -> str:
    if type(splitter).__module__ == "sklearn.model_selection._split":
        return "an iterable" if "Wrapper" in type(splitter).__name__ else repr(splitter)
    return class_name(splitter)
