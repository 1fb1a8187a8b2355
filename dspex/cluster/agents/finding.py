"""Asking where agents are: many at once, again when it is time.

Knows: the ledger's way, agents that are held. Must not know: what is made of an answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Protocol, final

from dspex.errors import DspexError
from dspex.foundation.agents.outbound import Outbound
from dspex.foundation.ports import Caller

__all__ = ["Finder", "Found"]

AT_ONCE = 5_000

SOONEST = 0.002
"""Seconds before agents are looked for: others that are lost at the same moment go along."""


class Found(Protocol):
    """Who hears where agents are."""

    def located(self, key: str, place: Any) -> None:
        """Take (status, host, reason, persistence) of an agent; None: there is none."""

    def give_up(self, key: str, error: DspexError) -> None:
        """Take why it cannot be told."""

    def pump(self) -> None:
        """Send what may be sent now."""


@final
class Finder:
    """Looks for agents.

    Parameters
    ----------
    caller : Caller
    outbound : Outbound
    found : Found
    spawn : callable
        Starts work that ends with the process's connection.
    """

    def __init__(
        self,
        caller: Caller,
        outbound: Outbound[Any],
        found: Found,
        spawn: Callable[[Any], object],
    ) -> None:
        self._caller = caller
        self._outbound = outbound
        self._found = found
        self._spawn = spawn
        self._loop = asyncio.get_running_loop()
        self._ticking: asyncio.TimerHandle | None = None

    def look_for(self, keys: Sequence[str]) -> None:
        """Ask for agents now."""
        for at in range(0, len(keys), AT_ONCE):
            self._spawn(self._locate(keys[at : at + AT_ONCE]))

    def look_when_due(self) -> None:
        """Ask for those that are held, when it is time."""
        due = self._outbound.next_due()
        if due is None:
            return
        delay = max(SOONEST, due - self._caller.now())
        if self._ticking is not None:
            if self._ticking.when() <= self._loop.time() + delay:
                return
            self._ticking.cancel()
        self._ticking = self._loop.call_later(delay, self._tick)

    def _tick(self) -> None:
        self._ticking = None
        self.look_for(self._outbound.to_locate(self._caller.now()))
        self.look_when_due()

    async def _locate(self, keys: Sequence[str]) -> None:
        try:
            found = await self._caller.read("agents.locate", keys=list(keys))
        except DspexError as error:
            for key in keys:
                self._found.give_up(key, error)
            return
        for key, place in zip(keys, found, strict=True):
            self._found.located(key, place)
        self._found.pump()

    def close(self) -> None:
        """Look for nobody any more."""
        if self._ticking is not None:
            self._ticking.cancel()
