"""Agents in the making: from what the ledger tells of one to an object that may run.

Knows: classes, parcels of the ledger, hooks. Must not know: mailboxes, commits.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Mapping
from typing import Any, NamedTuple, final

from dspex.cluster.agents.resident import NO_CHANGES, Changes, Resident, load_class, loads
from dspex.cluster.agents.turns import TurnContext
from dspex.errors import AgentFailedError, DspexError
from dspex.foundation.agents.cells import Cell
from dspex.foundation.ledger.wire import error_payload
from dspex.foundation.ports import Caller

__all__ = ["Classes", "Made", "failure_of", "make"]

logger = logging.getLogger("dspex.agents")


class Made(NamedTuple):
    """An agent that was made, but for a hook that is to be awaited."""

    resident: Resident
    context: TurnContext
    version: int
    hook: Awaitable[Any] | None
    changes: Changes

    async def finished(self) -> Made:
        """Await the hook."""
        hook = self.hook
        assert hook is not None

        async def wait() -> None:
            await hook

        await self.context.call_async(wait)
        changes = self.resident.first_changes(self.context, self.version)
        return self._replace(hook=None, changes=changes)


@final
class Classes:
    """Classes by the hash of their pickles."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._known: dict[str, type] = {}

    async def get(self, digest: str) -> type:
        """Find one.

        Raises
        ------
        AgentFailedError
        """
        cls = self._known.get(digest)
        if cls is None:
            code = await self._caller.read("agents.code", digest=digest)
            if code is None:
                raise AgentFailedError("the class of an agent is not in the ledger (any more)")
            cls = self._known[digest] = load_class(code)
        return cls


def make(cls: type, parcel: Mapping[str, Any], key: str, runtime: Any) -> Made:
    """Make an agent, or make it again from what was kept; in any thread."""
    resident = Resident(cls, is_kept=parcel["spec"]["persistence"] is not None)
    resident.sent = parcel["sent"]
    term, n = parcel["token"]
    context = TurnContext(
        key, runtime, resident.sent, None, is_kept=resident.is_kept, incarnation=(term, n)
    )
    version = int(getattr(cls, "version", 0) or 0)
    packed = parcel["parcel"]
    if parcel["started"] and (resident.is_kept or packed):
        kept = parcel["state"] or {}
        if packed:
            kept = {**kept, **loads(packed)}
        hook = resident.restore(parcel["args"], kept, context, version)
    else:
        hook = resident.make(parcel["args"], context)
    if asyncio.iscoroutine(hook):
        return Made(resident, context, version, hook, NO_CHANGES)
    return Made(resident, context, version, None, resident.first_changes(context, version))


def failure_of(cell: Cell, error: BaseException) -> tuple[str, Any, Any, str]:
    """What the ledger is told of an agent that could not be made."""
    if not isinstance(error, DspexError):
        told = AgentFailedError(
            f"an agent is made on its worker; {cell.key.partition(':')[2]!r} could not be: "
            f"{type(error).__name__}: {error}"
        )
    else:
        told = error  # type: ignore[assignment]  # of any kind that travels
    logger.warning("the agent %s could not be made", cell.key, exc_info=error)
    return (cell.key, cell.token, error_payload(told), f"it could not be made: {error}")
