"""The state of an agent: a mapping that knows which of its keys a turn may have changed.

Knows: values, keys that were touched, their pickles as they were committed. Must not know: turns,
where pickles go.

A key counts as touched when it is set or deleted, and when a value that can change in place is
handed out. At the end of a turn the touched ones are pickled and compared with what was committed,
so that what travels is what changed. A turn that raises is undone from the same pickles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any, final

from dspex.errors import InvalidArgumentError

__all__ = ["TrackedState", "refuse_unwritable"]

_FIXED = frozenset({int, float, complex, bool, str, bytes, type(None), range, type, type(Ellipsis)})
"""Types whose values cannot change in place."""

_ABSENT = object()


def refuse_unwritable(what: str, name: str) -> None:
    """Refuse a name that is no text to others: file names may hold bytes that are no UTF-8.

    Raises
    ------
    InvalidArgumentError
    """
    try:
        name.encode()
    except UnicodeEncodeError:
        raise InvalidArgumentError(
            f"{what} is text that can be written as UTF-8; got {name!r:.80}; use repr() of it, or "
            "keep it in a value"
        ) from None


@final
class TrackedState(MutableMapping[str, Any]):
    """A mapping of names to values.

    Examples
    --------
    >>> import pickle
    >>> state = TrackedState({"n": 1, "log": []})
    >>> state["log"].append("x")
    >>> committed = {"n": pickle.dumps(1), "log": pickle.dumps([])}
    >>> changed, deleted = state.changes(committed, pickle.dumps)
    >>> list(changed), deleted
    (['log'], [])
    >>> state["n"] += 1
    >>> state.undo(committed, pickle.loads)
    >>> state["n"], state["log"]
    (1, [])
    """

    __slots__ = ("_before", "_touched", "_values")

    def __init__(self, values: Mapping[str, Any] | None = None) -> None:
        self._values: dict[str, Any] = dict(values or {})
        self._touched: set[str] | None = None
        self._before: dict[str, Any] | None = None

    def _touch(self, key: str) -> None:
        if self._touched is None:
            self._touched = set()
        self._touched.add(key)

    def __getitem__(self, key: str) -> Any:
        value = self._values[key]
        if type(value) not in _FIXED:
            self._touch(key)
        return value

    def __setitem__(self, key: str, value: Any) -> None:
        if not isinstance(key, str):
            raise TypeError(f"the keys of a state are strings; got {key!r}")
        if key not in self._values:
            refuse_unwritable("the key of a state", key)
        before, touched = self._before, self._touched
        if before is None:
            before = self._before = {}
        if key not in before:
            before[key] = self._values.get(key, _ABSENT)
        if touched is None:
            touched = self._touched = set()
        touched.add(key)
        self._values[key] = value

    def __delitem__(self, key: str) -> None:
        value = self._values[key]
        self[key] = value  # to be remembered, and touched
        del self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, key: object) -> bool:
        return key in self._values

    def __repr__(self) -> str:
        return f"TrackedState({self._values!r})"

    # --- turns -------------------------------------------------------------------------------

    def changes(
        self, committed: Mapping[str, bytes], dumps: Callable[[Any], bytes]
    ) -> tuple[dict[str, bytes], list[str]]:
        """Pickles of the keys that differ from what was committed, and keys that are gone.

        They count as touched until `accept`; what `dumps` raises leaves all as it is.
        """
        changed: dict[str, bytes] = {}
        deleted: list[str] = []
        for key in self._touched or ():
            if key in self._values:
                data = dumps(self._values[key])
                if data != committed.get(key):
                    changed[key] = data
            elif key in committed:
                deleted.append(key)
        return changed, deleted

    def accept(self) -> None:
        """Begin another turn with the values as they are."""
        self._touched = self._before = None

    def undo(self, committed: Mapping[str, bytes], loads: Callable[[bytes], Any]) -> None:
        """Make the touched keys again what was committed."""
        for key in self._touched or ():
            if key in committed:
                self._values[key] = loads(committed[key])
            else:
                self._values.pop(key, None)
        self.accept()

    def undo_bindings(self) -> None:
        """Bind the keys again to what they were bound to; what changed in place stays."""
        for key, value in (self._before or {}).items():
            if value is _ABSENT:
                self._values.pop(key, None)
            else:
                self._values[key] = value
        self.accept()

    def values_as_they_are(self) -> Mapping[str, Any]:
        """A copy, without touching anything."""
        return dict(self._values)
