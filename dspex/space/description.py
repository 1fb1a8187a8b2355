"""A space in words: as JSON that is the same in every process, and as text for people.

Knows: what of a space can be written down: columns, conditions on values, names of functions.
Must not know: objects, arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dspex.space.compiling import Computed
from dspex.space.conditions import Clause, name_of
from dspex.space.distributions import Words, law_of
from dspex.space.labels import Scalar
from dspex.space.leaf import Leaf

__all__ = ["condition_words", "describe", "leaves_of", "words"]


def describe(
    leaves: Sequence[Leaf],
    computed: Sequence[Computed],
    constraints: Sequence[Callable[..., Any]],
) -> dict[str, Any]:
    """The parts of a space as JSON."""
    by_name = {leaf.name: leaf for leaf in leaves}
    return {
        "variables": [_leaf_to_json(leaf, by_name) for leaf in leaves],
        "derived": [
            {
                "name": each.name,
                "function": name_of(each.function),
                "of": list(each.of),
                "when": [_clause_to_json(clause, by_name) for clause in each.clauses],
            }
            for each in computed
        ],
        "constraints": [name_of(each) for each in constraints],
    }


def _leaf_to_json(leaf: Leaf, by_name: Mapping[str, Leaf]) -> dict[str, Any]:
    described: dict[str, Any] = {"name": leaf.name, "kind": leaf.kind}
    if leaf.kind == "choice":
        described["labels"] = list(leaf.labels)
        described["ordered"] = leaf.ordered
        if leaf.folds:
            described["folds"] = [list(fold) for fold in leaf.folds]
    else:
        described["low"] = leaf.value(leaf.low)
        described["high"] = leaf.value(leaf.high)
        described["log"] = leaf.log
        described["step"] = None if leaf.step is None else leaf.value(leaf.step)
    if leaf.folded:
        described["folded"] = True
    if leaf.distribution is not None:
        name, args, keywords = leaf.distribution
        described["distribution"] = [name, list(args), [list(each) for each in keywords]]
    if leaf.has_default:
        described["default"] = leaf.default
    if leaf.clauses:
        described["when"] = [_clause_to_json(clause, by_name) for clause in leaf.clauses]
    return described


def _clause_to_json(clause: Clause, by_name: Mapping[str, Leaf]) -> dict[str, Any]:
    if clause.function is not None:
        return {"name": clause.parent, "satisfies": name_of(clause.function)}
    return {"name": clause.parent, "one_of": _allowed(clause, by_name)}


def _allowed(clause: Clause, by_name: Mapping[str, Leaf]) -> list[Scalar]:
    parent = by_name[clause.parent]
    return [parent.value(raw) for raw in clause.allowed or ()]


def leaves_of(description: Mapping[str, Any]) -> list[Leaf]:
    """The columns of a described space, without what functions decide."""
    leaves: dict[str, Leaf] = {}
    for each in description["variables"]:
        labels = tuple(each.get("labels", ()))
        clauses = [
            _clause_from_json(clause, leaves[clause["name"]])
            for clause in each.get("when", ())
            if "one_of" in clause
        ]
        choice = each["kind"] == "choice"
        step = 1.0 if choice else each["step"]
        distribution = _distribution(each.get("distribution"))
        leaves[each["name"]] = Leaf(
            name=each["name"],
            kind=each["kind"],
            low=0.0 if choice else float(each["low"]),
            high=float(len(labels) - 1) if choice else float(each["high"]),
            log=bool(each.get("log", False)),
            step=None if step is None else float(step),
            labels=labels,
            ordered=bool(each.get("ordered", False)),
            default=each.get("default"),
            has_default="default" in each,
            clauses=tuple(clauses),
            folds=tuple((index, name) for index, name in each.get("folds", ())),
            folded=bool(each.get("folded", False)),
            law=None if distribution is None else law_of(distribution),
            distribution=distribution,
        )
    return list(leaves.values())


def _distribution(described: Sequence[Any] | None) -> Words | None:
    if described is None:
        return None
    name, args, keywords = described
    return name, tuple(args), tuple((word, value) for word, value in keywords)


def _clause_from_json(clause: Mapping[str, Any], parent: Leaf) -> Clause:
    if parent.kind == "choice":
        kept = [(type(label), label) for label in clause["one_of"]]
        allowed = [i for i, label in enumerate(parent.labels) if (type(label), label) in kept]
    else:
        allowed = clause["one_of"]
    return Clause(parent.name, tuple(map(float, allowed)))


def condition_words(leaf: Leaf, by_name: Mapping[str, Leaf]) -> str:
    """When a column is active, for people."""
    return " and ".join(_clause_words(clause, by_name) for clause in leaf.clauses)


def _clause_words(clause: Clause, by_name: Mapping[str, Leaf]) -> str:
    if clause.function is not None:
        return f"{name_of(clause.function)} holds for {clause.parent!r}"
    values = _allowed(clause, by_name)
    if len(values) == 1:
        return f"{clause.parent!r} is {values[0]!r}"
    return f"{clause.parent!r} is one of {values}"


def words(
    leaves: Sequence[Leaf],
    computed: Sequence[Computed],
    constraints: Sequence[Callable[..., Any]],
) -> list[str]:
    """The parts of a space, a line each, for people."""
    by_name = {leaf.name: leaf for leaf in leaves}
    lines = [_leaf_words(leaf, by_name) for leaf in leaves]
    lines += [f"{each.name} = {name_of(each.function)}({', '.join(each.of)})" for each in computed]
    lines += [f"such that {name_of(each)}" for each in constraints]
    return lines


def _leaf_words(leaf: Leaf, by_name: Mapping[str, Leaf]) -> str:
    if leaf.kind == "choice":
        shown = ", ".join(map(repr, leaf.labels[:12])) + (", ..." if len(leaf.labels) > 12 else "")
        text = f"{leaf.name}: {shown}" if len(leaf.labels) > 1 else f"{leaf.name}: only {shown}"
    else:
        text = f"{leaf.name}: {leaf.kind} {leaf.value(leaf.low)} to {leaf.value(leaf.high)}"
        text += ", log" if leaf.log else ""
        if leaf.step is not None and (leaf.kind == "float" or leaf.step != 1):
            text += f", step {leaf.value(leaf.step)}"
        text += f", {leaf.distribution[0]}" if leaf.distribution else ""
    text += f" (default {leaf.default!r})" if leaf.has_default else ""
    return f"{text}, when {condition_words(leaf, by_name)}" if leaf.clauses else text
