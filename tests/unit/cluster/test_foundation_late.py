"""Calls that must wait: late replies, withdrawal, restarts; what nobody waits for is given back."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dspex.cluster.foundation import exchange, late
from dspex.errors import QuotaExceededError, UnavailableError
from dspex.foundation.ledger import sessions
from dspex.testing.ledgers import GatedJournal, Way, commit, party, run, until

LOCK: dict[str, Any] = {"namespace": "", "name": "l", "kind": "lock"}


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "BACKOFF", (0.0,))


def test_late_replies_arrive_failures_too() -> None:
    async def test() -> None:
        async with party() as there:
            holder, caller = await there.caller(), await there.caller()
            held = await holder.write("locks.acquire", **LOCK)
            waiting = asyncio.ensure_future(caller.write("locks.acquire", **LOCK))
            wish: dict[str, Any] = {"kind": "fit", "amounts": {"cpu_cores": 2}, "placement": "pack"}
            leasing = asyncio.ensure_future(
                caller.write("resources.acquire", **wish, tenant="t", priority=0)
            )
            await until(lambda: len(caller._late._waiting) == 2)
            await holder.write("resources.quota", tenant="t", limits={"cpu_cores": 1})
            with pytest.raises(QuotaExceededError):
                await leasing
            await holder.write("locks.release", namespace="", name="l", token=held["token"])
            assert (await waiting)["token"] > held["token"]
            await until(lambda: not there.server.ledger._turn.settled)

    run(test())


def test_a_late_reply_may_arrive_before_the_word_that_it_is_late() -> None:
    async def test() -> None:
        async with party() as there:
            holder, caller = await there.caller(), await there.caller()
            held = {
                name: await holder.write("locks.acquire", **LOCK | {"name": name}) for name in "lm"
            }
            other = asyncio.ensure_future(caller.write("locks.acquire", **LOCK | {"name": "m"}))
            await until(lambda: there.way.of("feed.poll"))
            there.way.plan("locks.acquire", "hold")
            waiting = asyncio.ensure_future(caller.write("locks.acquire", **LOCK))
            await until(lambda: there.way.held)
            for name, each in held.items():
                await holder.write("locks.release", namespace="", name=name, token=each["token"])
            assert (await waiting)["token"]
            assert (await other)["token"]
            there.way.release()
            await commit(caller)
            await until(lambda: not there.server.ledger._turn.settled)
            assert not caller._late._waiting
            assert not caller._flights._parked

    run(test())


def test_a_new_session_polls_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(late, "HOLD", 1e9)

    async def test() -> None:
        async with party() as there:
            holder, caller = await there.caller(), await there.caller()
            held = await holder.write("locks.acquire", **LOCK)
            waiting = asyncio.ensure_future(caller.write("locks.acquire", **LOCK))
            await until(lambda: there.way.of("feed.poll"))
            await there.end(caller.session)
            await commit(caller)
            await until(lambda: there.server.ledger.locks.waiting())
            await holder.write("locks.release", namespace="", name="l", token=held["token"])
            assert (await waiting)["token"] > held["token"]

    run(test())


@pytest.mark.parametrize("fate", ["lose answer", "hang"])
def test_what_a_call_got_that_was_given_up_is_given_back(fate: str) -> None:
    async def test() -> None:
        async with party() as there:
            caller, other = await there.caller(patience=0.05), await there.caller()
            there.way.plan("locks.acquire", *[fate] * 10_000)
            with pytest.raises(UnavailableError):
                await caller.write("locks.acquire", **LOCK)
            there.way.plan("call.cancel", "lose", "lose answer")
            there.way.fates["locks.acquire"].clear()
            assert (await other.write("locks.acquire", **LOCK))["token"]
            await until(lambda: not caller._flights._unanswered)

    run(test())


@pytest.mark.parametrize("kind", ["timeout", "cancellation"])
def test_a_call_that_waited_in_vain_is_withdrawn(kind: str) -> None:
    async def test() -> None:
        async with party() as there:
            holder, caller = await there.caller(), await there.caller()
            held = await holder.write("locks.acquire", **LOCK)
            timeout = 0.01 if kind == "timeout" else None
            waiting = asyncio.ensure_future(caller.write("locks.acquire", timeout=timeout, **LOCK))
            if kind == "cancellation":
                await until(lambda: caller._late._waiting)
                waiting.cancel()
            outcomes: Any = await asyncio.gather(waiting, return_exceptions=True)
            assert isinstance(outcomes[0], TimeoutError | asyncio.CancelledError)
            await until(lambda: there.way.of("call.cancel"))
            await until(lambda: not there.server.ledger.locks.waiting())
            await holder.write("locks.release", namespace="", name="l", token=held["token"])
            assert not there.server.ledger.locks.held()

    run(test())


@pytest.mark.parametrize("at", ["on its way", "with the reply", "late reply on its way"])
def test_what_a_cancelled_call_got_is_given_back(at: str) -> None:
    async def test() -> None:
        async with party() as there:
            holder, caller = await there.caller(), await there.caller()
            acquiring: asyncio.Future[Any]
            if at == "late reply on its way":
                held = await holder.write("locks.acquire", **LOCK)
                there.way.plan("feed.poll", "hold")
                acquiring = asyncio.ensure_future(caller.write("locks.acquire", **LOCK))
                await until(lambda: caller._late._waiting)
                await holder.write("locks.release", namespace="", name="l", token=held["token"])
                await until(lambda: there.way.held)
            else:
                there.way.plan("locks.acquire", "hold")
                acquiring = asyncio.ensure_future(caller.write("locks.acquire", **LOCK))
                await until(lambda: there.way.held)
            assert there.server.ledger.locks.held()
            if at == "with the reply":
                (item,) = caller._flights._unanswered.values()
                there.way.release()
                await until(item.future.done)
            acquiring.cancel()
            outcomes: Any = await asyncio.gather(acquiring, return_exceptions=True)
            assert isinstance(outcomes[0], asyncio.CancelledError)
            if at != "with the reply":
                there.way.release()
            await until(lambda: not there.server.ledger.locks.held())
            await until(lambda: not caller._flights._unanswered)

    run(test())


@pytest.mark.parametrize("turns", range(4))
def test_a_call_that_is_cancelled_around_its_sending_holds_nothing(turns: int) -> None:
    async def test() -> None:
        async with party() as there:
            caller = await there.caller()
            acquiring = asyncio.ensure_future(caller.write("locks.acquire", **LOCK))
            for _ in range(turns):
                await asyncio.sleep(0)
            acquiring.cancel()
            await asyncio.gather(acquiring, return_exceptions=True)
            await commit(caller)
            await until(lambda: not caller._flights._unanswered)
            assert len(there.way.of("locks.acquire")) == len(there.way.of("call.cancel"))
            assert not there.server.ledger.locks.held()

    run(test())


def test_whoever_waits_for_long_keeps_no_replies_of_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sessions, "_MAX_UNACKED", 10)

    async def test() -> None:
        async with party(GatedJournal()) as there:
            holder, caller = await there.caller(), await there.caller()
            held = await holder.write("locks.acquire", **LOCK)
            waiting = asyncio.ensure_future(caller.write("locks.acquire", **LOCK))
            await until(lambda: caller._late._waiting)
            for _ in range(30):
                await commit(caller)
            await there.restart()
            for _ in range(30):
                await commit(caller)
            await holder.write("locks.release", namespace="", name="l", token=held["token"])
            assert (await waiting)["token"] > held["token"]
            await commit(caller)
            assert there.way.requests[-1][1].parked == ()

    run(test())


def test_after_a_restart_whoever_waited_asks_again() -> None:
    async def test() -> None:
        async with party(GatedJournal()) as there:
            holder, caller = await there.caller(), await there.caller()
            held = await holder.write("locks.acquire", **LOCK)
            waiting = asyncio.ensure_future(caller.write("locks.acquire", **LOCK))
            await until(lambda: caller._late._waiting)
            await there.restart()
            await commit(caller)  # hears of the restart
            await until(lambda: there.server.ledger.locks.waiting())
            assert [each.calls[0].number for each in there.way.of("locks.acquire")] == [1, 1, 1]
            await holder.write("locks.release", namespace="", name="l", token=held["token"])
            assert (await waiting)["token"][0] == 2

    run(test())


def test_a_waiting_call_gives_up_when_the_ledger_is_away_for_too_long() -> None:
    async def test() -> None:
        async with party() as there:
            holder = await there.caller()
            await holder.write("locks.acquire", **LOCK)
            way = Way(there.server.handle)
            caller = await there.caller(way, clock=there.clock, patience=5.0)
            way.plan("feed.poll", "hold")
            waiting = asyncio.ensure_future(caller.write("locks.acquire", **LOCK))
            await until(lambda: way.of("feed.poll"))
            way.is_cut = True
            caller._late._poll.cancel()  # type: ignore[union-attr]
            await until(lambda: caller._late._poll.done())  # type: ignore[union-attr]
            caller._late._poll = asyncio.ensure_future(caller._late._ask_for_replies())
            polls = len(way.of("feed.poll"))
            await until(lambda: len(way.of("feed.poll")) > polls + 3)
            assert not waiting.done()
            there.time += 6.0
            with pytest.raises(UnavailableError, match="is not known"):
                await waiting

    run(test())
