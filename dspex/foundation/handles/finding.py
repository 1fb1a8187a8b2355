"""Finding entries by what is known of them: metadata, capabilities, the beginning of the key.

Knows: what users write, and the query that it means. Must not know: who answers queries.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from typing import Any, Literal, TypeAlias

from dspex.errors import InvalidArgumentError
from dspex.foundation.handles.entry import Entry
from dspex.foundation.handles.mapping import EntryMapping
from dspex.foundation.query import Query
from dspex.foundation.record import Json

__all__ = ["EntryFinding"]

Match: TypeAlias = Literal["any", "all"]
Condition: TypeAlias = tuple[str, str, Any] | tuple[str, str]


class EntryFinding(EntryMapping):
    """A mapping whose entries can be found by more than their keys."""

    @abstractmethod
    def _select(self, query: Query) -> list[Entry]:
        """Answer a query."""

    @abstractmethod
    def _keys(self, query: Query) -> list[str]:
        """Answer a query for keys alone."""

    def query(
        self,
        where: Iterable[Condition] = (),
        *,
        order_by: str | None = None,
        limit: int | None = None,
        prefix: str = "",
    ) -> list[Entry]:
        """Find the entries whose metadata fulfils all conditions.

        Parameters
        ----------
        where : iterable of (path, operator, value)
            Such as ``("resources.memory_gb", "ge", 4)``. Operators: eq, ne, lt, le, gt, ge, in,
            contains (of a list, a text or a map), exists. What is not there fulfils ``ne`` and
            ``("path", "exists", False)`` alone.
        order_by : str, optional
            A path, "key" or "version"; with "-" before it the other way round. Entries without a
            value there come last. Without it, and among equals, the key decides.
        limit : int, optional
        prefix : str
            Of the key.

        Returns
        -------
        list of Entry

        Raises
        ------
        InvalidRequestError, UnavailableError
        """
        return self._select(Query.made(where, order_by=order_by, limit=limit, prefix=prefix))

    def find_by_attribute(
        self,
        path: str | None = None,
        value: Json = None,
        /,
        *,
        order_by: str | None = None,
        limit: int | None = None,
        **equals: Json,
    ) -> list[Entry]:
        """Find the entries whose metadata has these values.

        Examples
        --------
        >>> import dspex
        >>> with dspex.connect("local") as foundation:
        ...     _ = foundation.registry.register("m", 1, {"kind": "model", "data": {"rows": 5}})
        ...     len(foundation.registry.find_by_attribute("data.rows", 5, kind="model"))
        1
        """
        where = [(name, "eq", each) for name, each in equals.items()]
        if path is not None:
            where.insert(0, (path, "eq", value))
        if not where:
            raise InvalidArgumentError("find_by_attribute needs a path and a value, or name=value")
        return self._select(Query.made(where, order_by=order_by, limit=limit))

    def find_by_capability(
        self,
        names: str | Iterable[str],
        *,
        match: Match = "any",
        where: Iterable[Condition] = (),
        order_by: str | None = None,
        limit: int | None = None,
    ) -> list[Entry]:
        """Find the entries that have any, or all, of these capabilities."""
        query = Query.made(where, names, match=match, order_by=order_by, limit=limit)
        if not query.capabilities:
            raise InvalidArgumentError("find_by_capability needs the name of a capability")
        return self._select(query)

    def list_keys(self, prefix: str = "") -> list[str]:
        """List the keys that begin with `prefix`, sorted."""
        return self._keys(Query.made(prefix=prefix, keys_only=True))
