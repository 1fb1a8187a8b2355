"""One request, one answer: the bare way to the ledger.

Knows: bytes, requests, answers, how long one is waited for. Must not know: sessions' leases, which
calls may be made twice.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar, final

from dspex.errors import DspexError, FoundationError, UnavailableError
from dspex.foundation.ledger.wire import (
    DONE,
    Answer,
    decode_answer,
    encode_body,
    encode_flight,
    rebuilt_error,
)

__all__ = ["BACKOFF", "Exchange", "Send", "backoff"]

Send = Callable[[bytes], Awaitable[bytes | None]]
"""Sends a request and gives the answer.

OSError where it cannot; None where nobody understands, b"" where whoever does is about to end.
"""

BACKOFF = (0.01, 0.05, 0.1, 0.25, 0.5)
"""Seconds between two attempts to reach the ledger; the last one goes on."""

T = TypeVar("T")


@final
class Exchange:
    """Sends requests of one process.

    Parameters
    ----------
    send : Send
    clock : callable
        Monotonic seconds.
    patience : float
        Seconds for which an answer is waited for, and a request repeated.

    Attributes
    ----------
    session : str
        In whose name requests are made; set by whoever opens sessions.
    term : int
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
        self.on_restart: Callable[[], None] = lambda: None
        self._under_way: set[asyncio.Timeout] = set()
        self._is_closed = False

    async def exchange(
        self,
        session: str,
        calls: Sequence[tuple[int | None, bytes]],
        *,
        within: float,
        acked_below: int = 0,
        parked: Sequence[int] = (),
    ) -> Answer:
        """Send calls (number, body) once.

        Raises
        ------
        OSError, TimeoutError
            Where nobody knows whether they arrived.
        DspexError
            Where they were refused as a whole, or the connection is closed.
        """
        if self._is_closed:
            raise _closed()
        request = encode_flight(session or _NOBODY, acked_below, parked, calls)
        limit = asyncio.timeout(within)
        try:
            async with limit:
                self._under_way.add(limit)
                blob = await self._send(request)
            answer = decode_answer(blob) if blob else None
        except TimeoutError:
            if self._is_closed:
                raise _closed() from None
            raise
        except (OSError, DspexError):
            raise
        except Exception as error:  # what failed on the scheduler, as Dask tells it
            raise FoundationError(
                f"a request ends in an answer; this one in {error!r}; see the scheduler's log"
            ) from error
        finally:
            self._under_way.discard(limit)
        if answer is None:
            raise _not_installed() if blob is None else ConnectionError("the scheduler closes")
        if len(answer.replies) != len(calls):
            raise rebuilt_error(answer.replies[0][1])
        self._answered_by(answer.term)
        return answer

    def _answered_by(self, term: int) -> None:
        is_restarted = self.term not in (0, term)
        self.term = term
        if is_restarted:
            self.on_restart()

    async def told(
        self, op: str, *, session: str | None = None, within: float | None = None, **args: Any
    ) -> Answer:
        """Make one call that changes nothing, once; an answer with one reply, whatever it says.

        Raises
        ------
        OSError, TimeoutError, DspexError
            As `exchange`.
        """
        return await self.exchange(
            self.session if session is None else session,
            [(None, encode_body(op, args))],
            within=self.patience if within is None else within,
        )

    async def ask(
        self, op: str, *, session: str | None = None, within: float | None = None, **args: Any
    ) -> Any:
        """Make one call that changes nothing, once; gives its reply.

        Raises
        ------
        OSError, TimeoutError
            Where nobody knows whether it arrived.
        DspexError
            Where it was refused.
        """
        status, payload = (await self.told(op, session=session, within=within, **args)).replies[0]
        if status != DONE:
            raise rebuilt_error(payload)
        return payload

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
            except OSError as error:
                if isinstance(error, DspexError):  # an answer, though it is an OSError too
                    raise
                if self.now() >= deadline:
                    raise UnavailableError(
                        f"{what} needs the scheduler, which could not be reached for "
                        f"{self.patience:g} s ({type(error).__name__}: {error}); try again"
                    ) from error
                await backoff(failures)
                failures += 1

    def close(self) -> None:
        """Refuse everything from now on, and end what is under way."""
        self._is_closed = True
        now = asyncio.get_running_loop().time()
        for limit in self._under_way:
            if not limit.expired():
                limit.reschedule(now)

    async def take_leave(self, session: str, reason: str, *, within: float) -> None:
        """End a session, if that can be said; after `close`."""
        said = encode_body("session.close", {"reason": reason})
        request = encode_flight(session, 0, (), [(None, said)])
        with suppress(OSError, DspexError):
            async with asyncio.timeout(within):
                await self._send(request)


_NOBODY = "nobody"


def _not_installed() -> UnavailableError:
    return UnavailableError(
        "dspex is not installed on this scheduler (any more); one that is to survive a restart is "
        "started with `dask scheduler --preload dspex.preload`; call dspex.connect again"
    )


def _closed() -> UnavailableError:
    return UnavailableError("this connection to the foundation is closed; connect again")


async def backoff(failures: int) -> None:
    """Wait before another attempt, the longer the more failed."""
    await asyncio.sleep(BACKOFF[min(failures, len(BACKOFF) - 1)])
