"""How many leases a study holds: what it asks for, gives back, and may use."""

from __future__ import annotations

from typing import Any

from dspex.cluster.admission import Admission, Ask, Command, GiveBack, LeaseRequest, Withdraw

TWO = {"cpu_cores": 2.0}


def admission(
    usable: dict[str, int],
    members: dict[str, dict[str, Any]],
    *,
    most: int | None = None,
    others: tuple[str, ...] = (),
    **request: Any,
) -> Admission:
    made = Admission(LeaseRequest(**request), most)
    made.workers(usable, others=others, in_hand={})
    for address, capacity in members.items():
        made.member(address, "up", capacity)
    return made


def asked(commands: list[Command]) -> list[str | None]:
    assert all(isinstance(each, Ask) for each in commands), commands
    return [each.worker for each in commands if isinstance(each, Ask)]


def grant_all(made: Admission, *workers: str) -> list[tuple[int, int]]:
    """Have it ask, and grant on these workers in order."""
    tokens = []
    for command, worker in zip(made.decide(), workers, strict=True):
        assert isinstance(command, Ask)
        token = (1, 100 + command.number)
        made.granted(command.number, token, worker)
        tokens.append(token)
    return tokens


def test_one_lease_for_each_evaluation_that_fits() -> None:
    made = admission({"a": 4, "b": 4}, {"a": {"cpu_cores": 4.0}, "b": TWO}, cpu_cores=2)
    grant_all(made, "a", "b", "a")
    assert made.slots == {"a": 2, "b": 1}
    assert made.decide() == []


def test_no_more_than_the_threads_and_no_more_than_the_study_can_use() -> None:
    assert len(admission({"a": 1}, {"a": TWO}, cpu_cores=0.5).decide()) == 1
    assert len(admission({"a": 2, "b": 2}, {"a": TWO, "b": TWO}, most=3).decide()) == 3


def test_a_worker_that_is_no_member_yet_is_not_asked_for() -> None:
    made = admission({"a": 2}, {})
    assert made.decide() == []
    assert (made.able, made.refusal) == (1, None)
    made.member("a", "joining", {})
    assert (made.decide(), made.refusal) == ([], None)
    made.member("a", "up", TWO)
    assert asked(made.decide()) == [None, None]


def test_lost_leases_are_asked_for_again_elsewhere() -> None:
    made = admission({"a": 1, "b": 2}, {"a": TWO, "b": TWO}, most=2)
    on_a, on_b = grant_all(made, "a", "b")
    made.lost([on_a])
    made.member("a", "lost", {})
    assert made.slots == {"b": 1}
    assert asked(made.decide()) == [None]
    made.lost([on_b])
    assert made.slots == {}
    assert asked(made.decide()) == [None], "one is waiting already"


def test_what_waits_is_withdrawn_when_workers_go() -> None:
    made = admission({"a": 1, "b": 1}, {"a": TWO, "b": TWO})
    first, second = made.decide()
    made.workers({"a": 1}, others=(), in_hand={})
    made.member("b", "left", {})
    assert made.decide() == [Withdraw(second.number)]  # type: ignore[union-attr]
    made.granted(second.number, (1, 1), "a")  # type: ignore[union-attr]
    assert made.decide() == [GiveBack((1, 1))], "its answer was on its way"
    made.granted(first.number, (1, 2), "a")  # type: ignore[union-attr]
    assert made.decide() == []


def test_where_some_members_may_not_be_used_each_worker_is_asked() -> None:
    made = admission({"a": 2}, {"a": TWO, "b": TWO}, others=("b",))
    assert asked(made.decide()) == ["a", "a"]


def test_a_lease_on_a_worker_that_may_not_be_used_goes_back() -> None:
    made = admission({"a": 1}, {"a": TWO})
    (token,) = grant_all(made, "b")
    made.member("b", "up", TWO)
    assert (made.decide(), made.slots) == ([], {}), "it may turn out to be of use"
    made.workers({"a": 1}, others=("b",), in_hand={})
    first, second = made.decide()
    assert first == GiveBack(token)
    assert isinstance(second, Ask)
    assert second.worker == "a"


def test_more_than_a_workers_threads_goes_back_and_is_asked_for_by_name() -> None:
    made = admission({"a": 1, "b": 1}, {"a": TWO, "b": TWO}, cpu_cores=0.5)
    _, second = grant_all(made, "a", "a")
    assert made.slots == {"a": 1}
    back, ask = made.decide()
    assert back == GiveBack(second)
    assert isinstance(ask, Ask)
    assert ask.worker == "b"
    assert made.decide() == []
    made.granted(ask.number, (1, 200), "b")
    assert made.slots == {"a": 1, "b": 1}


def test_asked_at_each_worker_what_comes_too_much_goes_back() -> None:
    members = {"a": TWO, "b": TWO, "c": TWO}
    made = admission({"a": 1, "b": 1}, members, others=("c",), most=1)
    first, second = grant_all(made, "a", "b")
    assert made.slots == {"a": 1}
    assert made.decide() == [GiveBack(second)]
    assert first in made.leases


def test_a_draining_worker_keeps_its_lease_until_its_work_is_done() -> None:
    made = admission({"a": 1, "b": 1}, {"a": TWO, "b": TWO}, most=1)
    (token,) = grant_all(made, "a")
    made.workers({"a": 1, "b": 1}, others=(), in_hand={"a": 1})
    made.member("a", "draining", TWO)
    assert made.slots == {}
    assert asked(made.decide()) == [None]
    assert made.held == {"a": 1}
    made.workers({"a": 1, "b": 1}, others=(), in_hand={})
    assert made.decide() == [GiveBack(token)]


def test_what_no_worker_could_ever_give_is_refused_with_what_there_is() -> None:
    made = admission({"a": 2}, {"a": {**TWO, "memory_gb": 8.0}}, cpu_cores=4, memory_gb=1)
    assert made.decide() == []
    assert made.able == 0
    refusal = made.refusal
    assert refusal is not None
    assert "4 cpu_cores, 1 memory_gb" in refusal
    assert "2 cpu_cores, 8 memory_gb" in refusal
    made.member("b", "up", {"cpu_cores": 8.0, "memory_gb": 7.0})
    assert made.refusal is None, "b may be of use"
    made.workers({"a": 2, "b": 8}, others=(), in_hand={})
    assert asked(made.decide()) == [None, None]


def test_labels_are_needed_all() -> None:
    request = LeaseRequest(labels=("fast", "large"))
    assert request.fits({**TWO, "labels": ["fast"]}) == 0
    assert request.fits({**TWO, "labels": ["large", "fast"]}) == 2


def test_after_the_session_everything_is_asked_for_again() -> None:
    made = admission({"a": 2}, {"a": TWO})
    grant_all(made, "a", "a")
    made.lost_all()
    assert (made.slots, made.held) == ({}, {})
    assert asked(made.decide()) == [None, None]
