"""`connect`: from whatever a user calls a cluster to a `Foundation`.

Knows: Dask clients and cluster objects, what must be installed. Must not know: what for.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack, suppress
from functools import partial
from importlib.metadata import entry_points
from typing import Any

from dask import config
from distributed import Client, get_client
from distributed.deploy.cluster import Cluster

from dspex.cluster.agents.messenger import Messenger
from dspex.cluster.agents.reaching import reach_of
from dspex.cluster.agents.runtime import Runtime, remember
from dspex.cluster.connect import check_cluster, current_client, new_client
from dspex.cluster.embedded import start_embedded_cluster
from dspex.cluster.foundation.bridge import LoopBridge
from dspex.cluster.foundation.calls import LedgerCaller
from dspex.cluster.foundation.dropping import close_when_dropped
from dspex.cluster.foundation.install import install
from dspex.cluster.foundation.local import connect_local, open_local
from dspex.cluster.inside import is_inside_task
from dspex.cluster.units import parse_seconds
from dspex.errors import InvalidArgumentError, UnavailableError
from dspex.foundation.handles.backend import LedgerBackend
from dspex.foundation.handles.foundation import Foundation
from dspex.foundation.ports import RegistryBackend

__all__ = ["connect", "session_of"]

_RESTART_WITHIN = 60.0


def connect(
    cluster: Any = None,
    *,
    namespace: str | None = None,
    journal: str | None = None,
    lease: float | str = 3.0,
    registry_backend: str | RegistryBackend | None = None,
) -> Foundation:
    """Connect to the foundation of a cluster, and install it where it is not there yet.

    Parameters
    ----------
    cluster : Client, address, Dask cluster object, "local" or None
        None: the current client, inside a task the worker's, else an embedded cluster that ends
        with the connection. "local": in this process, without Dask. With an asynchronous Client
        the call is awaited.
    namespace : str, optional
        Keeps keys and names apart from those of others.
    journal : str, optional
        "memory", "sqlite:///path" (of the scheduler's machine) or "etcd://host:port"; None takes
        ``dspex.journal`` of Dask's configuration, else memory. A foundation that runs already keeps
        its own, and another one is refused.
    lease : float or str
        Seconds after which the ledger takes this process for dead when it is silent.
    registry_backend : "scheduler", "local", entry point's name or RegistryBackend, optional
        Where the registry keeps its entries; None takes ``dspex.registry.backend``, else
        "scheduler".

    Returns
    -------
    Foundation

    Raises
    ------
    InvalidArgumentError, ClusterUnreachableError, VersionMismatchError, UnavailableError

    Examples
    --------
    >>> with connect("local") as foundation:
    ...     foundation.registry.register("answer", 42).version > 0
    True
    """
    seconds = parse_seconds("lease", lease)
    assert seconds is not None
    space: Any = "" if namespace is None else namespace
    if not (
        isinstance(space, str) and space.isprintable() and len(space) <= 128 and ":" not in space
    ):
        raise InvalidArgumentError(
            f"a namespace is at most 128 printable characters without ':'; got {namespace!r}"
        )
    journal = journal or config.get("dspex.journal", None)
    backend = _made(registry_backend or config.get("dspex.registry.backend", "scheduler"))
    if isinstance(cluster, str) and cluster == "local":
        return connect_local(namespace=space, journal=journal, lease=seconds, backend=backend)
    closing = AsyncExitStack()
    with ExitStack() as stack:
        client = _client(cluster, stack)
        if client.status in ("closing", "closed") or not (
            client.asynchronous or client.status == "running"
        ):
            raise InvalidArgumentError(
                f"the Client must be connected; it is {client.status}; make a new one"
            )
        io_loop: Any = client.loop
        bridge = LoopBridge(io_loop.asyncio_loop, asynchronous=client.asynchronous)
        opening: Any = _open(client, bridge, closing, space, journal, seconds, backend)
        if client.asynchronous:
            return opening  # type: ignore[no-any-return]  # awaited, as all of Dask's async calls
        try:
            foundation: Foundation = bridge.run(opening)
        except BaseException:
            # Ctrl-C may have come when all was done, and nobody had it yet.
            with suppress(UnavailableError):
                bridge.run(closing.aclose())
            raise
        foundation.close_after(close_when_dropped(bridge, closing, stack.pop_all().close))
        return foundation
    raise AssertionError("a stack of contexts that are left lets errors through")


def _client(cluster: Any, stack: ExitStack) -> Client:
    """The client to use; what was started for it is undone by `stack`."""
    if isinstance(cluster, Client):
        return cluster
    if cluster is None:
        if is_inside_task():
            client: Client = get_client()
            return client
        current = current_client()
        if current is not None:
            return current
        cluster = stack.enter_context(start_embedded_cluster(None))
    elif isinstance(cluster, Cluster):
        check_cluster(cluster)
    elif not isinstance(cluster, str):
        raise InvalidArgumentError(
            'cluster is a Dask Client, a scheduler address, a Dask cluster object, "local" or '
            f"None; got {cluster!r} of type {type(cluster).__name__}"
        )
    return stack.enter_context(new_client(cluster))


async def _open(
    client: Client,
    bridge: LoopBridge,
    closing: AsyncExitStack,
    namespace: str,
    journal: str | None,
    lease: float,
    backend: str | RegistryBackend,
) -> Foundation:
    try:
        await install(client, journal=journal, lease=lease)
        caller = session_of(client, lease=lease)
        closing.push_async_callback(caller.close)
        await caller.start()
        messages = Messenger(caller, reach_of(client))
        closing.push_async_callback(messages.close)
        runtime = Runtime(
            caller,
            messages,
            namespace=namespace,
            asynchronous=bridge.asynchronous,
            client=client,
        )
        shared = LedgerBackend(caller, shared=True)
        chosen: RegistryBackend = shared
        if backend == "local":
            local, _ = await closing.enter_async_context(open_local(lease=lease))
            chosen = LedgerBackend(local, shared=False)
        elif not isinstance(backend, str):
            closing.push_async_callback(backend.close)
            chosen = backend
    except BaseException:
        await closing.aclose()
        raise
    foundation = Foundation(
        caller,
        bridge,
        shared,
        chosen,
        namespace=namespace,
        seconds=parse_seconds,
        closing=closing,
        where=str(client.scheduler.address),  # type: ignore[union-attr]
        client=client,
        restart=partial(_restart, client),
    )
    remember(foundation, runtime)
    if bridge.asynchronous:
        foundation.close_after(close_when_dropped(bridge, closing, lambda: None))
    return foundation


async def _restart(client: Client, worker: str) -> None:
    """Start a worker's process anew; what it holds of Dask's is copied to others first."""
    own: Any = client
    await own.scheduler.retire_workers(workers=[worker], close_workers=False, remove=False)
    await own._restart_workers([worker], timeout=_RESTART_WITHIN, raise_for_error=True)


def session_of(
    client: Client, *, lease: float, on_open: Callable[[], Awaitable[None]] | None = None
) -> LedgerCaller:
    """Make a session of this process with the foundation that a client's scheduler runs."""
    scheduler: Any = client.scheduler

    async def send(blob: bytes) -> bytes | None:
        if client.status in ("closing", "closed"):
            raise UnavailableError(
                "the Dask client of this connection to the foundation is closed; connect again"
            )
        answer: bytes | None = await scheduler.dspex(blob=blob)
        return answer

    name = f"{socket.gethostname()}:{os.getpid()}"
    return LedgerCaller(send, kind="client", name=name, lease=lease, on_open=on_open)


def _made(backend: str | RegistryBackend) -> str | RegistryBackend:
    """Make a backend of a user's own; the two that are built in stay names."""
    if backend in ("scheduler", "local"):
        return backend
    if not isinstance(backend, str):
        if isinstance(backend, RegistryBackend):
            return backend
        raise InvalidArgumentError(
            "registry_backend is a name or an object of the RegistryBackend protocol; got "
            f"{backend!r}; dspex.testing.registries has the suite that such an object passes"
        )
    found = {point.name: point for point in entry_points(group="dspex.registry_backends")}
    if backend not in found:
        raise InvalidArgumentError(
            f"registry_backend is one of {sorted(['scheduler', 'local', *found])}; got {backend!r}"
        )
    make: Callable[[], RegistryBackend] = found[backend].load()
    return make()
