"""Polls and followers: nothing is missed, nothing leaves too early, and idle followers rest."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import pytest

from dspex.cluster.foundation import exchange, following, polls
from dspex.errors import InvalidRequestError, UnavailableError
from dspex.foundation.ledger import feed
from dspex.foundation.record import Record, put
from dspex.testing.ledgers import GatedJournal, Party, commit, party, run, until

LOCK: dict[str, Any] = {"namespace": "", "name": "l", "kind": "lock"}


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "BACKOFF", (0.0,))


async def poll(there: Party, _after: int, **args: Any) -> Any:
    asked: dict[str, Any] = {
        "after": _after,
        "identity": there.server.journal.identity,
        "topics": [["r:", "*"]],
        "tags": [],
        "replies": False,
        "seen": [],
        "hold": 0.0,
    }
    return await there.ask("feed.poll", **asked | args)


def test_a_poll_tells_what_was_committed_since(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        async with party() as there:
            caller = await there.caller()
            start = (await poll(there, there.server.ledger.revision))["revision"]
            await commit(caller, "a")
            await commit(caller, "b")
            told = await poll(there, start)
            assert [event[2] for _, event in told["events"]] == ["a", "b"]
            assert told["revision"] == there.server.ledger.revision
            assert (await poll(there, told["revision"]))["events"] == []
            narrow = await poll(there, start, topics=[["r:", "b*"], ["s:", "*"]])
            assert [event[2] for _, event in narrow["events"]] == ["b"]

    run(test())


@pytest.mark.parametrize("why", ["the ring is full", "another history", "from the future"])
def test_who_may_have_missed_something_is_told_to_begin_again(
    monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    monkeypatch.setattr(feed, "LIMIT", 4)

    async def test() -> None:
        async with party() as there:
            caller = await there.caller()
            start = there.server.ledger.revision
            for number in range(4):
                await commit(caller, str(number))
            assert not (await poll(there, start))["reset"]
            if why == "the ring is full":
                await commit(caller, "one more")
                assert not (await poll(there, start + 1))["reset"]
                told = await poll(there, start)
            elif why == "another history":
                told = await poll(there, there.server.ledger.revision, identity="of another")
            else:
                told = await poll(there, there.server.ledger.revision + 1)
            assert told["reset"]
            assert told["events"] == []

    run(test())


def test_an_entry_is_told_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polls, "MAX_POLL", 3)

    async def test() -> None:
        async with party() as there:
            caller = await there.caller()
            after = there.server.ledger.revision
            for size in (2, 2, 5, 1):
                operations = [put(str(n), b"", {}, on_conflict="replace") for n in range(size)]
                await caller.write("records.commit", collection="r:", operations=operations)
            told = []
            while after < there.server.ledger.revision:
                some = await poll(there, after)
                told.append(len(some["events"]))
                after = some["revision"]
            assert told == [2, 2, 5, 1]

    run(test())


@pytest.mark.parametrize(
    "args",
    [
        {"topics": "r:"},
        {"topics": [["r:"]]},
        {"topics": [["r:", 3]]},
        {"topics": [[[], []]]},
        {"tags": [3]},
        {"hold": float("nan")},
        {"after": None},
        {"seen": 3},
        {"identity": b""},
        {"replies": 1},
    ],
    ids=repr,
)
def test_a_malformed_poll_gets_an_error(args: dict[str, Any]) -> None:
    async def test() -> None:
        async with party() as there:
            with pytest.raises(InvalidRequestError):
                await poll(there, 0, **args)

    run(test())


def test_a_late_reply_waits_for_the_journal_too() -> None:
    async def test() -> None:
        journal = GatedJournal()
        async with party(journal) as there:
            holder, caller = await there.caller(), await there.caller()
            held = await holder.write("locks.acquire", **LOCK)
            waiting = asyncio.ensure_future(caller.write("locks.acquire", **LOCK))
            await until(lambda: there.server.polls._followers)
            journal.gate.clear()
            journal.entered.clear()
            releasing = asyncio.ensure_future(
                holder.write("locks.release", namespace="", name="l", token=held["token"])
            )
            await until(journal.entered.is_set)
            # Another poll finds the reply before it is kept.
            early = asyncio.ensure_future(
                there.ask(
                    "feed.poll",
                    caller.session,
                    **{"after": 0, "identity": "", "topics": [], "tags": [], "hold": 9.0},
                    **{"replies": True, "seen": []},
                )
            )
            for _ in range(10):
                await asyncio.sleep(0)
            assert not waiting.done()
            assert not early.done()
            journal.gate.set()
            assert (await waiting)["token"]
            assert (await early)["replies"]
            await releasing

    run(test())


def test_a_follower_is_woken_by_what_it_follows_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        async with party() as there:
            caller = await there.caller()
            waiting = asyncio.ensure_future(
                poll(there, there.server.ledger.revision, topics=[["s:", "*"]], hold=20.0)
            )
            await until(lambda: there.server.polls._followers)
            (future,) = there.server.polls._followers
            for number in range(20):
                await commit(caller, str(number))
            assert not future.done()
            await caller.write(
                "records.commit",
                collection="s:",
                operations=[put("k", b"", {}, on_conflict="replace")],
            )
            told = await waiting
            assert [event[1] for _, event in told["events"]] == ["s:"]
            assert told["revision"] == there.server.ledger.revision

    run(test())


# --- followers -----------------------------------------------------------------------------


@pytest.mark.parametrize("ring", [20_000, 5])
def test_nothing_is_missed_between_a_snapshot_and_its_updates(
    monkeypatch: pytest.MonkeyPatch, ring: int
) -> None:
    monkeypatch.setattr(feed, "LIMIT", ring)
    writes = 60

    async def test() -> None:
        async with party(GatedJournal()) as there:
            callers = [await there.caller() for _ in range(4)]
            there.way.fates["feed.poll"] = deque(["lose", "pass", "lose answer"] * 10)
            snapshots = 0
            known: dict[str, Record] = {}

            async def write(caller: Any, name: str) -> None:
                for number in range(writes):
                    await commit(caller, f"{name}{number % 7}", bytes([number]))

            async def follow() -> None:
                nonlocal snapshots
                async for update in callers[3].follow("r:", "*"):
                    if update.is_snapshot:
                        snapshots += 1
                        known.clear()
                    for change in update.changes:
                        assert change.record is not None
                        before = known.get(change.key)
                        assert before is None or before.version < change.version
                        if before is not None and ring > 5:
                            # Not one between was left out.
                            assert change.record.value == bytes([before.value[0] + 7])
                        known[change.key] = change.record
                    if update.revision >= last:
                        return

            last = 2**60
            following_it = asyncio.ensure_future(follow())
            await asyncio.gather(*(write(c, n) for c, n in zip(callers[:3], "abc", strict=True)))
            last = there.server.ledger.revision
            await commit(callers[0], "the end")
            await following_it
            assert snapshots == 1 or ring == 5
            live = {each.key: each.version for each in there.server.ledger.records.all("r:", "*")}
            live.pop("the end")
            assert {k: r.version for k, r in known.items() if k != "the end"} == live

    run(test())


def test_a_follower_begins_again_on_another_history(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "HOLD", 0.01)

    async def test() -> None:
        async with party() as there:
            caller = await there.caller()
            await commit(caller, "a")
            updates = caller.follow("r:", "*")
            assert [change.key for change in (await anext(updates)).changes] == ["a"]
            await there.restart()  # of a journal in memory: nothing is left
            while not (update := await anext(updates)).is_snapshot:
                assert not update.changes
            assert not update.changes

    run(test())


def test_a_follower_hears_nothing_of_a_ledger_that_is_not_sure_and_goes_on_after_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(following, "HOLD", 0.01)

    async def test() -> None:
        journal = GatedJournal()
        async with party(journal) as there:
            caller = await there.caller()
            journal.is_owned = False
            updates = caller.follow("r:", "*")
            first = asyncio.ensure_future(anext(updates))
            await until(lambda: len(there.way.of("records.snapshot")) > 3)
            with pytest.raises(UnavailableError, match="does not own"):
                await poll(there, 0)
            journal.is_owned = True
            assert (await first).is_snapshot
            second = asyncio.ensure_future(anext(updates))
            await until(lambda: there.way.of("feed.poll"))
            journal.is_owned = False
            polls_so_far = len(there.way.of("feed.poll"))
            await until(lambda: len(there.way.of("feed.poll")) > polls_so_far + 3)
            assert not second.done()
            journal.is_owned = True
            assert not (await second).is_snapshot

    run(test())


def test_events_begin_with_a_reset_and_leave_nothing_out() -> None:
    async def test() -> None:
        async with party() as there:
            caller = await there.caller()
            events = caller.follow_events({"lock", "unlock"})
            assert await anext(events) == ("reset",)
            held = await caller.write("locks.acquire", **LOCK)
            await caller.write("locks.release", namespace="", name="l", token=held["token"])
            assert [(await anext(events))[0], (await anext(events))[0]] == ["lock", "unlock"]

    run(test())
