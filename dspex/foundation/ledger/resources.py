"""Leases: so much of a worker, for one session, until it gives it back or is gone.

Knows: what is held by whom, what each tenant may have, who may be granted next.
Must not know: clocks, how a session or a worker is found to be gone.

The sum of leases never exceeds a worker's capacity or a tenant's quota: each is looked at before
a grant is emitted, and the grant is applied before the next is looked at.

**Who is next.** Requests wait by priority, then by arrival. One that does not fit now keeps all
workers that could give it when idle from those behind it, so that a large request is not starved
by small ones; what they have free meanwhile is the price. It keeps nobody from workers that could
not serve it anyhow (without its labels, too small, another than the pinned one). One that waits
for its tenant's quota holds up its own tenant alone. A request for no amount at all (a slot, to
be counted by kind or quota) takes nothing from anybody and is held up by the quota alone.
A later request of higher priority goes first, however long the others have waited.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, final

from dspex.errors import DspexError, InvalidRequestError
from dspex.foundation.ledger.amounts import NOTHING, Amounts
from dspex.foundation.ledger.events import Emit, Event, Token
from dspex.foundation.ledger.fleet import Fleet
from dspex.foundation.ledger.holdings import Held, Holdings
from dspex.foundation.ledger.placement import Placer, Wish
from dspex.foundation.ledger.quotas import limits_from
from dspex.foundation.ledger.requests import refuse_changed, refuse_impossible, wish_from
from dspex.foundation.ledger.waiting import Queue
from dspex.foundation.ledger.wire import error_payload

__all__ = ["Resources"]

_WORKER_LEFT = "worker left"


@final
class Resources:
    """The part of the ledger that grants leases.

    Parameters
    ----------
    seed : int
        Of the random placement.

    Examples
    --------
    >>> resources = Resources()
    >>> emit = lambda event: resources.apply(event, 0.0)
    >>> emit(("member", "a", (1, 1), "s", "a", "here", "up", {"cpu_cores": 2}))
    >>> request = {"kind": "fit", "amounts": {"cpu_cores": 2}}
    >>> lease = resources.acquire("me", 1, request, now=0, token=lambda: (1, 2), emit=emit)
    >>> lease["worker"], lease["token"]
    ('a', (1, 2))
    >>> resources.acquire("me", 2, request, now=0, token=lambda: (1, 3), emit=emit)
    >>> [waiter["number"] for waiter in resources.waiting()]
    [2]
    """

    tags = frozenset({"member", "grant", "free", "quota"})

    def __init__(self, seed: int = 0) -> None:
        self._holdings = Holdings()
        self._fleet = self._holdings.fleet
        self._quotas = self._holdings.quotas
        self._placer = Placer(seed)
        self._queue = Queue()
        self._is_settled = True  # nobody who waits could be granted
        self._is_doubtful = False  # somebody may wait for what will never be

    def apply(self, event: Event, now: float) -> None:
        """Take what happened."""
        self._holdings.apply(event)
        if event[0] != "grant":
            self._is_settled = False
            self._is_doubtful |= event[0] in ("member", "quota")

    def dump(self) -> Iterator[Event]:
        """Events that make the state; those of the members have been taken before."""
        return self._holdings.dump()

    # --- what is decided -----------------------------------------------------------------

    def acquire(
        self,
        session: str,
        number: int,
        request: Mapping[str, Any],
        *,
        now: float,
        token: Callable[[], Token],
        emit: Emit,
    ) -> dict[str, Any] | None:
        """Grant a lease, or have the call wait; None where it waits.

        Raises
        ------
        InvalidRequestError
        QuotaExceededError
        UnsatisfiableRequestError
            Where no worker that is here could give it if it were idle.
        VersionConflictError
            Where the worker is not as the caller saw it.
        ResourceExhaustedError
            Where too many wait.
        """
        if (session, number) in self._queue:
            return None
        wish = wish_from(request, f"{session}/{number}")
        refuse_changed(wish, request.get("version"), self._fleet)
        refuse_impossible(wish, self._fleet, self._quotas)
        if not len(self._queue):
            granted, _ = self._try(session, wish, frozenset(), token, emit)
            if granted is None:
                self._queue.add(session, number, wish, now)
            return granted
        was_settled = self._is_settled
        self._queue.add(session, number, wish, now)
        if was_settled and self._queue.is_behind_another(session, number):
            return None
        self._is_settled = False
        return self._scan(token, emit, call=(session, number))

    def give(
        self,
        session: str,
        address: str,
        kind: str,
        amounts: Amounts,
        labels: frozenset[str],
        token: Callable[[], Token],
        emit: Emit,
    ) -> Token:
        """Grant a lease on a worker that was found to have it free."""
        new = token()
        named = tuple(sorted(labels))
        emit(("grant", new, session, kind, address, amounts.public(), named, None, 0))
        return new

    def release(self, session: str, token: Token, emit: Emit) -> bool:
        """End a lease; False where it is over already.

        Raises
        ------
        InvalidRequestError
            Where it is another session's.
        """
        lease = self._holdings.leases.get(token)
        if lease is None:
            return False
        if lease.session != session:
            raise InvalidRequestError(
                f"a lease is given back by the session that holds it; {token} is held by "
                f"{lease.session}, asked by {session}"
            )
        emit(("free", token, "released"))
        return True

    def cancel(self, session: str, number: int) -> bool:
        """Withdraw a call that waits; False where it does not."""
        is_removed = self._queue.remove(session, number)
        self._is_settled &= not is_removed
        return is_removed

    def session_gone(self, session: str, emit: Emit) -> None:
        """End all that a session holds and waits for."""
        self._is_settled &= not self._queue.remove_session(session)
        for token in self._holdings.of_session(session):
            emit(("free", token, "session gone"))

    def worker_gone(self, address: str, emit: Emit) -> None:
        """End the leases on a worker of which a member event has said that it is gone."""
        for token in tuple(self._holdings.over):
            if self._holdings.leases[token].worker == address:
                emit(("free", token, _WORKER_LEFT))

    def set_quota(self, tenant: str, limits: Mapping[str, Any] | None, emit: Emit) -> None:
        """Limit what a tenant may have at once; None ends the quota.

        Raises
        ------
        InvalidRequestError
        """
        made = None if limits is None else limits_from(limits)
        emit(("quota", tenant, None if made is None else made.public()))

    def settle(self, now: float, token: Callable[[], Token], emit: Emit) -> None:
        """Free what is on workers that are gone, and grant all that can be granted."""
        for over in tuple(self._holdings.over):
            emit(("free", over, _WORKER_LEFT))
        if not self._is_settled:
            self._scan(token, emit, call=None)

    def _scan(
        self, token: Callable[[], Token], emit: Emit, *, call: tuple[str, int] | None
    ) -> dict[str, Any] | None:
        """Grant in order; gives the reply to `call` instead of emitting it."""
        reply = None
        kept: set[str] = set()  # workers kept for somebody before
        held_up: set[str | None] = set()  # tenants
        n_up = len(self._fleet.addresses)
        at = 0
        while (waiter := self._queue.head(at)) is not None:
            _, session, number, wish, _ = waiter
            if len(kept) >= n_up and not self._is_doubtful:
                if not self._queue.has_slots:
                    break
                if wish.amounts != NOTHING:
                    at += 1
                    continue
            at += 1
            refusal = self._hopeless(wish) if self._is_doubtful else None
            granted = None
            if refusal is None:
                if wish.tenant in held_up:
                    continue
                granted, is_allowed = self._try(session, wish, kept, token, emit)
                if granted is None:
                    if not is_allowed:
                        held_up.add(wish.tenant)
                    elif wish.amounts != NOTHING:
                        kept.update(self._could_give(wish))
                    continue
            self._queue.remove(session, number)
            at -= 1  # the next of its line is here now, or further on
            if (session, number) == call:
                reply = granted
            elif refusal is None:
                emit(("reply", session, number, True, granted))
            else:
                emit(("reply", session, number, False, error_payload(refusal)))
        self._is_settled, self._is_doubtful = True, False
        return reply

    def _try(
        self,
        session: str,
        wish: Wish,
        kept: set[str] | frozenset[str],
        token: Callable[[], Token],
        emit: Emit,
    ) -> tuple[dict[str, Any] | None, bool]:
        """Grant if possible; gives the reply, and whether the quota allows it."""
        amounts = wish.amounts
        if not self._quotas.has_room(wish.tenant, amounts):
            return None, False
        but = kept if amounts != NOTHING else frozenset()
        worker = self._placer.choose(self._fleet, wish, except_of=but)
        if worker is None:
            return None, True
        assert worker.free.holds(amounts)
        new, public = token(), amounts.public()
        labels = tuple(sorted(wish.labels))
        emit(
            (
                "grant",
                new,
                session,
                wish.kind,
                worker.address,
                public,
                labels,
                wish.tenant,
                wish.priority,
            )
        )
        return {
            "token": new,
            "worker": worker.address,
            "kind": wish.kind,
            "amounts": public,
        }, True

    def _hopeless(self, wish: Wish) -> DspexError | None:
        """Why a request that waits would wait for ever.

        Larger workers may come, so only two things count: its tenant's quota was lowered below
        it, and the one worker that will do is gone.
        """
        if wish.worker is None and self._quotas.could_have(wish.tenant, wish.amounts):
            return None
        try:
            refuse_impossible(wish, self._fleet, self._quotas)
        except DspexError as error:
            return error
        return None

    def _could_give(self, wish: Wish) -> Iterator[str]:
        """The workers that are up and could give it if they were idle."""
        if wish.worker is not None:
            worker = self._fleet.get(wish.worker)
            workers = iter(() if worker is None or worker.state != "up" else (worker,))
        else:
            workers = self._fleet.least_loaded_first()
        for worker in workers:
            if worker.could_give(wish.amounts, wish.labels):
                yield worker.address

    # --- what is asked -------------------------------------------------------------------

    @property
    def fleet(self) -> Fleet:
        """The workers and what is free on each; to be read."""
        return self._fleet

    def verify(self, token: Token) -> bool:
        """Whether a lease is held."""
        return token in self._holdings.leases

    def leases(self) -> tuple[Held, ...]:
        """All that are held, oldest first."""
        return tuple(self._holdings.leases.values())

    def waiting(self) -> list[dict[str, Any]]:
        """Who waits, the next one first."""
        return [
            {
                "session": session,
                "number": number,
                "kind": wish.kind,
                "amounts": wish.amounts.public(),
                "tenant": wish.tenant,
                "priority": wish.priority,
                "since": since,
            }
            for _, session, number, wish, since in self._queue.in_order()
        ]

    def snapshot(self) -> list[dict[str, Any]]:
        """The workers that give, with what is free on each, and its version."""
        return self._holdings.snapshot()

    def usage(self, by: str) -> dict[str, dict[str, Any]]:
        """What is leased; see `Holdings.usage`."""
        return self._holdings.usage(by)

    def validate(self) -> None:
        """Assert the invariants; to be called between steps."""
        self._holdings.validate()
        self._queue.validate()
