"""Laws of leases, whatever workers, sessions, requests and quotas come and go."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dspex.errors import (
    QuotaExceededError,
    UnsatisfiableRequestError,
    VersionConflictError,
)
from dspex.foundation.ledger.events import Event, Token
from dspex.foundation.ledger.placement import PLACEMENTS
from dspex.foundation.ledger.resources import Resources

ADDRESSES = st.sampled_from(["a", "b", "c"])
SESSIONS = st.sampled_from(["s1", "s2", "s3"])
TENANTS = st.sampled_from([None, None, "t1", "t2"])
NAMES = ("cpu_cores", "memory_gb", "gpus")
AMOUNTS = st.fixed_dictionaries(
    {},
    optional={
        "cpu_cores": st.sampled_from([0, 0.1, 0.3, 1, 2, 3]),
        "memory_gb": st.sampled_from([0, 0.7, 2, 5]),
        "gpus": st.sampled_from([0, 0.5, 1]),
    },
)
CAPACITIES = st.fixed_dictionaries(
    {
        "cpu_cores": st.sampled_from([0.9, 1, 2, 4]),
        "memory_gb": st.sampled_from([1, 4.2, 8]),
        "gpus": st.sampled_from([0, 1]),
        "labels": st.lists(st.sampled_from(["ssd", "fast"]), unique=True),
    }
)
LIMITS = st.none() | st.fixed_dictionaries(
    {},
    optional={
        "cpu_cores": st.sampled_from([None, 0, 0.5, 2, 4]),
        "memory_gb": st.sampled_from([None, 3]),
        "max_concurrent": st.sampled_from([None, 0, 1, 3]),
    },
)


def _whole(amounts: Mapping[str, Any]) -> tuple[int, ...]:
    return tuple(round((amounts.get(name) or 0) * 10**6) for name in NAMES)


def _sum(many: list[tuple[int, ...]]) -> tuple[int, ...]:
    return tuple(map(sum, zip(*many, strict=True))) if many else (0, 0, 0)


def _fits(less: tuple[int, ...], more: tuple[int, ...]) -> bool:
    return all(a <= b for a, b in zip(less, more, strict=True))


class ResourceLaws(RuleBasedStateMachine):
    """Drives the part as the ledger does, and keeps a plain model made of its events alone."""

    def __init__(self) -> None:
        super().__init__()
        self.resources = Resources()
        self.events: list[Event] = []
        self.n = 0
        self.calls = 0
        # {address: (incarnation, state, capacity)}
        self.members: dict[str, tuple[Token, str, dict[str, Any]]] = {}
        self.quotas: dict[str, dict[str, Any]] = {}
        # {token: (session, worker, amounts, tenant)}
        self.held: dict[Token, tuple[str, str, tuple[int, ...], str | None]] = {}
        # {(session, number): (order, request)}
        self.waiting: dict[tuple[str, int], tuple[tuple[float, int], dict[str, Any]]] = {}

    # --- the model -----------------------------------------------------------------------

    def token(self) -> Token:
        self.n += 1
        return (1, self.n)

    def emit(self, event: Event) -> None:
        getattr(self, f"_saw_{event[0]}")(*event[1:])
        self.events.append(event)
        self.resources.apply(event, 0.0)

    def _saw_member(
        self, address: str, incarnation: Token, _: Any, __: Any, ___: Any, state: str, capacity: Any
    ) -> None:
        if state in ("lost", "left"):
            del self.members[address]
        else:
            self.members[address] = (incarnation, state, capacity)

    def _saw_quota(self, tenant: str, limits: dict[str, Any] | None) -> None:
        self.quotas.pop(tenant, None)
        if limits is not None:
            self.quotas[tenant] = limits

    def _saw_free(self, token: Token, reason: str) -> None:
        del self.held[token]

    def _saw_grant(
        self,
        token: Token,
        session: str,
        kind: str,
        worker: str,
        amounts: dict[str, float],
        labels: tuple[str, ...],
        tenant: str | None,
        priority: float,
    ) -> None:
        assert all(token > other for other in self.held), "tokens grow"
        _, state, capacity = self.members[worker]
        assert state == "up"
        assert set(labels) <= set(capacity["labels"])
        number = int(kind)
        order, request = self.waiting[session, number]
        assert _whole(request["amounts"]) == _whole(amounts)
        assert request["worker"] in (None, worker)
        kept, held_up = self._before(order)
        assert tenant not in held_up, "nobody overtakes in a tenant's line"
        assert worker not in kept or not any(_whole(amounts)), "nobody takes what is kept"
        self.held[token] = (session, worker, _whole(amounts), tenant)
        assert _fits(self._taken(worker), _whole(capacity)), "no worker gives more than it has"
        assert self._has_room(tenant, (0, 0, 0), 0), "no tenant gets more than its quota"

    def _saw_reply(self, session: str, number: int, is_ok: bool, payload: Any) -> None:
        _, request = self.waiting.pop((session, number))
        if is_ok:
            assert self.held[payload["token"]][0] == session
        else:
            pinned = request["worker"]
            assert payload[0] in ("QuotaExceededError", "UnsatisfiableRequestError")
            assert not self._could_have(request) or (
                pinned is not None and not self._could_give(pinned, request)
            )

    def _taken(self, worker: str) -> tuple[int, ...]:
        return _sum([amounts for _, where, amounts, _ in self.held.values() if where == worker])

    def _has_room(self, tenant: str | None, amounts: tuple[int, ...], leases: int) -> bool:
        theirs = [each for _, _, each, whose in self.held.values() if whose == tenant]
        return self._allows(tenant, _sum([*theirs, amounts]), len(theirs) + leases)

    def _could_have(self, request: dict[str, Any]) -> bool:
        return self._allows(request["tenant"], _whole(request["amounts"]), 1)

    def _allows(self, tenant: str | None, amounts: tuple[int, ...], leases: int) -> bool:
        limits = self.quotas.get(tenant or "", {})
        most = [limits.get("cpu_cores"), limits.get("memory_gb")]
        return all(
            limit is None or amounts[at] <= round(limit * 10**6) for at, limit in enumerate(most)
        ) and (limits.get("max_concurrent") is None or leases <= limits["max_concurrent"])

    def _could_give(self, address: str, request: dict[str, Any]) -> bool:
        if address not in self.members:
            return False
        capacity = self.members[address][2]
        return (
            request["worker"] in (None, address)
            and set(request["labels"]) <= set(capacity["labels"])
            and _fits(_whole(request["amounts"]), _whole(capacity))
        )

    def _up(self) -> list[str]:
        return [each for each, (_, state, _) in self.members.items() if state == "up"]

    def _before(self, order: tuple[float, int]) -> tuple[set[str], set[str | None]]:
        """Workers and tenants that are kept for those before this place."""
        kept: set[str] = set()
        held_up: set[str | None] = set()
        for other, request in sorted(self.waiting.values(), key=lambda each: each[0]):
            if other >= order:
                break
            tenant, amounts = request["tenant"], _whole(request["amounts"])
            if tenant in held_up:
                continue
            if not self._has_room(tenant, amounts, 1):
                held_up.add(tenant)
            elif any(amounts):
                kept |= {each for each in self._up() if self._could_give(each, request)}
        return kept, held_up

    # --- what happens --------------------------------------------------------------------

    def _step(self) -> None:
        self.resources.settle(0.0, self.token, self.emit)

    def _member(self, address: str, incarnation: Token, state: str, capacity: Any) -> None:
        self.emit(("member", address, incarnation, "w", address, "here", state, capacity))

    @rule(address=ADDRESSES, capacity=CAPACITIES, state=st.sampled_from(["up", "up", "joining"]))
    def joins(self, address: str, capacity: dict[str, Any], state: str) -> None:
        """As a new incarnation where the address is taken."""
        self._member(address, self.token(), state, capacity)
        self._step()

    @precondition(lambda self: self.members)
    @rule(
        data=st.data(), state=st.sampled_from(["up", "suspected", "draining", "lost", "left", "up"])
    )
    def changes(self, data: st.DataObject, state: str) -> None:
        address = data.draw(st.sampled_from(sorted(self.members)))
        incarnation, _, capacity = self.members[address]
        self._member(address, incarnation, state, capacity)
        if data.draw(st.booleans()):
            self.resources.worker_gone(address, self.emit)
        self._step()

    @rule(
        session=SESSIONS,
        amounts=AMOUNTS,
        labels=st.lists(st.sampled_from(["ssd", "fast"]), unique=True, max_size=1),
        placement=st.sampled_from([*PLACEMENTS, "least_loaded_node"]),
        worker=st.none() | st.none() | st.none() | ADDRESSES,
        tenant=TENANTS,
        priority=st.sampled_from([0, 0, 1, 2.5]),
        key=st.none() | st.sampled_from(["x", "y"]),
    )
    def acquires(self, session: str, **request: Any) -> None:
        self.calls += 1
        call = (session, self.calls)
        request["kind"] = str(self.calls)
        self.waiting[call] = ((-request["priority"], self.calls), request)
        count = len(self.events)
        could = any(self._could_give(each, request) for each in self.members)
        try:
            granted = self.resources.acquire(
                *call, request, now=0.0, token=self.token, emit=self.emit
            )
        except QuotaExceededError:
            assert not self._could_have(request)
            assert len(self.events) == count, "a refusal changes nothing"
            del self.waiting[call]
            return
        except UnsatisfiableRequestError:
            assert not could
            assert len(self.events) == count, "a refusal changes nothing"
            del self.waiting[call]
            return
        assert self._could_have(request)
        assert could or not self.members
        if granted is not None:
            assert granted["token"] in self.held
            del self.waiting[call]
        self._step()

    @rule(session=SESSIONS, amounts=AMOUNTS, is_stale=st.booleans(), data=st.data())
    def chooses(
        self, session: str, amounts: dict[str, Any], is_stale: bool, data: st.DataObject
    ) -> None:
        views = self.resources.snapshot()
        assert {view["address"] for view in views} == set(self._up())
        if not views:
            return
        view = data.draw(st.sampled_from(views))
        self.calls += 1
        request = {
            "kind": str(self.calls),
            "amounts": amounts,
            "labels": [],
            "tenant": None,
            "worker": view["address"],
            "version": view["version"] - is_stale,
        }
        if not self._could_give(view["address"], request):
            return
        call = (session, self.calls)
        self.waiting[call] = ((0, self.calls), request)
        try:
            granted = self.resources.acquire(
                *call, request, now=0.0, token=self.token, emit=self.emit
            )
        except VersionConflictError:
            assert is_stale
            del self.waiting[call]
            return
        assert not is_stale
        if granted is not None:
            del self.waiting[call]
        else:
            self.resources.cancel(*call)  # what is chosen and waits fails otherwise than these
            del self.waiting[call]
        self._step()

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def releases(self, data: st.DataObject) -> None:
        token = data.draw(st.sampled_from(sorted(self.held)))
        session = self.held[token][0]
        assert self.resources.verify(token)
        assert self.resources.release(session, token, self.emit)
        assert not self.resources.verify(token)
        assert not self.resources.release(session, token, self.emit)
        self._step()

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def cancels(self, data: st.DataObject) -> None:
        call = data.draw(st.sampled_from(sorted(self.waiting)))
        del self.waiting[call]
        assert self.resources.cancel(*call)
        assert not self.resources.cancel(*call)
        self._step()

    @rule(session=SESSIONS)
    def session_ends(self, session: str) -> None:
        self.waiting = {call: each for call, each in self.waiting.items() if call[0] != session}
        self.resources.session_gone(session, self.emit)
        assert all(each[0] != session for each in self.held.values())
        self._step()

    @rule(tenant=st.sampled_from(["t1", "t2"]), limits=LIMITS)
    def sets_quota(self, tenant: str, limits: dict[str, Any] | None) -> None:
        self.resources.set_quota(tenant, limits, self.emit)
        self._step()

    # --- what holds ----------------------------------------------------------------------

    @invariant()
    def is_consistent(self) -> None:
        self.resources.validate()
        assert set(self.held) == {lease.token for lease in self.resources.leases()}
        assert all(worker in self.members for _, worker, _, _ in self.held.values())

    @invariant()
    def nobody_waits_who_could_be_granted(self) -> None:
        in_order = sorted(self.waiting.items(), key=lambda each: each[1][0])
        said = [(each["session"], each["number"]) for each in self.resources.waiting()]
        assert said == [call for call, _ in in_order]
        for _, (order, request) in in_order:
            amounts = _whole(request["amounts"])
            kept, held_up = self._before(order)
            assert self._could_have(request), "nobody waits for what can never be"
            if request["tenant"] in held_up or not self._has_room(request["tenant"], amounts, 1):
                continue
            for address in self._up():
                if address in kept and any(amounts):
                    continue
                taken, capacity = self._taken(address), _whole(self.members[address][2])
                assert not (
                    self._could_give(address, request) and _fits(_sum([taken, amounts]), capacity)
                )

    @invariant()
    def replay_and_dump_make_the_same_state(self) -> None:
        members = [
            ("member", address, incarnation, "w", address, "here", state, capacity)
            for address, (incarnation, state, capacity) in self.members.items()
        ]
        for events in (self.events, [*members, *self.resources.dump()]):
            again = Resources()
            for event in events:
                again.apply(event, 9.0)
            again.validate()
            assert again.leases() == self.resources.leases()
            for by in ("worker", "tenant", "kind"):
                assert again.usage(by) == self.resources.usage(by)
            again.settle(9.0, self.token, lambda event: None)


TestResourceLaws = ResourceLaws.TestCase
TestResourceLaws.settings = settings(max_examples=60, stateful_step_count=30)
