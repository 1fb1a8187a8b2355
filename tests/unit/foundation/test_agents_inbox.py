"""What a host has been sent: who may run, in which order, and that each sender hears once."""

from __future__ import annotations

import pytest

from dspex.errors import DeadlineError, MailboxFullError
from dspex.foundation.agents.cells import LEAVING, LOADING, READY, Cell
from dspex.foundation.agents.dedup import Answered, Dedup
from dspex.foundation.agents.inbox import AT_ONCE
from dspex.foundation.agents.messages import (
    AT_LEAST_ONCE,
    AT_MOST_ONCE,
    CAST,
    CONTROL,
    DONE,
    ELSEWHERE,
    EXACTLY_ONCE,
    FULL,
    RAISED,
    REFUSED,
    RESUMED,
    Message,
    fingerprint_of,
)
from dspex.testing.agents_mail import KEY, Desk, Link

# --- order -----------------------------------------------------------------------------------


def test_messages_run_in_the_order_in_which_they_came() -> None:
    desk, other = Desk(), Link()
    sent = [desk.send(link=[desk.link, other][n % 2]).mid for n in range(10)]
    assert desk.run() == sent
    assert desk.run() == []
    desk.assert_quiet()


def test_one_row_runs_at_a_time() -> None:
    desk = Desk()
    desk.send()
    assert len(desk.take()) == 1
    desk.send()
    assert desk.take() == [], "it is busy"
    desk.cell.is_busy = False
    assert len(desk.take()) == 1


def test_a_row_is_of_a_bounded_length() -> None:
    desk = Desk(limit=1000)
    sent = [desk.send().mid for _ in range(AT_ONCE + 3)]
    assert desk.run() == sent[:AT_ONCE]
    assert desk.run() == sent[AT_ONCE:]


def test_what_runs_alone_runs_neither_before_nor_with_others() -> None:
    desk = Desk()
    for method in ("m", "alone", "alone", "m"):
        desk.send(method=method)
    rows = []
    for _ in range(4):
        rows.append([letter.method for letter in desk.take(alone="alone")])
        desk.cell.is_busy = False
    assert rows == [["m"], ["alone"], ["alone"], ["m"]]


def test_numbers_of_different_senders_are_different_messages() -> None:
    desk = Desk()
    letters = [desk.send(1, sender=sender) for sender in ("me", "you")]
    assert desk.run() == [1, 1]
    assert [desk.status(each) for each in letters] == [DONE, DONE]


# --- refused, and what comes after it --------------------------------------------------------


def test_after_a_refusal_all_of_the_link_wait_until_it_is_resumed() -> None:
    desk = Desk(limit=2)
    accepted = [desk.send(n) for n in (1, 2)]
    refused = [desk.send(n) for n in (3, 4)]
    assert [desk.status(each) for each in refused] == [FULL, FULL]
    assert desk.run() == [1, 2]
    late = desk.send(5)
    assert desk.status(late) == FULL, "there is room, but 3 has not come again"
    again = [desk.send(3, RESUMED | EXACTLY_ONCE), desk.send(4)]
    assert desk.run() == [3, 4]
    desk.send(5)
    assert desk.run() == [5]
    assert {desk.status(each) for each in (*accepted, *again)} == {DONE}
    desk.assert_quiet()


def test_what_is_resumed_and_refused_again_makes_the_others_wait_again() -> None:
    desk = Desk(limit=1)
    desk.send(1)
    assert desk.status(desk.send(2)) == FULL
    assert desk.status(desk.send(2, RESUMED | EXACTLY_ONCE)) == FULL
    desk.run()
    assert desk.status(desk.send(3)) == FULL
    desk.send(2, RESUMED | EXACTLY_ONCE)
    assert desk.run() == [2]


@pytest.mark.parametrize("delivery", [AT_LEAST_ONCE, EXACTLY_ONCE])
def test_behind_a_turn_that_will_not_count_the_others_wait_until_resumed(delivery: int) -> None:
    desk, copied_to = Desk(), Link()
    number = 1 if delivery == EXACTLY_ONCE else 0
    letter = desk.send(number, delivery)
    if number:
        desk.send(number, delivery, link=copied_to)
    desk.take()
    desk.inbox.undone(desk.cell, letter, b"no journal")
    assert desk.status(letter) == REFUSED
    # The refusal may be lost on its way; then it comes again, and this must not have run before.
    for link in (desk.link, copied_to)[: 1 + number]:
        assert desk.status(desk.send(link=link)) == ELSEWHERE
        assert desk.status(desk.send(flags=AT_LEAST_ONCE | RESUMED, link=link)) is None


def test_behind_a_turn_at_most_once_nobody_waits() -> None:
    desk = Desk()
    letter = desk.send(flags=AT_MOST_ONCE)
    desk.take()
    desk.inbox.undone(desk.cell, letter, b"no journal")
    assert desk.status(letter) == REFUSED
    assert desk.status(desk.send()) is None


def test_only_the_link_and_the_agent_of_a_refusal_wait() -> None:
    desk, other = Desk(limit=1), Link()
    desk.send()
    assert desk.status(desk.send()) == FULL
    desk.run()
    assert desk.status(desk.send(link=other)) is None, "another process is not behind it"
    cell = desk.inbox.add(":b", (1, 2), 10)
    desk.inbox.ready(cell, None)
    assert desk.status(desk.send(key=":b")) is None
    assert cell.waiting == 1


def test_an_agent_that_is_not_here_is_elsewhere_until_resumed() -> None:
    desk = Desk()
    assert desk.status(desk.send(1, key=":b")) == ELSEWHERE
    cell = desk.inbox.add(":b", (1, 2), 10)
    desk.inbox.ready(cell, None)
    assert desk.status(desk.send(2, key=":b")) == ELSEWHERE, "it came since, but 1 did not"
    assert desk.status(desk.send(1, RESUMED | EXACTLY_ONCE, key=":b")) is None
    assert desk.status(desk.send(2, key=":b")) is None
    assert cell.waiting == 2


def test_resumed_means_nothing_where_nothing_was_refused() -> None:
    desk = Desk()
    desk.send(1, RESUMED | EXACTLY_ONCE)
    assert desk.run() == [1]
    assert desk.link.stuck == {}


def test_a_repetition_is_answered_by_a_full_mailbox_too() -> None:
    desk = Desk(limit=1)
    desk.send(1)
    desk.run()
    desk.send(2)
    again = desk.send(1)
    assert desk.answers[again] == (DONE, b"r1")
    joined = desk.send(2)
    assert desk.run() == [2]
    assert desk.status(joined) == DONE
    assert desk.link.stuck == {}
    desk.assert_quiet()


def test_one_that_refuses_what_is_too_much_lets_the_next_ones_in() -> None:
    desk = Desk(limit=1)
    desk.cell.refuses = True
    desk.send(1)
    assert isinstance(desk.error(desk.send(2)), MailboxFullError)
    desk.run()
    desk.send(3)
    assert desk.run() == [3]
    desk.assert_quiet()


# --- repetitions -----------------------------------------------------------------------------


def test_repetitions_are_answered_together_and_run_once() -> None:
    desk = Desk()
    letters = [desk.send(1, link=Link()) for _ in range(3)]
    (letter,) = desk.take()
    letters.append(desk.send(1, link=Link()))
    assert not desk.answers
    desk.inbox.answer(desk.cell, letter, RAISED, b"e")
    assert [desk.answers[each] for each in letters] == [(RAISED, b"e")] * 4
    desk.assert_quiet()


def test_what_was_done_is_answered_from_memory() -> None:
    desk = Desk()
    first = desk.send(1)
    desk.run()
    again = desk.send(1)
    assert desk.answers[first] == desk.answers[again] == (DONE, b"r1")
    assert desk.run() == []


def test_an_error_is_told_again_as_one() -> None:
    desk = Desk()
    desk.send(1)
    (letter,) = desk.take()
    answered = Answered(False, b"e", fingerprint_of(letter))
    desk.inbox.record(desk.cell, letter, answered)
    desk.inbox.answer(desk.cell, letter, RAISED, b"e")
    assert desk.answers[desk.send(1)] == (RAISED, b"e")


def test_at_least_once_and_at_most_once_are_not_looked_up() -> None:
    desk = Desk()
    for flags in (AT_LEAST_ONCE, AT_MOST_ONCE):
        letters = [desk.send(flags=flags) for _ in range(2)]
        assert len(desk.run()) == 2
        assert [desk.status(each) for each in letters] == [DONE, DONE]


def test_recording_acknowledges_what_the_sender_has() -> None:
    desk = Desk()
    desk.send(1)
    desk.send(2)
    desk.run()
    desk.send(3, below=2)
    desk.run()
    assert desk.cell.dedup is not None
    ((_, last, *_, kept),) = desk.cell.dedup.rows()
    assert (last, [each[0] for each in kept]) == (3, [2, 3])


# --- in the making ---------------------------------------------------------------------------


def test_what_comes_while_it_is_made_is_looked_up_when_it_is() -> None:
    desk = Desk(is_ready=False)
    assert desk.cell.phase == LOADING
    known, dup = desk.send(1), desk.send(2)
    new, plain = desk.send(2, link=Link()), desk.send()
    assert desk.take() == []
    table = Dedup()
    table.record("me", 1, Answered(True, b"old", 0))
    message = Message(0, KEY, EXACTLY_ONCE, "me", 1, 0, None, "m", b"1")
    table.record("me", 1, Answered(True, b"old", fingerprint_of(message)))
    desk.inbox.ready(desk.cell, table)
    assert desk.answers[known] == (DONE, b"old")
    assert desk.run() == [2, plain.mid]
    assert [desk.status(each) for each in (dup, new)] == [DONE, DONE]
    desk.assert_quiet()


def test_where_all_that_came_was_known_nothing_waits() -> None:
    desk = Desk(is_ready=False)
    letter = desk.send(1, CAST | EXACTLY_ONCE)
    table = Dedup()
    table.record("me", 3, Answered(True, None, 0))
    desk.inbox.ready(desk.cell, table)
    assert desk.status(letter) == DONE
    assert desk.cell.waiting == 0
    assert desk.take() == []


def test_the_mailbox_fills_while_it_is_made() -> None:
    desk = Desk(limit=2, is_ready=False)
    desk.send(1)
    desk.send(2)
    assert desk.status(desk.send(3)) == FULL
    desk.inbox.ready(desk.cell, None)
    assert desk.run() == [1, 2]


# --- leaving ---------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["leave", "drop", "add"])
def test_who_waits_is_sent_elsewhere_once(end: str) -> None:
    desk, other = Desk(), Link()
    waits = [desk.send(), desk.send(1), desk.send(1, link=other), desk.send(1, link=other)]
    if end == "leave":
        desk.inbox.leave(desk.cell)
    elif end == "drop":
        assert desk.inbox.drop(KEY) is desk.cell
        assert desk.inbox.drop(KEY) is None
    else:
        desk.inbox.add(KEY, (1, 9), 10)
    assert [desk.status(each) for each in waits] == [ELSEWHERE] * 4
    assert desk.link.stuck == other.stuck == {KEY: ELSEWHERE}
    assert desk.status(desk.send(2)) == ELSEWHERE, "it would overtake"
    desk.assert_quiet()


def test_what_runs_when_it_leaves_is_answered_as_it_ends() -> None:
    desk, other = Desk(), Link()
    under_way = [desk.send(1), desk.send(1, link=other)]
    (letter,) = desk.take()
    behind = desk.send(2)
    desk.inbox.leave(desk.cell)
    assert desk.cell.phase == LEAVING
    assert desk.status(behind) == ELSEWHERE
    desk.cell.is_busy = False
    assert desk.take() == []
    assert not desk.answers.keys() & set(under_way)
    desk.inbox.answer(desk.cell, letter, DONE, b"x")
    assert [desk.answers[each] for each in under_way] == [(DONE, b"x")] * 2
    desk.inbox.drop(KEY)
    desk.assert_quiet()


@pytest.mark.parametrize("end", ["drop", "add"])
def test_what_runs_when_it_is_gone_is_answered_once(end: str) -> None:
    desk = Desk()
    once, plain = desk.send(1), desk.send()
    letters = desk.take()
    assert len(letters) == 2
    if end == "drop":
        desk.inbox.drop(KEY)
    else:
        desk.inbox.add(KEY, (1, 9), 10)
    assert desk.status(once) == ELSEWHERE, "it comes again, and is looked up"
    assert desk.status(plain) is None, "whoever runs it says what became of it"
    for letter in letters:
        desk.inbox.answer(desk.cell, letter, DONE, b"x")
    assert desk.status(plain) == DONE
    assert desk.status(once) == ELSEWHERE
    desk.assert_quiet()


def test_a_new_incarnation_looks_up_what_is_sent_again() -> None:
    desk = Desk()
    desk.send(1)
    desk.run()
    dedup = desk.cell.dedup
    waits = desk.send(2)
    cell = desk.inbox.add(KEY, (1, 9), 10)
    assert desk.status(waits) == ELSEWHERE
    desk.inbox.ready(cell, dedup)
    resumed = desk.send(2, RESUMED | EXACTLY_ONCE)
    assert desk.answers[desk.send(1)] == (DONE, b"r1")
    desk.cell = cell
    assert desk.run() == [2]
    assert desk.status(resumed) == DONE


# --- deadlines, withdrawals ------------------------------------------------------------------


def test_what_waited_too_long_is_refused_and_the_rest_runs() -> None:
    desk = Desk()
    late = [desk.send(1, left=1.0), desk.send(1, link=Link(), left=1.0), desk.send(left=0.5)]
    in_time = [desk.send(2, left=2.0), desk.send(3)]
    assert desk.run(now=1.5) == [2, 3]
    for each in late:
        assert isinstance(desk.error(each), DeadlineError)
    assert [desk.status(each) for each in in_time] == [DONE, DONE]
    desk.assert_quiet()


def test_what_was_refused_as_late_does_not_run_behind_what_was_sent_after_it() -> None:
    desk = Desk()
    late, following = desk.send(1, left=1.0), desk.send(2)
    (letter,) = desk.take(now=1.5)
    assert letter.number == 2
    assert isinstance(desk.error(late), DeadlineError)
    again = desk.send(1, left=1.0, link=Link(), now=1.6)
    assert isinstance(desk.error(again), DeadlineError), "2 is under way"
    desk.inbox.answer(desk.cell, letter, DONE, b"r2")
    assert desk.status(following) == DONE
    desk.cell.is_busy = False
    desk.assert_quiet()
    assert desk.cell.accepted is None


def test_a_deadline_counts_from_when_the_message_came() -> None:
    desk = Desk()
    letter = desk.send(left=1.0, now=10.0)
    assert desk.run(now=11.0) == [letter.mid]


def test_where_all_came_too_late_nobody_is_busy() -> None:
    desk = Desk()
    desk.send(left=1.0)
    assert desk.take(now=2.0) == []
    assert not desk.cell.is_busy
    assert desk.cell.waiting == 0
    desk.assert_quiet()


@pytest.mark.parametrize("number", [0, 2])
def test_what_is_withdrawn_never_runs_and_its_link_is_told(number: int) -> None:
    desk = Desk()
    before = desk.send(1)
    gone = desk.send(number)
    after = desk.send(3)
    assert desk.inbox.withdraw(desk.cell, lambda letter: letter is gone)
    assert not desk.inbox.withdraw(desk.cell, lambda letter: letter is gone)
    assert desk.run() == [1, 3]
    # A message that is never answered is asked for as long as its link lives.
    assert [desk.status(each) for each in (before, gone, after)] == [DONE, DONE, DONE]
    desk.assert_quiet()


@pytest.mark.parametrize("which", [0, 1])
def test_what_somebody_else_has_sent_too_runs_though_it_is_withdrawn(which: int) -> None:
    desk = Desk()
    twins = [desk.send(2), desk.send(2, link=Link())]
    assert desk.inbox.withdraw(desk.cell, lambda letter: letter is twins[which])
    assert desk.status(twins[which]) == DONE
    assert desk.run() == [2]
    assert desk.status(twins[1 - which]) == DONE
    desk.assert_quiet()


def test_what_has_begun_is_not_withdrawn() -> None:
    desk = Desk()
    desk.send(1)
    (letter,) = desk.take()
    assert not desk.inbox.withdraw(desk.cell, lambda each: True)
    desk.inbox.answer(desk.cell, letter, DONE, b"")
    desk.assert_quiet()


# --- for people ------------------------------------------------------------------------------


def test_loads_are_of_those_before_whom_some_wait() -> None:
    desk = Desk()
    desk.inbox.add(":b", (1, 2), 10)
    assert dict(desk.inbox.loads()) == {}
    desk.send()
    desk.send()
    desk.send(key=":b")
    assert dict(desk.inbox.loads()) == {KEY: 2, ":b": 1}
    desk.run()
    assert dict(desk.inbox.loads()) == {":b": 1}


def test_cells_begin_empty() -> None:
    cell = Cell(KEY, (1, 1), 3)
    assert (cell.phase, cell.waiting, cell.is_busy) == (LOADING, 0, False)
    assert READY not in (LOADING, LEAVING)
    desk = Desk()
    assert desk.status(desk.send(flags=CONTROL)) is None
