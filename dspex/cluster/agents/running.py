"""Turns of a host's agents: who may run, in which thread, and what follows on the end of a turn.

Knows: the inbox, residents, threads and a loop, commits. Must not know: what is placed here, Dask.

All that decides happens on one loop. Turns run in threads, those of coroutine methods on the loop.
Answers leave when the ledger has the turn, and not even then when this host can no longer be sure
of its lease.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from contextvars import Context
from itertools import chain
from typing import Any, final

from dspex.cluster.agents.arrivals import Arrivals
from dspex.cluster.agents.committing import Committer, Pending
from dspex.cluster.agents.entries import answer_of, entry_of, what_changed
from dspex.cluster.agents.making import Made
from dspex.cluster.agents.pool import STUCK_AFTER, Pool
from dspex.cluster.agents.requests import Messages
from dspex.cluster.agents.resident import TIMER, Outcome, Resident, dumps
from dspex.cluster.agents.timers import Timers
from dspex.cluster.agents.turns import Timer, TurnContext
from dspex.cluster.background import Background
from dspex.errors import DeliveryError, DspexError, SessionExpiredError
from dspex.foundation.agents.cells import READY, Cell, Letter, Verdict, letter_of
from dspex.foundation.agents.dedup import Dedup
from dspex.foundation.agents.inbox import Inbox
from dspex.foundation.agents.messages import (
    AT_MOST_ONCE,
    CANCEL,
    CONTROL,
    DELIVERY,
    DONE,
    ELSEWHERE,
    EXACTLY_ONCE,
    RAISED,
    REFUSED,
)
from dspex.foundation.ledger.agents.population import sender_of
from dspex.foundation.ledger.agents.turns import pack_turn
from dspex.foundation.ledger.wire import error_payload
from dspex.foundation.ports import Caller

__all__ = ["Running"]


@final
class Running:
    """Runs the agents of a host.

    Parameters
    ----------
    caller : Caller
        The member's session.
    pool : Pool
        For turns that may block.
    control : coroutine function of (cell, letter)
        Does what a handle asks of the host.
    retake : coroutine function of keys
        Has agents made anew from what was committed.
    context : contextvars.Context, optional
        In a copy of which work on the loop is done; None: of whoever starts it.
    """

    def __init__(
        self,
        caller: Caller,
        pool: Pool,
        *,
        control: Callable[[Cell, Letter], Coroutine[Any, Any, None]],
        retake: Callable[[Sequence[str]], Awaitable[None]],
        context: Context | None = None,
    ) -> None:
        self._caller = caller
        self._pool = pool
        self._control = control
        self._retake = retake
        self.arrivals = Arrivals(self._accept, self._flush_runnable, self.may_answer)
        self.inbox = Inbox(self.arrivals.answer)
        # Apart, so that those that wait for no journal do not wait for those that do.
        self._commits = (Committer(caller, self), Committer(caller, self))
        self.timers = Timers(self._ring)
        self.runtime: Any = None  # through which turns reach others; given by whoever runs us
        self._runnable: dict[str, Cell] = {}
        # Filled by threads: a turn each. No outcome: it came late. The last: all that the cell was
        # given has run.
        self._done: deque[tuple[Cell, Letter, Outcome | None, bool]] = deque()
        self._is_drain_due = False
        self._watching = False
        self._background = Background(context)
        self._loop = asyncio.get_running_loop()
        self._session = ""
        self._closed = False
        self.turns = 0

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Start work that ends with this host."""
        return self._background.spawn(work)

    async def close(self) -> None:
        """Run nothing any more."""
        self._closed = True
        await self._background.close()
        for commits in self._commits:
            await commits.close()
        self.forget_all()
        self._pool.close()

    def commit(self, pending: Pending) -> None:
        """Have a turn committed."""
        self._commits[pending.cell.is_durable].add(pending)

    async def commit_and_wait(self, pending: Pending) -> None:
        """Have a turn committed, and wait until it was, or will never be."""
        await self._commits[pending.cell.is_durable].add_and_wait(pending)

    @property
    def is_current(self) -> bool:
        """Whether what is here was placed on the session that there is now."""
        return self._session == self._caller.session

    def may_answer(self) -> bool:
        """Whether this host can be sure of the lease on which its agents were placed."""
        is_sure = self._caller.now() < self._caller.lease_ends()
        return is_sure and self.is_current and not self._closed

    def session_began(self) -> None:
        """Begin anew as another incarnation of the member: what was here lives elsewhere."""
        if self._session not in ("", self._caller.session):
            self.forget_all()
        self._session = self._caller.session

    def forget_all(self) -> None:
        """Let go of all agents; nobody is answered any more."""
        self.timers.cancel_all()
        for commits in self._commits:
            commits.drop()
        self._runnable.clear()
        for key in list(self.inbox.cells):
            self.inbox.drop(key)
        self.arrivals.reset()

    def begin(self, cell: Cell, parcel: Mapping[str, Any], made: Made) -> None:
        """Commit what it is when it begins; it runs after that."""
        resident, context, changes = made.resident, made.context, made.changes
        cell.resident = resident
        entry = pack_turn({**what_changed(cell, changes, context), "t": 1})

        def then() -> None:
            dedup = None if parcel["dedup"] is None else Dedup.from_rows(parcel["dedup"])
            self.inbox.ready(cell, dedup)
            for each in parcel["outbox"] or ():
                self._send_out(cell, each)
            self._arm(cell, resident.timers or {})
            self._send_all(cell, context)
            self._may_run(cell)
            self._flush_runnable()

        self.commit(Pending(cell, entry, then=then))

    def end(self, key: str) -> None:
        """Forget an agent."""
        self.timers.cancel(key)
        self.inbox.drop(key)
        self._runnable.pop(key, None)

    def _accept(self, fields: tuple[Any, ...], link: Any) -> None:
        mid, key, flags, sender, number, below, left, method, args = fields
        deadline = None if left is None else self._caller.now() + left
        letter = letter_of(
            (mid, key, flags, sender, number, below, left, method, args, link, deadline)
        )
        if flags & CANCEL:
            self._withdraw(letter)
            return
        cell = self.inbox.accept(letter)
        if cell is not None and not cell.is_busy and cell.phase == READY:
            self._runnable[key] = cell

    def _withdraw(self, withdrawal: Letter) -> None:
        cell = self.inbox.cells.get(withdrawal.key)
        is_there = cell is not None and self.inbox.withdraw(
            cell,
            lambda each: (
                each.mid == withdrawal.number and each.link.name == withdrawal.link.name
            ),  # of any generation
        )
        self.arrivals.answer(withdrawal, DONE, dumps(is_there))

    def _may_run(self, cell: Cell) -> None:
        if cell.mailbox and not cell.is_busy and cell.phase == READY:
            self._runnable[cell.key] = cell

    def _flush_runnable(self) -> None:
        """Give what may run to the threads, or to the loop."""
        if not self._runnable:
            return
        runnable, self._runnable = self._runnable, {}
        now = self._caller.now()
        for cell in runnable.values():
            letters = self.inbox.take(cell, now, self._is_alone)
            if letters:
                self._run(cell, letters)
        self.watch_pool()

    @staticmethod
    def _is_alone(cell: Cell, letter: Letter) -> bool:
        """Whether it runs on the loop: coroutine methods, and what is asked of the host."""
        resident: Resident = cell.resident
        return bool(letter.flags & CONTROL) or resident.is_async(letter.method)

    def watch_pool(self) -> None:
        """Look whether the threads get on, as long as they have something to do."""
        if not self._watching:
            self._watching = True
            self._loop.call_later(STUCK_AFTER, self._watch)

    def _watch(self) -> None:
        self._watching = self._pool.watch()
        if self._watching:
            self._loop.call_later(STUCK_AFTER, self._watch)

    def _run(self, cell: Cell, letters: Sequence[Letter]) -> None:
        if len(letters) == 1 and self._is_alone(cell, letters[0]):
            self.spawn(self._run_async(cell, letters[0]))
            return
        self._pool.submit(self._run_in_thread, cell, letters)

    def _context(self, cell: Cell, letter: Letter) -> TurnContext:
        resident: Resident = cell.resident
        return TurnContext(
            cell.key,
            self.runtime,
            resident.sent,
            letter.deadline,
            letter.sender,
            is_kept=resident.is_kept,
            incarnation=cell.token,
        )

    def _run_in_thread(self, cell: Cell, letters: Sequence[Letter]) -> None:
        resident: Resident = cell.resident
        left = len(letters)
        for letter in letters:
            if letter.deadline is not None and letter.deadline < self._caller.now():
                outcome = None
            else:
                context = self._context(cell, letter)
                outcome = resident.run(letter.method, letter.args, context)
                resident.sent = context.sent
            left -= 1
            self._done.append((cell, letter, outcome, not left))
            if not self._is_drain_due:
                self._wake()

    def _refuse_late(self, cell: Cell, letter: Letter) -> None:
        """Refuse what came late because others ran before it in a row."""
        cell.taken -= 1
        if self.inbox.cells.get(cell.key) is cell:
            self.inbox.refuse_late(cell, letter)
        else:
            self._answer_for_a_ghost(letter)

    async def _run_async(self, cell: Cell, letter: Letter) -> None:
        if letter.flags & CONTROL:
            await self._control(cell, letter)
        else:
            resident: Resident = cell.resident
            context = self._context(cell, letter)
            outcome = await resident.run_async(letter.method, letter.args, context)
            resident.sent = context.sent
            self._done.append((cell, letter, outcome, True))
            self._drain()
            return
        self._finished(cell)
        self._flush_runnable()

    def _wake(self) -> None:
        if not self._is_drain_due:
            self._is_drain_due = True
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._drain)

    def _drain(self) -> None:
        self._is_drain_due = False
        while self._done:
            cell, letter, outcome, is_last = self._done.popleft()
            try:
                if outcome is None:
                    self._refuse_late(cell, letter)
                else:
                    self._take_outcome(cell, letter, outcome)
            except Exception as error:
                words = f"what follows on a turn of the agent {cell.key} failed"
                self._loop.call_exception_handler({"message": words, "exception": error})
            if is_last:
                self._finished(cell)
        self._flush_runnable()

    def _finished(self, cell: Cell) -> None:
        cell.is_busy = False
        cell.taken = 0
        self._may_run(cell)

    def _take_outcome(self, cell: Cell, letter: Letter, outcome: Outcome) -> None:
        self.turns += 1
        cell.taken -= 1
        if self.inbox.cells.get(cell.key) is not cell:
            self._answer_for_a_ghost(letter)
            return
        verdict = (DONE if outcome.is_ok else RAISED, outcome.payload)
        context: TurnContext | None = outcome.context
        if not (outcome.context.timers or outcome.context.outgoing):
            context = None  # not to be kept until the commit, of which there may be thousands
        resident: Resident = cell.resident
        answered = entry = None
        if resident.is_kept:
            if letter.flags & DELIVERY == EXACTLY_ONCE:
                answered = answer_of(letter, verdict)
            entry = entry_of(cell, letter, outcome, answered)
        if entry is None and not cell.uncommitted:
            self._follow_up(cell, letter, verdict, context)
            return
        self.commit(Pending(cell, entry, letter, verdict, context, answered))

    def _answer_for_a_ghost(self, letter: Letter) -> None:
        """Of a turn of an incarnation that is no more nobody knows; who can sends it again."""
        delivery = letter.flags & DELIVERY
        if delivery == AT_MOST_ONCE:
            error = DeliveryError(
                "the agent was taken elsewhere while it was at this call, which is sent at most "
                "once; whether it took effect is not known; look, and call again where it did not"
            )
            self.arrivals.answer(letter, REFUSED, error_payload(error))
        elif delivery != EXACTLY_ONCE:  # of these all copies were sent away
            letter.link.stuck[letter.key] = ELSEWHERE
            self.arrivals.answer(letter, ELSEWHERE, None)

    def _follow_up(
        self, cell: Cell, letter: Letter, verdict: Verdict, context: TurnContext | None
    ) -> None:
        """What follows on a turn that counts: its answer, its timers, what it sends."""
        self.inbox.answer(cell, letter, *verdict)
        if context is not None:
            self._arm(cell, context.timers)
            self._send_all(cell, context)

    async def committed(self, batch: Sequence[Pending], refused: Mapping[int, str]) -> None:
        """Answer turns that were committed; make agents anew whose turns were refused."""
        at = -1
        retaken: dict[str, None] = {}
        for pending in batch:
            reason = None
            if pending.entry is not None:
                at += 1
                reason = refused.get(at)
            cell, letter = pending.cell, pending.letter
            if self.inbox.cells.get(cell.key) is not cell:
                if letter is not None and reason is not None:
                    self._answer_for_a_ghost(letter)
                elif letter is not None and pending.verdict is not None:
                    self.inbox.answer(cell, letter, *pending.verdict)
            elif cell.key not in retaken and reason is None:
                self._committed(pending)
            else:
                if letter is not None:
                    self._refused(cell, letter, reason)
                retaken[cell.key] = None
        if retaken:
            await self._make_anew(retaken)

    def session_ended(self, session: str) -> None:
        """Forget everything, unless another session has begun since."""
        if session == self._session:
            self.forget_all()

    def _committed(self, pending: Pending) -> None:
        letter, verdict, cell = pending.letter, pending.verdict, pending.cell
        if letter is not None and verdict is not None:
            if pending.entry is not None and pending.answered is not None:
                self.inbox.record(cell, letter, pending.answered)
            self._follow_up(cell, letter, verdict, pending.context)
        if pending.then is not None:
            pending.then()

    def _refused(self, cell: Cell, letter: Letter, reason: str | None) -> None:
        if reason == "sender":
            error = SessionExpiredError(
                f"a message takes effect once as long as its sender's session lives; "
                f"{letter.sender} is not known to; open another, and call again"
            )
            self.inbox.undone(cell, letter, error_payload(error))
        else:
            self._answer_for_a_ghost(letter)

    async def not_committed(self, batch: Sequence[Pending], error: DspexError) -> None:
        """Undo turns that could not be committed: their agents are made again from what was."""
        keys: dict[str, None] = {}
        for pending in batch:
            cell, letter = pending.cell, pending.letter
            if letter is not None and self.inbox.cells.get(cell.key) is not cell:
                self._answer_for_a_ghost(letter)
            elif letter is not None and not letter.is_sent_until_done:
                # One that is comes again when the agent is forgotten.
                self.inbox.undone(cell, letter, error_payload(error))
            keys[cell.key] = None
        await self._make_anew(keys)

    async def _make_anew(self, keys: Mapping[str, None]) -> None:
        """What ran ahead of a turn that does not count does not count either."""
        for pending in chain(*[commits.drop(keys) for commits in self._commits]):
            if pending.letter is not None:
                self._answer_for_a_ghost(pending.letter)
        await self._retake(list(keys))

    def _send_all(self, cell: Cell, context: TurnContext) -> None:
        for each in context.outgoing:
            self._send_out(cell, each)

    def _send_out(self, cell: Cell, outgoing: Sequence[Any]) -> None:
        number, target, method, args, _ = outgoing

        def done(error: DspexError | None) -> None:
            if error is not None:
                self.runtime.dead_letter(cell.key, target, method, args, error)
            if number and self.inbox.cells.get(cell.key) is cell:
                entry = pack_turn({"a": cell.key, "i": cell.token, "k": [number]})
                self.commit(Pending(cell, entry))

        messages: Messages = self.runtime.messages
        sender = sender_of(cell.key) if number else ""
        messages.deliver(target, method, args, sender=sender, number=number, done=done)

    def _arm(self, cell: Cell, timers: Mapping[str, Timer | None]) -> None:
        for name, timer in timers.items():
            self.timers.arm(cell.key, name, timer)

    def _ring(self, key: str, name: str, timer: Timer) -> None:
        cell = self.inbox.cells.get(key)
        if cell is not None and cell.phase == READY:
            self.runtime.messages.tell(key, TIMER + name, b"")
