"""Which messages had their effect: each once, however often it comes."""

from __future__ import annotations

import msgpack
import pytest

from dspex.foundation.agents.dedup import NEW, Answered, Dedup


def answered(payload: bytes | None = b"p", *, is_ok: bool = True) -> Answered:
    return Answered(is_ok, payload, 7)


def test_a_message_is_new_until_it_was_recorded() -> None:
    table = Dedup()
    assert table.look_up("me", 1) is NEW
    assert table.record("me", 5, answered())
    assert table.look_up("me", 5) == answered()
    assert table.look_up("me", 6) is NEW
    assert table.look_up("you", 5) is NEW, "each sender has numbers of its own"


def test_only_the_first_message_of_a_sender_is_its_first() -> None:
    table = Dedup()
    assert [table.record("me", n, answered()) for n in (3, 4)] == [True, False]
    assert table.record("you", 1, answered())


def test_what_came_before_the_last_was_there_even_where_no_answer_is_kept() -> None:
    table = Dedup()
    table.record("me", 4, answered(None))
    for number in (1, 4):
        found = table.look_up("me", number)
        assert found is not NEW
        assert found.payload is None


def test_an_error_is_kept_as_one() -> None:
    table = Dedup()
    table.record("me", 1, answered(b"e", is_ok=False))
    assert table.look_up("me", 1) == Answered(False, b"e", 7)


def test_acknowledged_answers_go_and_their_messages_stay_known() -> None:
    table = Dedup()
    for number in (1, 2, 3):
        table.record("me", number, answered(b"%d" % number))
    table.record("you", 1, answered())
    table.acknowledge("me", 3)
    table.acknowledge("nobody", 9)
    assert [table.look_up("me", n) for n in (1, 2)] == [Answered(True, None, 0)] * 2
    assert table.look_up("me", 3) == answered(b"3")
    assert table.look_up("you", 1) == answered()
    assert table.look_up("me", 4) is NEW
    table.acknowledge("me", 9)
    assert table.look_up("me", 3) is not NEW
    assert table.look_up("me", 4) is NEW, "that the sender wants no answers makes nothing known"


def test_nothing_is_left_of_a_sender_that_is_forgotten() -> None:
    table = Dedup()
    table.record("me", 1, answered())
    table.record("you", 1, answered(None))
    assert sorted(table.senders()) == ["me", "you"]
    for _ in range(2):
        table.forget("me")
    assert list(table.senders()) == ["you"]
    assert table.look_up("me", 1) is NEW
    table.forget("you")
    assert table.rows() == []


@pytest.mark.parametrize("is_packed", [False, True])
def test_rows_make_the_same_table(is_packed: bool) -> None:
    table = Dedup()
    table.record("me", 1, answered(b"1"))
    table.record("me", 3, answered(b"3", is_ok=False))
    table.record("you", 2, answered(None))
    table.acknowledge("me", 2)
    rows = table.rows()
    again = Dedup.from_rows(msgpack.unpackb(msgpack.packb(rows)) if is_packed else rows)
    for sender, number in (("me", 1), ("me", 2), ("me", 3), ("me", 4), ("you", 2), ("you", 3)):
        assert again.look_up(sender, number) == table.look_up(sender, number)
    assert not again.record("you", 9, answered(None))
    again.acknowledge("me", 9)
    assert table.look_up("me", 3) == answered(b"3", is_ok=False), "they share nothing"


def test_an_answer_that_its_sender_has_is_not_kept_when_it_comes_late() -> None:
    table = Dedup()
    table.record("me", 5, answered())
    table.acknowledge("me", 5)
    table.record("me", 3, answered())
    assert table.rows() == [("me", 5, 5, [(5, *answered())])]
