"""How much may run at once on each worker: all of its threads, or as much as is leased there.

Knows: threads, leases, chunks that run without one. Must not know: Dask, how leases are got.

What runs on a lease that is lost is ended, but not at once: where its worker is lost too, its end
is to be charged, and that shows when the workers are looked at; though not in a look that had
begun before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import final

__all__ = ["Slots"]

_LOOKS = 2


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
    >>> slots.leased({"a": 2}, able=1, unleased=[7])
    >>> slots.on({"a": 4}), slots.looked(), slots.looked(), slots.looked()
    ({'a': 2}, [], [7], [])
    """

    def __init__(self, *, is_leased: bool) -> None:
        self._leased: Mapping[str, int] | None = {} if is_leased else None
        self._able: int | None = None
        self._unleased: dict[int, int] = {}

    def on(self, threads: Mapping[str, int]) -> dict[str, int]:
        """{worker: how many evaluations at once} of these workers."""
        if self._leased is None:
            return dict(threads)
        leased = self._leased
        return {each: min(n, leased[each]) for each, n in threads.items() if leased.get(each)}

    def able(self, workers: Mapping[str, int]) -> int:
        """How many of these workers could run anything, if they were idle."""
        return len(workers) if self._able is None else min(len(workers), self._able)

    def leased(self, slots: Mapping[str, int], *, able: int, unleased: Iterable[int]) -> None:
        """Take what is leased now.

        Parameters
        ----------
        slots : mapping of address to int
        able : int
            How many workers could give a lease, if they were idle.
        unleased : iterable of int
            The chunks that run without one.
        """
        self._leased, self._able = slots, able
        self._unleased = {number: self._unleased.get(number, 0) for number in unleased}

    def looked(self) -> list[int]:
        """The workers were looked at: the chunks to be ended, each once."""
        self._unleased = {number: looks + 1 for number, looks in self._unleased.items()}
        over = [number for number, looks in self._unleased.items() if looks >= _LOOKS]
        for number in over:
            del self._unleased[number]
        return over
