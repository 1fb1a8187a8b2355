"""One request, one answer: the bare way to the ledger, without repeating anything.

Knows: bytes, requests, answers. Must not know: sessions' leases, who repeats what.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any, TypeVar, final

from dspex.errors import DspexError, UnavailableError
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

_FIRST = asyncio.FIRST_COMPLETED


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
        self._closing: asyncio.Future[None] | None = None
        self._is_closed = False

    async def exchange(self, request: Request) -> Answer:
        """Send a request once.

        Raises
        ------
        OSError, TimeoutError
            Where nobody knows whether it arrived.
        DspexError
            Where it was refused as a whole.
        """
        if self._is_closed:
            raise _closed()
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
        loop = asyncio.get_running_loop()
        if self._closing is None:
            self._closing = loop.create_future()
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
        asking = loop.create_task(work)
        try:
            # A connection on which nothing comes is not waited for without end.
            await asyncio.wait({asking, self._closing}, timeout=hold + 10.0, return_when=_FIRST)
        finally:
            asking.cancel()
        if asking.done() and not asking.cancelled():
            return asking.result()
        if self._closing.done():
            raise _closed()
        raise TimeoutError("no answer to a poll")

    def close(self) -> None:
        """Refuse everything from now on, and end the polls that are held."""
        self._is_closed = True
        if self._closing is not None and not self._closing.done():
            self._closing.set_result(None)

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
                if isinstance(error, DspexError):  # an answer, though it is an OSError too
                    raise
                if self.now() >= deadline:
                    raise UnavailableError(
                        f"{what} needs the scheduler, which could not be reached for "
                        f"{self.patience:g} s ({type(error).__name__}: {error}); try again"
                    ) from error
                await backoff(failures)
                failures += 1


def _closed() -> UnavailableError:
    return UnavailableError("this connection to the foundation is closed; connect again")


async def backoff(failures: int) -> None:
    """Wait before another attempt, the longer the more failed."""
    await asyncio.sleep(BACKOFF[min(failures, len(BACKOFF) - 1)])
