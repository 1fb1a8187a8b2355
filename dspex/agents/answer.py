"""The answer of an agent to one call, to come.

Knows: threads, asyncio. Must not know: agents, how a call travels.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading
from collections.abc import Callable, Generator
from concurrent.futures._base import CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED, PENDING, RUNNING
from contextlib import suppress
from functools import partial
from typing import Any, NoReturn

from dspex.agents.moment import MOMENT
from dspex.agents.waiting import is_on_loop, seconds_of
from dspex.errors import InvalidArgumentError, NotPicklableError

__all__ = ["AgentFuture"]

logger = logging.getLogger("dspex.agents")

_OPEN = (PENDING, RUNNING)
_CANCELLED = (CANCELLED, CANCELLED_AND_NOTIFIED)

_CLOSED: Any = object()
"""In place of a result that nobody has asked for yet, and so was not decoded."""


class _Undecoded:
    """In place of a result that could not be decoded."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


class AgentFuture(concurrent.futures.Future[Any]):
    """The answer of an agent to one call, to come: await it, or ask for its `result`.

    May be used from any thread and from any asyncio loop, whichever thread fills it.

    Parameters
    ----------
    decode : callable, optional
        Makes the result from what `set_result` was given, in the thread of whoever asks first.
        Where several ask at the same time it may be made by each; all get the first that is made.
        If it raises, that is the error of this future. None: what was given is the result.
    describe : str
        What is waited for, in errors and in the ``repr``: "counter.increment".
    cancel : callable, optional
        Called once by the `cancel` that takes effect, in that thread.
    loop : asyncio loop, optional
        That brings the answer, and so is never blocked for it.

    Notes
    -----
    Whoever fills it calls `set_result` or `set_exception` once. An answer to a call that was
    cancelled is dropped.

    Examples
    --------
    >>> future = AgentFuture(decode=int, describe="counter.increment")
    >>> future
    <AgentFuture counter.increment pending>
    >>> future.set_result("1")
    >>> future.result()
    1
    """

    # What the base class makes for each, its condition before all, costs more than all the rest of
    # a call, and calls are made by the hundred thousand. These are its names; what few futures need
    # is made when they need it.
    #
    # Slots, as threads write to them at the same time: where an attribute is new to an object of
    # another kind, CPython 3.11 may have to make it a dict, and while that collects garbage another
    # thread makes another one; what the first one has written is lost.
    __slots__ = ("_exception", "_listeners", "_result", "_state", "_value", "_watchers")

    _condition = MOMENT

    _loop: asyncio.AbstractEventLoop | None = None
    _decoder: Callable[[Any], Any] | None = None
    _canceller: Callable[[], None] | None = None
    _description: str = ""

    def __init__(
        self,
        decode: Callable[[Any], Any] | None = None,
        *,
        describe: str = "",
        cancel: Callable[[], None] | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._begin()
        self._decoder = decode
        self._description = describe
        self._canceller = cancel
        self._loop = loop

    def _begin(self) -> None:
        self._state = PENDING
        self._result: Any = None
        self._exception: BaseException | None = None
        self._listeners: Any = None  # one, which is mostly the only one, or a list of them
        self._watchers: list[Any] | None = None
        self._value: Any = _CLOSED

    # --- what a call of its own does otherwise -----------------------------------------------

    @property
    def description(self) -> str:
        """What is waited for."""
        return self._description

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The loop that brings the answer."""
        return self._loop

    def _decode(self, raw: Any) -> Any:
        return raw if self._decoder is None else self._decoder(raw)

    def _cancelled(self) -> None:
        if self._canceller is not None:
            self._canceller()

    def has_failed(self) -> bool:
        """Whether it ended in an error; one of decoding a result does not count."""
        return self._exception is not None or self.cancelled()

    # --- being filled ------------------------------------------------------------------------

    def set_result(self, result: Any) -> None:
        """Give the answer, not yet decoded; dropped where the call was cancelled."""
        if not self._fill(result, None):
            self._refuse_second()

    def set_exception(self, exception: BaseException | None) -> None:
        """Give the error; dropped where the call was cancelled."""
        if not self._fill(None, exception):
            self._refuse_second()

    def _refuse_second(self) -> None:
        if not self.cancelled():
            raise concurrent.futures.InvalidStateError(f"{self!r} is filled once")

    def _fill(self, result: Any, error: BaseException | None) -> bool:
        """End it, unless it has ended; tells whether it did."""
        with MOMENT:
            if self._state not in _OPEN:
                return False
            self._result = result
            self._exception = error
            self._state = FINISHED
            if self._watchers is not None:
                for watcher in self._watchers:
                    (watcher.add_result if error is None else watcher.add_exception)(self)
        if self._listeners is not None:
            self._invoke_callbacks()
        return True

    def _invoke_callbacks(self) -> None:
        listeners = self._listeners
        if type(listeners) is list:
            for listener in listeners:
                self._call(listener)
        elif listeners is not None:
            self._call(listeners)

    def _call(self, listener: Callable[[Any], object]) -> None:
        try:
            listener(self)
        except Exception:
            logger.exception("what was to be called after %r failed", self)

    def add_done_callback(self, fn: Callable[[Any], object]) -> None:
        """Call this with the future when it is done; at once where it is."""
        with MOMENT:
            if self._state in _OPEN:
                former = self._listeners
                if former is None:
                    self._listeners = fn
                elif type(former) is list:
                    former.append(fn)
                else:
                    self._listeners = [former, fn]
                return
        self._call(fn)

    @property
    def _done_callbacks(self) -> list[Callable[[Any], object]]:
        listeners = self._listeners
        if type(listeners) is list:
            return list(listeners)
        return [] if listeners is None else [listeners]

    @property
    def _waiters(self) -> list[Any]:  # type: ignore[override]  # for `concurrent.futures.wait`
        if self._watchers is None:
            self._watchers = []
        return self._watchers

    def done(self) -> bool:
        """Whether it has ended: with a result or an error, or cancelled."""
        return self._state not in _OPEN

    def cancelled(self) -> bool:
        """Whether it was cancelled."""
        return self._state in _CANCELLED

    # --- being asked -------------------------------------------------------------------------

    def result(self, timeout: float | str | None = None) -> Any:
        """Wait for the answer.

        Parameters
        ----------
        timeout : float or str, optional
            Seconds, or "2s", "5 minutes"; 0 looks whether it is there. None: as long as it takes.

        Raises
        ------
        TimeoutError
            The call goes on.
        concurrent.futures.CancelledError
        InvalidArgumentError
            Where it would block a running event loop.
        Exception
            What the agent raised, or what became of the call.
        """
        if self._state != FINISHED:
            self._wait(seconds_of(timeout))
        value, error = self.outcome()
        if error is not None:
            try:
                raise error
            finally:
                del error  # it holds this frame, which would hold it
        return value

    def outcome(self) -> tuple[Any, BaseException | None]:
        """What became of it, without raising it, and without waiting.

        An error that is raised would hold, by its frames, all that somebody has who asks for many.

        Returns
        -------
        (result, error)
            One of them is None. The error is TimeoutError where it has not ended, and
            concurrent.futures.CancelledError where it was cancelled.

        Examples
        --------
        >>> future = AgentFuture(describe="counter.increment")
        >>> future.outcome()
        (None, TimeoutError('the answer of counter.increment has not come'))
        >>> future.set_result(1)
        >>> future.outcome()
        (1, None)
        """
        if self._state != FINISHED:
            return None, self._no_outcome()
        value = self._value
        if value is _CLOSED:
            if self._exception is not None:
                return None, self._exception
            value = self._open()
        return (None, value.error) if type(value) is _Undecoded else (value, None)

    def _no_outcome(self) -> BaseException:
        if self.done():
            return concurrent.futures.CancelledError()
        return TimeoutError(f"{self._what()} has not come")

    def exception(self, timeout: float | str | None = None) -> BaseException | None:
        """Wait for the answer, and give its error; None where there is none.

        Raises
        ------
        TimeoutError, concurrent.futures.CancelledError, InvalidArgumentError
            As `result`.
        """
        if self._state != FINISHED:
            self._wait(seconds_of(timeout))
        return self.outcome()[1]

    def cancel(self) -> bool:
        """Give the call up, unless it is done; tells whether it is cancelled now."""
        if not super().cancel():
            return False
        with MOMENT:
            is_first = self._state == CANCELLED
            if is_first:
                # Until then `concurrent.futures.wait` takes it for pending.
                self.set_running_or_notify_cancel()
        if is_first:
            self._cancelled()
        return True

    def as_dask(self, client: Any = None) -> Any:
        """A Dask future that ends with the same result or error.

        It may be passed to ``client.submit``, gathered and waited for. It holds no slot of a
        worker while it waits. The answer travels through the scheduler.

        Parameters
        ----------
        client : distributed.Client, optional
            None: Dask's current one. It must stay open until the answer has come.

        Raises
        ------
        InvalidArgumentError
            Where there is no client.

        Examples
        --------
        ::

            total = client.submit(sum, [counter.increment().as_dask(), 2])
        """
        from dspex.cluster.agents.as_dask import as_dask

        return as_dask(self, client)

    def __await__(self) -> Generator[Any, None, Any]:
        if not self.done():
            loop = asyncio.get_running_loop()
            waiter: asyncio.Future[None] = loop.create_future()

            def wake(_: object) -> None:
                with suppress(RuntimeError):  # the loop is closed: nobody waits
                    loop.call_soon_threadsafe(_set, waiter)

            unsubscribe = self.subscribe(wake)
            try:
                yield from waiter
            finally:
                unsubscribe()
        if self.cancelled():
            raise asyncio.CancelledError(f"{self._what()} was cancelled")
        return self.result()

    def __repr__(self) -> str:
        state = "pending"
        if self.done():
            state = (
                "cancelled" if self.cancelled() else "error" if self.has_failed() else "finished"
            )
        return f"<{' '.join(filter(None, ('AgentFuture', self.description, state)))}>"

    def __reduce__(self) -> NoReturn:
        raise NotPicklableError(
            f"an agent's future stays in its process; got {self!r}; send the agent's handle and "
            "call there, or send .as_dask(), or its result"
        )

    def _what(self) -> str:
        return f"the answer of {self.description}" if self.description else "the answer"

    def _wait(self, seconds: float | None) -> None:
        """Wait until it has ended; raises where it did otherwise than with an answer."""
        if seconds != 0 and not self.done() and is_on_loop(self.loop):
            raise InvalidArgumentError(
                f"on an event loop an answer is awaited, because to block the loop may be to "
                f"wait for ever; got result() or exception() of {self!r}; write `await future`"
            )
        if not self._is_done_within(seconds):
            raise TimeoutError(
                f"{self._what()} did not come within {seconds:g} seconds; the call goes on: ask "
                "again, or cancel() it"
            )
        super().exception(0)  # which raises where it was cancelled

    def _is_done_within(self, seconds: float | None) -> bool:
        if self.done() or seconds == 0:
            return self.done()
        event = threading.Event()
        unsubscribe = self.subscribe(lambda _: event.set())
        try:
            return event.wait(seconds)
        finally:
            unsubscribe()

    def _open(self) -> Any:
        """Decode the result. Who is interrupted leaves it as it was."""
        try:
            value = self._decode(self._result)
        except Exception as error:
            value = _Undecoded(error)
        with MOMENT:
            if self._value is _CLOSED:
                self._value = value
            return self._value

    def subscribe(self, listener: Callable[[AgentFuture], object]) -> Callable[[], None]:
        """As `add_done_callback`; gives what takes it back.

        Who waits a second, again and again, for an answer that takes an hour must not leave 3,600
        callbacks behind.
        """
        self.add_done_callback(listener)
        return partial(self.unsubscribe, listener)

    def unsubscribe(self, listener: Callable[[AgentFuture], object]) -> None:
        """Take a callback back; nothing where it is not there."""
        with MOMENT:
            listeners = self._done_callbacks  # a copy: another thread may be calling them
            if listener in listeners:
                listeners.remove(listener)
                self._listeners = listeners or None


def _set(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
