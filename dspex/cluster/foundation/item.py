"""A call on its way to the ledger.

Knows: what is remembered of it until it is answered. Must not know: how it travels.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, final

__all__ = ["Item"]


@final
class Item:
    """A call on its way.

    `number` is None for one that changes nothing, 0 for one that has no number yet.
    """

    __slots__ = ("answered", "args", "deadline", "future", "is_doubtful", "number", "op", "size")

    def __init__(
        self,
        op: str,
        args: Mapping[str, Any],
        number: int | None,
        future: asyncio.Future[Any],
        deadline: float,
    ) -> None:
        self.op = op
        self.args = args
        self.number = number
        self.future = future
        self.deadline = deadline
        self.is_doubtful = False  # whether it was sent, and no answer came
        self.answered: asyncio.Future[None] | None = None  # for one that is to be withdrawn
        self.size = 64
        if op == "records.commit":
            puts = [each for each in args["operations"] if each[0] == "put"]
            self.size += 256 * len(args["operations"]) + sum(len(each[2]) for each in puts)
