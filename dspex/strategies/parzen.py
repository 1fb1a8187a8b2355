"""Mixtures of product kernels over rows whose columns are numbers, labels, or inactive.

Knows: how a row becomes features, and a kernel coefficients on them. Must not know: which rows
are good, who asks.

The logarithm of every kernel is linear in the features of the row, so the log densities of m
rows under n kernels are one matrix product, whatever the kinds of the columns:

- a numeric column has the features ``[1, u, u^2]`` (u its unit), all 0 where it is inactive; its
  kernel is a normal density, truncated to [0, 1];
- an unordered choice is one-hot, all 0 where inactive; its kernel prefers its own label.

Where a row has a column and the kernel has not, the kernel is the uniform law there; where the
kernel has one and the row has not, the column is integrated out. So each kernel is a density on
every sub-space of a conditional space.

Sources: Bergstra et al. 2011, "Algorithms for hyper-parameter optimization"; Falkner et al. 2018,
"BOHB", for the product kernel; Watanabe 2023, arXiv:2304.11127, for what its parts do.

Notation: n kernels, m rows, d columns, f features, u units in [0, 1], s bandwidths, w weights.
"""

from __future__ import annotations

import math
from typing import final

import numpy as np
from numpy.typing import NDArray

from dspex.space import Space

__all__ = ["Features", "Mixture", "log_sum_exp", "neighbour_bandwidths"]

FloatArray = NDArray[np.float64]

# A numeric column with k points is smooth only down to its grid: below this share of the distance
# between two points a kernel knows nothing of its neighbours.
_GRID_SHARE = 0.4


@final
class Features:
    """The features of a space's rows, and the kernels on them.

    Parameters
    ----------
    space : Space

    Attributes
    ----------
    numeric : array of int
        The columns that are numbers, or choices in order.
    finest : array of float, shape (numeric columns,)
        The least bandwidth of each.
    labels : list of (column, number of labels)
        The unordered choices.
    """

    def __init__(self, space: Space) -> None:
        leaves = list(enumerate(space.leaves))
        self.labels = [
            (j, len(leaf.labels))
            for j, leaf in leaves
            if leaf.kind == "choice" and not leaf.ordered
        ]
        chosen = {j for j, _ in self.labels}
        self.numeric = np.array([j for j, _ in leaves if j not in chosen], dtype=np.intp)
        self.finest = np.array(
            [
                0.0 if leaf.cardinality is None else _GRID_SHARE / leaf.cardinality
                for j, leaf in leaves
                if j not in chosen
            ]
        )

    def of(self, units: FloatArray) -> FloatArray:
        """Features of rows in units, shape (m, f)."""
        u = units[:, self.numeric]
        active = ~np.isnan(u)
        u = np.where(active, u, 0.0)
        return np.hstack([active, u, u * u, *(hot for hot, _ in self._one_hot(units))])

    def kernels(self, units: FloatArray, s: FloatArray, blur: float) -> FloatArray:
        """Coefficients of one kernel for each row, shape (n, f).

        Parameters
        ----------
        units : array, shape (n, d)
            Where the kernels stand.
        s : array, broadcast to (n, numeric columns)
            Bandwidths of the numeric columns.
        blur : float
            The weight of every other label beside the own label's 1.
        """
        from scipy.special import ndtr

        u = units[:, self.numeric]
        active = ~np.isnan(u)
        s = np.broadcast_to(s, u.shape)
        u = np.where(active, u, 0.5)
        precision = active / (s * s)
        mass = ndtr((1.0 - u) / s) - ndtr(-u / s)
        constant = -0.5 * u * u * precision - active * np.log(s * mass * math.sqrt(2 * math.pi))
        choices = []
        for hot, known in self._one_hot(units):
            k = hot.shape[1]
            own = np.log((1.0 + blur) / (1.0 + k * blur))
            other = np.log(blur / (1.0 + k * blur))
            choices.append(np.where(known[:, None], np.where(hot, own, other), -math.log(k)))
        return np.hstack([constant, u * precision, -0.5 * precision, *choices])

    def _one_hot(self, units: FloatArray) -> list[tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
        encoded = []
        for j, k in self.labels:
            known = ~np.isnan(units[:, j])
            index = np.minimum(np.where(known, units[:, j], 0.0) * k, k - 1).astype(np.intp)
            encoded.append(((index[:, None] == np.arange(k)) & known[:, None], known))
        return encoded


@final
class Mixture:
    """A weighted mixture of product kernels.

    Parameters
    ----------
    features : Features
    units : array, shape (n, d)
        Where the kernels stand; a kernel without a column is uniform there.
    s : array, shape (n, numeric columns)
        Bandwidths.
    blur : float
        The weight of every other label beside the own label's 1.
    weights : array, shape (n,)
        Of any sum.
    """

    def __init__(
        self,
        features: Features,
        units: FloatArray,
        s: FloatArray,
        *,
        blur: float,
        weights: FloatArray,
    ) -> None:
        self._features = features
        self._units, self._s, self._blur = units, s, blur
        self._weights = weights / weights.sum()
        self._kernels = features.kernels(units, s, blur)

    def log_density(self, phi: FloatArray) -> FloatArray:
        """Of rows given by their features, shape (m, f) -> (m,)."""
        return log_sum_exp(phi @ self._kernels.T + np.log(self._weights))

    def sample(self, draws: FloatArray) -> FloatArray:
        """Rows in units with all columns filled, from uniform draws of shape (m, 1 + d)."""
        from scipy.special import ndtr, ndtri

        origin = np.searchsorted(np.cumsum(self._weights)[:-1], draws[:, 0], side="right")
        rows = draws[:, 1:].copy()
        centre, s, blur = self._units[origin], self._s[origin], self._blur
        numeric = self._features.numeric
        mean, u = centre[:, numeric], rows[:, numeric]
        low, high = ndtr(-mean / s), ndtr((1.0 - mean) / s)
        drawn = np.clip(mean + s * ndtri(low + u * (high - low)), 0.0, 1.0)
        rows[:, numeric] = np.where(np.isnan(mean), u, drawn)
        for j, k in self._features.labels:
            # The own label has a share of 1, and every label (the own too) one of blur.
            share = rows[:, j] * (1.0 + k * blur)
            known = ~np.isnan(centre[:, j])
            other = np.clip((share - 1.0) / (k * blur), 0.0, 1.0)
            rows[:, j] = np.where(known, np.where(share < 1.0, centre[:, j], other), rows[:, j])
        return rows


def neighbour_bandwidths(u: FloatArray, least: FloatArray | float) -> FloatArray:
    """In each column the distance to the farther neighbour, at least ``least``, at most 1.

    The first and the last point take the distance to their one neighbour; a lone one the distance
    to the farther bound. NaN where u is NaN.

    Examples
    --------
    >>> neighbour_bandwidths(np.array([[0.1], [0.2], [0.5]]), 0.02).round(2).ravel().tolist()
    [0.1, 0.3, 0.3]
    """
    n, d = u.shape
    order = np.argsort(u, axis=0, kind="stable")  # NaN last
    edges = np.ones((n + 2, d))
    edges[0] = 0.0
    ordered = np.take_along_axis(u, order, axis=0)
    edges[1:-1] = np.where(np.isnan(ordered), 1.0, ordered)
    gaps = np.diff(edges, axis=0)
    farther = np.maximum(gaps[:-1], gaps[1:])
    count = n - np.isnan(u).sum(axis=0)
    several = count >= 2
    farther[0] = np.where(several, gaps[min(1, n)], farther[0])
    last = np.maximum(count - 1, 0)
    columns = np.arange(d)
    farther[last, columns] = np.where(several, gaps[last, columns], farther[last, columns])
    s = np.empty_like(u)
    np.put_along_axis(s, order, farther, axis=0)
    bounded: FloatArray = np.where(np.isnan(u), np.nan, np.clip(s, least, 1.0))
    return bounded


def log_sum_exp(terms: FloatArray) -> FloatArray:
    """``log(sum(exp(terms), axis=1))`` without overflow; at least one term is finite."""
    top = terms.max(axis=1)
    shifted = terms - top[:, None]
    total: FloatArray = np.log(np.exp(shifted, out=shifted).sum(axis=1)) + top
    return total
