"""The registry, as a user holds it: keys, and the entries under them.

Knows: entries, queries, who may be content with an old answer. Must not know: Dask, ledgers.

Every method serves both kinds of code: it blocks and gives its result, or, where the connection is
asynchronous, gives something to be awaited. Python's own mapping syntax cannot be awaited; there
it says which method can.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any, final

from dspex.errors import InvalidArgumentError
from dspex.foundation.handles.entry import Entry
from dspex.foundation.handles.finding import EntryFinding
from dspex.foundation.handles.guarantees import Consistency, check_consistency, check_required
from dspex.foundation.handles.local_copy import LocalCopy
from dspex.foundation.handles.reading import Reading
from dspex.foundation.handles.requests import OnConflict, Requests, Session
from dspex.foundation.handles.transaction import Transaction
from dspex.foundation.handles.watching import WatchEvent, watched
from dspex.foundation.handles.writing import Writing
from dspex.foundation.limits import checked_key, checked_text
from dspex.foundation.ports import Bridge, RegistryBackend
from dspex.foundation.query import Query
from dspex.foundation.record import Json

__all__ = ["Registry"]


@final
class Registry(EntryFinding):
    """Entries under keys, with metadata, capabilities and versions.

    Parameters
    ----------
    backend : RegistryBackend
    bridge : Bridge
    caller : Caller
        Whose session ties entries, and whose clock tells ages.
    namespace : str
        Registries of different namespaces see nothing of each other.
    require : collection of "linearizable", "shared", "durable"
        What the backend must give.
    max_staleness : float
        Seconds; an eventual read of an older copy raises UnavailableError.

    Raises
    ------
    UnsupportedGuaranteeError
        Where the backend cannot give what is required.

    Examples
    --------
    >>> import dspex
    >>> with dspex.connect("local") as foundation:
    ...     registry = foundation.registry
    ...     entry = registry.register("w/1", "tcp://a", {"gpu": {"gb": 24}}, capabilities=["train"])
    ...     found = registry.find_by_capability("train", where=[("gpu.gb", "ge", 16)])
    ...     [each.value for each in found], registry["w/1"] == entry, "w/2" in registry
    (['tcp://a'], True, False)
    """

    def __init__(
        self,
        backend: RegistryBackend,
        bridge: Bridge,
        *,
        caller: Session,
        namespace: str = "",
        require: Iterable[str] = (),
        max_staleness: float = 10.0,
    ) -> None:
        check_required(backend, require)
        self.namespace = checked_text(namespace, "a namespace", 256)
        self._backend = backend
        self._bridge = bridge
        self._requests = Requests(caller)
        self._collection = f"r:{self.namespace}"
        self._copy = LocalCopy(
            backend, bridge, self._collection, now=caller.now, max_staleness=max_staleness
        )
        self._reading = Reading(backend, self._collection, self._copy)
        self._writing = Writing(backend, self._collection)

    def __repr__(self) -> str:
        given = [
            name for name in ("linearizable", "shared", "durable") if getattr(self._backend, name)
        ]
        space = f" {self.namespace!r}" if self.namespace else ""
        return f"<Registry{space} on {type(self._backend).__name__}: {', '.join(given) or 'plain'}>"

    # --- changing --------------------------------------------------------------------------

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
    ) -> Entry:
        """Register a value under a key.

        Parameters
        ----------
        key : str
            1 to 512 printable characters.
        value : object
            Anything that pickles, to at most 1 MiB.
        metadata : mapping, optional
            Of what JSON can say, at most 64 KiB, nested at most 16 deep.
        capabilities : str or iterable of str
            For `find_by_capability`.
        ttl : float, optional
            Seconds after its last change in which the entry goes by itself.
        on_conflict : "error", "replace" or "keep"
            What becomes of an entry that is there already.
        tied_to : "client", address of a worker, or None
            With whom the entry goes.
        expected_version : int, optional
            Register only where the entry is of this version, 0: where there is none; then
            `on_conflict` does not matter.

        Returns
        -------
        Entry
            As it is now; with ``on_conflict="keep"`` it may be that of another.

        Raises
        ------
        KeyExistsError, VersionConflictError, InvalidRequestError, NotPicklableError, \
        UnavailableError
        """
        operation = self._requests.register(
            key,
            value,
            metadata,
            capabilities=capabilities,
            ttl=ttl,
            on_conflict=on_conflict,
            tied_to=tied_to,
            expected_version=expected_version,
        )
        return self._bridge.run(self._writing.one(operation))

    def register_many(
        self,
        entries: Mapping[str, Any] | Iterable[Mapping[str, Any]],
        *,
        capabilities: str | Iterable[str] = (),
        ttl: float | None = None,
        on_conflict: OnConflict = "error",
        tied_to: str | None = None,
    ) -> list[Entry]:
        """Register many values, in parts of up to 1,000, each of which is atomic.

        Parameters
        ----------
        entries : mapping, or iterable of mappings
            ``{key: value}``, or one map with the arguments of `register` for each entry; what it
            leaves out is taken from the arguments here.

        Returns
        -------
        list of Entry

        Raises
        ------
        KeyExistsError, VersionConflictError, InvalidRequestError, NotPicklableError, \
        UnavailableError
            With a field ``done``: so many entries, the first ones, were registered before. Use
            `transaction` for all or nothing.
        """
        defaults = {
            "capabilities": capabilities if isinstance(capabilities, str) else tuple(capabilities),
            "ttl": ttl,
            "on_conflict": on_conflict,
            "tied_to": tied_to,
        }
        operations = list(self._requests.register_each(entries, **defaults))
        return self._bridge.run(self._writing.many(operations))

    def unregister(
        self, key: str, *, missing_ok: bool = False, expected_version: int | None = None
    ) -> None:
        """Drop an entry.

        Raises
        ------
        KeyNotFoundError
            Where there is none, unless `missing_ok`.
        VersionConflictError, UnavailableError
        """
        operation = self._requests.unregister(
            key, missing_ok=missing_ok, expected_version=expected_version
        )
        return self._bridge.run(self._writing.drop([operation]))

    def unregister_many(self, keys: Iterable[str], *, missing_ok: bool = False) -> None:
        """Drop many entries, in parts of up to 1,000, each of which is atomic.

        Raises
        ------
        KeyNotFoundError, UnavailableError
            With a field ``done``: so many of the keys were dealt with before.
        """
        _refuse_text(keys)
        operations = [self._requests.unregister(key, missing_ok=missing_ok) for key in keys]
        return self._bridge.run(self._writing.drop(operations))

    def update_metadata(
        self, key: str, patch: Mapping[str, Json], *, expected_version: int | None = None
    ) -> Entry:
        """Change metadata: each name is set, nested maps are merged, None drops the name.

        Returns
        -------
        Entry

        Raises
        ------
        KeyNotFoundError, VersionConflictError, InvalidRequestError, UnavailableError
        """
        operation = self._requests.update_metadata(key, patch, expected_version=expected_version)
        return self._bridge.run(self._writing.one(operation))

    def update_metadata_many(self, patches: Mapping[str, Mapping[str, Json]]) -> list[Entry]:
        """Change the metadata of many entries, ``{key: patch}``, in parts of up to 1,000.

        Raises
        ------
        KeyNotFoundError, InvalidRequestError, UnavailableError
            With a field ``done``: so many entries were changed before.
        """
        operations = [self._requests.update_metadata(key, each) for key, each in patches.items()]
        return self._bridge.run(self._writing.many(operations))

    def transaction(self) -> Transaction:
        """Collect changes that happen together or not at all.

        Examples
        --------
        >>> import dspex
        >>> with dspex.connect("local") as foundation:
        ...     with foundation.registry.transaction() as tx:
        ...         tx.register("a", 1)
        ...         tx.register("b", 2, {"after": "a"})
        ...     sorted(foundation.registry)
        ['a', 'b']
        """
        return Transaction(self._bridge, self._requests, self._writing.commit)

    # --- reading ---------------------------------------------------------------------------

    def lookup(
        self,
        key: str,
        *,
        consistency: Consistency | None = None,
        partition_tolerance: bool = False,
    ) -> Entry:
        """Find the entry of a key.

        Parameters
        ----------
        key : str
        consistency : "strong", "eventual" or None
            "strong" asks the registry. "eventual" answers from a copy in this process, which the
            first such call makes, and tells its age. None: the strongest that the backend gives.
        partition_tolerance : bool
            Whether an eventual answer may be of any age, as long as the registry cannot be reached.

        Raises
        ------
        KeyNotFoundError
        UnsupportedGuaranteeError
            For "strong", where the backend is not linearizable.
        UnavailableError
            Where the registry cannot be reached, or the copy is older than allowed.
        """
        eventual = check_consistency(self._backend, consistency, partition_tolerance)
        if eventual and self._answers_at_once:
            return self._reading.in_copy(key, partition_tolerance)
        return self._bridge.run(
            self._reading.lookup(checked_key(key), eventual, partition_tolerance)
        )

    def lookup_many(
        self,
        keys: Iterable[str],
        *,
        consistency: Consistency | None = None,
        partition_tolerance: bool = False,
    ) -> dict[str, Entry]:
        """Find the entries of many keys.

        Raises
        ------
        KeyNotFoundError
            Names those that are not there.
        UnsupportedGuaranteeError, UnavailableError
        """
        _refuse_text(keys)
        eventual = check_consistency(self._backend, consistency, partition_tolerance)
        wanted = [checked_key(key) for key in keys]
        return self._bridge.run(self._reading.lookup_many(wanted, eventual, partition_tolerance))

    def get(
        self,
        key: str,
        default: Any = None,
        *,
        consistency: Consistency | None = None,
        partition_tolerance: bool = False,
    ) -> Any:
        """Give the entry of a key, or `default` where there is none; as `lookup` otherwise."""
        eventual = check_consistency(self._backend, consistency, partition_tolerance)
        if eventual and self._answers_at_once:
            found = self._reading.copied(key, partition_tolerance)
            return default if found is None else found
        work = self._reading.get(checked_key(key), default, eventual, partition_tolerance)
        return self._bridge.run(work)

    def watch(self, pattern: str = "*") -> Any:
        """Be told of the entries that are there, then of every change, none left out.

        Parameters
        ----------
        pattern : str
            Of keys, such as ``"workers/*"``.

        Returns
        -------
        stream of WatchEvent
            For ``for`` or ``async for``; ends by its ``close()``.

        See Also
        --------
        WatchEvent : What it tells.
        """
        if not checked_text(pattern, "a pattern", 512):
            raise InvalidArgumentError('a pattern is not empty; "*" matches all keys')

        def make() -> AsyncIterator[WatchEvent]:
            return watched(self._backend, self._collection, pattern)

        return self._bridge.iterate(make)

    def close(self) -> None:
        """Let the local copy go; may be called twice. The registry can still be asked."""
        self._copy.close()

    @property
    def _is_awaited(self) -> bool:
        return self._bridge.asynchronous

    @property
    def _answers_at_once(self) -> bool:
        """Whether an eventual read need not go by way of the loop."""
        return self._copy.is_ready and not self._bridge.asynchronous

    def _select(self, query: Query) -> list[Entry]:
        return self._bridge.run(self._reading.select(query))

    def _keys(self, query: Query) -> list[str]:
        return self._bridge.run(self._reading.keys(query))


def _refuse_text(keys: object) -> None:
    if isinstance(keys, str):
        raise InvalidArgumentError(f"keys are a list of keys; got the one text {keys!r:.120}")
