"""From what a user wrote of entries to the operations that travel.

Knows: arguments of `Registry` and of its transactions, their checks. Must not know: backends.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol, TypeAlias, final

from dspex.errors import InvalidArgumentError, InvalidRequestError
from dspex.foundation.handles.entry import pickled
from dspex.foundation.limits import check_value, checked_capabilities, checked_key, plain
from dspex.foundation.record import Json, Operation, check, drop, patch, put

__all__ = ["OnConflict", "Requests", "Session", "chunks"]

OnConflict: TypeAlias = Literal["error", "replace", "keep"]

CHUNK_OPERATIONS = 1_000
CHUNK_BYTES = 4 * 2**20


class Session(Protocol):
    """Who uses a registry: the part of a `Caller` that it needs."""

    @property
    def session(self) -> str:
        """Its name, with which entries may go."""

    def now(self) -> float:
        """The monotonic clock by which updates tell how fresh they are."""


@final
class Requests:
    """Makes operations.

    Parameters
    ----------
    caller : Session
        To which entries may be tied.
    """

    def __init__(self, caller: Session) -> None:
        self._caller = caller

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
    ) -> Operation:
        """What registers an entry."""
        key = checked_key(key)
        data = pickled(key, value)
        check_value(key, data)
        if on_conflict not in ("error", "replace", "keep"):
            raise InvalidArgumentError(
                f'on_conflict is "error", "replace" or "keep"; got {on_conflict!r}'
            )
        return put(
            key,
            data,
            {} if metadata is None else _metadata(metadata),
            checked_capabilities(capabilities),
            ttl=None if ttl is None else _seconds(ttl),
            owner=None if tied_to is None else self._owner(tied_to),
            on_conflict=on_conflict,
            expected_version=_version(expected_version),
        )

    def register_each(
        self, entries: Mapping[str, Any] | Iterable[Mapping[str, Any]], **defaults: Any
    ) -> Iterator[Operation]:
        """What registers ``{key: value}``, or maps with the arguments of `register`."""
        if isinstance(entries, Mapping):
            for key, value in entries.items():
                yield self.register(key, value, **defaults)
            return
        each: Any
        for each in entries:
            if not isinstance(each, Mapping) or not {"key", "value"} <= each.keys() <= _ARGUMENTS:
                raise InvalidArgumentError(
                    f"entries are {{key: value}}, or maps with key, value and, where wanted, "
                    f"{', '.join(sorted(_ARGUMENTS - {'key', 'value'}))}; got {each!r:.120}"
                )
            yield self.register(**{**defaults, **each})

    def unregister(
        self, key: str, *, missing_ok: bool = False, expected_version: int | None = None
    ) -> Operation:
        """What drops an entry."""
        return drop(
            checked_key(key),
            missing_ok=bool(missing_ok),
            expected_version=_version(expected_version),
        )

    def update_metadata(
        self, key: str, changes: Mapping[str, Json], *, expected_version: int | None = None
    ) -> Operation:
        """What changes metadata."""
        return patch(
            checked_key(key), _metadata(changes), expected_version=_version(expected_version)
        )

    def check(self, key: str, expected_version: int) -> Operation:
        """What refuses a transaction where an entry is of another version."""
        version = _version(expected_version)
        if version is None:
            raise InvalidArgumentError("check needs the version of an entry, 0 for none; got None")
        return check(checked_key(key), version)

    def _owner(self, tied_to: Any) -> str:
        if tied_to == "client":
            return self._caller.session
        if isinstance(tied_to, str) and tied_to:
            return f"worker:{tied_to.removeprefix('worker:')}"
        raise InvalidArgumentError(
            f'tied_to is "client", the address of a worker, or None; got {tied_to!r}'
        )


_ARGUMENTS = {
    "key",
    "value",
    "metadata",
    "capabilities",
    "ttl",
    "on_conflict",
    "tied_to",
    "expected_version",
}


def chunks(operations: Iterable[Operation]) -> Iterator[Sequence[Operation]]:
    """Operations in parts that travel well.

    Examples
    --------
    >>> [len(part) for part in chunks([check("k", 1)] * 1_500)]
    [1000, 500]
    """
    part: list[Operation] = []
    size = 0
    for operation in operations:
        own = len(operation[2]) if operation[0] == "put" else 0
        if part and (len(part) >= CHUNK_OPERATIONS or size + own > CHUNK_BYTES):
            yield part
            part, size = [], 0
        part.append(operation)
        size += own
    if part:
        yield part


def _metadata(metadata: Any) -> dict[str, Json]:
    if not isinstance(metadata, Mapping):
        raise InvalidRequestError(
            f"metadata is a map of names to what JSON can say; got {metadata!r:.120}"
        )
    made: dict[str, Json] = plain(metadata)
    return made


def _seconds(ttl: Any) -> float:
    if isinstance(ttl, bool) or not isinstance(ttl, int | float) or not ttl > 0:
        raise InvalidArgumentError(f"ttl is a number of seconds above 0, or None; got {ttl!r}")
    return float(ttl)


def _version(version: Any) -> int | None:
    if version is None:
        return None
    if isinstance(version, bool) or not isinstance(version, int) or version < 0:
        raise InvalidArgumentError(
            f"expected_version is the version of an entry, 0 for none, or None; got {version!r}"
        )
    return int(version)
