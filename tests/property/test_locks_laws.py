"""Laws of locks and rate limits, whatever sessions come and go."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dspex.errors import InvalidRequestError
from dspex.foundation.ledger.events import Event, Token
from dspex.foundation.ledger.locks import Locks
from dspex.foundation.ledger.rates import EXPIRY, Rates, batch_of

SESSIONS = st.sampled_from(["s1", "s2", "s3"])
NAMES = st.sampled_from(["x", "y"])


class LockLaws(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.locks = Locks()
        self.events: list[Event] = []
        self.n = 0
        self.calls = 0
        self.held: dict[str, tuple[Token, str]] = {}
        self.lines: dict[str, list[tuple[str, int]]] = {"x": [], "y": []}
        self.replied: dict[tuple[str, int], Token] = {}

    def token(self) -> Token:
        self.n += 1
        return (1, self.n)

    def emit(self, event: Event) -> None:
        if event[0] == "lock":
            _, _, name, token, session, _ = event
            assert name not in self.held, "no lock has two owners"
            self.held[name] = (token, session)
        elif event[0] == "unlock":
            assert self.held.pop(event[2])[0] == event[3]
        else:
            _, session, number, is_ok, payload = event
            assert is_ok
            name = next(name for name, line in self.lines.items() if (session, number) in line)
            assert self.lines[name].pop(0) == (session, number), "who asked first has it first"
            assert self.held[name] == (payload["token"], session)
        self.events.append(event)
        self.locks.apply(event, 0.0)

    @rule(session=SESSIONS, name=NAMES, kind=st.sampled_from(["lock", "lock", "leader"]))
    def acquires(self, session: str, name: str, kind: str) -> None:
        self.calls += 1
        was_held = name in self.held
        newest = self.n
        try:
            granted = self.locks.acquire(
                session, self.calls, "space", name, kind, token=self.token, emit=self.emit
            )
        except InvalidRequestError:
            assert was_held, "a name that is free may become either"
            return
        assert (granted is None) is was_held
        if granted is None:
            self.lines[name].append((session, self.calls))
            assert (
                self.locks.acquire(
                    session, self.calls, "space", name, kind, token=self.token, emit=self.emit
                )
                is None
            ), "a call that is repeated waits once"
        else:
            assert granted["token"] > (1, newest)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), is_twice=st.booleans())
    def releases(self, data: st.DataObject, is_twice: bool) -> None:
        name = data.draw(st.sampled_from(sorted(self.held)))
        token, session = self.held[name]
        for is_first in (True, False)[: 1 + is_twice]:
            assert is_first is self.locks.release(
                session, "space", name, token, token=self.token, emit=self.emit
            )
            assert not self.locks.verify(token)

    @precondition(lambda self: any(self.lines.values()))
    @rule(data=st.data())
    def cancels(self, data: st.DataObject) -> None:
        call = data.draw(st.sampled_from(sorted(self.lines["x"] + self.lines["y"])))
        for line in self.lines.values():
            if call in line:
                line.remove(call)
        assert self.locks.cancel(*call)
        assert not self.locks.cancel(*call)

    @rule(session=SESSIONS)
    def session_ends(self, session: str) -> None:
        for name, line in self.lines.items():
            self.lines[name] = [call for call in line if call[0] != session]
        self.locks.session_gone(session, self.token, self.emit)
        assert all(owner != session for _, owner in self.held.values())

    @invariant()
    def is_consistent(self) -> None:
        self.locks.validate()
        for name in ("x", "y"):
            holder = self.locks.holder("space", name)
            held = None if holder is None else (holder["token"], holder["session"])
            assert held == self.held.get(name)
            waiting = [each for each in self.locks.waiting() if each["name"] == name]
            assert [(each["session"], each["number"]) for each in waiting] == self.lines[name]

    @invariant()
    def replay_and_dump_make_the_same_state(self) -> None:
        for events in (self.events, list(self.locks.dump())):
            again = Locks()
            for event in events:
                again.apply(event, 9.0)
            assert again.held() == self.locks.held()


TestLockLaws = LockLaws.TestCase
TestLockLaws.settings = settings(max_examples=50, stateful_step_count=30)


@st.composite
def _takes(draw: st.DrawFn) -> tuple[float, int, list[tuple[float, str, int, int]]]:
    rate = draw(st.sampled_from([0.1, 1, 7.3, 40, 1000]))
    burst = draw(st.integers(1, 100))
    step = st.tuples(
        st.floats(0, 2.0), SESSIONS, st.integers(1, burst), st.sampled_from([0, 0, 1, 5])
    )
    return rate, burst, draw(st.lists(step, max_size=60))


@given(_takes())
def test_no_more_permits_go_out_than_the_rate_brings(
    takes: tuple[float, int, list[tuple[float, str, int, int]]],
) -> None:
    rate, burst, steps = takes
    rates = Rates()
    now = 1000.0
    out = 0
    last = dict.fromkeys(("s1", "s2", "s3"), 0)
    for pause, session, want, unused in steps:
        now += pause
        unused = min(unused, last[session])
        taken = rates.take(session, "x", rate, burst, want, unused, now)
        rates.validate()
        assert taken.permits <= want
        if want > batch_of(rate):
            assert taken.permits in (0, want)
        assert (taken.permits == 0) is (taken.retry_after > 0)
        last[session] = taken.permits or last[session] - unused
        out += taken.permits - unused
        assert out <= burst + rate * (now - 1000.0) + 1e-6


@given(
    st.sampled_from([0.3, 2, 11, 300]),
    st.integers(1, 50),
    st.data(),
    st.lists(SESSIONS, max_size=9),
)
def test_whoever_comes_back_when_told_gets_it(
    rate: float, burst: int, data: st.DataObject, others: list[str]
) -> None:
    rates = Rates()
    now = 0.0
    rates.take("first", "x", rate, burst, burst if burst > batch_of(rate) else 1, 0, now)
    want = data.draw(st.integers(1, burst))
    for _ in range(burst + 2):
        taken = rates.take("s", "x", rate, burst, want, 0, now)
        if taken.permits:
            return
        now += taken.retry_after
        if want > batch_of(rate):
            for other in others:  # they are not served before what is kept
                rates.take(other, "x", rate, burst, 1, 0, now - taken.retry_after / 2)
    raise AssertionError("a large request is not starved")


@given(st.sampled_from([4, 100]), st.floats(0, 3))
def test_of_a_dead_session_the_last_batch_returns_when_it_is_void(rate: int, later: float) -> None:
    rates = Rates()
    burst = batch_of(rate)
    assert rates.take("dead", "x", rate, burst, burst, 0, 0.0).permits == burst
    rates.expire(later)
    rates.session_gone("dead")
    # Nothing before it is void, all of it then; later than that it counts as used.
    soon = rates.take("me", "x", rate, burst, 1, 0, later)
    assert (soon.permits > 0) is (later * rate >= 1 - 1e-9)
    if later < EXPIRY and not soon.permits:
        assert rates.take("me", "x", rate, burst, burst, 0, max(later, EXPIRY)).permits == burst
