"""What a program may return."""

import math

import numpy as np
import pytest

from dspex.errors import InvalidArgumentError
from dspex.study.measurement import Measurement, as_measurement


def test_a_number_is_named_score() -> None:
    assert as_measurement(np.float32(2)).scores == {"score": 2.0}


def test_a_dict_keeps_its_names_and_order() -> None:
    measurement = as_measurement({"auc": 1, "loss": 2})
    assert list(measurement.scores) == ["auc", "loss"]
    assert measurement.score == 1.0


def test_a_measurement_stays_itself() -> None:
    measurement = Measurement(1.0, cost=3, feedback="ok", constraints={"latency": 1})
    assert as_measurement(measurement) is measurement
    assert measurement.constraints == {"latency": 1.0}


@pytest.mark.parametrize("value", [None, "high", [1, 2], {}, {"a": "b"}])
def test_what_is_not_a_number_is_refused(value: object) -> None:
    with pytest.raises(InvalidArgumentError, match=r"got|is"):
        as_measurement(value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_not_finite_is_told(value: float) -> None:
    assert not Measurement(value).is_finite


def test_score_and_scores_together_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="either a score or scores"):
        Measurement(1.0, scores={"a": 1.0})
