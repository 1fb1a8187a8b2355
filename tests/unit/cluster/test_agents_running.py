"""What follows on the end of a turn, where that fails."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from dspex.cluster.agents.resident import NO_CHANGES, Outcome
from dspex.cluster.agents.running import Running
from dspex.cluster.agents.turns import TurnContext
from dspex.foundation.agents.messages import DONE
from dspex.testing.ledgers import run


class AtOnce:
    """A pool that does a job when it is given."""

    def submit(self, job: Callable[..., None], *arguments: Any) -> None:
        job(*arguments)

    def watch(self) -> bool:
        return False


class Talker:
    """A resident whose first turn sends a message."""

    is_kept = False
    sent = 0
    turns = 0

    def is_async(self, name: str) -> bool:
        return False

    def run(self, name: str, args: bytes, context: TurnContext) -> Outcome:
        self.turns += 1
        if self.turns == 1:
            context.send(":b", "m", b"")
        return Outcome(True, b"%d" % self.turns, NO_CHANGES, context)


def test_an_agent_whose_message_cannot_leave_goes_on() -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise RuntimeError("crowded")

    async def work() -> None:
        told: list[Any] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: told.append(str(context["exception"])))
        caller: Any = SimpleNamespace(now=loop.time)
        pool: Any = AtOnce()
        nothing: Any = None
        running = Running(caller, pool, control=nothing, retake=nothing)
        running.runtime = SimpleNamespace(messages=SimpleNamespace(deliver=refuse))
        cell = running.inbox.add(":a", (1, 1), 10)
        running.inbox.ready(cell, None)
        cell.resident = Talker()
        link = SimpleNamespace(stuck={}, answers=[], outstanding=2, wakes=-1, waiters=[])
        for mid in (1, 2):
            running._accept((mid, ":a", 0, "", 0, 0, None, "m", b""), link)
            running._flush_runnable()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        assert link.answers == [1, DONE, b"1", 2, DONE, b"2"]
        assert told == ["crowded"]
        assert not cell.is_busy

    run(work())
