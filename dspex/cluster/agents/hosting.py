"""A worker's host as Dask sees it: an actor pinned to the worker, and a handler for flights.

Knows: Dask workers, actors. Must not know: what a flight carries.

The actor is what people see, on the dashboard too, and what its methods tell of; flights go by a
handler of the worker, as Dask's own shuffle does, because an actor's call costs more and keeps no
order. The worker's own client holds the actor, so it needs no user's.
"""

from __future__ import annotations

import asyncio
import gc
import logging
from contextlib import suppress
from contextvars import copy_context
from typing import Any, final

from dask import config
from distributed import Client, Worker, get_worker
from distributed.worker import _worker_cvar

from dspex.cluster.agents.host import Host
from dspex.cluster.agents.messenger import Messenger
from dspex.cluster.agents.pool import Pool
from dspex.cluster.agents.reaching import Reach
from dspex.cluster.agents.runtime import Runtime, add_host, remove_host
from dspex.foundation.ports import Caller

__all__ = ["AgentHost", "Hosting", "actor_key"]

logger = logging.getLogger("distributed.worker.dspex")

_hostings: dict[str, Hosting] = {}


class AgentHost:
    """The host of a worker's agents, as an actor.

    Its methods may be called through Dask's own actor handle.
    """

    def __init__(self) -> None:
        self._address = get_worker().address

    def status(self) -> dict[str, Any]:
        """Numbers for people."""
        return _hostings[self._address].host.status()

    def agents(self) -> list[str]:
        """The ids of the agents that live here."""
        return sorted(_hostings[self._address].host.inbox.cells)


def actor_key(address: str) -> str:
    """The key of the actor of a worker.

    Examples
    --------
    >>> actor_key("tcp://a:1")
    'dspex-host-tcp://a:1'
    """
    return f"dspex-host-{address}"


@final
class Hosting:
    """Runs a host on a worker."""

    def __init__(self, worker: Worker, caller: Caller) -> None:
        self._worker: Any = worker
        self.address = worker.address
        threads = int(config.get("dspex.agents.threads", 32))
        context = copy_context()
        context.run(_worker_cvar.set, worker)  # so that `get_worker` and `get_client` work in turns
        pool = Pool(threads, context=context)
        self.host = Host(caller, worker.address, pool=pool, context=context)
        self._reach = Reach(worker.rpc)
        self.messages = Messenger(caller, self._send)
        self.runtime = Runtime(caller, self.messages, namespace="", host=self.host)
        self._client: Any = None
        self._actor: Any = None
        self._acting: asyncio.Task[None] | None = None
        self._has_frozen = False

    async def _send(self, address: str, blob: bytes) -> bytes:
        if address == self.address:
            return await self.host.arrivals.take(blob)
        return await self._reach.send(address, blob)

    async def _handle(self, blob: bytes = b"", **unknown: object) -> bytes:
        return await self.host.arrivals.take(blob)

    def start(self) -> None:
        """Begin to host."""
        _hostings[self.address] = self
        is_fresh = not (self._worker.state.transition_counter or gc.get_freeze_count())
        if self._worker.nanny and is_fresh:
            # The process is the worker's alone, and has done nothing for the user yet. What was
            # imported stays; to go through it again and again takes the garbage collector a tenth
            # of a busy host's time.
            gc.freeze()
            self._has_frozen = True
        add_host(self.address, self.runtime)
        self._worker.handlers["dspex_host"] = self._handle
        self._worker.handlers["dspex_release"] = self._handle_release
        self.host.start(self.runtime)
        self._acting = asyncio.create_task(self._act(), name="dspex-actor")

    async def _act(self) -> None:
        """Have Dask show the host as an actor."""
        try:
            self._client = await Client(
                self._worker.scheduler.address,
                asynchronous=True,
                set_as_default=False,
                security=self._worker.security,
                name="dspex-host",
            )
            self._actor = self._client.submit(
                AgentHost,
                actor=True,
                workers=[self.address],
                key=actor_key(self.address),
                pure=False,
            )
        except Exception as error:
            logger.warning("this worker's host is not shown as an actor: %r", error)

    async def _handle_release(self, **unknown: object) -> bool:
        await self.host.arrivals.quiet()
        await self.release()
        return True

    async def release(self) -> None:
        """Let the actor go: Dask does not retire a worker that has one."""
        if self._acting is not None:
            self._acting.cancel()
            await asyncio.gather(self._acting, return_exceptions=True)
            self._acting = None
        self._actor = None
        client, self._client = self._client, None
        if client is not None:
            with suppress(Exception):
                async with asyncio.timeout(5.0):
                    await client.close()

    async def close(self) -> None:
        """Host nothing any more."""
        await self.host.close()
        await self.messages.close()
        if self._has_frozen:
            gc.unfreeze()
        self._worker.handlers.pop("dspex_host", None)
        self._worker.handlers.pop("dspex_release", None)
        remove_host(self.address)
        _hostings.pop(self.address, None)
        await self.release()
