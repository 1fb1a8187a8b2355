"""Which chunks to take back from a worker that is busy with the work of others: a pure core.

Knows: when chunks were sent, which of them are known to run. Must not know: Dask, clocks.

On a cluster that others use, a chunk may lie behind somebody's long task while slots are idle
elsewhere. Only the worker knows whether it has begun a task; it is asked about chunks that have
been away for long, and only while another worker could take them. One that runs stays.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import final

__all__ = ["Recall"]

ASK_AFTER = 1.0
"""Seconds that a chunk is away before its worker is asked about it, and between two questions."""


AVOID_FOR = 10.0
"""Seconds for which a worker from which a chunk was taken back comes last."""


@final
class Recall:
    """What is known of the chunks that are away.

    Examples
    --------
    >>> recall = Recall()
    >>> recall.sent(1, now=0.0), recall.sent(2, now=0.5)
    (None, None)
    >>> recall.to_ask([1, 2], now=1.2), recall.to_ask([1, 2], now=1.3)
    ([1], [])
    >>> recall.answered({1: True})
    []
    >>> recall.to_ask([1, 2], now=3.0)
    [2]
    >>> recall.answered({2: False})
    [2]
    >>> recall.avoid("a", now=3.0)
    >>> recall.avoided(now=4.0), recall.avoided(now=30.0)
    ({'a'}, set())
    """

    def __init__(self) -> None:
        self._sent: dict[int, float] = {}
        self._avoided: dict[str, float] = {}
        self._is_asking = False
        self._next = 0.0

    def sent(self, number: int, *, now: float) -> None:
        """Take note that a chunk went out."""
        self._sent[number] = now

    def to_ask(self, away: Collection[int], *, now: float) -> list[int]:
        """Those of the chunks that are away to ask about now; call only where slots are idle."""
        if self._is_asking or now < self._next:
            return []
        self._sent = {number: self._sent[number] for number in away if number in self._sent}
        found = [number for number, sent in self._sent.items() if now - sent >= ASK_AFTER]
        self._is_asking = bool(found)
        self._next = now + ASK_AFTER
        return found

    def answered(self, is_begun: Mapping[int, bool]) -> list[int]:
        """Take what the workers answered; tells which chunks to take back."""
        self._is_asking = False
        # What runs need not be asked about again.
        known = [number for number in is_begun if self._sent.pop(number, None) is not None]
        return [number for number in known if not is_begun[number]]

    def avoid(self, worker: str, *, now: float) -> None:
        """Take note that others keep a worker busy."""
        self._avoided[worker] = now + AVOID_FOR

    def avoided(self, *, now: float) -> set[str]:
        """Workers to be given work only when all others have enough."""
        if self._avoided:
            self._avoided = {worker: end for worker, end in self._avoided.items() if end > now}
        return set(self._avoided)
