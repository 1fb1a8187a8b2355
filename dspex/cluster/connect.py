"""From whatever a user calls a cluster to a connection that a study can use.

Knows: Dask clients, addresses, cluster objects, and the embedded cluster.
Must not know: studies, executors.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, final

from distributed import Client, Security
from distributed.comm.core import connect
from distributed.deploy.cluster import Cluster

from dspex.cluster.admission import LeaseRequest
from dspex.cluster.embedded import shape_for, start_embedded_cluster
from dspex.errors import (
    ClusterUnreachableError,
    InvalidArgumentError,
    NoWorkersError,
)
from dspex.foundation.handles.foundation import Foundation

__all__ = ["Connection", "check_cluster", "connect_cluster", "current_client", "new_client"]

CONNECT_TIMEOUT = 5.0
"""Seconds to wait for a scheduler that does not answer."""

WORKERS_TIMEOUT = 300.0
"""Seconds to wait for ``cluster_nodes`` workers where no timeout is given."""

_LOOK_EVERY = 0.1

_UNTYPED_CLIENT: Any = Client
"""Distributed annotates its client in part; mypy --strict refuses calls of the rest."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """A cluster in use.

    Attributes
    ----------
    client : distributed.Client
        A client that blocks.
    max_workers : int or None
        How many workers may be used at most.
    is_embedded : bool
        Whether the cluster ends with this connection.
    """

    client: Client
    max_workers: int | None
    is_embedded: bool

    def __repr__(self) -> str:
        kind = "embedded" if self.is_embedded else "given"
        return f"<Connection to {kind} cluster {_address(self.client)}>"


@contextmanager
def connect_cluster(
    cluster: Any = None,
    *,
    cluster_nodes: int | None = None,
    timeout: float | None = None,
    notify: Callable[[str], object] = lambda message: None,
    request: LeaseRequest | None = None,
) -> Iterator[Connection]:
    """Connect to a cluster, or start an embedded one; undo at the end what was done here.

    Parameters
    ----------
    cluster : distributed.Client, str, Dask cluster object, Foundation or None
        None takes the current client if there is one, else an embedded cluster.
    cluster_nodes : int, optional
        The number of workers of an embedded cluster; of any other, how many to wait for and to use
        at most.
    timeout : float, optional
        Seconds to wait for ``cluster_nodes`` workers.
    notify : callable
        Told in one line what is being waited for.
    request : LeaseRequest, optional
        What the workers of an embedded cluster must be able to give.

    Raises
    ------
    InvalidArgumentError
        Where ``cluster`` is nothing of the above, or works asynchronously.
    ClusterUnreachableError
        Where nobody answers.
    NoWorkersError
        Where fewer than ``cluster_nodes`` workers came in time.

    Examples
    --------
    >>> with connect_cluster("tcp://127.0.0.1:no-port") as connection:
    ...     pass
    Traceback (most recent call last):
        ...
    dspex.errors.ClusterUnreachableError: ...
    """
    if cluster_nodes is not None and cluster_nodes < 1:
        raise InvalidArgumentError(
            f"a study needs at least one worker; got cluster_nodes={cluster_nodes}; pass 1 or more"
        )
    given = cluster if cluster is not None else current_client()
    if isinstance(given, Foundation):
        given = _client_of(given)
    if given is None:
        shape = shape_for(request, cluster_nodes)
        with start_embedded_cluster(shape) as embedded, new_client(embedded) as client:
            yield Connection(client=client, max_workers=None, is_embedded=True)
        return
    if isinstance(given, Client):
        _check_client(given)
        _wait_for_workers(given, cluster_nodes, timeout, notify)
        yield Connection(client=given, max_workers=cluster_nodes, is_embedded=False)
        return
    if isinstance(given, Cluster):
        check_cluster(given)
    elif not isinstance(given, str):
        raise InvalidArgumentError(
            "cluster is a Dask Client, a scheduler address, a Dask cluster object, what "
            "dspex.connect gives, or None; got "
            f"{given!r} of type {type(given).__name__}"
        )
    with new_client(given) as client:
        _wait_for_workers(client, cluster_nodes, timeout, notify)
        yield Connection(client=client, max_workers=cluster_nodes, is_embedded=False)


def current_client() -> Client | None:
    """The client that was made last and is still open, if there is one."""
    with suppress(ValueError):
        client: Client = _UNTYPED_CLIENT.current()
        return None if client.status in ("closed", "closing") else client
    return None


def _client_of(foundation: Foundation) -> Client:
    client: Client | None = foundation.client
    if client is None:
        raise InvalidArgumentError(
            f"cluster needs workers, and {foundation} has none; pass distributed=False for a study "
            "in this process, or connect to a cluster"
        )
    return client


def _check_client(client: Client) -> None:
    if client.asynchronous:
        raise InvalidArgumentError(
            "a study blocks until it is done, so it needs a Client that blocks; this one is "
            "asynchronous; run the study in a thread, with the address: await asyncio.to_thread("
            "dspex.optimize, ..., cluster=client.scheduler.address)"
        )
    if client.status != "running":
        raise ClusterUnreachableError(
            f"the Client given as cluster must be connected; it is {client.status}; "
            "make a new Client, or pass the scheduler's address"
        )


def check_cluster(cluster: Cluster) -> None:
    """Refuse a cluster object that cannot be used by code that blocks."""
    if cluster.asynchronous:
        raise InvalidArgumentError(
            "code that blocks needs a cluster object that blocks; this one is asynchronous; go "
            "into a thread, with the address: await asyncio.to_thread(dspex.optimize, ..., "
            "cluster=cluster.scheduler_address), or call dspex.connect with an asynchronous Client"
        )
    if cluster.status.name != "running":
        raise ClusterUnreachableError(
            f"the cluster object must be running; {type(cluster).__name__} is "
            f"{cluster.status.name}; start a new one"
        )


@contextmanager
def new_client(cluster: Cluster | str) -> Iterator[Client]:
    """Make a client that blocks, closed at the end; ClusterUnreachableError where none can be."""
    address = cluster if isinstance(cluster, str) else cluster.scheduler_address
    try:
        if isinstance(cluster, str):
            _knock(cluster)
        client = _UNTYPED_CLIENT(cluster, set_as_default=False)
    except (OSError, ValueError, ImportError, TypeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        remedy = (
            "pass cluster=Client(address, security=...), because an address holds no certificates"
            if str(address).startswith("tls://")
            else "check the address (tcp://host:8786) and that `dask scheduler` runs there, or "
            "leave cluster out for an embedded one"
        )
        raise ClusterUnreachableError(
            f"a scheduler must answer at cluster={address!r} within {CONNECT_TIMEOUT:g} s; "
            f"it did not ({reason}); {remedy}",
            address=address,
        ) from error
    logger = logging.getLogger("distributed.client")
    logger.addFilter(_is_news)
    try:
        yield client
    finally:
        client.close()
        logger.removeFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    """Whether our client logs something that the study does not say itself, and better."""
    return "Failed to reconnect to scheduler" not in record.getMessage()


def _knock(address: str) -> None:
    """See whether a scheduler answers.

    A `Client` waits without end for the greeting of something else that listens there, and takes
    its own timeout for its later patience with a lost scheduler too; hence a look of our own.
    """
    knock_at: Any = connect
    security: Any = Security

    async def knock() -> None:
        comm = await knock_at(address, CONNECT_TIMEOUT, **security().get_connection_args("client"))
        comm.abort()

    async def knock_for_a_while() -> None:
        await asyncio.wait_for(knock(), CONNECT_TIMEOUT)

    # In a thread, because a notebook has a running event loop in this one.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, knock_for_a_while()).result()


def _wait_for_workers(
    client: Client,
    wanted: int | None,
    timeout: float | None,
    notify: Callable[[str], object],
) -> None:
    if wanted is None:
        return
    patience = WORKERS_TIMEOUT if timeout is None else timeout
    deadline = time.monotonic() + patience
    told: int | None = None
    count: Any = client.nthreads
    while (there := len(count())) < wanted:
        if there != told:
            told = there
            notify(f"waiting for {wanted} workers; {there} are there")
        if time.monotonic() >= deadline:
            raise NoWorkersError(
                f"cluster_nodes={wanted} workers must come within {patience:g} s; there are "
                f"{there} at {_address(client)}; start more, or ask for fewer"
            )
        time.sleep(min(_LOOK_EVERY, max(0.0, deadline - time.monotonic())))


def _address(client: Client) -> str:
    return "a closed client" if client.scheduler is None else str(client.scheduler.address)
