"""What a program gets for params.

Knows: objects behind labels, options that are variables, derived values.
Must not know: rows as arrays, units.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, final

from dspex.errors import InvalidParamsError
from dspex.space.activity import holds
from dspex.space.codec import position, unknown
from dspex.space.compiling import Computed
from dspex.space.leaf import Leaf

__all__ = ["Resolver"]


@final
class Resolver:
    """Turns params into what a program gets."""

    def __init__(self, leaves: Mapping[str, Leaf], computed: Sequence[Computed]) -> None:
        self.leaves = leaves
        self.computed = computed
        self._trivial = not computed and not any(
            leaf.folds or leaf.objects is not None for leaf in leaves.values()
        )

    def resolve(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Objects for labels, folded variables under their parent's name, derived values.

        Raises
        ------
        InvalidParamsError
            For params that `Space.normalise` would not give.
        """
        if self._trivial:
            return dict(params)
        resolved = {}
        for name, value in params.items():
            leaf = self.leaves.get(name)
            if leaf is None:
                raise unknown(name, value, self.leaves)
            if not leaf.folded:
                resolved[name] = self._object(leaf, params)
        return {**resolved, **self._derived(params, resolved)} if self.computed else resolved

    def _object(self, leaf: Leaf, params: Mapping[str, Any]) -> Any:
        if leaf.name not in params:
            raise InvalidParamsError(
                f"{leaf.name!r} is active, so params hold it; got {dict(params)}; add it",
                variable=leaf.name,
                rule="must be given",
                value=None,
            )
        value = params[leaf.name]
        if leaf.kind != "choice" or (leaf.objects is None and not leaf.folds):
            return value
        index = position(leaf, value)
        for folded, child in leaf.folds:
            if folded == index:
                return self._object(self.leaves[child], params)
        return leaf.object(index)

    def _derived(self, params: Mapping[str, Any], resolved: Mapping[str, Any]) -> dict[str, Any]:
        values = dict(resolved)
        derived = {}
        for each in self.computed:
            if all(name in values for name in each.of) and self._active(each, params):
                try:
                    result = each.function(*(values[name] for name in each.of))
                except Exception as error:
                    error.add_note(f"raised by the derived variable {each.name!r} for {values}")
                    raise
                values[each.name] = derived[each.name] = result
        return derived

    def _active(self, each: Computed, params: Mapping[str, Any]) -> bool:
        raw = {
            clause.parent: position(self.leaves[clause.parent], params[clause.parent])
            for clause in each.clauses
            if clause.parent in params
        }
        return holds(each.clauses, raw)
