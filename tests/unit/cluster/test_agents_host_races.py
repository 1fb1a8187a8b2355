"""What hosts did wrong in simulated worlds, each in its own small one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import cloudpickle
import pytest

from dspex.agents.agent import Agent
from dspex.cluster.agents import host as host_module
from dspex.cluster.agents.arrivals import Arrivals
from dspex.cluster.agents.host import Host
from dspex.cluster.agents.messenger import Messenger
from dspex.errors import SessionExpiredError, UnavailableError
from dspex.foundation.agents.cells import LOADING, READY
from dspex.foundation.agents.messages import CAST, EXACTLY_ONCE, Flight, Message, encode_flight
from dspex.foundation.ledger.agents.turns import unpack_turn
from dspex.testing.ledgers import run, until

KEY = ":x"
TOKEN = (1, 5)


class Thing(Agent):
    """Is made."""


class Pool:
    """Keeps jobs until somebody does them."""

    def __init__(self) -> None:
        self.jobs: list[Callable[[], None]] = []

    def submit(self, job: Callable[..., None], *arguments: Any) -> None:
        self.jobs.append(partial(job, *arguments))

    def do_all(self) -> None:
        while self.jobs:
            self.jobs.pop(0)()

    def watch(self) -> bool:
        return False

    def close(self) -> None:
        pass


class Way:
    """A caller whose calls are answered by the test, in any order."""

    def __init__(self) -> None:
        self.session = "one"
        self.calls: list[tuple[str, dict[str, Any], asyncio.Future[Any]]] = []
        self.ends = 100.0

    def now(self) -> float:
        return 0.0

    def lease_ends(self) -> float:
        return self.ends

    async def read(self, op: str, **args: Any) -> Any:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.calls.append((op, args, future))
        return await future

    write = read

    async def call(self, op: str) -> tuple[dict[str, Any], asyncio.Future[Any]]:
        """Wait for a call of this op that is not answered yet."""
        found: list[Any] = []

        def is_there() -> bool:
            found[:] = [each for each in self.calls if each[0] == op and not each[2].done()]
            return bool(found)

        await until(is_there)
        return found[0][1], found[0][2]


def loaded() -> dict[str, Any]:
    spec = {
        "class": "0" * 64,
        "persistence": "durable",
        "mailbox": 10,
        "overflow": "wait",
    }
    parcel = {
        "token": TOKEN,
        "spec": 0,
        "args": b"",
        "started": False,
        "state": None,
        "dedup": None,
        "outbox": None,
        "sent": 0,
        "parcel": None,
    }
    return {"specs": [spec], "parcels": [parcel]}


class World:
    """A host that has joined."""

    def __init__(self) -> None:
        way: Any = Way()
        pool: Any = Pool()
        self.way, self.pool = way, pool
        self.host = Host(way, "here", pool=pool)
        self.host.joined()

    def take(self) -> asyncio.Task[None]:
        return asyncio.create_task(self.host._take([(KEY, TOKEN)]))

    async def code(self) -> None:
        (await self.way.call("agents.code"))[1].set_result(cloudpickle.dumps(Thing))


def in_world(test: Callable[[World], Any]) -> None:
    async def work() -> None:
        world = World()
        try:
            await test(world)
        finally:
            await world.host.close()

    run(work())


def test_one_that_was_forgotten_and_taken_again_while_it_was_read_is_made_once() -> None:
    async def test(world: World) -> None:
        first = world.take()
        _, late = await world.way.call("agents.load")
        world.host.running.forget_all()
        second = world.take()
        await until(lambda: len(world.way.calls) == 2)
        world.way.calls[1][2].set_result(loaded())
        await world.code()
        await second
        late.set_result(loaded())
        await first
        assert len(world.pool.jobs) == 1

    in_world(test)


def test_what_came_after_the_question_what_is_here_stays() -> None:
    async def test(world: World) -> None:
        looking = asyncio.create_task(world.host._look())
        _, answer = await world.way.call("agents.at_host")
        taking = world.take()
        (await world.way.call("agents.load"))[1].set_result(loaded())
        await world.code()
        await taking
        answer.set_result([])  # as of before it was placed here
        await looking
        assert KEY in world.host.inbox.cells

    in_world(test)


def test_nothing_is_taken_before_the_new_session_has_joined() -> None:
    async def test(world: World) -> None:
        world.way.session = "two"
        await world.take()
        assert not world.host.inbox.cells
        assert not world.host.running.may_answer(), "the new lease is not theirs"
        world.host.joined()
        assert world.host.running.may_answer()

    in_world(test)


def test_that_agents_are_to_be_made_anew_is_told_until_it_is_heard(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(host_module, "_AGAIN_AFTER", 0.0)

    async def test(world: World) -> None:
        world.host.inbox.add(KEY, TOKEN, limit=10)
        retaking = asyncio.create_task(world.host._retake([KEY]))
        for _ in range(3):
            (await world.way.call("agents.retake"))[1].set_exception(UnavailableError("not now"))
        _, answer = await world.way.call("agents.retake")
        await world.take()
        assert KEY not in world.host.inbox.cells, "this incarnation may have committed more"
        answer.set_result(True)
        await retaking

    in_world(test)


def test_of_a_session_that_is_over_nothing_is_made_anew() -> None:
    async def test(world: World) -> None:
        retaking = asyncio.create_task(world.host._retake([KEY]))
        error = SessionExpiredError("over")
        (await world.way.call("agents.retake"))[1].set_exception(error)
        await retaking

    in_world(test)


def test_one_that_is_to_move_while_it_is_made_moves_when_it_is() -> None:
    async def test(world: World) -> None:
        taking = world.take()
        (await world.way.call("agents.load"))[1].set_result(loaded())
        await world.code()
        await taking
        assert world.host.inbox.cells[KEY].phase == LOADING
        await world.host._let_go([KEY])
        world.pool.do_all()
        args, answer = await world.way.call("agents.commit")
        assert unpack_turn(args["turns"][0])["t"]
        answer.set_result([])
        args, answer = await world.way.call("agents.commit")
        assert "m" in unpack_turn(args["turns"][0])
        answer.set_result([])
        await until(lambda: KEY not in world.host.inbox.cells)

    in_world(test)


def test_a_ledger_that_does_not_answer_is_no_fault_of_an_agent() -> None:
    async def test(world: World) -> None:
        taking = world.take()
        (await world.way.call("agents.load"))[1].set_result(loaded())
        (await world.way.call("agents.code"))[1].set_exception(UnavailableError("not now"))
        with pytest.raises(UnavailableError):
            await taking
        assert not world.host.inbox.cells, "to be found missing, and taken again"
        assert not [op for op, _, _ in world.way.calls if op == "agents.fail"]

    in_world(test)


@pytest.mark.parametrize(("flags", "answers"), [(EXACTLY_ONCE | CAST, 3), (EXACTLY_ONCE, 2)])
def test_what_nobody_waits_for_is_sent_again_when_it_could_not_be_kept(
    flags: int, answers: int
) -> None:
    # 3: elsewhere, it comes again. 2: an error, of which its sender makes what it wants.
    told: list[int] = []

    async def test(world: World) -> None:
        world.host.running.arrivals.answer = (  # type: ignore[method-assign]
            lambda letter, status, payload: told.append(status)
        )
        world.host.inbox._answer = world.host.running.arrivals.answer
        taking = world.take()
        (await world.way.call("agents.load"))[1].set_result(loaded())
        await world.code()
        await taking
        world.pool.do_all()
        (await world.way.call("agents.commit"))[1].set_result([])
        cell = world.host.inbox.cells[KEY]
        await until(lambda: cell.phase == READY)
        method = "after"  # sets a timer, which is to be kept
        message = Message(1, KEY, flags, "agent::y", 1, 0, None, method, _args())
        world.host.running._accept(message, SimpleNamespace(stuck={}))
        world.host.running._flush_runnable()
        world.pool.do_all()
        (await world.way.call("agents.commit"))[1].set_exception(UnavailableError("not now"))
        (await world.way.call("agents.retake"))[1].set_result(True)
        assert told == [answers]

    in_world(test)


def _args() -> bytes:
    packed: bytes = cloudpickle.dumps(((60.0, "after", 1.0, "after"), {}))
    return packed


def test_a_flight_that_waits_for_those_before_it_ends_with_its_link() -> None:
    async def work() -> None:
        arrivals = Arrivals(lambda message, link: None, lambda: None, lambda: True)
        second = encode_flight(Flight("me", 1, 1, False, 0.0, []))
        waiting = asyncio.create_task(arrivals.take(second))
        await asyncio.sleep(0)
        arrivals.reset()
        # It kept the loop busy for ever.
        assert await asyncio.wait_for(waiting, 5.0) == b""

    run(work())


def _hear(heard: list[Any], incarnation: int, error: Any) -> None:
    heard.append(incarnation)


def test_what_an_agent_sent_is_on_its_way_once_and_its_last_incarnation_hears_of_it() -> None:
    async def work() -> None:
        way: Any = Way()

        async def send(address: str, blob: bytes) -> bytes:
            raise AssertionError("nobody was told where it is")

        messenger = Messenger(way, send)
        heard: list[Any] = []
        for incarnation in (1, 2, 3):
            heard_by = partial(_hear, heard, incarnation)
            messenger.deliver(":y", "m", b"", sender="agent::x", number=7, done=heard_by)
        _, answer = await way.call("agents.locate")
        assert len(messenger._unresolved[":y"]) == 1
        answer.set_exception(UnavailableError("not now"))
        await asyncio.sleep(0.01)
        assert heard == [], "it waits until the ledger can tell"
        await messenger.close()
        assert heard == [3]

    run(work())
