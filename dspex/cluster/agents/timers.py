"""The timers of a host's agents.

Knows: a loop, names. Must not know: what is called.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import final

from dspex.cluster.agents.turns import Timer

__all__ = ["Timers"]


@final
class Timers:
    """Rings when a timer is due.

    Parameters
    ----------
    ring : callable of (key, name, timer)
    """

    def __init__(self, ring: Callable[[str, str, Timer], None]) -> None:
        self._ring = ring
        self._of: dict[str, dict[str, asyncio.TimerHandle]] = {}

    def arm(self, key: str, name: str, timer: Timer | None) -> None:
        """Set a timer of an agent in place of that of the same name; None ends it."""
        former = self._of.get(key, {}).pop(name, None)
        if former is not None:
            former.cancel()
        if timer is not None:
            loop = asyncio.get_running_loop()
            self._of.setdefault(key, {})[name] = loop.call_later(
                timer.seconds, self._due, key, name, timer
            )

    def _due(self, key: str, name: str, timer: Timer) -> None:
        del self._of[key][name]
        if timer.repeats:
            self.arm(key, name, timer)
        self._ring(key, name, timer)

    def cancel(self, key: str) -> None:
        """End the timers of an agent."""
        for handle in self._of.pop(key, {}).values():
            handle.cancel()

    def cancel_all(self) -> None:
        """End all."""
        for key in list(self._of):
            self.cancel(key)
