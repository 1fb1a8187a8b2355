"""Kernels are densities, mixtures draw what they say, bandwidths follow the neighbours."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import integrate, stats

from dspex.space import Choice, Float, Int, Space
from dspex.strategies.parzen import Features, Mixture, log_sum_exp, neighbour_bandwidths

NAN = float("nan")
SPACE = Space(
    {
        "kind": ["a", "b", "c"],
        "x": Float(0, 1),
        "y": Float(0, 1).when("kind", equals="a"),
    }
)
COLUMNS = {name: j for j, name in enumerate(SPACE.names)}


def units(kind: float, x: float, y: float) -> list[float]:
    row = [0.0, 0.0, 0.0]
    for name, value in (("kind", (kind + 0.5) / 3), ("x", x), ("y", y)):
        row[COLUMNS[name]] = value
    return row


def mixture(*kernels: list[float], s: float = 0.1, blur: float = 0.2) -> Mixture:
    features = Features(SPACE)
    rows = np.array(kernels)
    return Mixture(
        features, rows, np.full((len(rows), 2), s), blur=blur, weights=np.arange(1.0, len(rows) + 1)
    )


def density(of: Mixture, *row: float) -> float:
    return float(np.exp(of.log_density(Features(SPACE).of(np.array([units(*row)])))[0]))


def test_a_kernel_is_a_truncated_normal_and_a_preferred_label() -> None:
    made = mixture(units(1, 0.2, NAN))
    law = stats.truncnorm(-2, 8, loc=0.2, scale=0.1)
    own, other = 1.2 / 1.6, 0.2 / 1.6
    assert density(made, 1, 0.33, NAN) == pytest.approx(own * law.pdf(0.33))
    assert density(made, 2, 0.33, NAN) == pytest.approx(other * law.pdf(0.33))


def test_a_mixture_is_a_density_on_a_conditional_space() -> None:
    made = mixture(units(0, 0.2, 0.9), units(1, 0.5, NAN), units(0, 0.95, 0.1))
    with_y = integrate.dblquad(lambda y, x: density(made, 0, x, y), 0, 1, 0, 1, epsabs=1e-5)[0]
    without = sum(
        integrate.quad(lambda x, kind=kind: density(made, kind, x, NAN), 0, 1)[0] for kind in (1, 2)
    )
    assert with_y + without == pytest.approx(1, abs=1e-4)


def test_a_mixture_draws_what_its_density_says() -> None:
    made = mixture(units(0, 0.2, 0.9), units(1, 0.7, NAN))
    drawn = made.sample(np.random.default_rng(0).random((20_000, 4)))
    assert drawn.min() >= 0
    assert drawn.max() <= 1
    kinds = np.minimum(drawn[:, COLUMNS["kind"]] * 3, 2).astype(int)
    expected = np.array([1 * 1.2 + 2 * 0.2, 1 * 0.2 + 2 * 1.2, 0.6]) / 3 / 1.6
    assert np.bincount(kinds) / len(kinds) == pytest.approx(expected, abs=0.015)
    x = drawn[:, COLUMNS["x"]]
    below = integrate.quad(lambda u: sum(density(made, kind, u, NAN) for kind in range(3)), 0, 0.5)[
        0
    ]
    assert (x < 0.5).mean() == pytest.approx(below, abs=0.015)


def test_draws_at_the_ends_stay_inside() -> None:
    made = mixture(units(0, 0.0, 1.0), units(2, 1.0, 0.0), s=1e-3)
    for edge in (0.0, np.nextafter(1, 0)):
        drawn = made.sample(np.full((3, 4), edge))
        assert np.isfinite(drawn).all()
        assert ((drawn >= 0) & (drawn <= 1)).all()


def test_discrete_columns_are_not_finer_than_their_grid() -> None:
    space = Space({"n": Int(1, 4), "x": Float(0, 1), "size": Choice(["s", "m", "l"], ordered=True)})
    features = Features(space)
    assert features.labels == []
    finest = dict(zip(space.names, features.finest, strict=True))
    assert finest == pytest.approx({"n": 0.1, "x": 0.0, "size": 0.4 / 3})


def test_bandwidths_follow_the_farther_neighbour() -> None:
    u = np.array([[0.5], [0.1], [0.2], [0.9]])
    assert neighbour_bandwidths(u, 0.0)[:, 0] == pytest.approx([0.4, 0.1, 0.3, 0.4])
    assert neighbour_bandwidths(u, 0.2)[:, 0] == pytest.approx([0.4, 0.2, 0.3, 0.4])


def test_a_lone_point_sees_the_farther_bound() -> None:
    assert neighbour_bandwidths(np.array([[0.2]]), 0.0)[0, 0] == pytest.approx(0.8)


def test_bandwidths_pass_over_inactive_rows() -> None:
    u = np.array([[0.1, NAN], [NAN, NAN], [0.4, 0.7], [0.2, NAN]])
    s = neighbour_bandwidths(u, 0.01)
    assert np.array_equal(np.isnan(s), np.isnan(u))
    assert s[[0, 2, 3], 0] == pytest.approx([0.1, 0.2, 0.2])
    assert s[2, 1] == pytest.approx(0.7)


def test_log_sum_exp_neither_overflows_nor_loses_small_terms() -> None:
    terms = np.array([[1000.0, 1000.0], [-1000.0, -np.inf]])
    assert log_sum_exp(terms) == pytest.approx([1000 + np.log(2), -1000])
