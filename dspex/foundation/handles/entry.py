"""What a registry gives for a key.

Knows: the record, pickles. Must not know: where it came from.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from copy import deepcopy
from types import MappingProxyType
from typing import Any, Final, final

import cloudpickle

from dspex.errors import NotPicklableError
from dspex.foundation.record import Json, Record

__all__ = ["Entry", "pickled"]

_UNREAD: Final = object()


@final
class Entry:
    """A value with what is known of it; as it was when it was read, whatever happens after.

    Attributes
    ----------
    key : str
    value : object
        Unpickled when it is first asked for.
    metadata : mapping
        Of what JSON can say; read-only (see `Registry.update_metadata`).
    capabilities : tuple of str
    version : int
        Grows with every change; for ``expected_version=``.
    ttl : float or None
        Seconds after its last change in which it runs out.
    tied_to : str or None
        The session, or ``"worker:<address>"``, with which it goes.
    writer : str
        The session that changed it last.
    age : float
        Seconds by which an eventual read may be behind; 0.0 for all others.
    """

    __slots__ = ("_metadata", "_record", "_value", "age")

    def __init__(self, record: Record, age: float = 0.0) -> None:
        self._record = record
        self._metadata: Mapping[str, Json] | None = None
        self._value: Any = _UNREAD
        self.age = age

    @property
    def key(self) -> str:
        """Under which it lies."""
        return self._record.key

    @property
    def value(self) -> Any:
        """The value.

        Raises
        ------
        NotPicklableError
            Where this process cannot unpickle it.
        """
        if self._value is _UNREAD:
            try:
                self._value = pickle.loads(self._record.value)
            except Exception as error:
                raise NotPicklableError(
                    f"the value of entry {self.key!r} cannot be unpickled here "
                    f"({type(error).__name__}: {error}); install what it is made of in the "
                    "versions of the process that registered it",
                    key=self.key,
                ) from error
        return self._value

    @property
    def metadata(self) -> Mapping[str, Json]:
        """What queries look at."""
        if self._metadata is None:
            # A copy: local copies and backends in this process share the record.
            self._metadata = MappingProxyType(deepcopy(dict(self._record.metadata)))
        return self._metadata

    @property
    def capabilities(self) -> tuple[str, ...]:
        """What it can do."""
        return self._record.capabilities

    @property
    def version(self) -> int:
        """Of its last change."""
        return self._record.version

    @property
    def ttl(self) -> float | None:
        """Seconds after its last change in which it runs out."""
        return self._record.ttl

    @property
    def tied_to(self) -> str | None:
        """With whom it goes."""
        return self._record.owner

    @property
    def writer(self) -> str:
        """Who changed it last."""
        return self._record.writer

    def __eq__(self, other: object) -> bool:
        return self._record == other._record if isinstance(other, Entry) else NotImplemented

    def __hash__(self) -> int:
        return hash((self.key, self.version))

    def __reduce__(self) -> tuple[Any, ...]:
        return Entry, (self._record, self.age)

    def __repr__(self) -> str:
        parts = [f"version={self.version}"]
        if self.capabilities:
            parts.append(f"capabilities={list(self.capabilities)}")
        if self._record.metadata:
            text = repr(dict(self._record.metadata))
            parts.append(f"metadata={text if len(text) <= 120 else text[:117] + '...'}")
        if self.ttl is not None:
            parts.append(f"ttl={self.ttl:g} s")
        if self.tied_to is not None:
            parts.append(f"tied_to={self.tied_to!r}")
        if self.age:
            parts.append(f"age={self.age:.3f} s")
        return f"<Entry {self.key!r}, {', '.join(parts)}>"


def pickled(key: str, value: Any) -> bytes:
    """Make bytes of a value.

    Raises
    ------
    NotPicklableError
    """
    try:
        made: bytes = cloudpickle.dumps(value)
    except Exception as error:
        raise NotPicklableError(
            f"a value is kept as a pickle; that of {key!r}, a {type(value).__name__}, cannot be "
            f"pickled ({type(error).__name__}: {error}); register what it is made of",
            key=key,
        ) from error
    return made
