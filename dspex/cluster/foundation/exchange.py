"""One request, one answer: the bare way to the ledger, without repeating anything.

Knows: bytes, requests, answers. Must not know: sessions' leases, who repeats what.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any, TypeVar, final

from dspex.errors import UnavailableError
from dspex.foundation.ledger.wire import (
    DONE,
    Answer,
    Call,
    Request,
    decode_answer,
    encode_request,
    rebuilt_error,
)

__all__ = ["BACKOFF", "Exchange", "Send"]

Send = Callable[[bytes], Awaitable[bytes | None]]
"""Sends a request and gives the answer; OSError where it cannot, None where nobody understands."""

BACKOFF = (0.01, 0.05, 0.1, 0.25, 0.5)
"""Seconds between two attempts to reach the ledger; the last one goes on."""

T = TypeVar("T")


@final
class Exchange:
    """Sends requests of one process.

    Attributes
    ----------
    session : str
        In whose name requests are made; set by whoever opens sessions.
    term, identity : int, str
        Of the ledger that answered last.
    """

    def __init__(
        self, send: Send, *, clock: Callable[[], float] = time.monotonic, patience: float
    ) -> None:
        self._send = send
        self.now = clock
        self.patience = patience
        self.session = ""
        self.term = 0
        self.identity = ""
        self.on_restart: Callable[[], None] = lambda: None

    async def exchange(self, request: Request) -> Answer:
        """Send a request once.

        Raises
        ------
        OSError, TimeoutError
            Where nobody knows whether it arrived.
        DspexError
            Where it was refused as a whole.
        """
        blob = await self._send(encode_request(request))
        if blob is None:
            raise UnavailableError(
                "dspex is not installed on this scheduler (any more); one that is to survive a "
                "restart is started with `dask scheduler --preload dspex.preload`; call "
                "dspex.connect again"
            )
        answer = decode_answer(blob)
        if len(answer.replies) != len(request.calls):
            raise rebuilt_error(answer.replies[0][1])
        is_restarted = self.term not in (0, answer.term)
        self.term, self.identity = answer.term, answer.identity
        if is_restarted:
            self.on_restart()
        return answer

    async def ask(self, op: str, *, session: str | None = None, **args: Any) -> Any:
        """Make one call that changes nothing, at once and once."""
        call = Call(None, op, args)
        answer = await self.exchange(Request(session or self.session, 0, [call]))
        status, payload = answer.replies[0]
        if status != DONE:
            raise rebuilt_error(payload)
        return payload

    async def poll(
        self,
        after: int,
        identity: str,
        topics: Sequence[tuple[str, str]],
        tags: Collection[str],
        *,
        hold: float,
        replies: bool = False,
        seen: Sequence[int] = (),
    ) -> Any:
        """Wait at the ledger for news, up to `hold` seconds."""
        work = self.ask(
            "feed.poll",
            after=after,
            identity=identity,
            topics=list(topics),
            tags=list(tags),
            replies=replies,
            seen=list(seen),
            hold=hold,
        )
        # A connection on which nothing comes is not waited for without end.
        return await asyncio.wait_for(work, hold + 10.0)

    async def patiently(self, work: Callable[[], Awaitable[T]], what: str) -> T:
        """Do work again from its start while a lost connection cuts it off.

        Raises
        ------
        UnavailableError
            After `patience` seconds.
        """
        deadline = self.now() + self.patience
        failures = 0
        while True:
            try:
                return await work()
            except (OSError, TimeoutError) as error:
                if isinstance(error, UnavailableError):
                    raise
                if self.now() >= deadline:
                    raise UnavailableError(
                        f"{what} needs the scheduler, which could not be reached for "
                        f"{self.patience:g} s ({type(error).__name__}: {error}); try again"
                    ) from error
                await backoff(failures)
                failures += 1


async def backoff(failures: int) -> None:
    """Wait before another attempt, the longer the more failed."""
    await asyncio.sleep(BACKOFF[min(failures, len(BACKOFF) - 1)])
