"""Python's mapping syntax over entries: ``registry[key]``, ``in``, ``len``, ``for``.

Knows: which method stands behind which piece of syntax. Must not know: backends.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import ItemsView, Iterator, KeysView, Mapping, ValuesView
from typing import Any

from dspex.errors import InvalidArgumentError
from dspex.foundation.handles.entry import Entry

__all__ = ["EntryMapping"]


class EntryMapping(Mapping[str, Entry]):
    """A mapping that asks over the wire, and so cannot be one in async code."""

    @property
    @abstractmethod
    def _is_awaited(self) -> bool:
        """Whether methods give something to be awaited."""

    @abstractmethod
    def lookup(self, key: str) -> Entry:
        """Find the entry of a key."""

    @abstractmethod
    def get(self, key: str, default: Any = None) -> Any:
        """Give the entry of a key, or `default` where there is none."""

    @abstractmethod
    def query(self) -> list[Entry]:
        """Find entries."""

    @abstractmethod
    def list_keys(self) -> list[str]:
        """List keys."""

    # Two registries are not compared entry by entry, over the wire.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __getitem__(self, key: str) -> Entry:
        self._sync_only("registry[key]", "lookup(key)")
        return self.lookup(key)

    def __contains__(self, key: object) -> bool:
        self._sync_only("key in registry", "get(key)")
        return isinstance(key, str) and self.get(key) is not None

    def __iter__(self) -> Iterator[str]:
        self._sync_only("iter(registry)", "list_keys()")
        return iter(self.list_keys())

    def __len__(self) -> int:
        self._sync_only("len(registry)", "list_keys()")
        return len(self.list_keys())

    def keys(self) -> KeysView[str]:
        """The keys that are there now."""
        self._sync_only("keys()", "list_keys()")
        return dict.fromkeys(self.list_keys()).keys()

    def values(self) -> ValuesView[Entry]:
        """The entries that are there now, as of one instant."""
        self._sync_only("values()", "query()")
        return {entry.key: entry for entry in self.query()}.values()

    def items(self) -> ItemsView[str, Entry]:
        """The keys and entries that are there now, as of one instant."""
        self._sync_only("items()", "query()")
        return {entry.key: entry for entry in self.query()}.items()

    def _sync_only(self, what: str, instead: str) -> None:
        if self._is_awaited:
            raise InvalidArgumentError(
                f"{what} cannot be awaited; in async code use `await registry.{instead}`"
            )
