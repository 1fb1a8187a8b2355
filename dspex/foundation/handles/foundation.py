"""What `dspex.connect` gives: one object from which everything of the foundation is reached.

Knows: the handles, one session's way to the ledger. Must not know: Dask, journals.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any, final

from dspex.errors import InvalidArgumentError, UnavailableError
from dspex.foundation.handles.locks import Election, Lock
from dspex.foundation.handles.registry import Registry
from dspex.foundation.handles.resources import ResourceManager
from dspex.foundation.handles.scaling import (
    Move,
    Restarted,
    drain,
    rebalance,
    rolling_restart,
)
from dspex.foundation.handles.state_store import StateStore
from dspex.foundation.member import Member, MemberEvent
from dspex.foundation.ports import Bridge, Caller, RegistryBackend
from dspex.foundation.status import Status

__all__ = ["Foundation"]

logger = logging.getLogger("dspex.foundation")


@final
class Foundation:
    """The registry, the state store, resources, locks and members of one cluster.

    Made by `dspex.connect`. A context manager; `close` ends the session, and with it the leases,
    locks and tied entries of this process. So does letting go of it and of all that it gave. Made
    with an asynchronous Dask client, its methods are awaited, and so are those of all that it
    gives. It stays in its process: neither a fork nor another process can use it.

    Attributes
    ----------
    registry : Registry
    state_store : StateStore
    resources : ResourceManager
    namespace : str
        Apart from other namespaces in registry, state store, locks and elections.
    client : distributed.Client or None
        Through which the cluster is reached; None with ``connect("local")``.
    pid : int
        Of the process that it belongs to.

    Examples
    --------
    >>> import dspex
    >>> with dspex.connect("local") as foundation:
    ...     entry = foundation.registry.register("models/a", {"auc": 0.9}, capabilities=["score"])
    ...     [found.key for found in foundation.registry.find_by_capability("score")]
    ['models/a']
    """

    def __init__(
        self,
        caller: Caller,
        bridge: Bridge,
        backend: RegistryBackend,
        registry_backend: RegistryBackend,
        *,
        namespace: str,
        seconds: Callable[[str, Any], float | None],
        closing: AsyncExitStack,
        where: str,
        client: Any = None,
        restart: Callable[[str], Awaitable[None]] | None = None,
    ) -> None:
        self._caller = caller
        self._bridge = bridge
        self._closing = closing
        self._then: Callable[[], object] = lambda: None
        self._where = where
        self._seconds = seconds
        self._closed = False
        self.namespace = namespace
        self.client = client
        self.pid = os.getpid()
        self._restart = restart
        self.registry = Registry(registry_backend, bridge, caller=caller, namespace=namespace)
        self.state_store = StateStore(backend, bridge, caller=caller, namespace=namespace)
        self.resources = ResourceManager(caller, bridge, seconds=self._seconds)

    # --- members ---------------------------------------------------------------------------

    def members(self) -> list[Member]:
        """List the workers that are there, with their capacity and their load.

        Returns
        -------
        list of Member
        """
        return self._bridge.run(self._members())

    async def _members(self) -> list[Member]:
        return [Member.from_fields(each) for each in await self._caller.read("members.list")]

    def events(self) -> Any:
        """What happens to members from now on; for ``for`` and ``async for``.

        Who is there at the start is told as joined. What happened while the scheduler could not be
        reached is told afterwards, as far as it left a difference.
        """
        return self._bridge.iterate(self._events)

    async def _events(self) -> AsyncIterator[MemberEvent]:
        known: dict[str, Member] = {}
        async for event in self._caller.follow_events({"member"}):
            if event[0] == "reset":
                now = {member.address: member for member in await self._members()}
                told = [known[address] for address in known.keys() - now.keys()]
                for member in told:
                    yield MemberEvent(kind="lost", member=_in_state(member, "lost"))
                changed = list(now.values())
            else:
                changed = [_member(event)]
            for member in changed:
                before = known.get(member.address)
                kind = _kind(before, member)
                if member.state in ("lost", "left"):
                    known.pop(member.address, None)
                else:
                    known[member.address] = member
                if kind is not None:
                    yield MemberEvent(kind=kind, member=member)

    def subscribe(self, callback: Callable[[MemberEvent], object]) -> Callable[[], None]:
        """Have a function called with every event, on the client's loop; it must not block.

        What it raises is logged, and it is called with the next event all the same.

        Returns
        -------
        callable
            Ends it.
        """

        async def tell() -> None:
            async for event in self._events():
                try:
                    callback(event)
                except Exception:
                    logger.exception("a callback of Foundation.subscribe failed on %r", event)

        return self._bridge.spawn(tell())

    def drain(self, worker: str | Member, *, undo: bool = False) -> bool:
        """Have a worker get nothing new, and wait until its agents live elsewhere.

        Leases that it holds stay until they are released.

        Parameters
        ----------
        worker : str or Member
            Its address.
        undo : bool
            Let it get new work again.

        Raises
        ------
        KeyNotFoundError
            Where there is no such member.
        """
        address = worker.address if isinstance(worker, Member) else worker
        return self._bridge.run(drain(self._caller, address, undo=undo))

    def rebalance(self, *, dry_run: bool = False, max_moves: int | None = None) -> list[Move]:
        """Move agents to where their placement wants them now, as after workers have come.

        Parameters
        ----------
        dry_run : bool
            Tell the moves, and make none.
        max_moves : int, optional

        Returns
        -------
        list of Move
            They have begun when this returns; `status` tells the rest.
        """
        return self._bridge.run(rebalance(self._caller, dry_run=dry_run, max_moves=max_moves))

    def rolling_restart(self) -> list[Restarted]:
        """Start all workers anew, one after the other, each when its agents live elsewhere.

        For workers under nannies. Results of tasks are copied to other workers first.

        Returns
        -------
        list of Restarted

        Raises
        ------
        UnavailableError
            Where there is one worker alone, or one does not come back.
        InvalidArgumentError
            Where there are no workers to start anew: with ``connect("local")``.
        """
        if self._restart is None:
            raise InvalidArgumentError(
                "workers are processes of a Dask cluster; this foundation lives in one process; "
                "connect to a cluster"
            )
        return self._bridge.run(rolling_restart(self._caller, self._restart))

    # --- locks and leaders -----------------------------------------------------------------

    def lock(self, name: str) -> Lock:
        """A lock that one session of the cluster holds at a time."""
        return Lock(
            self._caller,
            self._bridge,
            namespace=self.namespace,
            name=name,
            seconds=self._seconds,
        )

    def elect(self, name: str) -> Election:
        """An election in which one session of the cluster leads at a time."""
        return Election(
            self._caller,
            self._bridge,
            namespace=self.namespace,
            name=name,
            seconds=self._seconds,
        )

    # --- operations ------------------------------------------------------------------------

    def status(self) -> Status:
        """Tell what there is: a mapping with a readable repr.

        Returns
        -------
        Status
        """
        return self._bridge.run(self._status())

    async def _status(self) -> Status:
        return Status(await self._caller.read("status"))

    def audit(self, limit: int = 100) -> list[tuple[float, int, str, str]]:
        """List what was changed last: (unix time, revision, what was done, to what and by whom)."""
        return self._bridge.run(self._audit(limit))

    async def _audit(self, limit: int) -> list[tuple[float, int, str, str]]:
        lines = await self._caller.read("audit", limit=limit)
        return [(time, revision, done, what) for time, revision, done, what in lines]

    @property
    def is_closed(self) -> bool:
        """Whether it was closed."""
        return self._closed

    @property
    def session(self) -> str:
        """The session of this process."""
        return self._caller.session

    @property
    def journal(self) -> Mapping[str, Any]:
        """Of the journal: url, durable, copies, identity."""
        return self._caller.facts

    # --- life ------------------------------------------------------------------------------

    def close_after(self, then: Callable[[], object]) -> None:
        """Have something undone after the connection is closed; may be called twice."""
        self._then = then

    def close(self) -> None:
        """End the session and all that it holds; may be called twice."""
        if self._bridge.asynchronous:
            return self._bridge.run(self._close())
        try:
            self._bridge.run(self._close())
        except UnavailableError:
            self._closed = True  # its loop has ended before, and with it the session
        finally:
            self._then()
        return None

    async def _close(self) -> None:
        if not self._closed:
            self._closed = True
            self.registry.close()
            self.state_store.close()
            await self._closing.aclose()
            if self._bridge.asynchronous:
                self._then()

    def __enter__(self) -> Foundation:
        if self._bridge.asynchronous:
            raise InvalidArgumentError("in async code this is entered with `async with`")
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    async def __aenter__(self) -> Foundation:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"journal {self._caller.facts.get('url')}"
        space = f", namespace {self.namespace!r}" if self.namespace else ""
        return f"<Foundation at {self._where}{space}, {state}>"


_TRANSITIONS = {"suspected": "suspected", "draining": "draining", "lost": "lost", "left": "left"}


def _kind(before: Member | None, member: Member) -> str | None:
    """What happened, as a word; None where nothing did that anybody wants to know."""
    if before is not None and before.incarnation == member.incarnation:
        if before.state == member.state:
            return None
        return _TRANSITIONS.get(
            member.state, "recovered" if before.state != "joining" else "joined"
        )
    if member.state in ("lost", "left"):
        return member.state
    return "joined" if member.state != "joining" else None


def _member(event: tuple[Any, ...]) -> Member:
    _, address, incarnation, _, name, host, state, capacity = event
    term, n = incarnation
    return Member(
        address=address,
        name=name,
        host=host,
        state=state,
        incarnation=(term, n),
        capacity=capacity,
        load={},
    )


def _in_state(member: Member, state: str) -> Member:
    return Member(
        address=member.address,
        name=member.name,
        host=member.host,
        state=state,
        incarnation=member.incarnation,
        capacity=member.capacity,
        load=member.load,
    )
