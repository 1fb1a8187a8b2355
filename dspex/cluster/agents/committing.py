"""Group commit of a host's turns: while one commit is under way others gather.

Knows: turns that are to be committed, the ledger's way. Must not know: what becomes of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, final

from dspex.cluster.agents.turns import TurnContext
from dspex.errors import DspexError, SessionExpiredError
from dspex.foundation.agents.cells import Cell, Letter, Verdict
from dspex.foundation.agents.dedup import Fields
from dspex.foundation.ports import Caller

__all__ = ["Committer", "Pending", "Verdicts"]

TURNS_AT_ONCE = 5_000
BYTES_AT_ONCE = 4 * 2**20


@final
class Pending:
    """A turn whose commit is under way.

    Attributes
    ----------
    cell : Cell
    entry : bytes or None
        What the ledger is told (`ledger.agents.turns`); None where nothing changed and only the
        order counts.
    letter : Letter or None
        What is to be answered.
    verdict : (status, payload) or None
        Its answer.
    context : TurnContext or None
        Where it set timers or sent something.
    answered : tuple or None
        What is kept of its answer, for repetitions.
    then : callable or None
        What follows on the commit.
    """

    __slots__ = ("answered", "cell", "context", "entry", "letter", "settled", "then", "verdict")

    def __init__(
        self,
        cell: Cell,
        entry: bytes | None,
        letter: Letter | None = None,
        verdict: Verdict | None = None,
        context: TurnContext | None = None,
        answered: Fields | None = None,
        *,
        then: Callable[[], None] | None = None,
    ) -> None:
        self.cell = cell
        self.entry = entry
        self.letter = letter
        self.verdict = verdict
        self.context = context
        self.answered = answered
        self.then = then
        self.settled: asyncio.Future[None] | None = None

    def settle(self) -> None:
        """Tell who waits that it was committed, or will never be."""
        if self.settled is not None and not self.settled.done():
            self.settled.set_result(None)


class Verdicts(Protocol):
    """Who hears what became of turns."""

    async def committed(self, batch: Sequence[Pending], refused: Mapping[int, str]) -> None:
        """Take a batch that was committed but for some: {place among the entries: why}."""

    async def not_committed(self, batch: Sequence[Pending], error: DspexError) -> None:
        """Take a batch of which nobody knows, or which was refused as a whole."""

    def session_ended(self, session: str) -> None:
        """Hear that this session counts no more."""


@final
class Committer:
    """Commits turns in the order in which they ended.

    Parameters
    ----------
    caller : Caller
    verdicts : Verdicts
    """

    def __init__(self, caller: Caller, verdicts: Verdicts) -> None:
        self._caller = caller
        self._verdicts = verdicts
        self._pending: list[Pending] = []
        self._running: asyncio.Task[None] | None = None

    def add(self, pending: Pending) -> None:
        """Have a turn committed."""
        pending.cell.uncommitted += 1
        self._pending.append(pending)
        if self._running is None:
            self._running = asyncio.get_running_loop().create_task(self._run())

    async def add_and_wait(self, pending: Pending) -> None:
        """Have a turn committed, and wait until it was, or will never be."""
        pending.settled = asyncio.get_running_loop().create_future()
        self.add(pending)
        await pending.settled

    def drop(self, keys: Mapping[str, Any] | None = None) -> list[Pending]:
        """Commit nothing of these agents, or of any, that has not left yet; gives it."""
        dropped = [each for each in self._pending if keys is None or each.cell.key in keys]
        self._pending = [
            each for each in self._pending if not (keys is None or each.cell.key in keys)
        ]
        for pending in dropped:
            pending.cell.uncommitted -= 1
            pending.settle()
        return dropped

    async def close(self) -> None:
        """Commit nothing any more."""
        self.drop()
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)

    async def _run(self) -> None:
        try:
            while self._pending:
                # Turns that end in this round of the loop go along.
                await asyncio.sleep(0)
                batch = self._batch()
                try:
                    await self._commit(batch)
                finally:
                    for pending in batch:
                        pending.settle()
        finally:
            self._running = None

    def _batch(self) -> list[Pending]:
        size = 0
        at = 0
        for at, pending in enumerate(self._pending, start=1):
            if pending.entry is not None:
                size += len(pending.entry)
            if size > BYTES_AT_ONCE or at >= TURNS_AT_ONCE:
                break
        batch, self._pending = self._pending[:at], self._pending[at:]
        return batch

    async def _commit(self, batch: Sequence[Pending]) -> None:
        entries = [pending.entry for pending in batch if pending.entry is not None]
        session = self._caller.session
        refused: Mapping[int, str] = {}
        try:
            if entries:
                refused = dict(await self._caller.write("agents.commit", turns=entries))
        except SessionExpiredError:
            for pending in batch:
                pending.cell.uncommitted -= 1
            self._verdicts.session_ended(session)
            return
        except DspexError as error:
            for pending in batch:
                pending.cell.uncommitted -= 1
            await self._verdicts.not_committed(batch, error)
            return
        for pending in batch:
            pending.cell.uncommitted -= 1
        await self._verdicts.committed(batch, refused)
