"""A call on its way to the ledger.

Knows: what is remembered of it until it is answered. Must not know: how it travels.
"""

from __future__ import annotations

import asyncio
from typing import Any, final

__all__ = ["Item"]


@final
class Item:
    """A call on its way.

    `number` is None for one that changes nothing, 0 for one that has no number yet; a number is one
    of `session`, in whose name alone the call is made where it is not "".
    """

    __slots__ = (
        "answered",
        "body",
        "deadline",
        "future",
        "is_doubtful",
        "number",
        "op",
        "session",
    )

    def __init__(
        self,
        op: str,
        body: bytes,
        number: int | None,
        session: str,
        future: asyncio.Future[Any],
        deadline: float,
    ) -> None:
        self.op = op
        self.body = body
        self.number = number
        self.session = session
        self.future = future
        self.deadline = deadline
        self.is_doubtful = False  # whether it was sent, and no answer came
        self.answered: asyncio.Future[None] | None = None  # for one that is to be withdrawn

    @property
    def is_dropped(self) -> bool:
        """Whether nobody waits for it and the ledger has never heard of it."""
        return not self.number and self.future.done()
