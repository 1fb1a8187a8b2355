"""A call takes effect once: its late and doubled copies, its withdrawal, its refusal."""

from __future__ import annotations

from typing import Any

from dspex.errors import (
    DspexError,
    InvalidRequestError,
    KeyExistsError,
    LeaseExpiredError,
    UnsatisfiableRequestError,
    VersionConflictError,
)
from dspex.foundation.ledger.ledger import Ledger, Step
from dspex.foundation.ledger.wire import Call
from dspex.foundation.record import drop, put

LOCK: dict[str, Any] = {"namespace": "", "name": "l", "kind": "lock"}


def opened(*sessions: str, kind: str = "client") -> Ledger:
    ledger = Ledger(term=1)
    for session in sessions:
        args = {"kind": kind, "name": session, "lease": 3.0}
        assert ledger.handle(session, 0, Call(None, "session.open", args), now=0.0).events
    return ledger


def call(ledger: Ledger, session: str, number: int, op: str, acked: int = 0, **args: Any) -> Step:
    step = ledger.handle(session, acked, Call(number, op, args), now=0.0)
    ledger.validate()
    return step


def commit(ledger: Ledger, session: str, number: int, *operations: Any) -> Step:
    operation: dict[str, Any] = {"operations": list(operations), "wait_durable": True}
    return call(ledger, session, number, "records.commit", collection="r:", **operation)


def value(ledger: Ledger) -> bytes | None:
    record = ledger.records.get("r:", "k")
    return None if record is None else record.value


def cancel(ledger: Ledger, session: str, number: int) -> Step:
    return ledger.handle(session, 0, Call(None, "call.cancel", {"number": number}), now=0.0)


def test_a_copy_of_a_refused_call_is_refused_even_when_it_could_be_granted_now() -> None:
    ledger = opened("a", "b")
    commit(ledger, "a", 1, put("k", b"a", {}))
    refused = commit(ledger, "b", 1, put("k", b"b", {}))
    assert isinstance(refused.reply, KeyExistsError)
    commit(ledger, "a", 2, drop("k"))
    again = commit(ledger, "b", 1, put("k", b"b", {}))
    assert isinstance(again.reply, KeyExistsError)
    assert str(again.reply) == str(refused.reply)
    assert not again.events
    assert value(ledger) is None


def test_a_copy_of_a_call_that_changed_nothing_changes_nothing() -> None:
    ledger = opened("a", "b")
    nothing = commit(ledger, "b", 1, drop("k", missing_ok=True))
    assert not nothing.events, "what changes nothing is not journalled"
    commit(ledger, "a", 1, put("k", b"a", {}))
    again = commit(ledger, "b", 1, drop("k", missing_ok=True))
    assert again.reply == nothing.reply
    assert value(ledger) == b"a", "an acknowledged write is not lost to a late copy"


def test_a_copy_of_a_refused_request_for_resources_is_not_granted() -> None:
    ledger = opened("w", kind="worker")
    capacity: Any = {"cpu_cores": 1.0}
    joined: dict[str, Any] = {"address": "w:1", "name": "w", "host": "h", "capacity": capacity}
    call(ledger, "w", 1, "members.join", **joined)
    wish: dict[str, Any] = {"kind": "k", "amounts": {"cpu_cores": 2}, "placement": "pack"}
    refused = call(ledger, "w", 2, "resources.acquire", priority=0, **wish)
    assert isinstance(refused.reply, UnsatisfiableRequestError)
    ledger.handle(
        "v", 0, Call(None, "session.open", {"kind": "worker", "name": "v", "lease": 3}), now=0
    )
    larger: dict[str, Any] = {
        "address": "v:1",
        "name": "v",
        "host": "h",
        "capacity": {"cpu_cores": 2.0},
    }
    call(ledger, "v", 1, "members.join", **larger)
    again = call(ledger, "w", 2, "resources.acquire", priority=0, **wish)
    assert isinstance(again.reply, UnsatisfiableRequestError)
    assert not ledger.resources.leases()


def test_what_is_kept_of_a_refusal_goes_when_it_is_acknowledged() -> None:
    ledger = opened("a")
    commit(ledger, "a", 1, drop("k"))
    assert ledger.sessions.stored("a", 1) is not None
    call(ledger, "a", 2, "locks.acquire", acked=2, **LOCK)
    assert ledger.sessions.stored("a", 1) is None
    assert isinstance(commit(ledger, "a", 1, drop("k")).reply, InvalidRequestError)


def test_a_copy_of_a_withdrawn_call_does_not_wait_again() -> None:
    ledger = opened("a", "b")
    token = call(ledger, "a", 1, "locks.acquire", **LOCK).reply["token"]
    assert call(ledger, "b", 1, "locks.acquire", **LOCK).is_pending
    assert cancel(ledger, "b", 1).reply is True
    again = call(ledger, "b", 1, "locks.acquire", **LOCK)
    assert not again.is_pending
    assert isinstance(again.reply, LeaseExpiredError)
    call(ledger, "a", 2, "locks.release", namespace="", name="l", token=token)
    assert ledger.locks.holder("", "l") is None


def test_a_call_that_comes_after_its_withdrawal_gets_nothing() -> None:
    ledger = opened("a")
    assert cancel(ledger, "a", 1).reply is True
    assert isinstance(call(ledger, "a", 1, "locks.acquire", **LOCK).reply, LeaseExpiredError)
    assert ledger.locks.holder("", "l") is None


def test_withdrawing_what_is_over_is_no_error() -> None:
    ledger = opened("a")
    call(ledger, "a", 1, "locks.acquire", **LOCK)
    call(ledger, "a", 2, "locks.acquire", acked=2, **{**LOCK, "name": "m"})
    assert cancel(ledger, "a", 1).reply is True
    assert ledger.locks.holder("", "l") is not None, "it has said that it has the reply"
    assert cancel(ledger, "gone", 1).reply is True


def test_withdrawals_are_bounded_like_replies(monkeypatch: Any) -> None:
    monkeypatch.setattr("dspex.foundation.ledger.sessions._MAX_UNACKED", 2)
    ledger = opened("a")
    replies = [cancel(ledger, "a", number).reply for number in (1, 2, 2, 3)]
    assert replies[:3] == [True] * 3
    assert isinstance(replies[3], InvalidRequestError)


def test_a_join_that_is_refused_costs_nobody_anything() -> None:
    ledger = opened("w", "v", kind="worker")
    joined: dict[str, Any] = {"address": "w:1", "name": "w", "host": "h", "capacity": {}}
    call(ledger, "w", 1, "members.join", **joined)
    refused = call(ledger, "v", 1, "members.join", **{**joined, "capacity": {"cpu_cores": -1}})
    assert isinstance(refused.reply, DspexError)
    call(ledger, "v", 2, "members.join", **{**joined, "address": "v:1"})
    elsewhere = call(ledger, "v", 3, "members.join", **joined)
    assert isinstance(elsewhere.reply, DspexError)
    assert [member["session"] for member in ledger.members.everyone()] == ["w", "v"]
    assert ledger.sessions.is_open("w")


def test_who_joins_again_in_its_session_is_another_incarnation() -> None:
    ledger = opened("w", kind="worker")
    joined: dict[str, Any] = {"address": "w:1", "name": "w", "host": "h", "capacity": {}}
    first = call(ledger, "w", 1, "members.join", **joined).reply["incarnation"]
    commit(ledger, "w", 2, put("k", b"", {}, owner="worker:w:1"))
    second = call(ledger, "w", 3, "members.join", **joined).reply["incarnation"]
    assert second > first
    assert value(ledger) is None, "what was tied to the former one went with it"


def test_what_a_leaving_worker_frees_of_a_quota_is_granted_at_once() -> None:
    ledger = opened("w", "v", kind="worker")
    for session in ("w", "v"):
        joined: dict[str, Any] = {
            "address": session,
            "name": "w",
            "host": "h",
            "capacity": {"cpu_cores": 1},
        }
        call(ledger, session, 1, "members.join", **joined)
    call(ledger, "v", 2, "resources.quota", tenant="t", limits={"max_concurrent": 1})
    wish: dict[str, Any] = {"kind": "k", "amounts": {"cpu_cores": 1}, "placement": "pack"}
    held = call(ledger, "v", 3, "resources.acquire", tenant="t", worker="w", priority=0, **wish)
    assert held.reply["worker"] == "w"
    assert call(ledger, "v", 4, "resources.acquire", tenant="t", priority=0, **wish).is_pending
    step = ledger.handle("w", 0, Call(None, "session.close", {}), now=0.0)
    assert [event[2] for event in step.events if event[:2] == ("reply", "v")] == [4]


def test_a_version_that_was_told_and_taken_back_is_never_another_record() -> None:
    first = opened("a", "b")
    journal = list(first.dump())
    revision = first.revision
    # Nobody waits for the journal; the scheduler dies before it has the entry.
    operations = [put("k", b"a", {})]
    told = call(
        first, "a", 1, "records.commit", collection="r:", operations=operations, wait_durable=False
    )
    assert told.depends == 0
    second = Ledger(term=2)
    second.replay(revision, journal, 0.0)
    second.recovered(0.0)
    written = commit(second, "b", 1, put("k", b"b", {}))
    assert written.revision == told.revision
    assert written.reply[0] > told.reply[0]
    stale = commit(second, "a", 2, put("k", b"A", {}, expected_version=told.reply[0]))
    assert isinstance(stale.reply, VersionConflictError)
    assert value(second) == b"b", "a write that was acknowledged is not lost"


def test_a_read_waits_for_the_newest_that_it_tells_and_for_nothing_of_former_terms() -> None:
    first = opened("a")
    commit(first, "a", 1, put("k", b"a", {}))
    second = Ledger(term=2)
    second.replay(first.revision, list(first.dump()), 0.0)
    fetch = Call(None, "records.fetch", {"collection": "r:", "keys": ["k"]})
    assert second.handle("a", 0, fetch, now=0.0).depends == 0
    written = commit(second, "a", 2, put("k", b"b", {}, on_conflict="replace"))
    commit(second, "a", 3, put("other", b"", {}))
    assert second.handle("a", 0, fetch, now=0.0).depends == written.revision
