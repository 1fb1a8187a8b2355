"""The host of a worker's agents: what it was sent runs here, and what it changed is committed.

Knows: the inbox, residents, the ledger's way, threads and a loop. Must not know: Dask, what an
agent is for.

All that decides happens on one loop. Turns run in threads, those of coroutine methods on the loop.
The turns of a tick are committed as one entry; their answers leave when the ledger has it, and no
answer leaves when this host can no longer be sure of its lease. When its session has ended, the
host forgets everything: its agents live elsewhere by then, or will be given to it anew.
"""

from __future__ import annotations

import asyncio
import logging
import zlib
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple, Protocol, final

from dspex.cluster.agents.arrivals import Arrivals
from dspex.cluster.agents.pool import STUCK_AFTER, Pool
from dspex.cluster.agents.resident import (
    NO_CHANGES,
    Changes,
    Outcome,
    Resident,
    dumps,
    error_bytes,
    load_class,
    loads,
)
from dspex.cluster.agents.turns import Timer, TurnContext
from dspex.errors import (
    AgentFailedError,
    AgentNotFoundError,
    DeliveryError,
    DspexError,
    SessionExpiredError,
    UnavailableError,
)
from dspex.foundation.agents.dedup import Answered, Dedup
from dspex.foundation.agents.inbox import READY, Cell, Inbox, Letter
from dspex.foundation.agents.messages import (
    AT_MOST_ONCE,
    CANCEL,
    CAST,
    CONTROL,
    DELIVERY,
    DONE,
    ELSEWHERE,
    EXACTLY_ONCE,
    RAISED,
    REFUSED,
    Message,
)
from dspex.foundation.ledger.agents.population import sender_of
from dspex.foundation.ledger.wire import error_payload
from dspex.foundation.ports import Caller

__all__ = ["Host", "Messages"]

logger = logging.getLogger("dspex.agents")

TURNS_AT_ONCE = 5_000
BYTES_AT_ONCE = 4 * 2**20
LOADS_AT_ONCE = 1_000
MOVES_AT_ONCE = 500

REPORT_EVERY = 0.5

_HOLD = 20.0
"""Seconds for which the ledger may keep a host's question what is new: nothing is, mostly."""


class Messages(Protocol):
    """What the host needs of the way to other agents."""

    def deliver(
        self,
        target: str,
        method: str,
        args: bytes,
        *,
        sender: str,
        number: int,
        done: Callable[[DspexError | None], None],
    ) -> None:
        """Send a message of an agent exactly once; `done` hears when it has had its effect."""


class _Made(NamedTuple):
    """An agent that was made, but for a hook that is to be awaited."""

    resident: Resident
    context: TurnContext
    version: int
    hook: Awaitable[Any] | None
    changes: Changes


class _Pending:
    """A turn whose commit is under way."""

    __slots__ = ("cell", "entry", "letter", "outcome", "settled", "then")

    def __init__(
        self,
        cell: Cell,
        entry: Mapping[str, Any] | None,
        letter: Letter | None,
        outcome: Outcome | None,
        then: Callable[[], None] | None = None,
    ) -> None:
        self.cell = cell
        self.entry = entry
        self.letter = letter
        self.outcome = outcome
        self.then = then
        self.settled: asyncio.Future[None] | None = None

    def settle(self) -> None:
        """Tell who waits that it was committed, or will never be."""
        if self.settled is not None and not self.settled.done():
            self.settled.set_result(None)


@final
class Host:
    """Hosts agents for one member.

    Parameters
    ----------
    caller : Caller
        The member's session.
    address : str
    threads : int
        For turns that may block.
    """

    def __init__(self, caller: Caller, address: str, *, threads: int) -> None:
        self._caller = caller
        self.address = address
        self._pool = Pool(threads)
        self.arrivals = Arrivals(self._accept, self._flush_runnable, self._may_answer)
        self.inbox = Inbox(self.arrivals.answer)
        self.runtime: Any = None  # through which turns reach others; given by whoever runs us
        self._classes: dict[str, type] = {}
        self._runnable: dict[str, Cell] = {}
        self._done: list[tuple[Cell, Any, Any]] = []  # filled by threads
        self._is_drain_due = False
        self._watching = False
        self._pending: list[_Pending] = []
        self._committing: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._timers: dict[tuple[str, str], asyncio.TimerHandle] = {}
        self._session = ""
        self._loop: asyncio.AbstractEventLoop
        self._following: asyncio.Task[None] | None = None
        self._closed = False
        self.turns = 0

    # --- life --------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to follow what the ledger places here."""
        self._loop = asyncio.get_running_loop()
        self._following = self._spawn(self._follow())
        self._spawn(self._report())

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self) -> None:
        """Run nothing any more; what is placed here is made elsewhere."""
        self._closed = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._forget_all()
        self._pool.close()

    def _may_answer(self) -> bool:
        return not self._closed and self._caller.now() < self._caller.lease_ends()

    def joined(self) -> None:
        """Begin anew as another incarnation of the member: what was here lives elsewhere."""
        if self._session not in ("", self._caller.session):
            self._forget_all()
        self._session = self._caller.session
        # The feed tells nothing of what was placed between the join and its first answer.
        if self._following is not None:
            self._spawn(self._look())

    def _forget_all(self) -> None:
        for handle in self._timers.values():
            handle.cancel()
        self._timers.clear()
        for pending in self._pending:
            pending.settle()
        self._pending.clear()
        self._runnable.clear()
        for key in list(self.inbox.cells):
            self.inbox.drop(key)
        self.arrivals.reset()

    # --- what is placed here -----------------------------------------------------------------

    async def _follow(self) -> None:
        async for event in self._caller.follow_events({f"host {self.address}"}, hold=_HOLD):
            try:
                await self._heard(event)
            except DspexError as error:
                logger.warning("host %s: %s", self.address, error)
                self._spawn(self._look_later())

    async def _look_later(self) -> None:
        await asyncio.sleep(0.2)
        with suppress(DspexError):
            await self._look()

    async def _heard(self, event: tuple[Any, ...]) -> None:
        if event[0] == "reset":
            await self._look()
        elif event[0] == "placed":
            _, _, status, _, (term, n), keys = event
            if status == "starting":
                await self._take([(key, (term, n)) for key in keys])
        elif event[0] == "moving":
            self._spawn(self._let_go(event[3]))
        elif event[0] == "ended":
            for key in event[3]:
                self._end(key)

    async def _look(self) -> None:
        """Compare what is here with what should be."""
        placed = {
            key: ((term, n), status)
            for key, (term, n), status in await self._caller.read("agents.at_host")
        }
        for key, cell in list(self.inbox.cells.items()):
            if key not in placed or placed[key][0] > cell.token:
                self._end(key)
        await self._take([(key, token) for key, (token, _) in placed.items()])
        await self._let_go([key for key, (_, status) in placed.items() if status == "moving"])

    async def _take(self, placed: Sequence[tuple[str, tuple[int, int]]]) -> None:
        """Make agents that are not here yet, as these incarnations."""
        new = []
        for key, token in placed:
            cell = self.inbox.cells.get(key)
            if cell is None or cell.token < token:
                self._cancel_timers(key)
                self.inbox.add(key, token, limit=10_000)
                new.append(key)
        for at in range(0, len(new), LOADS_AT_ONCE):
            some = new[at : at + LOADS_AT_ONCE]
            try:
                await self._load(some)
            except DspexError:
                for key in some:  # to be found missing, and taken again
                    self._end(key)
                raise

    async def _load(self, keys: Sequence[str]) -> None:
        parcels = await self._caller.read("agents.load", keys=keys)
        failures: list[Any] = []
        for key, parcel in zip(keys, parcels, strict=True):
            cell = self.inbox.cells.get(key)
            if parcel is None or cell is None or tuple(parcel["token"]) != cell.token:
                if parcel is None:
                    self._end(key)
                continue
            try:
                cls = await self._class(parcel["spec"]["class"])
            except Exception as error:
                failures.append(_failure(cell, error))
            else:
                self._pool.submit(partial(self._make_in_thread, cell, cls, parcel))
        self._watch_pool()
        if failures:
            await self._fail(failures)

    async def _class(self, digest: str) -> type:
        cls = self._classes.get(digest)
        if cls is None:
            code = await self._caller.read("agents.code", digest=digest)
            if code is None:
                raise AgentFailedError("the class of an agent is not in the ledger (any more)")
            cls = self._classes[digest] = load_class(code)
        return cls

    def _make_in_thread(self, cell: Cell, cls: type, parcel: Mapping[str, Any]) -> None:
        try:
            made: _Made | Exception = self._make(cell, cls, parcel)
        except Exception as error:
            made = error
        self._done.append((cell, parcel, made))
        self._wake()

    def _make(self, cell: Cell, cls: type, parcel: Mapping[str, Any]) -> _Made:
        spec = parcel["spec"]
        cell.limit = spec["mailbox"]
        resident = Resident(cls, is_kept=spec["persistence"] is not None)
        resident.sent = parcel["sent"]
        context = self._context(cell.key, resident, None)
        version = int(getattr(cls, "version", 0) or 0)
        packed = parcel["parcel"]
        if parcel["started"] and (resident.is_kept or packed):
            kept = parcel["state"] or {}
            if packed:
                kept = {**kept, **loads(packed)}
            hook = resident.restore(parcel["args"], kept, context, version)
        else:
            hook = resident.make(parcel["args"], context)
        if asyncio.iscoroutine(hook):
            return _Made(resident, context, version, hook, NO_CHANGES)
        return _Made(resident, context, version, None, resident.first_changes(context, version))

    async def _begin_later(self, cell: Cell, parcel: Mapping[str, Any], made: _Made) -> None:
        async def wait() -> None:
            assert made.hook is not None
            await made.hook

        try:
            await made.context.call_async(wait)
            changes = made.resident.first_changes(made.context, made.version)
        except Exception as error:
            with suppress(DspexError):
                await self._fail([_failure(cell, error)])
        else:
            self._begin(cell, parcel, made._replace(changes=changes))

    def _was_made(self, cell: Cell, parcel: Mapping[str, Any], made: _Made | Exception) -> None:
        if self.inbox.cells.get(cell.key) is not cell:
            return
        if isinstance(made, Exception):
            self._spawn(self._fail([_failure(cell, made)]))
        elif made.hook is not None:
            self._spawn(self._begin_later(cell, parcel, made))
        else:
            self._begin(cell, parcel, made)

    def _begin(self, cell: Cell, parcel: Mapping[str, Any], made: _Made) -> None:
        """Commit what it is when it begins; it runs after that."""
        resident, context, changes = made.resident, made.context, made.changes
        cell.resident = resident
        entry = self._entry(cell, resident, context, changes.changed, changes.deleted)
        entry["t"] = 1

        def then() -> None:
            dedup = None if parcel["dedup"] is None else Dedup.from_rows(parcel["dedup"])
            self.inbox.ready(cell, dedup)
            for each in parcel["outbox"] or ():
                self._send_out(cell, each)
            self._arm(cell, context.timers | dict(resident.timers or {}))
            self._send_all(cell, context)
            self._may_run(cell)
            self._flush_runnable()

        self._commit(_Pending(cell, entry, None, None, then))

    async def _fail(self, failures: Sequence[Any]) -> None:
        for key, _, payload, _ in failures:
            cell = self.inbox.cells.get(key)
            for letter in tuple(cell.mailbox or ()) if cell is not None else ():
                self.arrivals.answer(letter.ticket, REFUSED, payload)
            if cell is not None:
                cell.mailbox = None
            self._end(key)
        await self._caller.write("agents.fail", failures=failures)

    def _end(self, key: str) -> None:
        self._cancel_timers(key)
        self.inbox.drop(key)
        self._runnable.pop(key, None)

    # --- messages ----------------------------------------------------------------------------

    def _accept(self, message: Message, ticket: Any) -> None:
        if message.flags & CANCEL:
            self._withdraw(message, ticket)
            return
        cell = self.inbox.accept(message, ticket, self._caller.now())
        if cell is not None:
            self._may_run(cell)

    def _withdraw(self, message: Message, ticket: Any) -> None:
        cell = self.inbox.cells.get(message.key)
        is_there = cell is not None and self.inbox.withdraw(
            cell,
            lambda letter: (
                letter.message.mid == message.number and letter.ticket.link is ticket.link
            ),
        )
        self.arrivals.answer(ticket, DONE, dumps(is_there))

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
            letters = self.inbox.take(cell, now)
            if letters:
                self._run(cell, letters)
        self._watch_pool()

    def _watch_pool(self) -> None:
        if not self._watching:
            self._watching = True
            self._loop.call_later(STUCK_AFTER, self._watch)

    def _watch(self) -> None:
        self._watching = self._pool.watch()
        if self._watching:
            self._loop.call_later(STUCK_AFTER, self._watch)

    def _run(self, cell: Cell, letters: Sequence[Letter]) -> None:
        resident: Resident = cell.resident
        for at, letter in enumerate(letters):
            if letter.message.flags & CONTROL or resident.is_async(letter.message.method):
                # Those before it run first, those behind it after it.
                if at:
                    self.inbox.put_back(cell, list(letters[at:]))
                    letters = letters[:at]
                    break
                self.inbox.put_back(cell, list(letters[1:]))
                self._spawn(self._run_async(cell, letter))
                return
        self._pool.submit(lambda: self._run_in_thread(cell, letters))

    def _context(
        self, key: str, resident: Resident, deadline: float | None, sender: str = ""
    ) -> TurnContext:
        return TurnContext(key, self.runtime, resident.sent, deadline, sender)

    def _run_in_thread(self, cell: Cell, letters: Sequence[Letter]) -> None:
        resident: Resident = cell.resident
        for letter in letters:
            message = letter.message
            context = self._context(cell.key, resident, letter.deadline, message.sender)
            outcome = resident.run(message.method, message.args, context)
            resident.sent = context.sent
            self._done.append((cell, letter, outcome))
            self._wake()
        self._loop.call_soon_threadsafe(self._finished, cell)

    async def _run_async(self, cell: Cell, letter: Letter) -> None:
        message = letter.message
        if message.flags & CONTROL:
            await self._control(cell, letter)
        else:
            resident: Resident = cell.resident
            context = self._context(cell.key, resident, letter.deadline, message.sender)
            outcome = await resident.run_async(message.method, message.args, context)
            resident.sent = context.sent
            self._take_outcome(cell, letter, outcome)
        self._finished(cell)

    def _wake(self) -> None:
        if not self._is_drain_due:
            self._is_drain_due = True
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._drain)

    def _drain(self) -> None:
        self._is_drain_due = False
        done, self._done = self._done, []
        for cell, about, outcome in done:
            if isinstance(outcome, Outcome):
                self._take_outcome(cell, about, outcome)
            else:
                self._was_made(cell, about, outcome)

    def _finished(self, cell: Cell) -> None:
        self._drain()
        cell.is_busy = False
        self._may_run(cell)
        self._flush_runnable()

    # --- turns and their commit --------------------------------------------------------------

    def _entry(
        self,
        cell: Cell,
        resident: Resident,
        context: TurnContext,
        changed: Mapping[str, bytes],
        deleted: Sequence[str],
    ) -> dict[str, Any]:
        entry: dict[str, Any] = {"a": cell.key, "i": cell.token}
        if changed:
            entry["s"] = changed
        if deleted:
            entry["d"] = deleted
        if resident.is_kept and context.outgoing:
            entry["o"] = context.outgoing
        if resident.is_kept and context.sent > context.base:
            entry["n"] = context.sent
        return entry

    def _take_outcome(self, cell: Cell, letter: Letter, outcome: Outcome) -> None:
        self.turns += 1
        message = letter.message
        if self.inbox.cells.get(cell.key) is not cell:
            self._answer_for_a_ghost(letter)
            return
        resident: Resident = cell.resident
        context = outcome.context
        entry = None
        if resident.is_kept:
            changed, deleted = outcome.changes
            if changed or deleted or context.sent > context.base:
                entry = self._entry(cell, resident, context, changed, deleted)
                if message.flags & DELIVERY == EXACTLY_ONCE:
                    payload = None if message.flags & CAST else outcome.payload
                    entry["r"] = (
                        message.sender,
                        message.number,
                        message.below,
                        outcome.is_ok,
                        payload,
                        zlib.crc32(message.args, zlib.crc32(message.method.encode())),
                    )
        if entry is None and not cell.uncommitted:
            self._tell(cell, letter, outcome)
            self._arm(cell, context.timers)
            self._send_all(cell, context)
            return
        self._commit(_Pending(cell, entry, letter, outcome))

    def _answer_for_a_ghost(self, letter: Letter) -> None:
        """Of a turn of an incarnation that is no more nobody knows; who can sends it again."""
        delivery = letter.message.flags & DELIVERY
        if delivery == AT_MOST_ONCE:
            error = DeliveryError(
                "the agent was taken elsewhere while it was at this call, which is sent at most "
                "once; whether it took effect is not known; look, and call again where it did not"
            )
            self.arrivals.answer(letter.ticket, REFUSED, error_payload(error))
        elif delivery != EXACTLY_ONCE:  # of these all tickets were sent away
            letter.ticket.stuck[letter.message.key] = ELSEWHERE
            self.arrivals.answer(letter.ticket, ELSEWHERE, None)

    def _tell(self, cell: Cell, letter: Letter, outcome: Outcome) -> None:
        status = DONE if outcome.is_ok else RAISED
        self.inbox.answer(cell, letter, status, outcome.payload)

    def _commit(self, pending: _Pending) -> None:
        pending.cell.uncommitted += 1
        self._pending.append(pending)
        if self._committing is None:
            self._committing = self._spawn(self._commit_all())

    async def _commit_all(self) -> None:
        """Commit what there is, as long as there is some: while one is under way others gather."""
        try:
            while self._pending:
                # Those that are run in this turn of the loop go along.
                await asyncio.sleep(0)
                batch = self._batch()
                try:
                    await self._commit_batch(batch)
                finally:
                    for pending in batch:
                        pending.settle()
        finally:
            self._committing = None

    def _batch(self) -> list[_Pending]:
        size = 0
        for at, pending in enumerate(self._pending):
            if pending.entry is not None:
                size += sum(map(len, pending.entry.get("s", {}).values())) + 200
            if size > BYTES_AT_ONCE or at >= TURNS_AT_ONCE:
                batch, self._pending = self._pending[:at], self._pending[at:]
                if batch:
                    return batch
                batch, self._pending = self._pending[:1], self._pending[1:]
                return batch
        batch, self._pending = self._pending, []
        return batch

    async def _commit_batch(self, batch: Sequence[_Pending]) -> None:
        entries = [pending.entry for pending in batch if pending.entry is not None]
        session = self._caller.session
        refused: dict[int, str] = {}
        try:
            if entries:
                refused = dict(await self._caller.write("agents.commit", turns=entries))
        except SessionExpiredError:
            if session == self._session:
                self._forget_all()
            return
        except DspexError as error:
            await self._take_back(batch, error)
            return
        at = -1
        retaken: dict[str, None] = {}
        for pending in batch:
            reason = None
            if pending.entry is not None:
                at += 1
                reason = refused.get(at)
            pending.cell.uncommitted -= 1
            if self.inbox.cells.get(pending.cell.key) is not pending.cell:
                if pending.letter is not None and reason is not None:
                    self._answer_for_a_ghost(pending.letter)
                elif pending.letter is not None and pending.outcome is not None:
                    self._tell(pending.cell, pending.letter, pending.outcome)
                continue
            if pending.cell.key in retaken:
                continue
            if reason is None:
                self._committed(pending)
            else:
                self._refused(pending, reason)
                retaken[pending.cell.key] = None
        if retaken:
            await self._retake(list(retaken))

    def _committed(self, pending: _Pending) -> None:
        letter, outcome, cell = pending.letter, pending.outcome, pending.cell
        if letter is not None and outcome is not None:
            entry = pending.entry
            if entry is not None and "r" in entry:
                _, _, _, is_ok, payload, fingerprint = entry["r"]
                answered = Answered(is_ok, payload, fingerprint)
                self.inbox.record(cell, letter.message, answered)
            self._tell(cell, letter, outcome)
            self._arm(cell, outcome.context.timers)
            self._send_all(cell, outcome.context)
        if pending.then is not None:
            pending.then()

    def _refused(self, pending: _Pending, reason: str) -> None:
        letter = pending.letter
        if letter is not None and reason == "sender":
            error = SessionExpiredError(
                f"a message takes effect once as long as its sender's session lives; "
                f"{letter.message.sender} is not known to; open another, and call again"
            )
            self.inbox.answer(pending.cell, letter, REFUSED, error_payload(error))

    async def _take_back(self, batch: Sequence[_Pending], error: DspexError) -> None:
        """What could not be committed is undone: its agents are made again from what was."""
        keys: dict[str, None] = {}
        for pending in batch:
            pending.cell.uncommitted -= 1
            if pending.letter is not None:
                self.inbox.answer(pending.cell, pending.letter, REFUSED, error_payload(error))
            keys[pending.cell.key] = None
        self._pending = [each for each in self._pending if each.cell.key not in keys]
        await self._retake(list(keys))

    async def _retake(self, keys: Sequence[str]) -> None:
        for key in keys:
            cell = self.inbox.cells.get(key)
            if cell is not None:
                self._end(key)
        with suppress(DspexError):
            await self._caller.write("agents.retake", keys=list(keys))

    # --- what agents send --------------------------------------------------------------------

    def _send_all(self, cell: Cell, context: TurnContext) -> None:
        for each in context.outgoing:
            self._send_out(cell, each)

    def _send_out(self, cell: Cell, outgoing: Sequence[Any]) -> None:
        number, target, method, args, _ = outgoing

        def done(error: DspexError | None) -> None:
            if error is not None:
                self.runtime.dead_letter(cell.key, target, method, args, error)
            resident: Resident = cell.resident
            if resident.is_kept and self.inbox.cells.get(cell.key) is cell:
                entry = {"a": cell.key, "i": cell.token, "k": [number]}
                self._commit(_Pending(cell, entry, None, None))

        messages: Messages = self.runtime.messages
        messages.deliver(target, method, args, sender=sender_of(cell.key), number=number, done=done)

    # --- timers ------------------------------------------------------------------------------

    def _arm(self, cell: Cell, timers: Mapping[str, Timer | None]) -> None:
        for name, timer in timers.items():
            former = self._timers.pop((cell.key, name), None)
            if former is not None:
                former.cancel()
            if timer is not None:
                self._timers[cell.key, name] = self._loop.call_later(
                    timer.seconds, self._ring, cell, name, timer
                )

    def _cancel_timers(self, key: str) -> None:
        for each in [each for each in self._timers if each[0] == key]:
            self._timers.pop(each).cancel()

    def _ring(self, cell: Cell, name: str, timer: Timer) -> None:
        del self._timers[cell.key, name]
        if self.inbox.cells.get(cell.key) is not cell or cell.phase != READY:
            return
        if timer.repeats:
            self._arm(cell, {name: timer})
        self.runtime.messages.tell(cell.key, timer.method, timer.args)

    # --- moves, ends, control ----------------------------------------------------------------

    async def _let_go(self, keys: Sequence[str]) -> None:
        """Let agents go, some at a time: the others serve on meanwhile."""
        for at in range(0, len(keys), MOVES_AT_ONCE):
            cells = [
                cell
                for key in keys[at : at + MOVES_AT_ONCE]
                if (cell := self.inbox.cells.get(key)) is not None and cell.phase == READY
            ]
            for cell in cells:
                self._cancel_timers(cell.key)
                self.inbox.leave(cell)
            await asyncio.gather(*[self._hand_over(cell) for cell in cells])

    async def emptied(self) -> None:
        """Wait until no agent lives here any more."""
        while self.inbox.cells:
            await asyncio.sleep(0.005)

    async def _hand_over(self, cell: Cell) -> None:
        while cell.is_busy:
            await asyncio.sleep(0.001)
        resident: Resident = cell.resident
        parcel = None
        if not resident.is_kept:
            try:
                parcel = dumps(resident.parcel())
            except Exception as error:
                logger.warning(
                    "the agent %s has no persistence and cannot be pickled (%r); it begins afresh "
                    "on its next worker",
                    cell.key,
                    error,
                )
        entry = {"a": cell.key, "i": cell.token, "m": parcel}
        await self._commit_and_wait(_Pending(cell, entry, None, None))
        if self.inbox.cells.get(cell.key) is cell:  # it may have come back already
            self._end(cell.key)

    async def _commit_and_wait(self, pending: _Pending) -> None:
        pending.settled = self._loop.create_future()
        self._commit(pending)
        await pending.settled

    async def _control(self, cell: Cell, letter: Letter) -> None:
        """Do what a handle asks of the host, in the agent's turn."""
        resident: Resident = cell.resident
        method = letter.message.method
        try:
            if method == "state":
                self._reply(cell, letter, resident.snapshot())
            elif method == "status":
                self._reply(cell, letter, {"waiting": cell.waiting, "incarnation": cell.token})
            elif method == "checkpoint":
                self._reply(cell, letter, cell.token)
            elif method == "stop":
                await self._stop(cell, letter)
            else:
                raise AgentNotFoundError(f"agents know no {method!r}")
        except Exception as error:
            self.inbox.answer(cell, letter, RAISED, error_bytes(error))

    def _reply(self, cell: Cell, letter: Letter, value: Any) -> None:
        context = self._context(cell.key, cell.resident, None)
        outcome = Outcome(True, dumps(value), NO_CHANGES, context)
        if cell.uncommitted:
            self._commit(_Pending(cell, None, letter, outcome))
        else:
            self._tell(cell, letter, outcome)

    async def _stop(self, cell: Cell, letter: Letter) -> None:
        resident: Resident = cell.resident
        context = self._context(cell.key, resident, None)
        hook = getattr(resident.object, "on_stop", None)
        if hook is not None:
            result = context.call(hook)
            if asyncio.iscoroutine(result):

                async def wait() -> None:
                    await result

                await context.call_async(wait)
        entry = {"a": cell.key, "i": cell.token, "e": 1}
        outcome = Outcome(True, dumps(True), NO_CHANGES, context)

        def then() -> None:
            if self.inbox.cells.get(cell.key) is cell:
                self._end(cell.key)

        self._commit(_Pending(cell, entry, letter, outcome, then))

    # --- reports -----------------------------------------------------------------------------

    async def _report(self) -> None:
        told: dict[str, int] = {}
        while True:
            await asyncio.sleep(REPORT_EVERY)
            loads_now = dict(self.inbox.loads())
            if loads_now != told:
                with suppress(DspexError, UnavailableError):
                    await self._caller.read("agents.report", loads=loads_now)
                    told = loads_now

    def status(self) -> dict[str, Any]:
        """Numbers for people."""
        return {
            "address": self.address,
            "agents": len(self.inbox.cells),
            "waiting": sum(count for _, count in self.inbox.loads()),
            "turns": self.turns,
        }


def _failure(cell: Cell, error: BaseException) -> tuple[str, Any, Any, str]:
    if isinstance(error, DspexError):
        payload = error_payload(error)
    else:
        payload = error_payload(
            AgentFailedError(
                f"an agent is made on its worker; {cell.key.partition(':')[2]!r} could not be: "
                f"{type(error).__name__}: {error}"
            )
        )
    logger.warning("the agent %s could not be made", cell.key, exc_info=error)
    return (cell.key, cell.token, payload, f"it could not be made: {error}")
