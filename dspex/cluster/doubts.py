"""Chunks that came to an end of which nobody knows yet whether it is that of their worker.

Knows: numbers of chunks, numbers of looks. Must not know: Dask, what is done about it.

Where a worker is lost, the end of what it ran is to be charged; where it is not, somebody cancelled
a task, or a lease went. Both may be heard of before Dask says that the worker is gone. A look at
the workers that began afterwards tells.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import final

__all__ = ["Doubts"]


@final
class Doubts:
    """Chunks in doubt.

    Examples
    --------
    >>> doubts = Doubts()
    >>> doubts.add(7, look=3)
    >>> doubts.looked(3), doubts.looked(4), doubts.looked(5)
    ([], [7], [])
    """

    def __init__(self) -> None:
        self._since: dict[int, int] = {}

    def add(self, number: int, *, look: int) -> None:
        """Doubt a chunk, when so many looks have begun."""
        self._since[number] = look

    def only(self, numbers: Iterable[int], *, look: int) -> None:
        """Doubt these and no others, each since it was doubted first."""
        self._since = {number: self._since.get(number, look) for number in numbers}

    def looked(self, look: int) -> list[int]:
        """A look is done, and who was lost has been told: the others in doubt, each once."""
        over = [number for number, since in self._since.items() if since < look]
        for number in over:
            del self._since[number]
        return over
