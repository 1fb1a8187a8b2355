"""Calls over a way that loses and hangs: each takes effect once, or says that it may have."""

from __future__ import annotations

import asyncio
from collections.abc import Sized
from functools import partial
from typing import Any

import pytest

from dspex.cluster.foundation import exchange
from dspex.errors import (
    FoundationError,
    InvalidRequestError,
    SessionExpiredError,
    UnavailableError,
)
from dspex.testing.ledgers import Way, commit, party, run, until

LOCK: dict[str, Any] = {"namespace": "", "name": "l", "kind": "lock"}


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "BACKOFF", (0.0,))


def numbers(way: Way, op: str = "records.commit") -> list[list[int | None]]:
    return [[call.number for call in request.calls] for request in way.of(op)]


def are(count: int, what: Sized) -> bool:
    return len(what) == count


# --- flights -------------------------------------------------------------------------------


def test_calls_of_one_turn_travel_together_and_those_behind_four_flights_too() -> None:
    async def test() -> None:
        async with party() as there:
            caller = await there.caller()
            await asyncio.gather(*(commit(caller, f"a{n}") for n in range(10)))
            assert numbers(there.way) == [list(range(1, 11))]
            there.way.plan("records.commit", *["hold"] * 4)
            flying = []
            for n in range(4):
                flying.append(asyncio.ensure_future(commit(caller, f"b{n}")))
                await until(partial(are, n + 1, there.way.held))
            behind = [asyncio.ensure_future(commit(caller, f"c{n}")) for n in range(7)]
            reading = asyncio.ensure_future(caller.read("members.list"))
            await asyncio.sleep(0)
            assert len(numbers(there.way)) == 5
            there.way.release()
            await asyncio.gather(*behind, reading)
            assert numbers(there.way)[5:] == [[*range(15, 22), None]]
            for _ in range(3):
                there.way.release()
            await asyncio.gather(*flying)

    run(test())


def test_a_read_alone_goes_at_once() -> None:
    async def test() -> None:
        async with party() as there:
            caller = await there.caller()
            reading = caller.read("members.list")
            with pytest.raises(StopIteration):  # without a turn of the loop
                reading.send(None)

    run(test())


@pytest.mark.parametrize("fate", ["lose", "lose answer"])
def test_a_repeated_flight_keeps_its_numbers_and_takes_effect_once(fate: str) -> None:
    async def test() -> None:
        async with party() as there:
            caller = await there.caller()
            revision = there.server.ledger.revision
            there.way.plan("records.commit", fate, fate)
            await asyncio.gather(commit(caller, "a"), commit(caller, "b"))
            assert numbers(there.way) == [[1, 2]] * 3
            assert there.server.ledger.revision == revision + 2
            await commit(caller, "c")
            assert there.way.of("records.commit")[-1].acked_below == 3

    run(test())


def test_what_cannot_travel_is_refused_alone() -> None:
    async def test() -> None:
        async with party() as there:
            caller = await there.caller()
            outcomes: Any = await asyncio.gather(
                commit(caller),
                caller.read("records.select", collection="r:", query=[object()]),
                caller.read("records.fetch", collection="r:", keys=["x" * (33 * 2**20)]),
                return_exceptions=True,
            )
            good, bad, large = outcomes
            assert good
            assert isinstance(bad, InvalidRequestError)
            assert "plain data" in str(bad)
            assert isinstance(large, InvalidRequestError)
            assert "at most 33,554,432 bytes" in str(large)

    run(test())


def test_what_fails_unexpectedly_is_told_and_nobody_hangs() -> None:
    async def test() -> None:
        async with party() as there:
            caller = await there.caller(lease=0.2)
            there.way.plan("records.commit", "crash")
            there.way.plan("members.list", "crash")
            there.way.plan("session.renew", "crash", "crash")
            for work in (commit(caller), caller.read("members.list")):
                with pytest.raises(FoundationError, match="no OSError"):
                    await work
            renewals = len(there.way.of("session.renew"))
            await until(lambda: len(there.way.of("session.renew")) > renewals + 2)
            assert await commit(caller)

    run(test())


# --- sessions ------------------------------------------------------------------------------


def test_calls_that_an_ended_session_was_refused_go_over_to_the_next() -> None:
    async def test() -> None:
        async with party() as there:
            opened = []

            async def opens() -> None:
                opened.append(caller.session)

            caller = there.new_caller(on_open=opens)
            await caller.start()
            await commit(caller, "a")
            first = caller.session
            await there.end(first)
            await asyncio.gather(commit(caller, "b"), commit(caller, "c"))
            assert caller.session != first
            assert opened == [first, caller.session]
            assert numbers(there.way) == [[1], [2, 3], [1, 2]]
            assert [request.session for request in there.way.of("records.commit")] == [
                first,
                first,
                caller.session,
            ]

    run(test())


def test_of_a_call_that_was_sent_before_its_session_ended_nobody_knows() -> None:
    async def test() -> None:
        async with party() as there:
            caller = await there.caller()
            there.way.plan("records.commit", "lose answer")
            first = caller.session

            async def handle(blob: bytes) -> bytes:
                answer = await there.server.handle(blob)
                if there.way.requests[-1][0] == "lose answer":
                    await there.end(first)
                return answer

            there.way.handle = handle
            with pytest.raises(SessionExpiredError, match="is not known"):
                await commit(caller)
            assert await commit(caller, "another")

    run(test())


def test_an_answer_to_a_former_session_touches_no_number_of_the_new_one() -> None:
    async def test() -> None:
        async with party() as there:
            holder, caller = await there.caller(), await there.caller()
            held = await holder.write("locks.acquire", **LOCK)
            # PENDING for number 1 of the first session, which arrives in the second.
            there.way.plan("locks.acquire", "hold")
            waiting = asyncio.ensure_future(caller.write("locks.acquire", **LOCK))
            await until(lambda: there.way.held)
            await there.end(caller.session)
            await commit(caller)  # has a new session opened, and is its number 1
            other = asyncio.ensure_future(caller.write("locks.acquire", **LOCK | {"name": "m"}))
            assert (await other)["token"]
            there.way.release()
            await until(lambda: len(there.way.of("locks.acquire")) == 4)
            await holder.write("locks.release", namespace="", name="l", token=held["token"])
            assert (await waiting)["token"] > held["token"]

    run(test())


def test_a_withdrawn_call_of_a_former_session_cancels_nothing_of_the_new_one() -> None:
    async def test() -> None:
        async with party() as there:
            holder, caller = await there.caller(), await there.caller()
            held = await holder.write("locks.acquire", **LOCK)
            there.way.plan("locks.acquire", "hold")
            gone = asyncio.ensure_future(caller.write("locks.acquire", **LOCK))
            await until(lambda: there.way.held)
            await there.end(caller.session)
            await caller.write("resources.quota", tenant="t", limits={"cpu_cores": 1})
            waiting = asyncio.ensure_future(caller.write("locks.acquire", **LOCK))
            await until(lambda: there.server.ledger.locks.waiting())
            gone.cancel()
            await asyncio.gather(gone, return_exceptions=True)
            there.way.release()
            await commit(caller)
            await holder.write("locks.release", namespace="", name="l", token=held["token"])
            assert (await waiting)["token"]
            assert not there.way.of("call.cancel")

    run(test())


def test_a_withdrawal_that_is_repeated_cancels_nothing_of_the_next_session() -> None:
    async def test() -> None:
        async with party() as there:
            holder, caller = await there.caller(), await there.caller()
            held = await holder.write("locks.acquire", **LOCK)
            gone = asyncio.ensure_future(caller.write("locks.acquire", **LOCK))
            await until(lambda: there.server.ledger.locks.waiting())
            there.way.plan("call.cancel", *["lose"] * 10_000)
            gone.cancel()
            await until(lambda: there.way.of("call.cancel"))
            former = caller.session
            await there.end(former)
            waiting = asyncio.ensure_future(caller.write("locks.acquire", **LOCK))
            await until(lambda: there.server.ledger.locks.waiting())
            assert caller.session != former
            there.way.fates.clear()
            await until(lambda: not caller._late._background._tasks - {caller._late._poll})
            await holder.write("locks.release", namespace="", name="l", token=held["token"])
            assert (await waiting)["token"] > held["token"]

    run(test())


def test_a_session_is_made_known_until_that_succeeds_and_once() -> None:
    async def test() -> None:
        async with party() as there:
            told = []
            errors = [UnavailableError("not now"), ConnectionError("lost"), ValueError("a bug")]

            async def opens() -> None:
                if errors:
                    raise errors.pop()
                told.append(caller.session)

            caller = there.new_caller(lease=0.2, on_open=opens)
            await caller.start()
            assert told == [caller.session]
            await until(lambda: len(there.way.of("session.renew")) > 2)
            assert told == [caller.session]

    run(test())


def test_a_start_that_failed_may_be_tried_again() -> None:
    async def test() -> None:
        async with party() as there:
            there.way.is_cut = True
            caller = there.new_caller(patience=0.0)
            with pytest.raises(UnavailableError, match="opening a session"):
                await caller.start()
            there.way.is_cut = False
            await caller.start()
            assert caller.facts["url"] == "memory"
            assert caller.facts["term"] == there.server.ledger.term

    run(test())


# --- patience, hanging, closing ------------------------------------------------------------


@pytest.mark.parametrize("op", ["records.commit", "members.list"])
def test_calls_are_repeated_for_as_long_as_patience_lasts(op: str) -> None:
    async def test() -> None:
        async with party() as there:
            caller = await there.caller(clock=there.clock, patience=5.0)
            there.way.is_cut = True
            work = commit(caller) if op == "records.commit" else caller.read(op)
            calling = asyncio.ensure_future(work)
            await until(lambda: len(there.way.of(op)) > 5)
            assert not calling.done()
            there.time += 6.0
            with pytest.raises(UnavailableError, match="could not be reached for 5 s") as caught:
                await calling
            assert ("whether it took effect" in str(caught.value)) == (op == "records.commit")
            there.way.is_cut = False
            assert await commit(caller)

    run(test())


def test_a_way_that_hangs_is_not_waited_for_without_end() -> None:
    async def test() -> None:
        async with party() as there:
            caller = await there.caller(patience=0.02)
            there.way.plan("records.commit", "hang")
            there.way.plan("members.list", "hang")
            for work in (commit(caller), caller.read("members.list")):
                with pytest.raises(UnavailableError, match="TimeoutError"):
                    await work
            there.way.plan("blob.write", "hang", "hang")
            with pytest.raises(UnavailableError):
                await caller.put_blob(b"large")

    run(test())


def test_closing_fails_all_that_is_under_way_and_leaves_nothing() -> None:
    async def test() -> None:
        async with party() as there:
            holder, caller = await there.caller(), await there.caller()
            await holder.write("locks.acquire", **LOCK)
            session = caller.session
            waiting = caller.write("locks.acquire", **LOCK)
            followed = caller.follow("r:", "*")
            work = [
                asyncio.ensure_future(each)
                for each in (waiting, anext(followed), anext(caller.follow_events({"lock"})))
            ]
            await until(lambda: caller._late._waiting and work[2].done() and work[1].done())
            work[1] = asyncio.ensure_future(anext(followed))
            there.way.plan("records.commit", *["hang"] * 3)
            there.way.plan("members.list", "hang")
            for n in range(3):
                work.append(asyncio.ensure_future(commit(caller, str(n))))
                await until(lambda: len(there.way.of("records.commit")) == len(work) - 3)
            work.append(asyncio.ensure_future(caller.read("members.list")))
            await until(lambda: there.way.of("members.list"))
            work += [asyncio.ensure_future(commit(caller, f"b{n}")) for n in range(3)]
            work.append(asyncio.ensure_future(caller.read("status")))
            await asyncio.sleep(0)
            assert caller.now() < caller.lease_ends()
            await caller.close()
            assert caller.now() > caller.lease_ends()
            outcomes = await asyncio.gather(*work, return_exceptions=True)
            assert outcomes.pop(2) == ("reset",)
            for outcome in outcomes:
                assert isinstance(outcome, UnavailableError), outcome
                assert "closed" in str(outcome)
            with pytest.raises(UnavailableError, match="closed"):
                await commit(caller)
            assert not there.server.ledger.sessions.is_open(session)
            await caller.close()

    run(test())


@pytest.mark.parametrize("turns", range(4))
def test_closing_in_the_turn_of_a_call_leaves_nobody_waiting(turns: int) -> None:
    async def test() -> None:
        async with party() as there:
            caller = await there.caller()
            work = [asyncio.ensure_future(commit(caller)), asyncio.ensure_future(commit(caller))]
            work += [asyncio.ensure_future(caller.read("members.list")) for _ in range(2)]
            for _ in range(turns):
                await asyncio.sleep(0)
            await caller.close()
            for outcome in await asyncio.gather(*work, return_exceptions=True):
                assert not isinstance(outcome, BaseException) or "closed" in str(outcome)

    run(test())


def test_closing_ends_although_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dspex.cluster.foundation.calls._LEAVE_WITHIN", 0.01)

    async def test() -> None:
        async with party() as there:
            caller = await there.caller()
            there.way.plan("session.close", "hang")
            await caller.close()

    run(test())
