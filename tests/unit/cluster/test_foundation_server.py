"""The server: nothing leaves before it is kept, all is answered, and all is recovered."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspex.cluster.foundation import commits as committing
from dspex.cluster.foundation import exchange
from dspex.cluster.foundation import server as serving
from dspex.errors import (
    DspexError,
    FoundationError,
    JournalError,
    UnavailableError,
)
from dspex.foundation.ledger import performing
from dspex.foundation.ledger.ops import OPS
from dspex.foundation.ledger.wire import Call, Request, decode_answer, encode_request
from dspex.foundation.record import put
from dspex.testing.ledgers import GatedJournal, Party, commit, party, run, until

LOCK: dict[str, Any] = {"namespace": "", "name": "l", "kind": "lock"}


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "BACKOFF", (0.0,))
    monkeypatch.setattr(committing, "_RETRY_AFTER", (0.0,))


def fetch(there: Party, *keys: str) -> asyncio.Future[Any]:
    return asyncio.ensure_future(there.ask("records.fetch", collection="r:", keys=list(keys)))


# --- nothing leaves before it is kept ------------------------------------------------------


def test_a_reply_waits_for_the_journal_and_so_does_what_was_read_of_it() -> None:
    async def test() -> None:
        journal = GatedJournal()
        async with party(journal) as there:
            caller = await there.caller()
            await commit(caller, "old")
            journal.gate.clear()
            journal.entered.clear()
            writing = asyncio.ensure_future(commit(caller, "new"))
            await until(journal.entered.is_set)
            reading, absent = fetch(there, "new"), fetch(there, "old", "absent")
            selecting = asyncio.ensure_future(
                there.ask("records.select", collection="r:", query=_all())
            )
            # Of what is kept already one need not wait, nor of what need not be kept.
            assert (await fetch(there, "old"))[0]
            renewed = there.ask("session.renew", caller.session)
            assert await renewed == there.server.ledger.term
            eventual = await commit(caller, "eventual", wait_durable=False)
            assert eventual
            waiting = (writing, reading, absent, selecting)
            assert not any(each.done() for each in waiting)
            journal.gate.set()
            await asyncio.gather(*waiting)
            assert (await reading)[0][0] == "new"

    run(test())


def _all() -> list[Any]:
    from dspex.foundation.query import Query

    return list(Query())


def test_a_refusal_by_what_is_not_kept_yet_waits_too() -> None:
    async def test() -> None:
        journal = GatedJournal()
        async with party(journal) as there:
            caller = await there.caller()
            journal.gate.clear()
            journal.entered.clear()
            writing = asyncio.ensure_future(commit(caller))
            await until(journal.entered.is_set)
            taken = put("k", b"", {}, on_conflict="error")
            refused = asyncio.ensure_future(
                there.call(
                    99, "records.commit", caller.session, collection="r:", operations=[taken]
                )
            )
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert not refused.done()
            journal.gate.set()
            await writing
            with pytest.raises(DspexError, match="is taken"):
                await refused

    run(test())


def test_late_replies_leave_although_the_journal_never_rests() -> None:
    async def test() -> None:
        journal = GatedJournal()
        async with party(journal) as there:
            holder, caller, writer = [await there.caller() for _ in range(3)]
            held = await holder.write("locks.acquire", **LOCK)
            waiting = asyncio.ensure_future(caller.write("locks.acquire", **LOCK))
            await until(lambda: caller._late._waiting)
            # There is always something that is not kept yet.
            writing = [asyncio.ensure_future(_write_on(writer, waiting, str(n))) for n in range(3)]
            await until(lambda: len(journal.batches) > 10)
            await holder.write("locks.release", namespace="", name="l", token=held["token"])
            await waiting
            await asyncio.gather(*writing)

    run(test())


async def _write_on(caller: Any, until_done: asyncio.Future[Any], key: str) -> None:
    while not until_done.done():
        await commit(caller, key)


def test_a_call_that_has_changed_something_is_not_refused_when_it_is_repeated_in_trouble() -> None:
    async def test() -> None:
        journal = GatedJournal()
        async with party(journal) as there:
            caller = await there.caller()
            journal.errors += [JournalError("the disk is full")] * 1_000
            there.way.plan("records.commit", "lose answer")
            writing = asyncio.ensure_future(commit(caller))
            await until(lambda: there.server.commits.trouble)
            with pytest.raises(UnavailableError, match="nothing was changed"):
                await commit(caller, "another")
            journal.errors.clear()
            assert await writing
            assert there.server.ledger.records.count == 1

    run(test())


def test_a_server_that_closes_sends_everybody_to_the_next_one() -> None:
    async def test() -> None:
        async with party(GatedJournal()) as there:
            caller = await there.caller()
            await commit(caller, "a")
            await there.server.close()
            writing = asyncio.ensure_future(commit(caller, "b"))
            await until(lambda: len(there.way.of("records.commit")) > 3)
            await there.restart()
            await writing
            assert there.server.ledger.records.count == 2

    run(test())


# --- whatever comes is answered ------------------------------------------------------------

SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats() | st.text(max_size=5)
)
ANYTHING = st.recursive(
    SCALARS | st.binary(max_size=5) | st.sampled_from(["r:", "me", "put", "lock", "worker"]),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=12,
)


@st.composite
def calls(draw: st.DrawFn) -> Call:
    op = draw(st.sampled_from(sorted(OPS)))
    fields = OPS[op].fields
    args = {name: draw(ANYTHING) for name in fields if draw(st.booleans())}
    # Many are well formed but for one argument.
    for name, field in fields.items():
        if draw(st.integers(0, 3)):
            good = [each for each in GOOD if field.is_valid(each)]
            if good:
                args[name] = draw(st.sampled_from(good))
    return Call(draw(st.none() | st.integers(0, 9)) if OPS[op].changes else None, op, args)


GOOD: list[Any] = [
    *("r:", "s:", "me", "lock", "leader", "worker", "client", "least_loaded", "tcp://a:1"),
    *(0, 1, 3, 1.5, True, False, None, b"", b"x", (1, 1), [], {}, "a" * 64),
    *([["put", "k", b"", {}, [], None, None, "replace", None]], [["k"]], [[1], {}], [0]),
    *({"cpu_cores": 1.0}, {"cpu_cores": -1}, {"cpu_cores": 1, "labels": [3]}, {"unknown": 1}),
    *([["r:", "*"]], [["r:"]], [[[], []]], ["x", ["y"]]),
]


@settings(max_examples=150)
@given(st.lists(calls(), min_size=1, max_size=4))
def test_whatever_a_call_is_given_the_answer_is_a_reply_or_an_error_of_ours(
    made: list[Call],
) -> None:
    async def test() -> None:
        async with party() as there:
            await there.ask("session.open", "me", kind="worker", name="", lease=60.0)
            made_short = [
                call._replace(args={**call.args, "hold": 0.0}) if "hold" in call.args else call
                for call in made
            ]
            for batch in ([each] for each in made_short), [made_short]:
                for some in batch:
                    request = encode_request(Request("me", 0, some))
                    answer = decode_answer(await there.server.handle(request))
                    assert len(answer.replies) == len(some)
                    for status, payload in answer.replies:
                        assert status in (0, 1, 2)
                        assert status != 1 or payload[0] != "FoundationError", payload
            there.server.ledger.validate()

    run(test())


def test_an_error_of_ours_harms_only_the_call_that_meets_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(turn: Any, *rest: Any) -> Any:
        turn.emit(("quota", "t", {"cpu_cores": 1.0, "memory_gb": None, "max_concurrent": None}))
        raise ZeroDivisionError("on purpose")

    async def test() -> None:
        journal = GatedJournal()
        async with party(journal) as there:
            caller = await there.caller()
            monkeypatch.setitem(performing.PERFORMERS, "resources.quota", broken)
            outcomes: Any = await asyncio.gather(
                commit(caller, "a"),
                caller.write("resources.quota", tenant="t", limits={}),
                commit(caller, "b"),
                return_exceptions=True,
            )
            before, error, after = outcomes
            assert isinstance(error, FoundationError)
            assert "on purpose" in str(error)
            assert after[0] > before[0]
            # What had happened is kept, as it is part of the state.
            live = list(there.server.ledger.dump())
            await there.restart()
            recovered = [each for each in there.server.ledger.dump() if each[0] == "quota"]
            assert recovered == [each for each in live if each[0] == "quota"] != []

    run(test())
    assert "ZeroDivisionError" in caplog.text


def test_what_is_counted_has_names_of_ours() -> None:
    async def test() -> None:
        async with party() as there:
            for number in range(5):
                with pytest.raises(DspexError, match="there is no op"):
                    await there.ask(f"invented {number}")
            assert there.server.calls["unknown"] == 5
            assert there.server.calls.keys() <= OPS.keys() | {"unknown"}

    run(test())


# --- snapshots, recovery -------------------------------------------------------------------


@pytest.mark.parametrize("snapshots", [True, False])
def test_what_is_recovered_is_what_was_there(
    monkeypatch: pytest.MonkeyPatch, snapshots: bool
) -> None:
    monkeypatch.setattr(serving, "SNAPSHOT_AFTER", 2_000 if snapshots else 2**30)
    monkeypatch.setattr(serving, "SNAPSHOT_CHUNK", 7)
    made = []

    class Counting(GatedJournal):  # type: ignore[misc]  # final, but for this
        def compact(self, upto: int, snapshot: Any) -> None:
            super().compact(upto, snapshot)
            made.append(upto)

    async def test() -> None:
        journal = Counting()
        async with party(journal) as there:
            callers = [await there.caller() for _ in range(3)]
            await callers[0].write("locks.acquire", **LOCK)
            await callers[1].write("resources.quota", tenant="t", limits={"cpu_cores": 3})

            async def writes(caller: Any, name: str) -> None:
                for number in range(40):
                    await commit(caller, f"{name}{number % 13}", bytes([number]))

            await asyncio.gather(*(writes(c, n) for c, n in zip(callers, "abc", strict=True)))
            await until(lambda: there.server._compacting is None or there.server._compacting.done())
            live = [each for each in there.server.ledger.dump() if each[0] != "acked"]
            revision = there.server.ledger.revision
            assert bool(made) == snapshots
            await there.restart()
            assert there.server.ledger.revision == revision
            recovered = [each for each in there.server.ledger.dump() if each[0] != "acked"]
            # Replies that were acknowledged since the last snapshot are forgotten again later.
            kept = set(map(repr, live))
            assert kept <= set(map(repr, recovered))
            assert {each[0] for each in recovered if repr(each) not in kept} <= {"reply"}

    run(test())


def test_the_tail_of_the_journal_counts_for_the_next_snapshot(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(serving, "SNAPSHOT_AFTER", 3_000)

    async def test() -> None:
        async with party(GatedJournal()) as there:
            # A scheduler that never lives long enough to write that much.
            for start in itertools.count():
                assert start < 20
                caller = await there.caller()
                await commit(caller, f"k{start}", b"x" * 500)
                await caller.close()
                if there.server._compacting is not None:
                    await there.server._compacting
                    break
                await there.restart()
            assert there.server.journal.snapshot[0] > 0  # type: ignore[attr-defined]

    run(test())


def test_values_that_come_in_while_a_snapshot_waits_are_not_swept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(serving, "SWEEP_AFTER", 1)

    async def test() -> None:
        journal = GatedJournal()
        async with party(journal) as there:
            there.server.blobs._opened = float("-inf")
            caller = await there.caller()
            named = await caller.put_blob(b"named")
            journal.blobs["0" * 64] = b"nobody names it"
            journal.gate.clear()
            journal.entered.clear()
            operations = [put("k", b"", {"blob": named}, on_conflict="replace")]
            writing = [
                asyncio.ensure_future(
                    caller.write("records.commit", collection="s:", operations=operations)
                )
            ]
            await until(journal.entered.is_set)
            writing.append(asyncio.ensure_future(commit(caller)))  # so that the snapshot waits
            late = asyncio.ensure_future(caller.put_blob(b"comes in late"))
            await until(lambda: there.server.blobs._unnamed.keys() - {named})
            journal.gate.set()
            await asyncio.gather(*writing)
            await until(lambda: there.server._compacting)
            await until(lambda: there.server._compacting.done())  # type: ignore[union-attr]
            assert "0" * 64 not in journal.blobs
            assert {named, await late} <= journal.blobs.keys()

    run(test())
