"""How much may run at once on each worker: all of its threads, or as much as is leased there.

Knows: threads, leases. Must not know: Dask, how leases are got.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

__all__ = ["Slots"]


@final
class Slots:
    """The slots of one study.

    Parameters
    ----------
    is_leased : bool
        Whether only what is leased may be used.

    Examples
    --------
    >>> slots = Slots(is_leased=True)
    >>> slots.on({"a": 4}), slots.able({"a": 4})
    ({}, 1)
    >>> slots.leased({"a": 2}, able=1)
    >>> slots.on({"a": 4})
    {'a': 2}
    """

    def __init__(self, *, is_leased: bool) -> None:
        self._leased: Mapping[str, int] | None = {} if is_leased else None
        self._able: int | None = None

    def on(self, threads: Mapping[str, int]) -> dict[str, int]:
        """{worker: how many evaluations at once} of these workers."""
        if self._leased is None:
            return dict(threads)
        leased = self._leased
        return {each: min(n, leased[each]) for each, n in threads.items() if leased.get(each)}

    def able(self, workers: Mapping[str, int]) -> int:
        """How many of these workers could run anything, if they were idle."""
        return len(workers) if self._able is None else min(len(workers), self._able)

    def leased(self, slots: Mapping[str, int], *, able: int) -> None:
        """Take what is leased now, and how many workers could give a lease if they were idle."""
        self._leased, self._able = slots, able
