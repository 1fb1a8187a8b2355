"""The ledger as a whole: what follows from what, and what is refused."""

from __future__ import annotations

from typing import Any

from dspex.errors import InvalidRequestError, SessionExpiredError
from dspex.foundation.ledger.ledger import Ledger, Step
from dspex.foundation.ledger.wire import Call

CAPACITY = {"cpu_cores": 2.0, "memory_gb": 4.0, "gpus": 0.0, "labels": []}


class Session:
    """Calls of one session, numbered."""

    def __init__(self, ledger: Ledger, name: str, kind: str = "client") -> None:
        self.ledger = ledger
        self.name = name
        self.number = 0
        self.ask("session.open", kind=kind, name=name, lease=3.0)

    def ask(self, op: str, *, now: float = 0.0, **args: Any) -> Step:
        return self.ledger.handle(self.name, 0, Call(None, op, args), now=now)

    def call(self, op: str, *, now: float = 0.0, **args: Any) -> Step:
        self.number += 1
        return self.again(op, now=now, **args)

    def again(self, op: str, *, now: float = 0.0, **args: Any) -> Step:
        return self.ledger.handle(self.name, 0, Call(self.number, op, args), now=now)

    def join(self) -> Step:
        return self.call("members.join", address="w:1", name="w", host="h", capacity=CAPACITY)

    def lock(self) -> Step:
        return self.call("locks.acquire", namespace="", name="l", kind="lock")


def restarted(ledger: Ledger, journal: list[Step]) -> Ledger:
    again = Ledger(term=ledger.term + 1)
    for step in journal:
        again.replay(step.revision, step.events, 0.0)
    again.recovered(0.0)
    return again


def test_a_worker_that_ends_its_session_has_left() -> None:
    worker = Session(Ledger(term=1), "w", "worker")
    worker.join()
    worker.ask("session.close")
    assert worker.ledger.members.everyone() == []
    assert [each["state"] for each in worker.ledger.members.former()] == ["left"]


def test_a_client_cannot_join_as_a_worker() -> None:
    step = Session(Ledger(term=1), "a").join()
    assert isinstance(step.reply, InvalidRequestError)
    assert not step.events


def test_the_end_of_a_worker_takes_its_leases_and_tied_entries_along() -> None:
    ledger = Ledger(term=1)
    worker, client = Session(ledger, "w", "worker"), Session(ledger, "c")
    worker.join()
    lease = client.call(
        "resources.acquire", kind="fit", amounts={"cpu_cores": 2}, placement="pack", priority=0
    )
    tied: Any = ("put", "k", b"", {}, [], None, "worker:w:1", "error", None)
    client.call("records.commit", collection="r:", operations=[tied], wait_durable=True)
    step = ledger.worker_closed("w:1", is_expected=False, now=1.0)
    assert [event[0] for event in step.events] == ["member", "gone", "free", "drop"]
    assert client.ask("resources.verify", token=lease.reply["token"]).reply is False
    ledger.validate()


def test_a_repeated_call_is_answered_and_changes_nothing() -> None:
    ledger = Ledger(term=1)
    client = Session(ledger, "c")
    first = client.lock()
    again = client.again("locks.acquire", namespace="", name="l", kind="lock")
    assert again.reply == first.reply
    assert not again.events


def test_a_withdrawn_call_gives_back_what_it_got() -> None:
    ledger = Ledger(term=1)
    holder, waiter = Session(ledger, "h"), Session(ledger, "w")
    granted = holder.lock()
    assert waiter.lock().is_pending
    # 1. It still waits.
    assert waiter.ask("call.cancel", number=1).reply is True
    assert waiter.lock().is_pending
    # 2. It has been granted meanwhile, and nobody took the reply.
    token = granted.reply["token"]
    holder.call("locks.release", namespace="", name="l", token=token)
    assert ledger.settled("w", [])
    waiter.ask("call.cancel", number=2)
    assert waiter.ask("locks.holder", namespace="", name="l").reply is None


def test_after_a_restart_a_lock_is_its_holders_and_a_former_worker_gets_nothing() -> None:
    ledger = Ledger(term=1)
    journal = [
        ledger.handle(
            name,
            0,
            Call(None, "session.open", {"kind": kind, "name": name, "lease": 3.0}),
            now=0.0,
        )
        for name, kind in (("c", "client"), ("w", "worker"))
    ]
    locked = {"namespace": "", "name": "l", "kind": "lock"}
    journal.append(ledger.handle("c", 0, Call(1, "locks.acquire", locked), now=0.0))
    joined = {"address": "w:1", "name": "w", "host": "h", "capacity": CAPACITY}
    journal.append(ledger.handle("w", 0, Call(1, "members.join", joined), now=0.0))
    again = restarted(ledger, journal)
    holder = again.handle("c", 0, Call(None, "locks.holder", {"namespace": "", "name": "l"}), now=0)
    assert holder.reply["session"] == "c"
    for call in (Call(None, "session.renew", {}), Call(2, "members.join", joined)):
        step = again.handle("w", 0, call, now=0.1)
        assert isinstance(step.reply, SessionExpiredError)
    assert [member["state"] for member in again.members.everyone()] == ["suspected"]
    assert again.handle("c", 0, Call(None, "session.renew", {}), now=0.1).reply == 2
