"""Hashes of content are the same in every process, and differ with the content."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from dspex.programs.identity import content_hash

EXAMPLES = """
import functools, json
import numpy as np, pandas as pd, scipy.sparse as sp
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC
from sklearn.model_selection import KFold
from dspex.programs.identity import content_hash

def plain(params): return params["x"] in {"a", "b", "c"}

class Called:
    def __init__(self): self.words = {"x", "y", "z"}
    def __call__(self, params): return 1

values = [
    plain, lambda p: p["x"] in {"a", "b", "c"}, functools.partial(plain, {"x": 1}), Called(),
    Called().__call__, np.arange(9.0), np.array(["a", None, 3], dtype=object),
    pd.DataFrame({"a": [1, 2], "b": pd.Categorical(["x", "y"]), "c": ["u", "v"]}),
    pd.Series(["a", None]), sp.csr_matrix(np.eye(3)), {"b": {1, 2}, "a": {"p", "q", "r"}},
    [{"question": "q", "answer": "a"}], make_pipeline(StandardScaler(), SVC(gamma=0.1)),
    FunctionTransformer(np.log1p), KFold(3), b"bytes", None, 1.5, float("nan"), np.float32(2),
]
print(json.dumps([content_hash(each) for each in values]))
"""


def test_every_process_computes_the_same(tmp_path: Path) -> None:
    script = tmp_path / "hashes.py"
    script.write_text(EXAMPLES)
    printed = {
        subprocess.run(
            [sys.executable, str(script)],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(p for p in sys.path if p)},
            capture_output=True,
            text=True,
            check=True,
            timeout=100,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(printed) == 1
    assert printed.pop().count("null") == 1


def one(params: Any) -> int:
    return 1


def two(params: Any) -> int:
    return 2


FRAME = pd.DataFrame({"a": [1, 2], "b": ["x", "y"]})


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (one, two),
        (lambda p: 1, lambda p: 2),
        (functools.partial(one, 1), functools.partial(one, 2)),
        (np.arange(4), np.arange(4).reshape(2, 2)),
        (np.arange(4), np.arange(4.0)),
        (np.zeros(2), np.array([0.0, 1.0])),
        (FRAME, FRAME.rename(columns={"a": "c"})),
        (FRAME, FRAME.iloc[::-1]),
        (FRAME, FRAME.astype({"a": float})),
        (FRAME["a"], FRAME["b"]),
        (sp.csr_matrix(np.eye(2)), sp.csr_matrix(2 * np.eye(2))),
        (sp.csr_matrix(np.eye(2)), sp.csr_matrix(np.eye(2, 3))),
        (SVC(), SVC(C=2)),
        (make_pipeline(StandardScaler(), SVC()), make_pipeline(SVC())),
        ([1, 2], [2, 1]),
        ({"a": 1}, {"a": 2}),
        ("a", "b"),
        (1, "1"),
    ],
)
def test_other_content_has_another_hash(first: Any, second: Any) -> None:
    assert content_hash(first) != content_hash(second)


@pytest.mark.parametrize(
    "make",
    [
        lambda: np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        lambda: np.arange(12.0).reshape(2, 6)[:, ::2],
        lambda: sp.csc_matrix(np.arange(6.0).reshape(2, 3)),
        lambda: pd.DataFrame({"a": [[1], [2]]}),
    ],
)
def test_the_same_content_has_the_same_hash(make: Callable[[], Any]) -> None:
    value = make()
    assert content_hash(value) == content_hash(make())
    if isinstance(value, np.ndarray):
        assert content_hash(value) == content_hash(np.array(value.tolist()))
    elif hasattr(value, "tocsr"):
        assert content_hash(value) == content_hash(value.tocsr())


def test_what_has_no_content_is_known_by_its_class() -> None:
    with open(__file__) as one_file, open(__file__) as other_file:
        assert content_hash(one_file) == content_hash(other_file)


def test_objects_that_hold_each_other_are_hashed() -> None:
    class Node:
        def __init__(self) -> None:
            self.friend: Any = None

        def __call__(self, params: Any) -> float:
            return 0.0

    node, other = Node(), Node()
    node.friend, other.friend = other, node
    assert content_hash(node) == content_hash(node)


def test_no_data_has_no_hash() -> None:
    assert content_hash(None) is None
