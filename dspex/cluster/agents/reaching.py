"""How a process reaches the hosts: straight where it can, else by way of the scheduler.

Knows: Dask's pools of connections. Must not know: what is sent.

A connection is tried for a moment only, and longer each time that it failed: Dask tries a port at
which nobody listens any more for as long as it is allowed to, and the agents that were there live
elsewhere by then.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, final

from dask import config
from distributed import Client
from distributed.core import send_recv

from dspex.cluster.agents.requests import NotSentError
from dspex.errors import UnavailableError

__all__ = ["Reach", "reach_of"]

FIRST_WITHIN = 1.0
MOST = 30.0

_GIVES_UP_AFTER = 4.0
"""Seconds for which a connection was tried in vain, the third time, after which a worker that was
connected to before counts as one that never was: a dead one is no host any more by then."""

_STRAIGHT_AGAIN = 10.0
"""For how many times as long as a connection was tried others go another way without trying."""


@final
class Reach:
    """Sends flights to workers.

    Parameters
    ----------
    pool : distributed.core.ConnectionPool
    by_way_of : coroutine function of (address, blob), optional
        Used for a worker that could never be connected to, or cannot be for long; whether it can be
        by now is tried now and then.
    is_direct : bool
        Whether workers are connected to at all.
    """

    def __init__(
        self,
        pool: Any,
        *,
        by_way_of: Callable[[str, bytes], Awaitable[bytes]] | None = None,
        is_direct: bool = True,
    ) -> None:
        self._pool = pool
        self._by_way_of = by_way_of
        self._is_direct = is_direct
        self._within: dict[str, float] = {}
        self._reached: set[str] = set()
        self._not_before: dict[str, float] = {}

    async def send(self, address: str, blob: bytes) -> bytes:
        """Send a flight and give the answers.

        Raises
        ------
        NotSentError
            Where it did not leave.
        OSError
            Where nobody knows whether it arrived.
        """
        if not self._is_direct:
            assert self._by_way_of is not None
            return await self._by_way_of(address, blob)
        is_doubtful = self._by_way_of is not None and address not in self._reached
        if is_doubtful and time.monotonic() < self._not_before.get(address, 0.0):
            assert self._by_way_of is not None
            return await self._by_way_of(address, blob)
        within = self._within.get(address, FIRST_WITHIN)
        try:
            comm = await self._pool.connect(
                address, timeout=FIRST_WITHIN if is_doubtful else within
            )
        except OSError as error:
            self._within[address] = min(2 * within, MOST)
            if within >= _GIVES_UP_AFTER:
                self._reached.discard(address)
            if self._by_way_of is None or address in self._reached:
                raise NotSentError(f"{address} cannot be connected to: {error}") from error
            self._not_before[address] = time.monotonic() + _STRAIGHT_AGAIN * within
            return await self._by_way_of(address, blob)
        except asyncio.CancelledError:
            # Given up by who asked after the host meanwhile, and it is to know this.
            raise NotSentError(f"{address} was not connected to in time") from None
        self._within.pop(address, None)
        self._reached.add(address)
        comm.name = "dspex-flights"
        try:
            answer: bytes = await send_recv(comm=comm, op="dspex_host", blob=blob)
        finally:
            self._pool.reuse(address, comm)
        return answer


def reach_of(client: Client) -> Callable[[str, bytes], Awaitable[bytes]]:
    """What sends a flight from where a client is.

    Whether workers are reached straight is Dask's own setting of a client
    (``direct_to_workers``), else ``dspex.agents.direct`` of Dask's configuration, else yes.
    """
    own: Any = client

    async def by_way_of(address: str, blob: bytes) -> bytes:
        answers = await own.scheduler.broadcast(
            msg={"op": "dspex_host", "blob": blob}, workers=[address], on_error="return"
        )
        answer = answers.get(address)
        if not isinstance(answer, bytes):
            raise ConnectionError(f"the scheduler cannot reach {address}: {answer!r}")
        return answer

    is_direct = own.direct_to_workers
    if is_direct is None:
        is_direct = config.get("dspex.agents.direct", True)
    reach = Reach(own.rpc, by_way_of=by_way_of, is_direct=bool(is_direct))

    async def send(address: str, blob: bytes) -> bytes:
        if own.status in ("closing", "closed"):
            raise UnavailableError(
                "the Dask client of this connection to the foundation is closed; connect again"
            )
        return await reach.send(address, blob)

    return send
