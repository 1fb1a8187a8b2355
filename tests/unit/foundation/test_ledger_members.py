"""Members of the ledger: what is believed of workers, and what their end takes along."""

from __future__ import annotations

from typing import Any

import pytest

from dspex.errors import DspexError, InvalidRequestError, KeyNotFoundError, SessionExpiredError
from dspex.foundation.ledger.events import Event, Token
from dspex.foundation.ledger.ledger import Ledger, Step
from dspex.foundation.ledger.members import TRANSITIONS, Members
from dspex.foundation.ledger.sessions import TICK
from dspex.foundation.ledger.wire import Call

CAPACITY = {"cpu_cores": 2.0, "memory_gb": 4.0, "gpus": 0.0, "labels": ["ssd"]}


class Part:
    def __init__(self) -> None:
        self.members = Members()
        self.events: list[Event] = []
        self.silences: dict[str, float] = {}

    def emit(self, event: Event) -> None:
        self.events.append(event)
        self.members.apply(event, 0.0)
        self.members.validate()

    def join(self, address: str = "a:1", session: str = "s1", n: int = 1) -> None:
        self.members.join(address, session, "w", "host", CAPACITY, (1, n), self.emit)

    def judge(self, **silences: float) -> None:
        self.members.judge(lambda session: silences.get(session, 0.0), self.emit)

    def states(self) -> list[tuple[Token, str]]:
        return [(event[2], event[6]) for event in self.events]

    def state(self, address: str = "a:1") -> str | None:
        member = self.members.get(address)
        return None if member is None else member["state"]


def in_state(state: str) -> Part:
    part = Part()
    if state == "joining":
        part.members.seen("a:1", "w", "host", part.emit)
        return part
    part.join()
    if state == "suspected":
        part.judge(s1=0.7)
    elif state == "draining":
        part.members.drain("a:1", part.emit)
    elif state == "lost":
        part.members.lost("a:1", part.emit)
    elif state == "left":
        part.members.left("a:1", part.emit)
    return part


STATES = ["joining", "up", "suspected", "draining", "lost", "left"]


def test_a_life_of_a_member() -> None:
    part = Part()
    part.members.seen("a:1", "w", "host", part.emit)
    assert part.members.session_at("a:1") is None
    part.join()
    assert part.members.session_at("a:1") == "s1"
    assert part.members.address_of("s1") == "a:1"
    assert part.members.is_current("a:1", (1, 1))
    part.judge(s1=0.7)
    part.judge(s1=0.1)
    part.members.drain("a:1", part.emit)
    part.members.undrain("a:1", part.emit)
    part.members.left("a:1", part.emit)
    assert [state for _, state in part.states()] == [
        "joining", "up", "suspected", "up", "draining", "up", "left",
    ]  # fmt: skip
    assert part.members.everyone() == []
    assert part.members.former() == [
        {
            "address": "a:1", "incarnation": (1, 1), "session": "s1", "name": "w", "host": "host",
            "state": "left", "capacity": CAPACITY,
        }
    ]  # fmt: skip
    assert not part.members.is_current("a:1", (1, 1))


@pytest.mark.parametrize("before", STATES)
@pytest.mark.parametrize("after", STATES)
def test_only_what_the_table_says_may_follow(before: str, after: str) -> None:
    part = in_state(before)
    event = (*part.events[-1][:6], after, part.events[-1][7])
    is_there = before if before in TRANSITIONS else None
    if after in TRANSITIONS[is_there]:
        part.members.apply(event, 0.0)
    else:
        with pytest.raises(AssertionError, match="cannot go from"):
            part.members.apply(event, 0.0)


def test_what_is_lost_is_given_up_once() -> None:
    for state in ("joining", "up", "suspected", "draining"):
        part = in_state(state)
        for _ in range(2):
            part.members.lost("a:1", part.emit)
            part.members.left("a:1", part.emit)
        assert [state for _, state in part.states()][-1] == "lost"
        assert len(part.members.former()) == 1


def test_a_new_incarnation_ends_the_former() -> None:
    part = Part()
    part.join()
    part.join(session="s2", n=2)
    assert part.states() == [((1, 1), "up"), ((1, 1), "lost"), ((1, 2), "up")]
    assert not part.members.is_current("a:1", (1, 1))
    assert part.members.is_current("a:1", (1, 2))
    assert part.members.address_of("s1") is None
    part.join(session="s2", n=3)
    assert part.members.is_current("a:1", (1, 3))


def test_a_session_is_a_member_at_one_address() -> None:
    part = Part()
    part.join()
    with pytest.raises(InvalidRequestError, match="s1 is at 'a:1', and asked to join at 'b:1'"):
        part.join("b:1", n=2)
    assert len(part.events) == 1


def test_the_silent_are_suspected_and_trusted_again() -> None:
    part = Part()
    part.join()
    part.join("b:1", "s2", 2)
    part.members.drain("b:1", part.emit)
    part.judge(s1=2 / 3, s2=0.9)
    assert (part.state(), part.state("b:1")) == ("up", "draining")
    part.judge(s1=0.67, s2=0.9)
    part.judge(s1=0.8)
    assert part.state() == "suspected"
    part.members.drain("a:1", part.emit)
    part.judge()
    assert part.state() == "draining"


def test_draining_twice_changes_nothing() -> None:
    part = Part()
    part.join()
    part.members.undrain("a:1", part.emit)
    for _ in range(2):
        part.members.drain("a:1", part.emit)
    assert [state for _, state in part.states()] == ["up", "draining"]
    for change in (part.members.drain, part.members.undrain):
        with pytest.raises(KeyNotFoundError, match="no member at 'b:1'"):
            change("b:1", part.emit)


def test_who_is_only_seen_is_not_drained() -> None:
    part = in_state("joining")
    with pytest.raises(KeyNotFoundError):
        part.members.drain("a:1", part.emit)
    part.members.seen("a:1", "other", "host", part.emit)
    assert len(part.events) == 1


@pytest.mark.parametrize(
    "capacity",
    [
        {"cpu_cores": -1},
        {"memory_gb": float("inf")},
        {"gpus": float("nan")},
        {"cpu_cores": "2"},
        {"labels": "ssd"},
        {"labels": [1]},
    ],
)
def test_what_is_no_capacity(capacity: dict[str, Any]) -> None:
    part = Part()
    with pytest.raises(InvalidRequestError, match="finite cpu_cores, memory_gb and gpus from 0"):
        part.members.join("a:1", "s1", "w", "host", capacity, (1, 1), part.emit)
    assert part.events == []


def test_the_last_that_went_are_remembered() -> None:
    part = Part()
    for n in range(1, 150):
        part.join(session=f"s{n}", n=n)
    former = part.members.former()
    assert len(former) == 100
    assert former[-1]["incarnation"] == (1, 148)


def test_after_a_restart_all_are_suspected_and_stay_so() -> None:
    part = Part()
    part.join()
    part.join("b:1", "s2", 2)
    part.members.drain("b:1", part.emit)
    part.members.seen("c:1", "w", "host", part.emit)
    assert part.members.orphan(part.emit) == {"s1", "s2"}
    part.judge()
    assert [part.state(address) for address in ("a:1", "b:1", "c:1")] == [
        "suspected", "draining", None,
    ]  # fmt: skip
    with pytest.raises(InvalidRequestError, match="former scheduler is given nothing new"):
        part.members.undrain("b:1", part.emit)
    part.join(session="s3", n=9)
    part.judge(s3=0.9)
    part.judge()
    assert part.state() == "up"


@pytest.mark.parametrize("state", STATES[:4])
def test_a_snapshot_makes_the_same(state: str) -> None:
    part = in_state(state)
    again = Members()
    for event in part.members.dump():
        again.apply(event, 0.0)
    again.validate()
    assert again.everyone() == part.members.everyone()


# --- in the ledger -------------------------------------------------------------------------


class Run:
    """A ledger, its clock and its journal."""

    def __init__(self, term: int = 1, journal: list[Step] | None = None) -> None:
        self.ledger = Ledger(term=term)
        self.now = 1000.0 * term
        self.journal = journal or []
        self.numbers: dict[str, int] = {}
        for step in self.journal:
            self.ledger.replay(step.revision, step.events, self.now)
        if self.journal:
            self.keep(self.ledger.recovered(self.now))

    def keep(self, step: Step) -> Step:
        if step.events:
            self.journal.append(step)
        self.ledger.validate()
        return step

    def call(self, session: str, op: str, *, numbered: bool = True, **args: Any) -> Any:
        number = None
        if numbered:
            number = self.numbers[session] = self.numbers.get(session, 100 * self.ledger.term) + 1
        step = self.keep(self.ledger.handle(session, 1, Call(number, op, args), now=self.now))
        if isinstance(step.reply, DspexError):
            raise step.reply
        return step.reply

    def worker(self, session: str, address: str = "a:1") -> None:
        self.open(session, "worker")
        self.call(
            session, "members.join", address=address, name="w", host="h", capacity=dict(CAPACITY)
        )

    def open(self, session: str, kind: str = "client") -> None:
        self.call(session, "session.open", numbered=False, kind=kind, name="n", lease=3.0)

    def acquire(self, session: str) -> Any:
        return self.call(
            session,
            "resources.acquire",
            kind="k",
            amounts={"cpu_cores": 1},
            labels=[],
            placement="least_loaded",
            worker=None,
            version=None,
            tenant=None,
            priority=0,
            key=None,
        )

    def run(self, seconds: float, *renewing: str) -> list[Event]:
        events: list[Event] = []
        for tick in range(round(seconds / TICK)):
            self.now += TICK
            events += self.keep(self.ledger.tick(self.now)).events
            for session in renewing if tick % 5 == 0 else ():
                self.call(session, "session.renew", numbered=False)
        return events

    def states(self) -> list[str]:
        return [member["state"] for member in self.ledger.members.everyone()]


def test_a_silent_worker_is_suspected_then_lost_with_all_that_lay_on_it() -> None:
    run = Run()
    run.open("client")
    run.worker("w1")
    token = run.acquire("client")["token"]
    run.run(2.6, "client")
    assert run.states() == ["suspected"]
    assert run.acquire("client") is None, "it is given nothing new"
    run.run(1.0, "client")
    assert run.states() == []
    assert not run.call("client", "resources.verify", numbered=False, token=token)
    with pytest.raises(SessionExpiredError):
        run.call("w1", "session.renew", numbered=False)


def test_a_closed_connection_is_a_loss_or_a_leave_at_once() -> None:
    for is_expected, state in ((False, "lost"), (True, "left")):
        run = Run()
        run.worker("w1")
        step = run.keep(run.ledger.worker_closed("a:1", is_expected=is_expected, now=run.now))
        assert [event[6] for event in step.events if event[0] == "member"] == [state]
        assert [event[1] for event in step.events if event[0] == "gone"] == ["w1"]
        assert not run.ledger.worker_closed("a:1", is_expected=is_expected, now=run.now).events


def test_workers_of_a_former_scheduler_keep_what_they_hold_and_get_nothing_new() -> None:
    first = Run()
    first.open("client")
    first.worker("w1")
    token = first.acquire("client")["token"]
    second = Run(2, first.journal)
    second.run(1.0, "client")
    assert second.states() == ["suspected"]
    assert second.call("client", "resources.verify", numbered=False, token=token)
    assert second.acquire("client") is None, "it is on its way out"
    with pytest.raises(SessionExpiredError, match="as a new incarnation"):
        second.call("w1", "session.renew", numbered=False)
    second.run(4.0, "client")
    assert second.states() == []
    assert not second.call("client", "resources.verify", numbered=False, token=token)
    second.worker("w2")
    (member,) = second.ledger.members.everyone()
    assert member["incarnation"] > (2, 0)
    assert len(second.ledger.resources.leases()) == 1, "who waited has got it"
