"""A condition that costs little until somebody waits on it.

Knows: locks. Must not know: what is waited for.

All share one lock, which is held for moments only; what each has of its own is the list of those
that wait on it.
"""

from __future__ import annotations

import threading
from typing import Any, final

__all__ = ["Turnstile"]

_lock: Any = threading.RLock()


@final
class Turnstile:
    """As `threading.Condition`, as far as `concurrent.futures` needs one.

    Examples
    --------
    >>> turnstile = Turnstile()
    >>> with turnstile:
    ...     turnstile.wait(0.0)
    False
    """

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: list[threading.Lock] | None = None

    def __enter__(self) -> bool:
        return bool(_lock.acquire())

    def __exit__(self, *exc: object) -> None:
        _lock.release()

    def acquire(self) -> bool:
        """Take the lock."""
        return bool(_lock.acquire())

    def release(self) -> None:
        """Give it back."""
        _lock.release()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait, without the lock, until notified; gives whether that came in time."""
        turn = threading.Lock()
        turn.acquire()
        if self._waiting is None:
            self._waiting = []
        self._waiting.append(turn)
        held = _lock._release_save()  # it may be held more than once
        is_notified = False
        try:
            is_notified = turn.acquire(timeout=-1 if timeout is None else max(0.0, timeout))
            return is_notified
        finally:
            _lock._acquire_restore(held)
            if not is_notified:
                self._forget(turn)

    def _forget(self, turn: threading.Lock) -> None:
        if self._waiting is not None and turn in self._waiting:
            self._waiting.remove(turn)

    def notify_all(self) -> None:
        """Wake all that wait."""
        waiting, self._waiting = self._waiting, None
        for turn in waiting or ():
            turn.release()
