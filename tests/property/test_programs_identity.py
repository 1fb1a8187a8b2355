"""Hashes follow content: equal content, equal hash; other content, another hash."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dspex.programs.identity import content_hash, fingerprint

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=12,
)
DTYPES: st.SearchStrategy[np.dtype[Any]] = st.sampled_from(
    [np.dtype(name) for name in ("f8", "i4", "?", "<U3")]
)
ARRAYS = hnp.arrays(
    DTYPES,
    hnp.array_shapes(max_dims=3, max_side=4, min_side=0),
)


@given(VALUES)
def test_a_copy_has_the_same_hash_and_the_fingerprint_is_json(value: Any) -> None:
    assert content_hash(copy.deepcopy(value)) == content_hash(value)
    assert json.loads(json.dumps(fingerprint(value))) == fingerprint(value)


@given(st.dictionaries(st.text(max_size=3), st.integers(), min_size=2, max_size=5))
def test_the_order_of_a_dict_does_not_count(value: dict[str, int]) -> None:
    assert content_hash(dict(reversed(value.items()))) == content_hash(value)


@given(ARRAYS)
def test_memory_layout_does_not_count(array: np.ndarray[Any, Any]) -> None:
    assert content_hash(np.asfortranarray(array)) == content_hash(array)


@given(hnp.arrays(np.float64, st.integers(1, 9)), st.data())
def test_one_other_bit_counts(array: np.ndarray[Any, Any], data: st.DataObject) -> None:
    other = array.copy()
    where = data.draw(st.integers(0, array.size * 8 - 1))
    other.view(np.uint8)[where] ^= 1
    assert content_hash(other) != content_hash(array)
