"""What a process sends to agents: flights, links that break, agents that are held."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from dspex.foundation.agents import outbound as outbound_module
from dspex.foundation.agents.messages import (
    AT_LEAST_ONCE,
    AT_MOST_ONCE,
    DONE,
    ELSEWHERE,
    FULL,
    RAISED,
    REFUSED,
    RESUMED,
    MessageLike,
)
from dspex.foundation.agents.outbound import BACKOFF, MAX_FLIGHTS, RENEW_AFTER
from dspex.testing.agents_mail import KEY, Sender


def mids(messages: Iterable[MessageLike]) -> list[int]:
    return [message.mid for message in messages]


def resumed(messages: Iterable[MessageLike]) -> list[int]:
    return [message.mid for message in messages if message.flags & RESUMED]


# --- flights ---------------------------------------------------------------------------------


def test_messages_leave_in_order_and_are_answered() -> None:
    sender = Sender(x="a", y="a", z="b")
    sent = [sender.send(key) for key in (KEY, ":y", KEY)]
    other = sender.send(":z")
    posted = sender.post()
    assert list(posted.messages) == sent
    assert (posted.place, posted.is_answered) == (0, False)
    assert sender.outbound.post("a", sender.now) is None
    assert list(sender.post("b").messages) == [other]
    sender.back(posted, zip(sent, (DONE, RAISED, REFUSED), strict=True))
    assert [sender.finals[each.mid][0] for each in sent] == [DONE, RAISED, REFUSED]
    sender.send()
    again = sender.post()
    assert (again.place, again.is_answered) == (1, True)


def test_only_so_many_flights_are_in_the_air() -> None:
    sender = Sender(x="a")
    posts = []
    for _ in range(MAX_FLIGHTS):
        sender.send()
        posts.append(sender.post())
    assert [each.place for each in posts] == list(range(MAX_FLIGHTS))
    rest = [sender.send(), sender.send()]
    assert sender.outbound.post("a", sender.now) is None
    sender.back(posts[3])
    assert list(sender.post().messages) == rest, "what waited leaves together"
    assert sender.outbound.post("a", sender.now) is None


def test_a_flight_is_of_a_bounded_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbound_module, "AT_ONCE", 3)
    monkeypatch.setattr(outbound_module, "BYTES_AT_ONCE", 100)
    sender = Sender(x="a")
    for size in (0, 0, 0, 0, 100, 0, 1000, 0):
        sender.outbound.send(sender.message(size=size))
    found = []
    while (posted := sender.outbound.post("a", sender.now)) is not None:
        found.append(mids(posted.messages))
    assert found == [[1, 2, 3], [4, 5], [6, 7], [8]]


def test_answers_are_asked_for_while_some_are_missing_and_nothing_flies() -> None:
    sender = Sender(x="a")
    assert sender.outbound.is_waiting("a") is None
    first = sender.send()
    posted = sender.post()
    assert sender.outbound.is_waiting("a") is None, "it flies"
    sender.back(posted)
    assert sender.outbound.is_waiting("a") == posted.generation
    sender.back(posted, [(first, DONE)], poll=True)
    assert sender.outbound.is_waiting("a") is None
    sender.assert_quiet()


def test_an_answer_counts_once_and_only_of_its_generation() -> None:
    sender = Sender(x="a")
    first = sender.send()
    posted = sender.post()
    sender.back(posted._replace(generation=posted.generation + 1), [(first, DONE)])
    sender.back(posted._replace(address="b"), [(first, DONE)])
    assert not sender.finals
    sender.back(posted, [(first, DONE)])
    sender.back(posted, [(first, RAISED)])
    assert sender.finals[first.mid][0] == DONE


# --- links that break ------------------------------------------------------------------------


def test_of_a_lost_link_at_most_once_fails_and_the_others_are_held_in_order() -> None:
    sender = Sender(x="a", y="a")
    first = sender.send()
    once = sender.send(flags=AT_MOST_ONCE)
    other = sender.send(":y", flags=AT_LEAST_ONCE)
    posted = sender.post()
    queued = sender.send(flags=AT_MOST_ONCE)
    assert sender.lost(posted) == [once.mid]
    assert sender.outbound.addresses() == []
    assert sender.outbound.places == {}
    assert set(mids(sender.outbound.everything())) == {first.mid, other.mid, queued.mid}
    assert sender.outbound.to_locate(0.0) == [KEY, ":y"]
    assert sender.outbound.located(KEY, "b", 0.0) == "b"
    again = sender.post("b")
    assert (mids(again.messages), resumed(again.messages)) == ([1, 4], [1])
    assert sender.outbound.located(":y", "b", 0.0) == "b"
    assert mids(sender.post("b").messages) == [other.mid]


def test_what_is_known_not_to_have_left_does_not_fail() -> None:
    sender = Sender(x="a")
    gone = sender.send(flags=AT_MOST_ONCE)
    sender.post()
    kept = sender.send(flags=AT_MOST_ONCE)
    unsent = sender.post()
    assert sender.lost(unsent, unsent={unsent.place}) == [gone.mid]
    assert sender.locate("b") == "b"
    assert mids(sender.post("b").messages) == [kept.mid]


def test_of_two_flights_that_did_not_leave_none_fails() -> None:
    sender = Sender(x="a")
    first = sender.send(flags=AT_MOST_ONCE)
    posted = sender.post()
    second = sender.send(flags=AT_MOST_ONCE)
    last = sender.post()
    assert sender.lost(last, unsent={posted.place, last.place}) == []
    assert sender.locate("b") == "b"
    assert mids(sender.post("b").messages) == [first.mid, second.mid]


def test_a_link_that_was_idle_begins_another_generation_before_its_host_forgets_it() -> None:
    sender = Sender(x="a")
    first = sender.send()
    old = sender.post()
    sender.back(old, [(first, DONE)])
    sender.now += RENEW_AFTER - 1.0
    second = sender.send()
    same = sender.post()
    assert (same.generation, same.place, same.is_answered) == (old.generation, 1, True)
    sender.now += RENEW_AFTER + 1.0
    late = sender.send()
    with_it = sender.post()
    assert (with_it.generation, with_it.place) == (old.generation, 2), "one is waited for"
    sender.back(same, [(second, DONE)])
    sender.back(with_it, [(late, DONE)])
    sender.now += RENEW_AFTER + 1.0
    last = sender.send()
    new = sender.post()
    assert new.generation > old.generation
    assert (new.place, new.is_answered) == (0, False)
    sender.back(new, [(last, DONE)])
    sender.assert_quiet()


def test_a_link_that_broke_begins_another_generation() -> None:
    sender = Sender(x="a")
    first = sender.send()
    old = sender.post()
    sender.back(old)
    sender.lost(old)
    sender.locate("a")
    new = sender.post()
    assert new.generation > old.generation
    assert (new.place, new.is_answered) == (0, False), "nobody knows this one yet"
    assert sender.lost(old) == [], "this one was given up before"
    sender.back(old, [(first, DONE)])
    assert not sender.finals
    sender.back(new, [(first, DONE)])
    sender.assert_quiet()


def test_generations_are_those_of_all_links() -> None:
    sender = Sender(x="a", y="b")
    sender.send()
    sender.send(":y")
    assert sender.post("a").generation != sender.post("b").generation


# --- agents that are held --------------------------------------------------------------------


def test_who_is_nowhere_is_looked_for_and_asked_for_once() -> None:
    sender = Sender()
    assert sender.outbound.send(sender.message()) is None
    sender.send()
    assert sender.outbound.to_locate(0.0) == [KEY]
    assert sender.outbound.to_locate(0.0) == []
    assert sender.outbound.next_due() is None, "it is asked for"
    assert sender.outbound.located(KEY, "a", 0.0) == "a"
    posted = sender.post()
    assert (mids(posted.messages), resumed(posted.messages)) == ([1, 2], [1])
    assert sender.outbound.located(":nobody", "a", 0.0) is None


@pytest.mark.parametrize("status", [ELSEWHERE, FULL])
def test_a_refused_message_holds_all_that_come_after_it(status: int) -> None:
    sender = Sender(x="a", y="a")
    first, other = sender.send(), sender.send(":y")
    posted = sender.post()
    sender.back(posted, [(first, status), (other, DONE)])
    second = sender.send()
    third = sender.send(":y")
    assert mids(sender.post().messages) == [third.mid], "another agent is not held"
    assert (KEY in sender.outbound.places) == (status == FULL)
    assert sender.locate("b") == "b"
    again = sender.post("b")
    assert (mids(again.messages), resumed(again.messages)) == ([first.mid, second.mid], [1])
    sender.back(again, [(first, DONE), (second, DONE)])
    assert sender.finals[first.mid][0] == DONE


def test_held_messages_wait_for_flights_that_may_bring_more() -> None:
    sender = Sender(x="a")
    flights = []
    for _ in range(3):
        sender.send()
        flights.append(sender.post())
    first, second, third = (flight.messages[0] for flight in flights)
    sender.back(flights[0], [(first, FULL)])
    assert sender.outbound.to_locate(9.0) == []
    sender.back(flights[2], [(third, FULL)])
    assert sender.outbound.to_locate(9.0) == [], "the second has not come back"
    sender.now = 9.0
    sender.back(flights[1], [(second, FULL)])
    assert sender.locate("a") == "a"
    posted = sender.post()
    assert (mids(posted.messages), resumed(posted.messages)) == ([1, 2, 3], [1])


def test_held_messages_wait_for_those_in_the_queue() -> None:
    sender = Sender(x="a", y="a")
    first = sender.send()
    posted = sender.post()
    for _ in range(MAX_FLIGHTS - 1):
        sender.send(":y")
        sender.post()
    queued = sender.send()
    assert sender.outbound.post("a", sender.now) is None
    sender.back(posted, [(first, ELSEWHERE)])
    assert sender.outbound.to_locate(9.0) == []
    assert sender.outbound.post("a", sender.now) is None, "there was nothing else in the queue"
    later = sender.send()
    for place in range(1, MAX_FLIGHTS):
        assert sender.outbound.to_locate(9.0) == []
        sender.back(posted._replace(place=place))
    assert sender.locate("b") == "b"
    assert mids(sender.post("b").messages) == [first.mid, queued.mid, later.mid]


@pytest.mark.parametrize("status", [ELSEWHERE, FULL])
def test_held_messages_wait_for_those_before_them_that_are_not_answered(status: int) -> None:
    """A message in a mailbox may be sent away: before that is known none may go elsewhere."""
    sender = Sender(x="a")
    first = sender.send()
    posted = sender.post()
    sender.back(posted)  # it is in the mailbox
    second = sender.send()
    sender.back(sender.post(), [(second, status)])
    assert sender.outbound.to_locate(9.0) == []
    assert sender.outbound.next_due() is None, "no time has to pass, but an answer to come"
    assert sender.outbound.is_waiting("a") == posted.generation
    sender.back(posted, [(first, ELSEWHERE)], poll=True)
    sender.now = 9.0
    assert sender.locate("b") == "b"
    again = sender.post("b")
    assert (mids(again.messages), resumed(again.messages)) == ([1, 2], [1])
    sender.back(again, [(first, DONE), (second, DONE)])
    sender.assert_quiet()


def test_held_messages_of_a_lost_link_wait_for_nothing() -> None:
    sender = Sender(x="a", y="a")
    first = sender.send()
    posted = sender.post()
    second = sender.send()
    sender.post()
    sender.back(posted, [(first, FULL)])
    sender.lost(posted)
    sender.now = 9.0
    assert sender.locate("a") == "a"
    again = sender.post()
    assert (mids(again.messages), resumed(again.messages)) == ([1, 2], [1])
    sender.back(again, [(first, FULL), (second, FULL)])
    sender.now = 20.0
    assert sender.locate("a") == "a"
    assert mids(sender.post().messages) == [1, 2]


def test_order_after_several_refusals() -> None:
    sender = Sender(x="a")
    sent = [sender.send()]
    posted = sender.post()
    for round_ in range(5):
        # What was refused comes back in any order.
        sender.back(posted, [(each, ELSEWHERE) for each in reversed(sent)])
        sent.append(sender.send())
        sender.now += 1.0
        address = "ab"[round_ % 2]
        assert sender.locate(address) == address
        posted = sender.post(address)
        assert mids(posted.messages) == mids(sent)
        assert resumed(posted.messages) == [1]
    sender.back(posted, [(sent[0], DONE), *((each, FULL) for each in sent[1:])])
    sender.now += 1.0
    sender.locate("a")
    posted = sender.post("a")
    assert (mids(posted.messages), resumed(posted.messages)) == (mids(sent[1:]), [2])


def test_it_is_looked_for_ever_less_often_until_it_answers() -> None:
    sender = Sender(x="a")
    first = sender.send()
    waits = []
    for _ in range(len(BACKOFF) + 2):
        sender.back(sender.post(), [(first, FULL)])
        due = sender.outbound.next_due()
        assert due is not None
        waits.append(round(due - sender.now, 6))
        if waits[-1]:
            assert sender.outbound.to_locate(due - 0.001) == []
        sender.now = due
        sender.locate("a")
    assert waits == [*BACKOFF, BACKOFF[-1], BACKOFF[-1]]
    sender.back(sender.post(), [(first, DONE)])
    second = sender.send()
    sender.back(sender.post(), [(second, FULL)])
    assert sender.outbound.next_due() == sender.now, "it begins anew"


def test_who_is_nowhere_now_is_looked_for_again() -> None:
    sender = Sender()
    sender.send()
    due = []
    for _ in range(4):
        assert sender.locate(None) is None
        found = sender.outbound.next_due()
        assert found is not None
        due.append(found - sender.now)
        sender.now = found
    assert due == sorted(due)
    assert due[-1] > 0
    assert sender.locate("a") == "a"
    assert mids(sender.post().messages) == [1]


def test_what_is_given_up_was_never_accepted() -> None:
    sender = Sender(x="a", y="a")
    first, other = sender.send(), sender.send(":y")
    sender.back(sender.post(), [(first, ELSEWHERE), (other, ELSEWHERE)])
    second = sender.send()
    assert mids(sender.outbound.give_up(KEY, 0.0)) == [first.mid, second.mid]
    assert sender.outbound.give_up(KEY, 0.0) == []
    assert mids(sender.outbound.everything()) == [other.mid]
    sender.send()
    assert KEY in sender.outbound.to_locate(9.0), "it is looked for like one never heard of"


def test_what_is_spared_is_looked_for_again_and_keeps_its_order() -> None:
    sender = Sender()
    sent = [sender.send() for _ in range(4)]
    assert sender.outbound.to_locate(0.0) == [KEY]
    given_up = sender.outbound.give_up(KEY, 0.0, lambda message: message.mid % 2 == 0)
    assert mids(given_up) == [1, 3]
    assert mids(sender.outbound.everything()) == [2, 4]
    sender.now = 9.0
    assert sender.locate("a") == "a"
    posted = sender.post()
    assert (mids(posted.messages), resumed(posted.messages)) == ([2, 4], [2])
    sender.back(posted, [(sent[1], DONE), (sent[3], DONE)])
    sender.assert_quiet()


# --- withdrawals -----------------------------------------------------------------------------


def test_what_is_held_is_withdrawn() -> None:
    sender = Sender(x="a")
    first = sender.send()
    sender.back(sender.post(), [(first, ELSEWHERE)])
    second = sender.send()
    assert sender.outbound.withdraw(first)
    sender.now = 9.0
    assert sender.locate("a") == "a"
    posted = sender.post()
    assert (mids(posted.messages), resumed(posted.messages)) == ([second.mid], [second.mid])
    sender.back(posted, [(second, DONE)])
    sender.assert_quiet()


def test_of_what_is_withdrawn_on_its_way_again_nothing_is_left() -> None:
    sender = Sender(x="a")
    first = sender.send()
    sender.back(sender.post(), [(first, FULL)])
    sender.now = 9.0
    assert sender.locate("a") == "a"
    assert not sender.outbound.withdraw(first), "it is in the queue"
    assert sender.outbound.post("a", sender.now) is None
    sender.assert_quiet()


def test_where_all_was_withdrawn_nothing_is_sent() -> None:
    sender = Sender(x="a")
    first = sender.send()
    sender.back(sender.post(), [(first, FULL)])
    assert sender.outbound.withdraw(first)
    sender.now = 9.0
    assert sender.locate("a") is None
    sender.assert_quiet()


@pytest.mark.parametrize("fate", ["queued", DONE, FULL, ELSEWHERE, "lost"])
def test_what_may_have_left_is_withdrawn_as_soon_as_it_is_here_again(fate: Any) -> None:
    sender = Sender(x="a")
    if fate == "queued":
        first = sender.send()
        assert not sender.outbound.withdraw(first)
        assert sender.outbound.post("a", sender.now) is None
    else:
        first = sender.send()
        posted = sender.post()
        assert not sender.outbound.withdraw(first)
        if fate == "lost":
            assert sender.lost(posted) == []
        else:
            sender.back(posted, [(first, fate)])
    assert not sender.outbound._abandoned
    sender.assert_quiet()


def test_the_answer_to_what_was_withdrawn_is_not_told_and_ends_the_waiting() -> None:
    sender = Sender(x="a")
    message = sender.send()
    sender.back(sender.post(), [(message, FULL)])
    assert sender.locate("a") == "a"
    posted = sender.post()
    assert not sender.outbound.withdraw(message)
    sender.back(posted, [(message, DONE)])
    assert not sender.finals
    assert not sender.outbound._attempts, "the next one is not waited for as long"
    sender.assert_quiet()


def test_everything_is_what_is_not_answered() -> None:
    sender = Sender(x="a", y="b")
    flying, elsewhere = sender.send(), sender.send(":y")
    sender.post()
    sender.back(sender.post("b"), [(elsewhere, ELSEWHERE)])
    queued, held, unknown = sender.send(), sender.send(":y"), sender.send(":z")
    expected = {each.mid for each in (flying, queued, elsewhere, held, unknown)}
    assert set(mids(sender.outbound.everything())) == expected
