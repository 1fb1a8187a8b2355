"""The replicated state store, as a user holds it.

Knows: keys, values, what may be promised of them. Must not know: Dask, journals.

Strong: a put is acknowledged when the journal has it, a read is the last of all. Eventual: a put
is acknowledged when the scheduler's memory has it, a read comes from a copy in this process and
tells its age; with ``partition_tolerance`` also while the scheduler cannot be reached.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Literal, final

from dspex.errors import (
    InsufficientReplicasError,
    InvalidArgumentError,
    KeyNotFoundError,
    StateCorruptError,
    StateNotFoundError,
    UnavailableError,
    UnsupportedGuaranteeError,
)
from dspex.foundation.handles.local_copy import LocalCopy
from dspex.foundation.handles.recovery import RecoveryReport, recover
from dspex.foundation.handles.snapshots import restore, take_snapshot
from dspex.foundation.member import Member
from dspex.foundation.ports import Bridge, Caller, RegistryBackend
from dspex.foundation.query import Query
from dspex.foundation.record import Record, drop, put
from dspex.foundation.state import (
    LARGE,
    State,
    Version,
    decode,
    encode,
    metadata_of,
)

__all__ = ["StateStore"]

MAX_VALUE = 100 * 2**20

MAX_STALENESS = 5.0
"""Seconds of age beyond which only partition-tolerant states are read from the copy."""

_KEPT_BYTES = 256 * 2**20
"""Bytes of large values that are kept for who asks again."""


Consistency = Literal["strong", "eventual"]


@final
class StateStore:
    """Values under keys, with versions.

    Values are pickled by the caller and never unpickled by the scheduler. Up to 100 MB each.

    Examples
    --------
    >>> import dspex
    >>> with dspex.connect("local") as foundation:
    ...     store = foundation.state_store
    ...     first = store.put("best", {"lr": 0.1})
    ...     second = store.compare_and_set("best", first, {"lr": 0.2})
    ...     store.get("best"), second > first
    ({'lr': 0.2}, True)
    """

    def __init__(
        self, backend: RegistryBackend, bridge: Bridge, *, caller: Caller, namespace: str = ""
    ) -> None:
        self._backend = backend
        self._bridge = bridge
        self._caller = caller
        self._collection = f"s:{namespace}"
        self._copy = LocalCopy(
            backend, bridge, self._collection, now=caller.now, max_staleness=MAX_STALENESS
        )
        self._blobs: OrderedDict[str, bytes] = OrderedDict()

    def __repr__(self) -> str:
        facts = self._caller.facts
        return f"<StateStore {self._collection[2:]!r}, journal {facts.get('url')}>"

    def recover_from_failure(
        self, worker: str | Member, agent_id: str | None = None
    ) -> RecoveryReport:
        """Have agents whose failover is manual live on, after the loss of their worker.

        States themselves need none of it: no worker holds one. Of a worker whose connection closed
        nobody knows whether it is dead: the end of its lease is waited for.

        Parameters
        ----------
        worker : str or Member
            That was lost.
        agent_id : str, optional
            One of its agents; None: all that wait.

        Raises
        ------
        AgentNotFoundError
        InvalidRequestError
            Where the agent does not wait since this worker was lost.
        UnavailableError
            Where no worker is up; they go on waiting for one.
        """
        address = worker.address if isinstance(worker, Member) else worker
        namespace = self._collection[2:]
        return self._bridge.run(recover(self._caller, address, namespace, agent_id))

    def close(self) -> None:
        """Let go of the copy; may be called twice."""
        self._copy.close()

    # --- writing ---------------------------------------------------------------------------

    def put(
        self,
        key: str,
        value: Any,
        *,
        replication: int | None = None,
        consistency: Consistency = "strong",
        partition_tolerance: bool = False,
        expected_version: Version | int | None = None,
    ) -> Version:
        """Keep a value under a key.

        Parameters
        ----------
        key : str
        value : object
            Anything that pickles, up to 100 MB.
        replication : int, optional
            How many copies must acknowledge; None takes what the journal gives, and the `Version`
            tells it.
        consistency : "strong" or "eventual"
        partition_tolerance : bool
            Whether this state may be read from a process's own copy while the scheduler cannot be
            reached; needs "eventual".
        expected_version : Version or int, optional
            Write only where this is the present version; 0: where there is none.

        Returns
        -------
        Version

        Raises
        ------
        InsufficientReplicasError, UnsupportedGuaranteeError, NotPicklableError, \
        VersionConflictError, UnavailableError
        """
        copies = self._promised(replication, consistency, partition_tolerance)
        return self._bridge.run(
            self._put(
                key,
                value,
                copies,
                consistency=consistency,
                tolerant=partition_tolerance,
                expected=None if expected_version is None else int(expected_version),
            )
        )

    def compare_and_set(
        self, key: str, expected_version: Version | int, value: Any, **options: Any
    ) -> Version:
        """Keep a value where the present one is of this version (0: where there is none).

        Takes the options of `put`.

        Raises
        ------
        VersionConflictError
            Where it is of another; nothing has changed.
        """
        return self.put(key, value, expected_version=expected_version, **options)

    def delete(
        self,
        key: str,
        *,
        expected_version: Version | int | None = None,
        missing_ok: bool = False,
    ) -> None:
        """Drop a state.

        Raises
        ------
        StateNotFoundError
            Where there is none, unless `missing_ok`.
        """
        expected = None if expected_version is None else int(expected_version)
        return self._bridge.run(self._delete(key, expected, missing_ok))

    def _promised(self, replication: int | None, consistency: str, tolerant: bool) -> int:
        if consistency not in ("strong", "eventual"):
            raise InvalidArgumentError(
                f'consistency is "strong" or "eventual"; got {consistency!r}'
            )
        if tolerant and consistency == "strong":
            raise UnsupportedGuaranteeError(
                "no system gives strong reads to the side of a partition that is cut off from the "
                'scheduler; got partition_tolerance=True with consistency="strong"; pass '
                '"eventual", or leave partition_tolerance out'
            )
        there = int(self._caller.facts["copies"]) if consistency == "strong" else 1
        if replication is not None and not 1 <= replication <= there:
            what = "acknowledge a strong put" if consistency == "strong" else "take an eventual put"
            raise InsufficientReplicasError(
                f"replication counts the copies that acknowledge; got {replication}; with the "
                f"journal {self._caller.facts['url']} there are {there} that {what}; more come "
                "with an etcd journal",
                available=there,
            )
        return there

    async def _put(
        self,
        key: str,
        value: Any,
        copies: int,
        *,
        consistency: Consistency,
        tolerant: bool,
        expected: int | None,
    ) -> Version:
        data = encode(key, value)
        metadata = metadata_of(value, data, consistency=consistency, tolerant=tolerant)
        number = await self._write(key, data, metadata, expected)
        if tolerant:
            self._copy.start()
        durable = self._backend.durable and consistency == "strong"
        return Version(number, copies, durable, consistency)

    async def _write(
        self, key: str, data: bytes, metadata: dict[str, Any], expected: int | None
    ) -> int:
        if len(data) > MAX_VALUE:
            raise InvalidArgumentError(
                f"a state has at most {MAX_VALUE:,} bytes; {key!r} has {len(data):,}; keep it in a "
                "file, and its path here"
            )
        if len(data) > LARGE:
            metadata["blob"] = await self._caller.put_blob(data)
            data = b""
        operation = put(key, data, metadata, on_conflict="replace", expected_version=expected)
        written = await self._backend.commit(
            self._collection, [operation], wait_durable=metadata["mode"] == "strong"
        )
        return written[0].version

    async def _delete(self, key: str, expected: int | None, missing_ok: bool) -> None:
        operation = drop(key, missing_ok=missing_ok, expected_version=expected)
        try:
            await self._backend.commit(self._collection, [operation])
        except KeyNotFoundError:
            raise _not_found(key) from None

    # --- reading ---------------------------------------------------------------------------

    def lookup(self, key: str, *, consistency: Consistency | None = None) -> State:
        """Find a state, with its version and its age.

        Parameters
        ----------
        key : str
        consistency : "strong", "eventual" or None
            "strong" asks the scheduler. "eventual" answers from this process's copy, which is
            made at the first such call. None: as the state was put.

        Raises
        ------
        StateNotFoundError, StateCorruptError, StateIncompatibleError
            Where it is absent, damaged, or whole and not readable by this program.
        UnavailableError
            Where the scheduler cannot be reached, and the state is not partition tolerant.
        """
        if consistency not in (None, "strong", "eventual"):
            raise InvalidArgumentError(
                f'consistency is "strong", "eventual" or None; got {consistency!r}'
            )
        return self._bridge.run(self._lookup(key, consistency))

    def get(self, key: str, default: Any = None) -> Any:
        """Give a value, or `default` where there is none; read as it was put."""
        return self._bridge.run(self._get(key, default))

    def keys(self, prefix: str = "") -> list[str]:
        """List the keys that begin with `prefix`, sorted."""
        return self._bridge.run(self._keys(prefix))

    def status(self, key: str) -> Mapping[str, Any]:
        """Tell of a state without its value.

        Returns
        -------
        mapping
            ``{"version", "size" (bytes), "kind", "consistency", "partition_tolerance", "copies",
            "durable", "blob" (SHA-256 or None)}``.

        Raises
        ------
        StateNotFoundError
        """
        return self._bridge.run(self._status(key))

    async def _lookup(self, key: str, consistency: Consistency | None) -> State:
        if consistency == "eventual":
            await self._copy.ready()
        if consistency != "strong" and self._copy.is_ready:
            record = self._copy.get(key)
            if record is None and consistency == "eventual":
                self._check_reach(key, None)
                raise _not_found(key)
            if record is not None and (
                consistency == "eventual" or record.metadata["mode"] == "eventual"
            ):
                self._check_reach(key, record)
                return await self._latest(record, self._copy.age)
        record = (await self._backend.fetch(self._collection, [key]))[0]
        if record is None:
            raise _not_found(key)
        if record.metadata["tolerant"]:
            self._copy.start()
        return await self._latest(record, 0.0)

    async def _latest(self, record: Record, age: float) -> State:
        """The state of a record, or of the one that took its place while it was fetched."""
        while True:
            try:
                return await self._state(record, age)
            except StateCorruptError:
                # The large value of a state that was put anew is swept.
                found = (await self._backend.fetch(self._collection, [record.key]))[0]
                if found is None:
                    raise _not_found(record.key) from None
                if found.version == record.version:
                    raise
                record, age = found, 0.0

    def _check_reach(self, key: str, record: Record | None) -> None:
        """Refuse to answer from a copy that hears nothing any more, but for tolerant states."""
        if self._copy.is_current or (record is not None and record.metadata["tolerant"]):
            return
        raise UnavailableError(
            f"the scheduler cannot be reached, and this process's copy is {self._copy.age:.1f} s "
            f"old; {key!r} was not put with partition_tolerance=True; try again later"
        )

    async def _state(self, record: Record, age: float) -> State:
        value = decode(record, await self._bytes(record))
        consistency = record.metadata["mode"]
        version = Version(
            record.version,
            int(self._caller.facts["copies"]),
            self._backend.durable and consistency == "strong",
            consistency,
        )
        return State(key=record.key, value=value, version=version, age=age)

    async def _bytes(self, record: Record) -> bytes:
        digest = record.metadata.get("blob")
        if digest is None:
            return record.value
        data = self._blobs.get(digest)
        if data is None:
            data = self._blobs[digest] = await self._caller.get_blob(digest)
            kept = sum(map(len, self._blobs.values()))
            while kept > _KEPT_BYTES:
                kept -= len(self._blobs.popitem(last=False)[1])
        return data

    async def _get(self, key: str, default: Any) -> Any:
        try:
            return (await self._lookup(key, None)).value
        except StateNotFoundError:
            return default

    async def _keys(self, prefix: str) -> list[str]:
        query = Query(prefix=prefix, order_by="key")
        return [record.key for record in await self._backend.select(self._collection, query)]

    async def _status(self, key: str) -> Mapping[str, Any]:
        record = (await self._backend.fetch(self._collection, [key]))[0]
        if record is None:
            raise _not_found(key)
        metadata = record.metadata
        return {
            "version": record.version,
            "size": metadata["size"],
            "kind": metadata["kind"],
            "consistency": metadata["mode"],
            "partition_tolerance": metadata["tolerant"],
            "copies": int(self._caller.facts["copies"]),
            "durable": self._backend.durable and metadata["mode"] == "strong",
            "blob": metadata.get("blob"),
        }

    # --- snapshots -------------------------------------------------------------------------

    def snapshot(self, prefix: str = "") -> bytes:
        """Take all states under a prefix out, as bytes that `restore` understands.

        The states are those of one moment; large values are fetched after it, by their hash.
        """
        return self._bridge.run(take_snapshot(self._backend, self._collection, prefix, self._bytes))

    def restore(
        self, snapshot: bytes, *, on_conflict: Literal["error", "replace"] = "error"
    ) -> int:
        """Put the states of a snapshot back, each as it was put; gives how many.

        Raises
        ------
        StateCorruptError
            Where the snapshot is damaged; nothing was changed.
        VersionConflictError
            Where a key is taken and `on_conflict` is "error"; nothing was changed but keys that
            come before it in batches of 100.
        """
        if on_conflict not in ("error", "replace"):
            raise InvalidArgumentError(f'on_conflict is "error" or "replace"; got {on_conflict!r}')
        return self._bridge.run(
            restore(self._backend, self._collection, snapshot, on_conflict, self._caller.put_blob)
        )


def _not_found(key: str) -> StateNotFoundError:
    return StateNotFoundError(
        f"there is no state {key!r}; keys() lists those that are there", key=key
    )
