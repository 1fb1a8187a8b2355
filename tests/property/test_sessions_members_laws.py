"""Laws of sessions and members, whatever is sent, however the ledger's loop is held up."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dspex.errors import InvalidRequestError, KeyNotFoundError, SessionExpiredError
from dspex.foundation.ledger.events import Event, Token
from dspex.foundation.ledger.members import TRANSITIONS, Members
from dspex.foundation.ledger.sessions import TICK, Sessions

NAMES = st.sampled_from(["s1", "s2", "s3", "s4"])
ADDRESSES = st.sampled_from(["a:1", "b:1", "c:1"])
LEASES = st.sampled_from([0.2, 1.0, 3.0])
CAPACITY = {"cpu_cores": 1.0}


class Laws(RuleBasedStateMachine):
    """Sessions and members together, as the ledger puts them together."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 50.0
        self.events: list[Event] = []
        self.sessions = Sessions()
        self.members = Members()
        self.ended: set[str] = set()
        self.replies: dict[str, dict[int, Any]] = {}
        self.acked: dict[str, int] = {}
        self.newest: Token = (0, 0)
        self.incarnations: dict[str, Token] = {}
        self.term = 1

    def emit(self, event: Event) -> None:
        self.events.append(event)
        if event[0] == "member":
            _, address, incarnation, _, _, _, state, _ = event
            before = self.members.get(address)
            assert state in TRANSITIONS[None if before is None else before["state"]]
            if state == "up" and (before is None or before["state"] == "joining"):
                assert incarnation > self.newest, "incarnations grow"
                self.newest = incarnation
                self.incarnations[address] = incarnation
            self.members.apply(event, self.now)
        else:
            self.sessions.apply(event, self.now)

    def end(self, session: str, reason: str) -> None:
        address = self.members.address_of(session)
        if address is not None:
            self.members.lost(address, self.emit)
        self.sessions.close(session, reason, self.emit)
        self.ended.add(session)
        self.replies.pop(session, None)
        self.acked.pop(session, None)

    # --- sessions --------------------------------------------------------------------------

    @rule(session=NAMES, generation=st.integers(0, 3), lease=LEASES)
    def opens(self, session: str, generation: int, lease: float) -> None:
        session = f"{session}.{generation}"
        try:
            self.sessions.open(session, "worker", "", lease, self.now, self.emit)
        except SessionExpiredError:
            assert session in self.ended
        else:
            assert session not in self.ended, "a session that ended does not come back"
            self.replies.setdefault(session, {})
            self.acked.setdefault(session, 0)

    @precondition(lambda self: self.replies or self.ended)
    @rule(data=st.data())
    def renews(self, data: st.DataObject) -> None:
        session = data.draw(st.sampled_from(sorted(self.replies.keys() | self.ended)))
        try:
            self.sessions.renew(session, self.now)
        except SessionExpiredError:
            assert session in self.ended
        else:
            assert session in self.replies

    @precondition(lambda self: self.replies)
    @rule(data=st.data(), number=st.integers(1, 6), acked=st.integers(0, 5), ok=st.booleans())
    def calls(self, data: st.DataObject, number: int, acked: int, ok: bool) -> None:
        session = data.draw(st.sampled_from(sorted(self.replies)))
        acked = min(acked, number)
        replies = self.replies[session]
        self.acked[session] = floor = max(self.acked[session], acked)
        if number < floor:
            with pytest.raises(InvalidRequestError):
                self.sessions.begin(session, number, acked, self.now)
            return
        stored = self.sessions.begin(session, number, acked, self.now)
        if number in replies:
            assert stored == replies[number], "a call is performed once"
            return
        assert stored is None
        replies[number] = (ok, f"reply {len(self.events)}")
        self.emit(("reply", session, number, *replies[number]))

    @precondition(lambda self: self.replies)
    @rule(data=st.data())
    def closes(self, data: st.DataObject) -> None:
        self.end(data.draw(st.sampled_from(sorted(self.replies))), "closed")

    # --- members ---------------------------------------------------------------------------

    @precondition(lambda self: self.replies)
    @rule(data=st.data(), address=ADDRESSES)
    def joins(self, data: st.DataObject, address: str) -> None:
        session = data.draw(st.sampled_from(sorted(self.replies)))
        former = self.members.session_at(address)
        if former is not None and former != session:
            self.end(former, "a new incarnation joined")
        token = (self.term, len(self.events) + 1)
        old = self.incarnations.get(address)
        try:
            self.members.join(address, session, "w", "h", CAPACITY, token, self.emit)
        except InvalidRequestError:
            assert self.members.address_of(session) not in (None, address)
        else:
            assert self.members.is_current(address, token)
            assert old is None or not self.members.is_current(address, old)

    @rule(address=ADDRESSES, what=st.sampled_from(["seen", "drain", "undrain", "lost", "left"]))
    def hears_of(self, address: str, what: str) -> None:
        if what == "seen":
            self.members.seen(address, "w", "h", self.emit)
        elif what in ("drain", "undrain"):
            try:
                getattr(self.members, what)(address, self.emit)
            except KeyNotFoundError:
                assert self.members.session_at(address) is None
            except InvalidRequestError:
                assert what == "undrain"
                assert self.term > 1
        else:
            session = self.members.session_at(address)
            getattr(self.members, what)(address, self.emit)
            assert self.members.get(address) is None
            if session is not None:
                self.end(session, what)

    # --- time ------------------------------------------------------------------------------

    @rule(gaps=st.lists(st.sampled_from([TICK, TICK, 0.3, 0.49, 5.0]), max_size=12))
    def time_passes(self, gaps: list[float]) -> None:
        for gap in gaps:
            self.now += gap
            for session in self.sessions.expire(self.now):
                assert self.sessions.silence(session) > 1.0
                self.end(session, "ran out")
            self.members.judge(self.sessions.silence, self.emit)

    @rule(is_compacted=st.booleans())
    def restarts(self, is_compacted: bool) -> None:
        if is_compacted:
            self.events = [*self.sessions.dump(), *self.members.dump()]
        self.sessions, self.members = self.replayed()
        if not is_compacted:
            # Before the next call says what it has, all replies are there again.
            for session, floor in self.acked.items():
                self.sessions.begin(session, 99, floor, self.now)
        self.term += 1
        self.newest = (self.term, 0)
        orphans = self.members.orphan(self.emit)
        assert all(self.sessions.is_open(session) for session in orphans)
        assert all(member["state"] != "up" for member in self.members.everyone())

    def replayed(self, *, is_from_dump: bool = False) -> tuple[Sessions, Members]:
        sessions, members = Sessions(), Members()
        dump = [*self.sessions.dump(), *self.members.dump()]
        for event in dump if is_from_dump else self.events:
            part = members if event[0] in members.tags else sessions
            part.apply(event, self.now)
        return sessions, members

    # --- always ----------------------------------------------------------------------------

    @invariant()
    def is_consistent(self) -> None:
        self.sessions.validate()
        self.members.validate()
        assert self.sessions.count == len(self.replies)
        for member in self.members.everyone():
            assert (member["state"] == "joining") or self.sessions.is_open(member["session"])

    @invariant()
    def replay_and_dump_make_the_same_state(self) -> None:
        for is_from_dump in (False, True):
            sessions, members = self.replayed(is_from_dump=is_from_dump)
            sessions.validate()
            members.validate()
            assert members.everyone() == self.members.everyone()
            assert sessions.count == self.sessions.count
            for session, replies in self.replies.items():
                for number in range(self.acked[session], 8):
                    stored = sessions.stored(session, number)
                    assert stored == replies.get(number)
                    assert stored == self.sessions.stored(session, number)
            for session in self.ended:
                with pytest.raises(SessionExpiredError):
                    sessions.open(session, "worker", "", 1.0, 0.0, lambda event: None)


TestSessionsAndMembersLaws = Laws.TestCase
TestSessionsAndMembersLaws.settings = settings(max_examples=40, stateful_step_count=30)


# --- time alone ----------------------------------------------------------------------------

# Seconds between two ticks: as they should be, hiccups, and a user's large graph.
GAPS = st.lists(
    st.one_of(
        st.floats(TICK, 0.3),
        st.floats(TICK, 0.6),
        st.floats(0.5, 2.0),
        st.sampled_from([30.0, 300.0]),
    ),
    max_size=60,
)


@settings(max_examples=300)
@given(
    lease=st.floats(0.2, 10.0),
    gaps=GAPS,
    late=st.floats(0.0, 1 / 4),
    offset=st.floats(0.0, 1.0),
    held_up=st.lists(st.floats(0.0, 1.0), min_size=60, max_size=60),
)
def test_who_renews_in_time_is_neither_suspected_nor_lost(
    lease: float, gaps: list[float], late: float, offset: float, held_up: list[float]
) -> None:
    # A renewal is sent every third of the lease and arrives up to a quarter of it later. After
    # a tick the loop runs for a while, then stands still, and the next tick comes before what is
    # in the queue.
    sessions, members = Sessions(), Members()
    now = 10.0
    sessions.expire(now)
    sessions.open("s", "worker", "", lease, now, lambda event: sessions.apply(event, now))

    def emit(event: Event) -> None:
        raise AssertionError(f"its renewals came in time, and yet {event}")

    members.apply(("member", "a:1", (1, 1), "s", "w", "h", "up", {}), now)
    sent = now + (offset - 1) * lease / 3
    for gap, share in zip(gaps, held_up, strict=False):
        stands_still = now + share * gap
        now += gap
        while sent + lease / 3 + late * lease <= stands_still:
            sent += lease / 3
            sessions.renew("s", sent + late * lease)
        assert sessions.expire(now) == []
        members.judge(sessions.silence, emit)
        while sent + lease / 3 + late * lease <= now:
            sent += lease / 3
            sessions.renew("s", now)
        sessions.validate()


@settings(max_examples=100)
@given(
    lease=st.floats(0.2, 5.0),
    before=GAPS,
    after=st.lists(st.sampled_from([TICK, TICK, 0.3, 0.45, 1.0, 60.0]), min_size=1, max_size=9),
)
def test_who_is_silent_is_suspected_and_then_lost(
    lease: float, before: list[float], after: list[float]
) -> None:
    sessions, members = Sessions(), Members()
    now = 10.0
    states: list[str] = []

    def emit(event: Event) -> None:
        if event[0] == "member":
            states.append(event[6])
            members.apply(event, now)
        else:
            sessions.apply(event, now)

    for gap in [1.0, *before]:
        now += gap
        sessions.expire(now)
    sessions.open("s", "worker", "", lease, now, emit)
    members.join("a:1", "s", "w", "h", CAPACITY, (1, 1), emit)
    # What the loop stood still is not counted, and a tick judges by the one before it.
    running = judged = 0.0
    for gap in [*after, *[TICK] * 40]:
        now += gap
        judged = running if gap <= 0.5 else judged
        running += gap if gap <= 0.5 else TICK
        lost = sessions.expire(now)
        assert bool(lost) is (judged > lease) or abs(judged - lease) < 1e-6
        if lost:
            members.lost("a:1", emit)
            break
        members.judge(sessions.silence, emit)
        is_suspected = states[-1] == "suspected"
        assert is_suspected is (judged > 2 / 3 * lease) or abs(judged - 2 / 3 * lease) < 1e-6
    assert states[-1] == "lost"


@given(st.floats(0.5, 20.0))
def test_on_a_loop_that_runs_it_takes_less_than_two_leases(lease: float) -> None:
    sessions, members = Sessions(), Members()
    now = opened = 10.0
    states = []

    def emit(event: Event) -> None:
        if event[0] == "member":
            states.append((event[6], now - opened))
            members.apply(event, now)
        else:
            sessions.apply(event, now)

    sessions.expire(now)
    sessions.open("s", "worker", "", lease, now, emit)
    members.join("a:1", "s", "w", "h", CAPACITY, (1, 1), emit)
    while members.everyone():
        now += TICK * 1.02
        if sessions.expire(now):
            members.lost("a:1", emit)
        members.judge(sessions.silence, emit)
    names = [name for name, _ in states]
    assert names == ["up", "suspected", "lost"] or (names == ["up", "lost"] and lease < 1.0)
    assert lease < states[-1][1] < 2 * lease
