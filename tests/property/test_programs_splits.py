"""Whatever the form of a split, what travels are indices that mean the same samples."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dspex.programs.splits import describe_splits, splits_of, splitter_of


@st.composite
def raw_splits(
    draw: st.DrawFn,
) -> tuple[int, list[tuple[Any, Any]], list[tuple[set[int], set[int]]]]:
    count = draw(st.integers(2, 30))
    sets, raw = [], []
    for _ in range(draw(st.integers(1, 4))):
        test = draw(st.sets(st.integers(0, count - 1), min_size=1, max_size=count - 1))
        pair = (set(range(count)) - test, test)
        sets.append(pair)
        form = draw(st.sampled_from(["mask", "list", "negative"]))
        raw.append((_as(form, pair[0], count), _as(form, pair[1], count)))
    return count, raw, sets


def _as(form: str, indices: set[int], count: int) -> Any:
    if form == "mask":
        return np.isin(np.arange(count), list(indices))
    return [each - count if form == "negative" else each for each in sorted(indices)]


@given(raw_splits())
def test_masks_lists_and_negative_indices_are_the_same_splits(made: Any) -> None:
    count, raw, sets = made
    X = np.zeros((count, 1))
    splitter = splitter_of(raw, None, classifier=False)
    splits = splits_of(splitter, X, None, {})
    assert [(set(a.tolist()), set(b.tolist())) for a, b in splits] == sets
    assert all(part.dtype == np.int32 for split in splits for part in split)
    plain = [(sorted(a), sorted(b)) for a, b in sets]
    again = splits_of(splitter_of(plain, None, classifier=False), X, None, {})
    assert describe_splits(splitter, splits) == describe_splits(splitter, again)


@given(st.integers(10, 60), st.integers(2, 5))
def test_folds_part_the_samples(count: int, folds: int) -> None:
    X = np.zeros((count, 1))
    splits = splits_of(splitter_of(folds, None, classifier=False), X, None, {})
    assert sorted(i for _, test in splits for i in test.tolist()) == list(range(count))
    for train, test in splits:
        assert not set(train.tolist()) & set(test.tolist())
