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
class _Moment(type(threading.RLock())):  # type: ignore[misc]  # it is one, as fast as one
    def notify_all(self) -> None:
        """Nobody waits on it."""


MOMENT: Any = _Moment()
"""What `AgentFuture` has in place of a condition."""
