"""How a client reaches the hosts: straight where it can, else by way of the scheduler.

Knows: Dask clients and their connections. Must not know: what is sent.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from dask import config
from distributed import Client

from dspex.errors import UnavailableError

__all__ = ["sender_to_workers"]


def sender_to_workers(client: Client) -> Callable[[str, bytes], Awaitable[bytes]]:
    """Make what sends a flight to a worker and gives the answers.

    Whether workers are reached straight is Dask's own setting of a client
    (``direct_to_workers``), else ``dspex.agents.direct`` of Dask's configuration, else yes; a
    worker that cannot be connected to is reached by way of the scheduler from then on.
    """
    own: Any = client
    roundabout: set[str] = set()
    is_direct = own.direct_to_workers
    if is_direct is None:
        is_direct = config.get("dspex.agents.direct", True)

    async def send(address: str, blob: bytes) -> bytes:
        if own.status in ("closing", "closed"):
            raise UnavailableError(
                "the Dask client of this connection to the foundation is closed; connect again"
            )
        if is_direct and address not in roundabout:
            answer: bytes = await own.rpc(address).dspex_host(blob=blob)
            return answer
        return await _by_way_of_the_scheduler(own, address, blob)

    return send


async def _by_way_of_the_scheduler(client: Any, address: str, blob: bytes) -> bytes:
    answer: bytes = await client.scheduler.proxy(
        msg={"op": "dspex_host", "blob": blob}, worker=address, serializers=None
    )
    return answer
