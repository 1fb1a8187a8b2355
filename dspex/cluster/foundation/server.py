"""The ring around the ledger: bytes come in, entries go to the journal, bytes go out.

Knows: the ledger, a journal, a clock, an asyncio loop. Must not know: Dask, who calls.

One loop handles every call in the order of arrival: that is the order of the cluster. Replies
leave when what they depend on is committed. The journal is used by one thread.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, final

from dspex.cluster.foundation.blobs import Blobs
from dspex.cluster.foundation.commits import Commits
from dspex.cluster.foundation.polls import Polls
from dspex.errors import (
    DspexError,
    FoundationError,
    InvalidRequestError,
    JournalCorruptError,
    UnavailableError,
)
from dspex.foundation.audit import AuditLine, audit_lines
from dspex.foundation.ledger.agents.record import refuse_memory
from dspex.foundation.ledger.events import Event
from dspex.foundation.ledger.ledger import Ledger, Step
from dspex.foundation.ledger.ops import OPS, checked
from dspex.foundation.ledger.sessions import TICK
from dspex.foundation.ledger.wire import (
    DONE,
    FAILED,
    PENDING,
    Answer,
    Call,
    Request,
    decode_entry,
    decode_request,
    encode_answer,
    encode_entry,
    error_payload,
)
from dspex.foundation.ports import Journal

__all__ = ["LedgerServer"]

logger = logging.getLogger("dspex.foundation")

SNAPSHOT_AFTER = 4 * 2**20
"""Bytes of entries after which a snapshot is made, or twice the last snapshot's, if more."""

SWEEP_AFTER = 256 * 2**20
"""Bytes of large values after which those that nobody names are dropped."""

SNAPSHOT_CHUNK = 2_000
"""Events in a chunk of a snapshot."""

AUDIT_LINES = 10_000


@final
class LedgerServer:
    """Runs a ledger.

    Parameters
    ----------
    journal : Journal
        Opened by `start`.
    clock : callable
        Monotonic seconds.
    guard : callable, optional
        Called with the op and the arguments of each call; raises what stands against it.
    extend : callable, optional
        May add to a reply what only the surroundings know: (op, reply) -> reply.
    """

    def __init__(
        self,
        journal: Journal,
        *,
        clock: Callable[[], float] = time.monotonic,
        guard: Callable[[str, Mapping[str, Any]], None] = lambda op, args: None,
        extend: Callable[[str, Any], Any] = lambda op, reply: reply,
    ) -> None:
        self.journal = journal
        self._clock = clock
        self._guard = guard
        self._extend = extend
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="dspex-journal")
        self._ticker: asyncio.Task[None] | None = None
        self._closed = False
        self._uncommitted: deque[tuple[int, float, list[Event]]] = deque()
        self._snapshot_bytes = self._tail_bytes = 0
        self._compacting: asyncio.Task[None] | None = None
        self.audit: deque[AuditLine] = deque(maxlen=AUDIT_LINES)
        self.calls: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.loop_seconds = 0.0
        self.recovery_seconds = 0.0
        self.ledger: Ledger
        self.commits: Commits
        self.polls: Polls
        self.blobs: Blobs

    # --- life ------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open the journal, recover, begin.

        Raises
        ------
        JournalError
        """
        began = time.perf_counter()
        loop = asyncio.get_running_loop()
        term = await loop.run_in_executor(self._thread, self.journal.open)
        self.ledger = Ledger(term=term)
        await loop.run_in_executor(self._thread, self._recover)
        self.commits = Commits(self.journal, self.ledger.revision, self._committed, self._thread)
        self.commits.bytes_since_snapshot = self._tail_bytes
        self.polls = Polls(self.ledger, self.commits, self.journal.identity, self._clock)
        self.blobs = Blobs(self.journal, self._thread)
        self.commits.start()
        self._take(self.ledger.recovered(self._clock()))
        self._ticker = asyncio.create_task(self._tick(), name="dspex-ticks")
        self.recovery_seconds = time.perf_counter() - began
        logger.info(
            "foundation: term %d of journal %s, revision %d, %d entries, recovered in %.2f s",
            term,
            self.journal.url,
            self.ledger.revision,
            self.ledger.records.count,
            self.recovery_seconds,
        )

    def _recover(self) -> None:
        """Fold the journal; nothing else uses the ledger yet."""
        loaded = self.journal.load()
        for chunk in loaded.snapshot:
            self._replay(loaded.upto, chunk, "the snapshot up to")
            self._snapshot_bytes += len(chunk)
        for number, entry in loaded.entries:
            self._replay(number, entry, "entry")
            self._tail_bytes += len(entry)

    def _replay(self, number: int, entry: bytes, what: str) -> None:
        try:
            _, events = decode_entry(entry)
            self.ledger.replay(number, events, self._clock())
        except Exception as error:
            raise JournalCorruptError(
                f"{what} {number:,} of the journal {self.journal.url} is whole, and nothing that "
                f"this version of dspex understands ({error!r}); use the version that wrote it, "
                "or another journal"
            ) from error

    async def close(self) -> None:
        """Write what is queued and let the journal go; may be called twice, and after no start."""
        if self._closed:
            return
        self._closed = True
        tasks = [task for task in (self._ticker, self._compacting) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if hasattr(self, "commits"):
            await self.commits.close()
            self.polls.close()
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self.journal.close)
        finally:
            self._thread.shutdown(wait=False)

    # --- requests --------------------------------------------------------------------------

    async def handle(self, blob: object) -> bytes:
        """Answer a request; whatever is not one is answered too, with an error.

        Nothing (b"") is the answer where nothing will be kept any more: ask the next scheduler.
        """
        if self._closed:
            return b""
        started = time.perf_counter()
        try:
            request = decode_request(blob)
        except InvalidRequestError as error:
            self.refused["message"] += 1
            return self._answer([(FAILED, error_payload(error))])
        if len(request.calls) == 1 and request.calls[0].op in _SLOW:
            return await self._handle_slow(request.session, request.calls[0])
        replies: list[tuple[int, Any]] = []
        depends = 0
        for call in request.calls:
            status, payload, needed = self._perform(request, call)
            replies.append((status, payload))
            depends = max(depends, needed)
        self.loop_seconds += time.perf_counter() - started
        if depends > self.commits.committed:
            try:
                await self.commits.reach(depends)
            except UnavailableError as error:
                return self._answer([(FAILED, error_payload(error))] * len(replies))
        return self._answer(replies)

    def _perform(self, request: Request, call: Call) -> tuple[int, Any, int]:
        self._count(call.op)
        try:
            self._check(request.session, call)
            if call.op in ("status", "audit"):
                args = checked(call.op, call.number, call.args)
                reply = self.status() if call.op == "status" else self._audit(args["limit"])
                return DONE, self._extend(call.op, reply), 0
            self._guard(call.op, call.args)
        except DspexError as error:
            return FAILED, error_payload(error), 0
        try:
            step = self.ledger.handle(
                request.session,
                request.acked_below,
                call,
                now=self._clock(),
                parked=request.parked,
            )
        except Exception as error:
            return FAILED, error_payload(self._broken(call.op, error)), self.ledger.revision
        self._take(step)
        if step.is_pending:
            return PENDING, None, 0
        if isinstance(step.reply, DspexError):
            self.refused[type(step.reply).__name__] += 1
            return FAILED, error_payload(step.reply), step.depends
        if call.op == "session.open":
            return DONE, {**step.reply, "journal": self._facts()}, step.depends
        return DONE, self._extend(call.op, step.reply), step.depends

    def _check(self, session: str, call: Call) -> None:
        """Raise UnavailableError for what this scheduler cannot answer for now."""
        if call.number is not None:
            # What was performed before is not refused: it has changed something.
            if self.ledger.sessions.stored(session, call.number) is None:
                try:
                    self.commits.check()
                except UnavailableError:
                    if not self._is_in_memory(call):
                        raise
                if call.op == "agents.create" and not self.journal.durable:
                    refuse_memory(
                        checked(call.op, call.number, call.args)["spec"], self.journal.url
                    )
        else:
            self._check_owner()

    def _is_in_memory(self, call: Call) -> bool:
        """Whether it needs no journal: turns of agents that it does not keep."""
        return (
            call.op == "agents.commit"
            and self.commits.fenced is None
            and not self.ledger.agents.is_any_durable(call.args.get("turns"))
        )

    def _check_owner(self) -> None:
        if not self.journal.owns():
            raise UnavailableError(
                f"this scheduler does not own the journal {self.journal.url} now, so its "
                "answer could be old; connect to the scheduler that does"
            )

    def _count(self, op: str) -> None:
        self.calls[op if op in OPS else "unknown"] += 1

    def _broken(self, what: str, error: Exception) -> FoundationError:
        """An error of ours: what happened before it is kept, as it is part of the state now."""
        logger.exception("%s failed in the ledger", what)
        self._take(self.ledger.interrupted())
        return FoundationError(
            f"{what} failed on the scheduler, by an error of dspex: {error!r}; see its log"
        )

    def _answer(self, replies: Sequence[tuple[int, Any]]) -> bytes:
        return encode_answer(
            Answer(self.ledger.term, self.journal.identity, self.polls.feed.revision, replies)
        )

    def _take(self, step: Step) -> None:
        if not step.events:
            return
        moment = time.time()
        self._uncommitted.append((step.revision, moment, step.events))
        self.commits.append(step.revision, encode_entry(moment, step.events))

    def take(self, decide: Callable[[float], Step]) -> None:
        """Have something happen that no request says."""
        if self._closed or self.commits.fenced is not None:
            return
        try:
            self._take(decide(self._clock()))
        except DspexError:
            raise
        except Exception as error:
            self._broken("a step of its own", error)

    def _committed(self, number: int) -> None:
        while self._uncommitted and self._uncommitted[0][0] <= number:
            revision, moment, events = self._uncommitted.popleft()
            self.audit.extend(audit_lines(moment, revision, events))
            self.polls.committed(revision, events)
        self._compact_where_due()

    # --- ticks, snapshots ------------------------------------------------------------------

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            self.take(self.ledger.tick)
            self.blobs.tidy()

    def _compact_where_due(self) -> None:
        due = max(SNAPSHOT_AFTER, 2 * self._snapshot_bytes)
        is_due = self.journal.durable and self.commits.bytes_since_snapshot >= due
        if not is_due and self.blobs.bytes_since_sweep < SWEEP_AFTER:
            return
        if self._compacting is not None and not self._compacting.done():
            return
        self.commits.bytes_since_snapshot = self.blobs.bytes_since_sweep = 0
        self._compacting = asyncio.create_task(
            self._compact(self.ledger.revision, self.ledger.dump(), self.ledger.records.blobs()),
            name="dspex-snapshot",
        )

    async def _compact(self, upto: int, events: Iterator[Event], named: Collection[str]) -> None:
        sizes = []

        def chunks() -> Iterator[bytes]:
            for chunk in _chunked(events, SNAPSHOT_CHUNK):
                encoded = encode_entry(0.0, chunk)
                sizes.append(len(encoded))
                yield encoded

        def compact(spared: Collection[str] | None) -> None:
            if self.journal.durable:
                self.journal.compact(upto, chunks())
            if spared is not None:
                self.journal.keep_blobs(spared)

        try:
            # The state was ahead of the journal; a snapshot must not be.
            await self.commits.reach(upto)
            # Only now, with what came in meanwhile.
            spared = self.blobs.spared(named)
            await asyncio.get_running_loop().run_in_executor(self._thread, compact, spared)
            self._snapshot_bytes = sum(sizes)
        except Exception as error:
            logger.error("no snapshot of journal %s: %s", self.journal.url, error)

    # --- what takes long -------------------------------------------------------------------

    async def _handle_slow(self, session: str, call: Call) -> bytes:
        self._count(call.op)
        try:
            reply = await self._slow(session, call.op, checked(call.op, call.number, call.args))
        except DspexError as error:
            return self._answer([(FAILED, error_payload(error))])
        return self._answer([(DONE, reply)])

    async def _slow(self, session: str, op: str, args: Mapping[str, Any]) -> Any:
        if op == "blob.read":
            return await self.blobs.read(**args)
        if op == "blob.write":
            self.commits.check()
            return await self.blobs.write(session, **args)
        polled = await self.polls.poll(session, args)
        self._check_owner()  # or there could be news elsewhere
        return polled

    # --- what people see -------------------------------------------------------------------

    def _audit(self, limit: int) -> list[AuditLine]:
        return list(self.audit)[-limit:] if limit > 0 else []

    def _facts(self) -> dict[str, Any]:
        """What a client knows of the journal."""
        return {
            "url": self.journal.url,
            "durable": self.journal.durable,
            "copies": self.journal.copies,
            "identity": self.journal.identity,
        }

    def _trouble(self) -> str:
        """Why nothing can be changed now, or read for certain; empty where it can."""
        trouble = self.commits.fenced or self.commits.trouble
        if trouble is None and not self.journal.owns():
            return "it has another owner, or cannot tell"
        return str(trouble or "")

    def status(self) -> dict[str, Any]:
        """Numbers for people and for monitors, plain data."""
        ledger, commits = self.ledger, self.commits
        return {
            "term": ledger.term,
            "revision": ledger.revision,
            "committed": commits.committed,
            "journal": {
                **self._facts(),
                "trouble": self._trouble(),
                "batches": commits.batches,
                "seconds": commits.seconds,
                "waiting": ledger.revision - commits.committed,
            },
            "members": ledger.members.everyone(),
            "sessions": ledger.sessions.count,
            "entries": ledger.records.count,
            "resources": ledger.resources.usage("worker"),
            "tenants": ledger.resources.usage("tenant"),
            "leases": len(ledger.resources.leases()),
            "waiting": len(ledger.resources.waiting()) + len(ledger.locks.waiting()),
            "locks": len(ledger.locks.held()),
            "agents": ledger.agents.reading.census(),
            "calls": dict(self.calls),
            "refused": dict(self.refused),
            "loop_seconds": self.loop_seconds,
            "recovery_seconds": self.recovery_seconds,
        }


_SLOW = frozenset({"feed.poll", "blob.write", "blob.read"})


def _chunked(events: Iterator[Event], size: int) -> Iterator[list[Event]]:
    chunk: list[Event] = []
    for event in events:
        chunk.append(event)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
