"""Locks, leadership and rate limits of the ledger."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest

from dspex.errors import InvalidRequestError, ResourceExhaustedError
from dspex.foundation.ledger import locks as locks_module
from dspex.foundation.ledger import rates as rates_module
from dspex.foundation.ledger.events import Event, Token
from dspex.foundation.ledger.locks import Locks
from dspex.foundation.ledger.rates import Rates, batch_of


class Part:
    def __init__(self) -> None:
        self.locks = Locks()
        self.events: list[Event] = []
        self.tokens: Iterator[Token] = ((2, n) for n in count(1))

    def emit(self, event: Event) -> None:
        self.events.append(event)
        self.locks.apply(event, 0.0)

    def token(self) -> Token:
        return next(self.tokens)

    def acquire(self, session: str, number: int, name: str = "x", kind: str = "lock") -> object:
        return self.locks.acquire(session, number, "", name, kind, token=self.token, emit=self.emit)


def test_the_next_in_line_is_told_with_a_larger_token() -> None:
    part = Part()
    assert part.acquire("a", 1) == {"token": (2, 1)}
    assert part.acquire("b", 7) is None
    assert part.locks.release("a", "", "x", (2, 1), token=part.token, emit=part.emit)
    assert part.events[1:] == [
        ("unlock", "", "x", (2, 1), "released"),
        ("lock", "", "x", (2, 2), "b", "lock"),
        ("reply", "b", 7, True, {"token": (2, 2)}),
    ]
    assert part.locks.holder("", "x") == {"token": (2, 2), "session": "b", "kind": "lock"}
    assert part.locks.holder("other", "x") is None


def test_an_old_token_frees_nothing() -> None:
    part = Part()
    part.acquire("a", 1)
    assert not part.locks.release("a", "", "x", (1, 9), token=part.token, emit=part.emit)
    assert not part.locks.release("a", "", "y", (2, 1), token=part.token, emit=part.emit)
    assert part.locks.verify((2, 1))
    with pytest.raises(InvalidRequestError, match="held by a, asked by b"):
        part.locks.release("b", "", "x", (2, 1), token=part.token, emit=part.emit)


def test_a_name_is_not_a_lock_and_an_election_at_once() -> None:
    part = Part()
    part.acquire("a", 1)
    with pytest.raises(InvalidRequestError, match="in use as a lock"):
        part.acquire("a", 2, kind="leader")
    with pytest.raises(InvalidRequestError, match='"lock" or a "leader"'):
        part.acquire("a", 3, kind="king")


def test_a_session_that_ends_frees_all_and_waits_for_nothing() -> None:
    part = Part()
    part.acquire("a", 1)
    part.acquire("a", 2, "y", "leader")
    part.acquire("a", 3)
    part.acquire("b", 4)
    part.locks.session_gone("a", part.token, part.emit)
    part.locks.validate()
    assert [event[0] for event in part.events[2:]] == ["unlock", "lock", "reply", "unlock"]
    assert part.events[4][1:3] == ("b", 4)
    assert part.locks.waiting() == []


def test_too_many_may_not_wait_for_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks_module, "MAX_WAITING", 2)
    part = Part()
    for number in range(3):
        part.acquire("a", number)
    with pytest.raises(ResourceExhaustedError, match="at most 2 calls"):
        part.acquire("a", 9)


# --- rate limits ---------------------------------------------------------------------------


def test_a_burst_then_the_rate() -> None:
    rates = Rates()
    assert rates.take("s", "x", 100, 40, 25, 0, 0.0).permits == 25
    assert rates.take("s", "x", 100, 40, 25, 0, 0.0).permits == 15
    assert rates.take("s", "x", 100, 40, 25, 0, 0.0).permits == 0
    assert rates.take("s", "x", 100, 40, 25, 0, 0.1).permits == 10
    assert rates.take("s", "x", 100, 40, 25, 0, 99).permits == 25


def test_a_request_larger_than_a_batch_gets_all_or_nothing_and_is_kept_for() -> None:
    rates = Rates()
    assert batch_of(4) == 1
    assert rates.take("a", "x", 4, 8, 6, 0, 0.0).permits == 6
    large = rates.take("a", "x", 4, 8, 6, 0, 0.0)
    assert (large.permits, large.retry_after) == (0, 1.0)
    small = rates.take("b", "x", 4, 8, 1, 0, 0.5)
    assert (small.permits, small.retry_after) == (0, 0.75)
    assert rates.take("a", "x", 4, 8, 6, 0, 1.0).permits == 6
    assert rates.take("b", "x", 4, 8, 1, 0, 1.25).permits == 1


def test_what_is_kept_for_one_who_does_not_come_back_is_given_to_others() -> None:
    rates = Rates()
    rates.take("a", "x", 4, 8, 8, 0, 0.0)
    assert rates.take("a", "x", 4, 8, 8, 0, 0.0).retry_after == 2.0
    assert rates.take("b", "x", 4, 8, 1, 0, 2.0).permits == 0
    assert rates.take("b", "x", 4, 8, 1, 0, 3.0).permits == 1
    rates.take("a", "x", 4, 8, 8, 0, 3.0)
    rates.session_gone("a")
    assert rates.take("b", "x", 4, 8, 1, 0, 3.0).permits == 1


def test_what_was_not_used_returns_but_never_more_than_was_given() -> None:
    rates = Rates()
    rates.take("a", "x", 100, 25, 25, 0, 0.0)
    assert rates.take("a", "x", 100, 25, 25, 10, 0.0).permits == 10
    assert rates.take("b", "x", 100, 25, 25, 99, 0.0).permits == 0


def test_after_a_restart_a_burst_is_not_given_twice() -> None:
    rates = Rates()
    rates.restarted(100.0)
    assert rates.take("a", "x", 10, 20, 1, 0, 100.0).permits == 0
    assert rates.take("a", "y", 8, 20, 2, 0, 100.5).permits == 2
    assert rates.take("a", "z", 40, 20, 10, 0, 200.0).permits == 10


def test_all_users_of_a_name_agree_on_its_rate_unless_it_is_changed() -> None:
    rates = Rates()
    rates.take("a", "x", 10, 5, 1, 0, 0.0)
    with pytest.raises(InvalidRequestError, match="'x' is per_second=10, burst=5, got"):
        rates.take("b", "x", 20, 5, 1, 0, 0.0)
    rates.change("x", 20, 2, 0.0)
    assert rates.take("b", "x", 20, 2, 2, 0, 0.0).permits == 2
    assert rates.settings() == {"x": (20, 2)}
    rates.change("y", 1, 1, 0.0)
    rates.validate()


@pytest.mark.parametrize(
    ("per_second", "burst", "want", "unused"),
    [(0, 1, 1, 0), (1, 0.5, 1, 0), (1, 5, 6, 0), (1, 5, 0, 0), (1, 5, 1, -1)],
)
def test_malformed_takes_are_refused(
    per_second: float, burst: float, want: int, unused: int
) -> None:
    with pytest.raises(InvalidRequestError):
        Rates().take("a", "x", per_second, burst, want, unused, 0.0)


def test_names_are_bounded_and_full_buckets_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates_module, "MAX_RATES", 2)
    rates = Rates()
    rates.take("a", "x", 1, 1, 1, 0, 0.0)
    rates.take("a", "y", 1, 5, 5, 0, 0.0)
    with pytest.raises(ResourceExhaustedError, match="at most 2 rate limits"):
        rates.take("a", "z", 1, 1, 1, 0, 0.5)
    assert rates.take("a", "z", 1, 1, 1, 0, 2.0).permits == 1, "x is full again"
    assert set(rates.settings()) == {"y", "z"}
