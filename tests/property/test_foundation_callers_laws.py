"""Callers over a bad way: whatever is lost, doubled or cancelled, nothing stays behind."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspex.cluster.foundation import commits as committing
from dspex.cluster.foundation import exchange
from dspex.cluster.foundation.calls import LedgerCaller
from dspex.errors import DspexError, SessionExpiredError, UnavailableError
from dspex.foundation.record import put
from dspex.testing.ledgers import GatedJournal, Party, party, run, until

LOCKS = "abc"


class BadWay:
    """Loses and doubles requests and answers, as a generator of random numbers says."""

    def __init__(self, there: Party, rng: random.Random) -> None:
        self.there = there
        self.rng = rng
        self.is_bad = True

    async def send(self, blob: bytes) -> bytes | None:
        fate = self.rng.random() if self.is_bad else 1.0
        if fate < 0.1:
            raise ConnectionError("lost on its way")
        for _ in range(self.rng.randrange(3) if self.is_bad else 0):
            await asyncio.sleep(0)
        if fate < 0.2:
            await self.there.server.handle(blob)  # a copy, of which nobody hears
        answer = await self.there.server.handle(blob)
        for _ in range(self.rng.randrange(3) if self.is_bad else 0):
            await asyncio.sleep(0)
        if fate < 0.3:
            raise ConnectionError("its answer was lost")
        return answer


class History:
    """What a run has seen: who holds which lock, and how often each counter was raised.

    Whether sessions only end when nobody believes in them any more is for other tests: those that
    are ended here have holders that do not know it yet.
    """

    def __init__(self, *, is_exclusive: bool) -> None:
        self.is_exclusive = is_exclusive
        self.holders: dict[str, set[int]] = {name: set() for name in LOCKS}
        self.raised = 0
        self.doubtful = 0


@pytest.fixture(autouse=True, scope="module")
def _hurry() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exchange, "BACKOFF", (0.0,))
        patch.setattr(committing, "_RETRY_AFTER", (0.0,))
        yield


async def use_locks(caller: LedgerCaller, rng: random.Random, history: History, me: int) -> None:
    for _ in range(6):
        name = rng.choice(LOCKS)
        lock: dict[str, Any] = {"namespace": "", "name": name}
        timeout = rng.choice([None, 0.0, 0.001])
        acquiring = asyncio.ensure_future(
            caller.write("locks.acquire", timeout=timeout, kind="lock", **lock)
        )
        if rng.random() < 0.4:
            for _ in range(rng.randrange(12)):
                await asyncio.sleep(0)
            acquiring.cancel()
        outcome: Any = (await asyncio.gather(acquiring, return_exceptions=True))[0]
        if not isinstance(outcome, dict):
            assert isinstance(outcome, TimeoutError | asyncio.CancelledError | DspexError), outcome
            continue
        history.holders[name].add(me)
        for _ in range(rng.randrange(4)):
            await asyncio.sleep(0)
        assert history.holders[name] == {me} or not history.is_exclusive, "two hold one lock"
        history.holders[name].discard(me)
        with suppress(SessionExpiredError):
            await caller.write("locks.release", token=outcome["token"], **lock)


async def count(caller: LedgerCaller, rng: random.Random, history: History) -> None:
    """Raise a counter by compare and set, whose every success is seen once."""
    for _ in range(8):
        (found,) = await caller.read("records.fetch", collection="r:", keys=["counter"])
        version, value = (0, 0) if found is None else (found[1], found[2][0])
        operation = put(
            "counter", bytes([value + 1]), {}, on_conflict="replace", expected_version=version
        )
        try:
            await caller.write(
                "records.commit", collection="r:", operations=[operation], wait_durable=True
            )
            history.raised += 1
        except (SessionExpiredError, UnavailableError):
            history.doubtful += 1
        except DspexError:
            pass  # another one was faster


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32), restarts=st.integers(0, 2), ends=st.integers(0, 3))
def test_nothing_stays_behind(seed: int, restarts: int, ends: int) -> None:
    rng = random.Random(seed)
    history = History(is_exclusive=not ends)

    async def test() -> None:
        async with party(GatedJournal()) as there:
            ways = [BadWay(there, rng) for _ in range(3)]
            callers = [
                # Who only waits hears with the next renewal that its session was ended.
                await there.caller(way, lease=0.3 if ends else 600.0)  # type: ignore[arg-type]
                for way in ways
            ]
            work = [
                asyncio.ensure_future(each)
                for me, caller in enumerate(callers)
                for each in (
                    use_locks(caller, rng, history, me),
                    use_locks(caller, rng, history, me + 10),
                    count(caller, rng, history),
                )
            ]
            troubles = [*(["restart"] * restarts), *(["end"] * ends)]
            rng.shuffle(troubles)
            for trouble in troubles:
                for _ in range(rng.randrange(60)):
                    await asyncio.sleep(0)
                if trouble == "restart":
                    await there.restart()
                else:
                    await there.end(rng.choice(callers).session)
            await asyncio.gather(*work)
            for way in ways:
                way.is_bad = False
            for caller in callers:
                # An answer of the present ledger, so that everything is known again.
                await caller.write("resources.quota", tenant="t", limits=None)
            await until(lambda: all(_is_idle(caller) for caller in callers))
            ledger = there.server.ledger
            ledger.validate()
            assert not ledger.locks.held()
            assert not ledger.locks.waiting()
            (found,) = await callers[0].read("records.fetch", collection="r:", keys=["counter"])
            value = 0 if found is None else found[2][0]
            assert history.raised <= value <= history.raised + history.doubtful

    run(test(), seconds=60.0)


def _is_idle(caller: LedgerCaller) -> bool:
    flights, late = caller._flights, caller._late
    # The poll stays at the ledger for a while after the last answer that it was for.
    return not (
        flights._unanswered
        or flights._parked
        or flights._outbox
        or flights._in_air
        or late._waiting
        or late._background._tasks - {late._poll}
    )
