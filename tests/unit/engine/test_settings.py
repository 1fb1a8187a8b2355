"""The rules that a session must keep."""

import pytest

from dspex.engine.settings import Settings, block_size
from dspex.errors import InvalidArgumentError


@pytest.mark.parametrize(
    "wrong",
    [
        {"trials": 0},
        {"k": 0},
        {"retries": -1},
        {"max_failures": -1},
        {"trial_timeout": 0.0},
        {"k": 16, "block": 3},
        {"block": 1},
    ],
)
def test_values_outside_their_bounds_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidArgumentError, match=next(iter(wrong)) + "|block"):
        Settings(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("k", [1, 2, 7, 16, 17, 100, 256, 1000])
def test_a_block_divides_k(k: int) -> None:
    assert k % block_size(k) == 0
    assert block_size(k) <= max(1, k // 16)
