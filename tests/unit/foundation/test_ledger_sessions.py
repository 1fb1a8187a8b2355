"""Sessions of the ledger: leases, and calls that are answered once."""

from __future__ import annotations

from typing import Any

import pytest

from dspex.errors import InvalidRequestError, SessionExpiredError
from dspex.foundation.ledger import sessions as sessions_module
from dspex.foundation.ledger.events import Event
from dspex.foundation.ledger.ledger import Ledger
from dspex.foundation.ledger.sessions import HOLDER_SHARE, TICK, Sessions
from dspex.foundation.ledger.wire import Call


class Part:
    """Sessions on a clock that ticks as it should, but where it is told to stand still."""

    def __init__(self) -> None:
        self.sessions = Sessions()
        self.now = 100.0
        self.gone: list[str] = []
        self.sessions.expire(self.now)

    def emit(self, event: Event) -> None:
        self.sessions.apply(event, self.now)

    def open(self, session: str = "a", lease: float = 3.0) -> None:
        self.sessions.open(session, "client", "me", lease, self.now, self.emit)

    def tick(self, after: float = TICK) -> list[str]:
        self.now += after
        found = self.sessions.expire(self.now)
        for session in found:
            self.gone.append(session)
            self.sessions.close(session, "ran out", self.emit)
        self.sessions.validate()
        return found

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds / TICK)):
            self.tick()

    def begin(self, number: int, acked_below: int = 0, session: str = "a") -> Any:
        return self.sessions.begin(session, number, acked_below, self.now)


def copy_of(sessions: Sessions, now: float = 0.0) -> Sessions:
    again = Sessions()
    for event in sessions.dump():
        again.apply(event, now)
    again.validate()
    return again


# --- leases --------------------------------------------------------------------------------


def test_a_silent_session_runs_out_after_its_lease_and_two_ticks() -> None:
    part = Part()
    part.open()
    part.run(3.0)
    assert part.gone == []
    part.run(3 * TICK)
    assert part.gone == ["a"]
    assert not part.sessions.is_open("a")


@pytest.mark.parametrize("call", ["renew", "begin", "touch", "open"])
def test_whatever_it_says_renews_it(call: str) -> None:
    part = Part()
    part.open()
    for number in range(10):
        part.run(2.4)
        if call == "renew":
            part.sessions.renew("a", part.now)
        elif call == "begin":
            part.begin(number)
        elif call == "touch":
            part.sessions.touch("a", part.now)
        else:
            part.open()
    assert part.gone == []
    assert part.sessions.silence("a") == 0.0


def test_what_ended_is_not_renewed_and_does_not_come_back() -> None:
    part = Part()
    part.open()
    part.run(5.0)
    with pytest.raises(SessionExpiredError, match="a has ended"):
        part.sessions.renew("a", part.now)
    with pytest.raises(SessionExpiredError, match="does not come back; a did"):
        part.open()
    with pytest.raises(SessionExpiredError, match="a has ended"):
        part.begin(1)
    with pytest.raises(SessionExpiredError, match="b is not known here"):
        part.begin(1, session="b")
    part.sessions.touch("a", part.now)
    part.sessions.close("a", "again", part.emit)
    assert not part.sessions.is_open("a")
    assert part.sessions.silence("a") == float("inf")


def test_of_those_that_ended_the_last_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions_module, "_REMEMBERED", 3)
    part = Part()
    for n in range(5):
        part.open(f"s{n}")
        part.sessions.close(f"s{n}", "closed", part.emit)
    part.sessions.validate()
    part.open("s1")
    with pytest.raises(SessionExpiredError):
        part.open("s2")


def test_a_loop_that_stood_still_costs_nobody_the_lease() -> None:
    part = Part()
    part.open()
    part.run(2.8)
    assert part.tick(300.0) == []
    # The renewal was in the queue all the time.
    part.sessions.renew("a", part.now)
    part.run(2.8)
    assert part.gone == []
    # Without one, only what the loop ran is counted.
    part.tick(300.0)
    part.run(1.0)
    assert part.gone == ["a"]


def test_short_hiccups_cost_nobody_a_short_lease() -> None:
    part = Part()
    part.open(lease=0.2)
    for _ in range(50):
        # Each time the tick comes before the renewals that arrived while the loop was held up.
        assert part.tick(0.49) == []
        assert part.sessions.silence("a") <= 0.0
        part.sessions.renew("a", part.now)


def test_what_was_heard_during_the_standstill_counts_as_of_its_end() -> None:
    part = Part()
    part.open()
    part.now += 50.0
    part.sessions.renew("a", part.now)
    part.now -= 50.0
    part.tick(50.1)
    part.run(3.0 + 3 * TICK)
    assert part.gone == ["a"]


def test_a_session_that_ran_out_is_told_until_it_is_closed() -> None:
    part = Part()
    part.open()
    told = 0
    for _ in range(30):
        part.now += TICK
        told += part.sessions.expire(part.now) == ["a"]
    assert told > 10


def test_the_holder_believes_for_less_than_the_ledger() -> None:
    assert 0 < HOLDER_SHARE < 1


def test_what_is_no_session() -> None:
    part = Part()
    with pytest.raises(InvalidRequestError, match='"client" or "worker"; got \'king\''):
        part.sessions.open("a", "king", "", 3.0, 0.0, part.emit)
    for lease in (0.1, 3601.0, float("nan"), -1.0):
        with pytest.raises(InvalidRequestError, match=r"0\.2 to 3600 seconds"):
            part.open(lease=lease)
    assert part.sessions.count == 0


def test_too_many_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions_module, "_MAX_SESSIONS", 2)
    part = Part()
    part.open("a")
    part.open("b")
    with pytest.raises(InvalidRequestError, match="at most 2 sessions"):
        part.open("c")
    part.open("a")


# --- calls ---------------------------------------------------------------------------------


def test_a_call_that_comes_again_is_answered_from_memory() -> None:
    part = Part()
    part.open()
    assert part.begin(1) is None
    assert part.begin(1) is None, "it was not performed yet"
    part.emit(("reply", "a", 1, True, {"version": 7}))
    part.emit(("reply", "a", 2, False, ["KeyNotFoundError", "no", {}]))
    assert part.begin(1) == (True, {"version": 7})
    assert part.begin(2) == (False, ["KeyNotFoundError", "no", {}])
    assert part.sessions.stored("a", 3) is None
    assert part.sessions.stored("b", 1) is None


def test_what_was_acknowledged_is_forgotten_and_refused() -> None:
    part = Part()
    part.open()
    for number in (3, 1, 2):
        part.emit(("reply", "a", number, True, number))
    assert part.begin(4, acked_below=3) is None
    assert part.sessions.stored("a", 2) is None
    assert part.begin(3, acked_below=1) == (True, 3), "an acknowledgement is not taken back"
    for number in (1, 2):
        with pytest.raises(InvalidRequestError, match=f"call {number} was acknowledged"):
            part.begin(number, acked_below=1)


def test_a_late_copy_of_a_call_is_refused_after_a_restart_too() -> None:
    part = Part()
    part.open()
    part.emit(("reply", "a", 1, True, "done"))
    part.begin(2, acked_below=2)
    again = copy_of(part.sessions)
    with pytest.raises(InvalidRequestError, match="acknowledged"):
        again.begin("a", 1, 1, 0.0)
    assert again.begin("a", 2, 1, 0.0) is None


def test_calls_that_wait_hold_no_acknowledgement_up() -> None:
    part = Part()
    part.open()
    for number in (2, 3, 4):
        part.emit(("reply", "a", number, True, number))
    begin = part.sessions.begin
    assert begin("a", 5, 4, 0.0, [1, 3]) is None
    assert part.sessions.stored("a", 2) is None
    assert begin("a", 1, 4, 0.0, [1, 3]) is None, "it waits"
    assert begin("a", 3, 4, 0.0, [1, 3]) == (True, 3), "its late reply was not seen yet"
    again = copy_of(part.sessions)
    for sessions in (part.sessions, again):
        assert sessions.begin("a", 1, 4, 0.0, [1, 3]) is None
        with pytest.raises(InvalidRequestError, match="call 2 was acknowledged"):
            sessions.begin("a", 2, 4, 0.0, [1, 2, 3])
        # Acknowledged now, for ever, whatever a late copy of a request says.
        assert sessions.begin("a", 5, 4, 0.0, [1]) is None
        assert sessions.stored("a", 3) is None
        for parked in ([1, 3], [3]):
            with pytest.raises(InvalidRequestError, match="call 3 was acknowledged"):
                sessions.begin("a", 3, 4, 0.0, parked)
        assert sessions.begin("a", 5, 3, 0.0, [1]) is None


def test_too_many_unacknowledged_replies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions_module, "_MAX_UNACKED", 3)
    part = Part()
    part.open()
    for number in (1, 2, 3):
        assert part.begin(number) is None
        part.emit(("reply", "a", number, True, None))
    with pytest.raises(InvalidRequestError, match="at most 3 replies unacknowledged"):
        part.begin(4)
    assert part.begin(2) == (True, None), "what was answered is answered again"
    assert part.begin(4, acked_below=3) is None


def test_a_reply_to_a_session_that_ended_is_dropped() -> None:
    part = Part()
    part.emit(("reply", "a", 1, True, None))
    assert part.sessions.stored("a", 1) is None


# --- restarts ------------------------------------------------------------------------------


def test_a_snapshot_is_of_the_instant_at_which_it_was_asked_for() -> None:
    part = Part()
    part.open("a")
    part.open("b")
    part.open("c")
    part.emit(("reply", "a", 1, True, "one"))
    part.sessions.close("c", "closed", part.emit)
    dump = part.sessions.dump()
    part.emit(("reply", "a", 2, True, "two"))
    part.sessions.close("b", "closed", part.emit)
    part.open("d")
    again = Sessions()
    for event in dump:
        again.apply(event, 0.0)
    assert again.stored("a", 1) == (True, "one")
    assert again.stored("a", 2) is None
    assert again.is_open("b")
    assert not again.is_open("d")
    with pytest.raises(SessionExpiredError):
        again.open("c", "client", "me", 3.0, 0.0, lambda event: None)


def test_a_slow_recovery_costs_nobody_the_lease() -> None:
    first = Ledger(term=1)
    opened = first.handle(
        "a",
        1,
        Call(None, "session.open", {"kind": "client", "name": "me", "lease": 1.0}),
        now=0.0,
    )
    second = Ledger(term=2)
    second.replay(opened.revision, opened.events, 100.0)
    second.recovered(160.0)
    for tick in range(6):
        assert second.tick(160.2 + TICK * tick).events == []
    assert second.handle("a", 1, Call(None, "session.renew", {}), now=161.3).reply == 2
