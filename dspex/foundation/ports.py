"""What the foundation needs from outside, and what others may put in its place.

Knows: the shapes of a journal, of a backend, of the way to a ledger, of a loop.
Must not know: files, sockets, clocks, Dask.
"""

from __future__ import annotations

from collections.abc import (
    AsyncIterator,
    Callable,
    Collection,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

from dspex.foundation.query import Query
from dspex.foundation.record import Operation, Record

__all__ = ["Bridge", "Caller", "Change", "Journal", "Loaded", "RegistryBackend", "Update"]

T = TypeVar("T")


class Loaded(NamedTuple):
    """What a journal holds: a snapshot, and the entries after it.

    Attributes
    ----------
    upto : int
        The number of the last entry that the snapshot covers; 0 without a snapshot.
    snapshot : iterator of bytes
        The chunks that were given to `Journal.compact`.
    entries : iterator of (int, bytes)
        Number and content, from ``upto + 1``, without a gap.
    """

    upto: int
    snapshot: Iterator[bytes]
    entries: Iterator[tuple[int, bytes]]


class Journal(Protocol):
    """Where a ledger's entries are kept, in order.

    Every method but `owns` may block and is called from one thread at a time. Entries are
    numbered from 1. A failed `append` may or may not have kept its entries, all or none; made
    again with the same `first` it keeps them once.

    Attributes
    ----------
    url : str
        "memory", "sqlite:///path" or "etcd://host:port".
    durable : bool
        Whether what was appended survives the process.
    copies : int
        How many members hold what was appended: 1, or the members of an etcd cluster.
    identity : str
        Names this journal's history: another one after it was made anew. Known once it is open.
    """

    url: str
    durable: bool

    @property
    def copies(self) -> int:
        """Members that hold what was appended."""

    @property
    def identity(self) -> str:
        """Name of this history."""

    def open(self) -> int:
        """Become the owner; gives the new term, larger than every term before.

        Raises
        ------
        JournalError
            Where it cannot be opened, or its owner does not let go (says who).
        JournalCorruptError
        """

    def load(self) -> Loaded:
        """Read all of it.

        Raises
        ------
        JournalCorruptError
            When the damaged place is reached.
        """

    def append(self, first: int, entries: Sequence[bytes]) -> None:
        """Keep entries, numbered from `first`, all or none; durable on return where it can be.

        Raises
        ------
        JournalFencedError
            Where the term has moved on; final.
        JournalError
            Where it cannot be written now.
        """

    def compact(self, upto: int, snapshot: Iterable[bytes]) -> None:
        """Keep a snapshot in place of all entries up to `upto`; atomic."""

    def owns(self) -> bool:
        """Whether this process may still answer strong reads; cheap, from any thread."""

    def put_blob(self, digest: str, data: bytes) -> None:
        """Keep a large value under its SHA-256; durable on return where it can be."""

    def get_blob(self, digest: str) -> bytes:
        """Read a large value; KeyError where there is none, JournalCorruptError where damaged."""

    def keep_blobs(self, digests: Collection[str]) -> int:
        """Drop all large values but these; gives how many were dropped."""

    def close(self) -> None:
        """Let go; may be called twice."""


class Change(NamedTuple):
    """What became of one key.

    Attributes
    ----------
    record : Record or None
        None: it was dropped.
    """

    key: str
    version: int
    record: Record | None
    reason: str


class Update(NamedTuple):
    """What a follower of a collection is told.

    Attributes
    ----------
    is_snapshot : bool
        Whether `changes` are all the records that there are, in place of all that was known.
    changes : sequence of Change
        May be empty: then only `fresh_at` is news.
    revision : int
    fresh_at : float
        Instant of the follower's monotonic clock; all that was committed before it is known.
    """

    is_snapshot: bool
    changes: Sequence[Change]
    revision: int
    fresh_at: float


@runtime_checkable
class RegistryBackend(Protocol):
    """Where a registry keeps its entries; installed under ``dspex.registry_backends``.

    Collections are named by strings and are apart from each other. All methods are safe to call
    from several coroutines.
    """

    @property
    def linearizable(self) -> bool:
        """Whether each call takes effect at one instant between its start and its end."""

    @property
    def shared(self) -> bool:
        """Whether other processes see the same entries."""

    @property
    def durable(self) -> bool:
        """Whether entries survive this process and the scheduler."""

    async def commit(
        self, collection: str, operations: Sequence[Operation], *, wait_durable: bool = True
    ) -> list[Record]:
        """Perform all operations or none; gives the record after each (before, for a drop)."""

    async def fetch(self, collection: str, keys: Sequence[str]) -> list[Record | None]:
        """Read records by key; None where there is none."""

    async def select(self, collection: str, query: Query) -> list[Record]:
        """Find records."""

    def follow(self, collection: str, pattern: str) -> AsyncIterator[Update]:
        """Tell all there is, then every change, none left out; ends only by `aclose`."""

    async def close(self) -> None:
        """Let go; may be called twice."""


class Bridge(Protocol):
    """Lets one method serve sync and async code."""

    @property
    def asynchronous(self) -> bool:
        """Whether the user awaits what methods return."""

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for the work and give its result; in async code give an awaitable of it."""

    def iterate(self, make: Callable[[], AsyncIterator[T]]) -> Any:
        """An object that works with ``for`` and with ``async for``, and has ``close()``."""

    def spawn(self, work: Coroutine[Any, Any, Any]) -> Callable[[], None]:
        """Start work in the background; gives what ends it."""


class Caller(Protocol):
    """The way of one session to its ledger."""

    @property
    def session(self) -> str:
        """The session's id."""

    async def read(self, op: str, **args: Any) -> Any:
        """Ask; repeated while the ledger cannot be reached, then UnavailableError."""

    async def write(self, op: str, *, timeout: float | None = None, **args: Any) -> Any:
        """Change; carries an id, so that it takes effect once however often it is sent.

        Some ops answer late (a lease that must be waited for). After `timeout` seconds such a
        call is withdrawn, and TimeoutError raised, unless its answer came first.
        """

    def follow(self, collection: str, pattern: str) -> AsyncIterator[Update]:
        """As `RegistryBackend.follow`."""

    def follow_events(
        self, tags: Collection[str], *, hold: float = 1.0
    ) -> AsyncIterator[tuple[Any, ...]]:
        """Every event of these tags from now on; asked for anew after `hold` quiet seconds."""

    def now(self) -> float:
        """Monotonic seconds."""

    async def sleep(self, seconds: float) -> None:
        """Let so many of them pass."""

    def lease_ends(self) -> float:
        """The instant at which this session may have run out, measured from when it asked."""

    async def put_blob(self, data: bytes) -> str:
        """Keep a large value; gives its SHA-256."""

    async def get_blob(self, digest: str) -> bytes:
        """Read a large value."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """What is known of the journal: url, durable, copies, term."""
