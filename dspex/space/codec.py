"""Params to rows and back, without loss.

Knows: names, labels, raw values. Must not know: conditions, constraints, units: a key that is
absent is a NaN, whatever the reason, so that every log can be read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from dspex.errors import InvalidParamsError
from dspex.space.compiling import hint
from dspex.space.labels import Scalar, find, plain
from dspex.space.leaf import Leaf
from dspex.space.ranges import real

__all__ = ["Codec", "outside", "position", "unknown"]

_NAN = float("nan")


@final
class Codec:
    """The two ways between params (labels and numbers) and rows (raw values, NaN for absent)."""

    def __init__(self, leaves: Sequence[Leaf]) -> None:
        self._leaves = leaves
        self._decoders: list[tuple[str, Callable[[float], Scalar]]] = []
        self._positions: dict[str, dict[Any, float]] = {}
        for leaf in leaves:
            decode: Callable[[float], Scalar] = float if leaf.kind == "float" else int
            if leaf.kind == "choice":
                decode = dict(
                    zip(map(float, range(len(leaf.labels))), leaf.labels, strict=True)
                ).__getitem__
                positions = {label: float(i) for i, label in enumerate(leaf.labels)}
                if len(positions) == len(leaf.labels):
                    self._positions[leaf.name] = positions
            self._decoders.append((leaf.name, decode))

    def params(self, row: NDArray[np.float64]) -> dict[str, Scalar]:
        """One row as params."""
        # A NaN is what does not equal itself; this loop runs once for every trial.
        return {
            name: decode(raw)
            for (name, decode), raw in zip(self._decoders, row.tolist(), strict=True)
            if raw == raw
        }

    def rows(self, params: Sequence[Mapping[str, Any]]) -> NDArray[np.float64]:
        """Params as rows, shape (n, d).

        Raises
        ------
        InvalidParamsError
            For names and labels that are not in the space.
        """
        rows = np.empty((len(params), len(self._leaves)))
        for j, leaf in enumerate(self._leaves):
            try:
                rows[:, j] = self._column(leaf, params)
            except (KeyError, TypeError, ValueError) as error:
                raise self._fault(params) from error
        if sum(map(len, params)) != np.count_nonzero(rows == rows):
            raise self._fault(params)
        return rows

    def _column(self, leaf: Leaf, params: Sequence[Mapping[str, Any]]) -> list[float]:
        name = leaf.name
        if leaf.kind != "choice":
            return [each.get(name, _NAN) for each in params]
        positions = self._positions.get(name)
        if positions is not None:
            return [positions[each[name]] if name in each else _NAN for each in params]
        return [position(leaf, each[name]) if name in each else _NAN for each in params]

    def _fault(self, params: Sequence[Mapping[str, Any]]) -> InvalidParamsError:
        by_name = {leaf.name: leaf for leaf in self._leaves}
        for each in params:
            for name, value in each.items():
                leaf = by_name.get(name)
                if leaf is None:
                    return unknown(name, value, by_name)
                if leaf.kind == "choice" and not find(leaf.labels, leaf.labels, plain(value)):
                    return outside(leaf, value)
                if leaf.kind != "choice" and (real(value) is None or value != value):
                    return outside(leaf, value)
        return InvalidParamsError("params are mappings of name to label or number")


def position(leaf: Leaf, value: Any) -> float:
    """The raw value of a label or number.

    Raises
    ------
    InvalidParamsError
        For what is no label.
    """
    if leaf.kind != "choice":
        return float(value)
    hits = find(leaf.labels, leaf.labels, value)
    if not hits:
        raise outside(leaf, value)
    return float(hits[0])


def unknown(name: str, value: Any, names: Mapping[str, Any]) -> InvalidParamsError:
    """What to say of a name that is not in the space."""
    return InvalidParamsError(
        f"params name variables of the space; got {name!r}; {hint(name, names)}",
        variable=name,
        rule="must be in the space",
        value=value,
    )


def outside(leaf: Leaf, value: Any) -> InvalidParamsError:
    """What to say of a value that a variable does not have."""
    if leaf.kind == "choice":
        shown = ", ".join(map(repr, leaf.labels[:20])) + (", ..." if len(leaf.labels) > 20 else "")
        rule, remedy = f"must be one of {shown}", "pass one of them"
        if isinstance(value, str):
            strings = [label for label in leaf.labels if isinstance(label, str)]
            remedy = hint(value, strings) if strings else remedy
    else:
        rule = leaf.fault(value) or "must be a number"
        remedy = "change the value, or the space"
    return InvalidParamsError(
        f"{leaf.name!r} {rule}; got {value!r}; {remedy}",
        variable=leaf.name,
        rule=rule,
        value=value,
    )
