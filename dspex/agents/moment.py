"""The lock that all futures of agents share.

Knows: locks. Must not know: what is guarded.

It is held for moments only. `concurrent.futures` asks a future for a condition of its own; waiting
is done otherwise here, so of a condition no more than this is needed.
"""

from __future__ import annotations

import threading
from typing import Any, final

__all__ = ["MOMENT"]


@final
class _Moment:
    def __init__(self) -> None:
        lock: Any = threading.RLock()
        self.acquire = lock.acquire
        self.release = lock.release

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *exc: object) -> None:
        self.release()

    def notify_all(self) -> None:
        """Nobody waits on it."""


MOMENT = _Moment()
"""What `AgentFuture` has in place of a condition."""
