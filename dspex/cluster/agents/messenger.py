"""The way from this process to agents: calls go out in flights, answers come back.

Knows: requests, what is on its way, who is asked where agents are, a loop. Must not know: Dask,
handles, what is called.

Calls are made in any thread; all else happens on one loop.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, final

from dspex.cluster.agents.finding import Finder
from dspex.cluster.agents.flying import Flying
from dspex.cluster.agents.refusals import (
    closed_error,
    crowded_error,
    cut_off_error,
    deadline_error,
    not_found_error,
    not_once_error,
    outcome_error,
    told_error,
)
from dspex.cluster.agents.requests import AUTO, Cast, Raised, Request, Withdrawal
from dspex.cluster.background import Background
from dspex.errors import DspexError, SessionExpiredError, UnavailableError
from dspex.foundation.agents.messages import (
    AT_LEAST_ONCE,
    AT_MOST_ONCE,
    CAST,
    DELIVERY,
    DONE,
    EXACTLY_ONCE,
    RAISED,
)
from dspex.foundation.agents.outbound import Outbound
from dspex.foundation.ports import Caller

__all__ = ["Messenger"]

logger = logging.getLogger("dspex.agents")

AGAIN_AFTER = 1.0
"""Seconds after which an agent is looked for again of which the ledger could not tell."""

MOST_UNANSWERED = 500_000
"""Calls of one process that may be under way."""

_LOOK_EVERY = 0.001


@final
class Messenger:
    """Carries calls to agents.

    Parameters
    ----------
    caller : Caller
        The session of this process.
    send : coroutine function of (address, flight) -> answers
        OSError where a host cannot be reached.
    """

    def __init__(self, caller: Caller, send: Callable[[str, bytes], Awaitable[bytes]]) -> None:
        self._caller = caller
        self._loop = asyncio.get_running_loop()
        self._outbound: Outbound[Request] = Outbound()
        self._under_way = 0  # in the outbound, but for those that were withdrawn
        self._mids = itertools.count(1)
        self._kept: dict[str, bool] = {}
        self._unresolved: dict[str, list[Request]] = {}
        self._resolving: dict[str, None] = {}
        self._numbers = itertools.count(1)
        self._session = caller.session
        self._unanswered: dict[str, dict[int, None]] = {}
        self._delivering: dict[tuple[str, int], Cast] = {}
        self._inbox: deque[Request] = deque()
        self._is_woken = False
        self._dirty: dict[str, None] = {}  # a set would have another order each time
        self._background = Background()
        spawn = self._background.spawn
        self._flying = Flying(caller, self._outbound, send, self, spawn)
        self._finder = Finder(caller, self._outbound, self, spawn)
        self.is_closed = False

    # --- taking requests ---------------------------------------------------------------------

    def submit(self, request: Request) -> None:
        """Have a call made; from any thread.

        Who makes more calls than are answered waits here, or on the loop is refused.
        """
        if self._under_way + len(self._inbox) >= MOST_UNANSWERED:
            self._make_room()
        self._inbox.append(request)
        if not self._is_woken:
            self._is_woken = True
            try:
                self._loop.call_soon_threadsafe(self._take_all)
            except RuntimeError:
                self._fail(request, closed_error())

    def _make_room(self) -> None:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            while self._under_way + len(self._inbox) >= MOST_UNANSWERED and not self.is_closed:
                time.sleep(_LOOK_EVERY)
        else:
            raise crowded_error(MOST_UNANSWERED)

    def deliver(
        self,
        target: str,
        method: str,
        args: bytes,
        *,
        sender: str,
        number: int,
        done: Callable[[Any], None],
    ) -> None:
        """Send a message of an agent, exactly once where it has a sender; on the loop.

        One that is on its way already is not sent twice: `done` hears of it from now on.
        """
        request = Cast(target, method, args, EXACTLY_ONCE if sender else AUTO, done)
        if sender:
            request.sender, request.number = sender, number
            former = self._delivering.setdefault((sender, number), request)
            if former is not request:
                former.done = done
                return
        self.submit(request)

    def tell(self, key: str, method: str, args: bytes) -> None:
        """Send a message of which nobody hears, but who reads the log."""

        def done(error: DspexError | None) -> None:
            if error is not None:
                logger.warning("%s of the agent %s: %s", method.strip("\0"), key, error)

        self.submit(Cast(key, method, args, AT_MOST_ONCE, done))

    def _take_all(self) -> None:
        inbox = self._inbox
        taken = 0
        while inbox:
            self._take(inbox.popleft())
            taken += 1
        if taken > 1 and not self.is_closed:
            # Many are being made. To be woken for each would cost more than to look again.
            self._loop.call_later(_LOOK_EVERY, self._take_all)
        else:
            self._is_woken = False
            if inbox:  # of a moment ago
                self._is_woken = True
                self._loop.call_soon(self._take_all)
        self.pump()
        if self._resolving:
            keys, self._resolving = list(self._resolving), {}
            self._finder.look_for(keys)

    def _take(self, request: Request) -> None:
        if request.cancelled():
            return  # before it was looked at
        if self.is_closed:
            self._fail(request, closed_error())
            return
        if request.timeout is not None:
            request.deadline = self._caller.now() + request.timeout
            request.timer = self._loop.call_later(request.timeout, self._expire, request)
        key = request.key
        is_kept = self._kept.get(key)
        if self._unresolved and key in self._unresolved:
            self._unresolved[key].append(request)
        elif is_kept is not None:
            self._enqueue(request, is_kept)
        else:
            self._unresolved[key] = [request]
            self._resolving[key] = None

    def _enqueue(self, request: Request, is_kept: bool) -> None:
        """Number a call of whose receiver is known what it keeps, and put it on its way."""
        flags = request.flags
        delivery = flags & DELIVERY
        if delivery == AUTO:
            delivery = EXACTLY_ONCE if is_kept else AT_MOST_ONCE
        elif delivery == EXACTLY_ONCE and not is_kept:
            if not request.sender:
                self._fail(request, not_once_error(request.key))
                return
            delivery = AT_LEAST_ONCE  # of an agent's own messages: as much as there can be
        if delivery == EXACTLY_ONCE and not request.sender:
            self._number(request)
        request.flags = flags & ~DELIVERY | delivery
        if request.deadline is not None:
            request.left = request.deadline - self._caller.now()
        self._send(request)

    def _send(self, request: Request) -> None:
        request.mid = next(self._mids)
        self._under_way += 1
        address = self._outbound.send(request)
        if address is not None:
            self._dirty[address] = None

    def _number(self, request: Request) -> None:
        """Have its receiver tell it from all others of this session."""
        if self._session != self._caller.session:
            self._session = self._caller.session
            self._numbers = itertools.count(1)
            self._unanswered.clear()
        number = next(self._numbers)
        waiting = self._unanswered.get(request.key)
        if waiting is None:
            waiting = self._unanswered[request.key] = {}
        request.sender, request.number = self._session, number
        request.below = next(iter(waiting), number)
        waiting[number] = None

    # --- flights -----------------------------------------------------------------------------

    def pump(self) -> None:
        """Send what may be sent now."""
        if self.is_closed:
            return
        dirty, self._dirty = self._dirty, {}
        now = self._caller.now()
        for address in dirty:
            while (posted := self._outbound.post(address, now)) is not None:
                self._background.spawn(self._flying.fly(posted))
        self._finder.look_when_due()

    def answered(self, finals: Iterable[tuple[Request, int, Any]]) -> None:
        """Take what became of calls."""
        for request, status, payload in finals:
            self._under_way -= 1
            request.mid = 0
            if status != DONE:
                is_raised = status == RAISED
                self._fail(request, Raised(payload) if is_raised else told_error(payload))
                continue
            if request.sender or request.timer is not None:
                self._settle(request)
            try:
                request.answer(payload)
            except Exception as error:
                self._complain(request, error)

    def cut_off(self, request: Request, address: str, error: BaseException | None) -> None:
        """Take that nobody knows what became of a call."""
        self._drop(request, cut_off_error(address, request, error))

    def may_send(self, address: str) -> None:
        """Take that there may be room for another flight."""
        self._dirty[address] = None
        self.pump()

    # --- answers -----------------------------------------------------------------------------

    def _settle(self, request: Request) -> None:
        """Remember a call no longer that is answered in a moment."""
        if request.timer is not None:
            request.timer.cancel()
        if not request.sender:
            return
        if request.sender == self._session:
            self._acknowledge(request)
        else:
            of_one = (request.sender, request.number)
            if self._delivering.get(of_one) is request:
                del self._delivering[of_one]

    def _fail(self, request: Request, error: Raised | DspexError) -> None:
        self._settle(request)
        try:
            request.fail(error)
        except Exception as raised:
            self._complain(request, raised)

    def _complain(self, request: Request, error: Exception) -> None:
        """Tell of who could not take an answer; it is not to cost others theirs."""
        words = f"the answer of the agent {request.key} could not be taken"
        self._loop.call_exception_handler({"message": words, "exception": error})

    def _drop(self, request: Request, error: DspexError) -> None:
        """Fail a call that was on its way, and is not any more."""
        self._under_way -= 1
        request.mid = 0
        self._fail(request, error)

    def _acknowledge(self, request: Request) -> None:
        """Have the receiver keep the answer no longer."""
        waiting = self._unanswered.get(request.key)
        if waiting is not None:
            waiting.pop(request.number, None)
            if not waiting:
                del self._unanswered[request.key]

    def _expire(self, request: Request) -> None:
        """Wait for a call no longer; what has not begun never will."""
        words = "it waits for its agent"
        if request.is_withdrawn:
            return
        if request.mid:
            if not self._withdraw(request):
                words = "it was sent, and may take effect"
        else:
            waiting = self._unresolved.get(request.key, [])
            if request in waiting:
                waiting.remove(request)
        self._fail(request, deadline_error(request, words))

    def cancel(self, request: Request) -> None:
        """Wait for a call no longer, at the wish of who made it; from any thread."""
        self._loop.call_soon_threadsafe(self._cancel, request)

    def _cancel(self, request: Request) -> None:
        if request.mid and not (request.is_withdrawn or self.is_closed):
            self._settle(request)
            self._withdraw(request)

    def _withdraw(self, request: Request) -> bool:
        """Have a call that is on its way not begin; tells whether it never will."""
        request.is_withdrawn = True
        self._under_way -= 1
        is_here = self._outbound.withdraw(request)
        if not is_here and request.key in self._outbound.places:
            self._send(Withdrawal(request))
            self.pump()
        return is_here

    # --- where agents are --------------------------------------------------------------------

    def located(self, key: str, place: Any) -> None:
        """Take where an agent is, and send what waits for it."""
        if place is None:
            self.give_up(
                key,
                not_found_error(key),
            )
            return
        status, host, reason, persistence = place
        if status in ("lost", "failed"):
            self.give_up(key, outcome_error(key, status, reason, persistence))
            return
        is_kept = self._kept[key] = persistence is not None
        if host:
            self._outbound.places.setdefault(key, host)
        for request in self._unresolved.pop(key, ()):
            if not request.cancelled():
                self._enqueue(request, is_kept)
        now = self._caller.now()
        for request in self._outbound.held(key):
            if request.deadline is not None:
                request.left = max(0.0, request.deadline - now)
        address = self._outbound.located(key, host or None, now)
        if address is not None:
            self._dirty[address] = None

    def give_up(self, key: str, error: DspexError) -> None:
        """Answer what waits for an agent that cannot be reached.

        What an agent has sent leaves with its turn, exactly once: it waits until it can.
        """
        is_for_now = isinstance(error, UnavailableError | SessionExpiredError)
        is_for_now = is_for_now and not self.is_closed
        if not is_for_now:
            self._kept.pop(key, None)
        unresolved = self._unresolved.pop(key, [])
        patient: list[Request] = [
            each for each in unresolved if is_for_now and each.sender and isinstance(each, Cast)
        ]
        if patient:
            self._unresolved[key] = patient
            self._loop.call_later(AGAIN_AFTER, self._finder.look_for, [key])
        for request in unresolved:
            if request not in patient:
                self._fail(request, error)

        def spares(request: Request) -> bool:
            return is_for_now and request.sender[:6] == "agent:" and bool(request.flags & CAST)

        for request in self._outbound.give_up(key, self._caller.now(), spares):
            self._drop(request, error)
        self._finder.look_when_due()

    def learn(self, key: str, *, is_kept: bool) -> None:
        """Take what is known of an agent that was just created; on the loop."""
        self._kept[key] = is_kept

    # --- life --------------------------------------------------------------------------------

    async def close(self) -> None:
        """Make no more calls; those under way are not waited for."""
        self.is_closed = True
        await self._background.close()
        self._finder.close()
        requests = [*self._outbound.everything()]
        for waiting in self._unresolved.values():
            requests += waiting
        requests += self._inbox
        for request in requests:
            self._fail(request, closed_error())
        self._unresolved.clear()
