"""A ledger, callers, and between them what a network and a disk may do.

Knows: requests by their first op, the port `Journal`. Must not know: Dask, what is tested here.

A `Way` loses what it is told to lose; the writes of a `GatedJournal` wait, or fail.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import (
    AsyncIterator,
    Callable,
    Collection,
    Coroutine,
    Iterable,
    Sequence,
)
from contextlib import asynccontextmanager
from typing import Any, TypeVar, final

from dspex.cluster.foundation.calls import LedgerCaller
from dspex.cluster.foundation.server import LedgerServer
from dspex.foundation.ledger.wire import (
    Call,
    Request,
    decode_answer,
    decode_request,
    encode_request,
    rebuilt_error,
)
from dspex.foundation.ports import Loaded
from dspex.foundation.record import put
from dspex.storage.journals.memory import MemoryJournal

__all__ = ["GatedJournal", "Party", "Way", "commit", "party", "run", "until"]

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T], *, seconds: float = 30.0) -> T:
    """Do work on a loop of its own, and assert that it leaves no task behind.

    Examples
    --------
    >>> run(asyncio.sleep(0, "done"))
    'done'
    """

    async def watched() -> T:
        before = asyncio.all_tasks()
        async with asyncio.timeout(seconds):
            result = await work
        left = asyncio.all_tasks() - before
        assert not left, f"tasks left behind: {left}"
        return result

    return asyncio.run(watched())


async def until(condition: Callable[[], object]) -> None:
    """Let the loop go on until ``condition()`` is true; the test's own time limit ends it.

    Examples
    --------
    >>> run(until(lambda: True))
    """
    while not condition():
        await asyncio.sleep(0)


@final
class Way:
    """The way to a ledger.

    Parameters
    ----------
    handle : coroutine function
        Bytes to bytes: a server's `handle`.

    Attributes
    ----------
    fates : dict of op to deque of str
        What becomes of the next requests whose first call is of this op: "pass", "lose" (it never
        arrives), "lose answer", "hang", "hold" (its answer waits for `release`), "crash" (an
        exception that is no OSError).
    requests : list of (str, Request)
        What was sent, with its fate.
    """

    def __init__(self, handle: Callable[[bytes], Coroutine[Any, Any, bytes]]) -> None:
        self.handle = handle
        self.fates: dict[str, deque[str]] = {}
        self.requests: list[tuple[str, Request]] = []
        self.held: deque[asyncio.Future[None]] = deque()
        self.is_cut = False

    def plan(self, op: str, *fates: str) -> None:
        """Say what becomes of the next requests of an op."""
        self.fates.setdefault(op, deque()).extend(fates)

    def of(self, op: str) -> list[Request]:
        """The requests so far whose first call is of this op."""
        return [request for _, request in self.requests if request.calls[0].op == op]

    def release(self) -> None:
        """Let the answer go that has been held for longest."""
        self.held.popleft().set_result(None)

    async def send(self, blob: bytes) -> bytes | None:
        """Carry a request, and its answer back."""
        request = decode_request(blob)
        fates = self.fates.get(request.calls[0].op)
        fate = "lose" if self.is_cut else fates.popleft() if fates else "pass"
        self.requests.append((fate, request))
        if fate == "lose":
            raise ConnectionError("lost on its way")
        if fate == "crash":
            raise ValueError("no OSError")
        if fate == "hang":
            await asyncio.get_running_loop().create_future()
        answer = await self.handle(blob)
        if fate == "hold":
            held = asyncio.get_running_loop().create_future()
            self.held.append(held)
            await held
        if fate == "lose answer":
            raise ConnectionError("its answer was lost")
        return answer


@final
class GatedJournal:
    """A durable journal in memory, whose writes wait at a gate, or fail.

    Attributes
    ----------
    gate : threading.Event
        Writes go through while it is set.
    errors : deque of Exception
        Raised by the next writes, one each.
    batches : list of (int, list of bytes)
        What was written: the first number, and the entries.
    """

    url = "memory, gated"
    durable = True
    copies = 1

    def __init__(self) -> None:
        self.term = 0
        self.identity = "gated"
        self.gate = threading.Event()
        self.gate.set()
        self.errors: deque[Exception] = deque()
        self.entered = threading.Event()
        self.batches: list[tuple[int, list[bytes]]] = []
        self.entries: dict[int, bytes] = {}
        self.snapshot: tuple[int, list[bytes]] = (0, [])
        self.blobs: dict[str, bytes] = {}
        self.is_owned = True
        self.is_open = False

    def open(self) -> int:
        """Begin the next term."""
        assert not self.is_open, "it has an owner"
        self.is_open = True
        self.term += 1
        return self.term

    def load(self) -> Loaded:
        """Give everything back."""
        upto, chunks = self.snapshot
        return Loaded(upto, iter(chunks), iter(sorted(self.entries.items())))

    def append(self, first: int, entries: Sequence[bytes]) -> None:
        """Keep entries, when the gate is open."""
        self.entered.set()
        self.gate.wait()
        if self.errors:
            raise self.errors.popleft()
        self.batches.append((first, list(entries)))
        self.entries.update(enumerate(entries, first))

    def compact(self, upto: int, snapshot: Iterable[bytes]) -> None:
        """Keep a snapshot in place of entries."""
        self.snapshot = (upto, list(snapshot))
        self.entries = {number: each for number, each in self.entries.items() if number > upto}

    def owns(self) -> bool:
        """Whether it is to say so."""
        return self.is_owned

    def put_blob(self, digest: str, data: bytes) -> None:
        """Keep a large value."""
        self.blobs[digest] = data

    def get_blob(self, digest: str) -> bytes:
        """Read a large value."""
        return self.blobs[digest]

    def keep_blobs(self, digests: Collection[str]) -> int:
        """Drop all but these."""
        dropped = self.blobs.keys() - set(digests)
        for digest in dropped:
            del self.blobs[digest]
        return len(dropped)

    def close(self) -> None:
        """Let go."""
        self.is_open = False


@final
class Party:
    """A server, a way to it, and callers.

    Attributes
    ----------
    time : float
        What the callers' clocks say that are given it: ``clock=party.clock``.
    """

    def __init__(self, server: LedgerServer) -> None:
        self.server = server
        self.way = Way(server.handle)
        self.callers: list[LedgerCaller] = []
        self.time = 0.0

    def clock(self) -> float:
        """Monotonic seconds, as a test has them pass."""
        return self.time

    def new_caller(self, way: Way | None = None, **options: Any) -> LedgerCaller:
        """Make a caller that has not been started."""
        # No renewal comes between, unless a test asks for a short lease.
        options = {"kind": "client", "name": "me", "lease": 600.0, **options}
        made = LedgerCaller((way or self.way).send, **options)
        self.callers.append(made)
        return made

    async def caller(self, way: Way | None = None, **options: Any) -> LedgerCaller:
        """Make a caller, and start it."""
        made = self.new_caller(way, **options)
        await made.start()
        return made

    async def ask(self, op: str, session: str = "a test", **args: Any) -> Any:
        """Make a call past all callers; gives its reply, or raises it."""
        return await self.call(None, op, session, **args)

    async def call(self, number: int | None, op: str, session: str, **args: Any) -> Any:
        """Make a call with a number past all callers."""
        request = Request(session, 0, [Call(number, op, args)])
        status, payload = decode_answer(await self.server.handle(encode_request(request))).replies[
            0
        ]
        if status == 1:
            raise rebuilt_error(payload)
        return payload

    async def end(self, session: str) -> None:
        """Have a session end."""
        await self.ask("session.close", session, reason="a test")

    async def restart(self) -> None:
        """Have another server go on with the journal of the first."""
        await self.server.close()
        server = LedgerServer(self.server.journal)
        await server.start()
        self.server = server
        self.way.handle = server.handle


@asynccontextmanager
async def party(journal: Any = None) -> AsyncIterator[Party]:
    """Bring a server up, and all down at the end."""
    server = LedgerServer(journal or MemoryJournal())
    await server.start()
    made = Party(server)
    try:
        yield made
    finally:
        for caller in made.callers:
            await caller.close()
        await made.server.close()


async def commit(caller: LedgerCaller, key: str = "k", value: bytes = b"", **options: Any) -> Any:
    """Write an entry."""
    return await caller.write(
        "records.commit",
        collection="r:",
        operations=[put(key, value, {}, on_conflict="replace")],
        **{"wait_durable": True, **options},
    )
