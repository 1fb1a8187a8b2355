"""Several changes of a registry that happen together or not at all.

Knows: what was collected, when it is committed. Must not know: backends.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any, final

from dspex.errors import InvalidArgumentError
from dspex.foundation.handles.entry import Entry
from dspex.foundation.handles.holding import sync_only
from dspex.foundation.handles.requests import OnConflict, Requests
from dspex.foundation.ports import Bridge
from dspex.foundation.record import Json, Operation, Record

__all__ = ["Transaction"]

Commit = Callable[[list[Operation]], Coroutine[Any, Any, list[Record]]]


@final
class Transaction:
    """Collects changes, and makes them where its block is left without an exception.

    Made by `Registry.transaction`; used once, with ``with`` or, in async code, ``async with``.
    Nothing is looked up or refused before the end; then one wrong change refuses all.

    Attributes
    ----------
    entries : dict
        After the end: {key: Entry} of what was registered or updated and is still there.
    """

    def __init__(self, bridge: Bridge, requests: Requests, commit: Commit) -> None:
        self._bridge = bridge
        self._requests = requests
        self._commit = commit
        self._operations: list[Operation] = []
        self._state = "not entered"
        self.entries: dict[str, Entry] = {}

    def __repr__(self) -> str:
        return f"<Transaction of {len(self._operations)} changes, {self._state}>"

    def register(
        self,
        key: str,
        value: Any,
        metadata: Mapping[str, Json] | None = None,
        *,
        capabilities: str | Iterable[str] = (),
        ttl: float | None = None,
        on_conflict: OnConflict = "error",
        tied_to: str | None = None,
        expected_version: int | None = None,
    ) -> None:
        """Register an entry; as `Registry.register`."""
        self._add(
            self._requests.register(
                key,
                value,
                metadata,
                capabilities=capabilities,
                ttl=ttl,
                on_conflict=on_conflict,
                tied_to=tied_to,
                expected_version=expected_version,
            )
        )

    def unregister(
        self, key: str, *, missing_ok: bool = False, expected_version: int | None = None
    ) -> None:
        """Drop an entry; as `Registry.unregister`."""
        self._add(
            self._requests.unregister(key, missing_ok=missing_ok, expected_version=expected_version)
        )

    def update_metadata(
        self, key: str, patch: Mapping[str, Json], *, expected_version: int | None = None
    ) -> None:
        """Change metadata; as `Registry.update_metadata`."""
        self._add(self._requests.update_metadata(key, patch, expected_version=expected_version))

    def check(self, key: str, expected_version: int) -> None:
        """Refuse the whole where an entry is of another version (0: where there is one)."""
        self._add(self._requests.check(key, expected_version))

    def _add(self, operation: Operation) -> None:
        if self._state != "open":
            raise InvalidArgumentError(
                f"a transaction takes changes within its `with` block; it is {self._state}; make "
                "a new one"
            )
        self._operations.append(operation)

    def __enter__(self) -> Transaction:
        sync_only(self._bridge)
        return self._entered()

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        if self._left(kind):
            self._bridge.run(self._end())

    async def __aenter__(self) -> Transaction:
        if not self._bridge.asynchronous:
            raise InvalidArgumentError("`async with` needs an asynchronous Client; use `with`")
        return self._entered()

    async def __aexit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        if self._left(kind):
            await self._end()

    def _entered(self) -> Transaction:
        if self._state != "not entered":
            raise InvalidArgumentError(
                f"a transaction is used once; this one is {self._state}; make a new one"
            )
        self._state = "open"
        return self

    def _left(self, kind: type[BaseException] | None) -> bool:
        """Whether there is something to commit."""
        self._state = "committed" if kind is None else "abandoned"
        return kind is None and bool(self._operations)

    async def _end(self) -> None:
        try:
            records = await self._commit(self._operations)
        except BaseException:
            self._state = "refused, or of unknown outcome"
            raise
        for operation, record in zip(self._operations, records, strict=True):
            if operation[0] in ("put", "patch"):
                self.entries[record.key] = Entry(record)
            elif operation[0] == "drop":
                self.entries.pop(record.key, None)
