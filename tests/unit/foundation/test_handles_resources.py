"""What users hold of resources, locks, elections and rate limits, over the real state machines."""

from __future__ import annotations

import asyncio
import gc
import pickle
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterator, Mapping
from typing import Any, TypeVar, cast

import pytest

from dspex.errors import (
    InvalidArgumentError,
    InvalidRequestError,
    LeaseExpiredError,
    LockTimeoutError,
    NotPicklableError,
    QuotaExceededError,
    ResourceExhaustedError,
    SessionExpiredError,
    UnavailableError,
    UnsatisfiableRequestError,
    VersionConflictError,
)
from dspex.foundation.handles.lease import Lease
from dspex.foundation.handles.locks import Election, Leader, Lock
from dspex.foundation.handles.resources import ResourceManager, WorkerView
from dspex.foundation.ledger.events import Event, Token
from dspex.foundation.ledger.locks import Locks
from dspex.foundation.ledger.rates import Rates
from dspex.foundation.ledger.resources import Resources
from dspex.foundation.ledger.wire import rebuilt_error
from dspex.foundation.ports import Bridge, Update

T = TypeVar("T")


class Hub:
    """The state machines, with what the ledger does around them; time is moved by hand."""

    def __init__(self, **workers: Mapping[str, Any]) -> None:
        self.resources = Resources()
        self.locks = Locks()
        self.rates = Rates()
        self.clock = 100.0
        self.n = 0
        self.calls = 0
        self.waiting: dict[tuple[str, int], asyncio.Future[Any]] = {}
        self.followers: list[asyncio.Queue[Event]] = []
        for address, capacity in workers.items():
            self.member(address, capacity)

    def member(self, address: str, capacity: Mapping[str, Any], state: str = "up") -> None:
        self.emit(("member", address, (1, 1), "w", address, "here", state, capacity))
        self.resources.settle(self.clock, self.token, self.emit)

    def token(self) -> Token:
        self.n += 1
        return (1, self.n)

    def emit(self, event: Event) -> None:
        if event[0] == "reply":
            _, session, number, is_ok, payload = event
            future = self.waiting.pop((session, number))
            if is_ok:
                future.set_result(payload)
            else:
                future.set_exception(rebuilt_error(payload))
        self.resources.apply(event, self.clock)
        self.locks.apply(event, self.clock)
        for follower in self.followers:
            follower.put_nowait(event)

    def handle(self, session: str, op: str, args: dict[str, Any]) -> Any:
        token = tuple(args.pop("token", (0, 0)))
        if op == "resources.acquire":
            return self.resources.acquire(
                session, self.calls, args, now=self.clock, token=self.token, emit=self.emit
            )
        if op == "resources.release":
            self.resources.release(session, token, self.emit)
            self.resources.settle(self.clock, self.token, self.emit)
            return True
        if op == "resources.quota":
            self.resources.set_quota(args["tenant"], args["limits"], self.emit)
            return True
        if op == "locks.acquire":
            return self.locks.acquire(session, self.calls, **args, token=self.token, emit=self.emit)
        if op == "locks.release":
            return self.locks.release(
                session, **args, held_token=token, token=self.token, emit=self.emit
            )
        asks: dict[str, Callable[[], Any]] = {
            "resources.verify": lambda: self.resources.verify(token) or self.locks.verify(token),
            "resources.usage": lambda: self.resources.usage(**args),
            "resources.snapshot": self.resources.snapshot,
            "locks.holder": lambda: self.locks.holder(**args),
            "rates.take": lambda: self.rates.take(session, **args, now=self.clock),
        }
        return asks[op]()


class HubCaller:
    """One session's way to a hub."""

    def __init__(self, hub: Hub, session: str = "me") -> None:
        self.hub = hub
        self.session = session
        self.ends = float("inf")
        self.ops: list[str] = []
        self.before: Callable[[str], None] = lambda op: None
        self.facts: Mapping[str, Any] = {}

    async def read(self, op: str, **args: Any) -> Any:
        self.ops.append(op)
        self.before(op)
        return self.hub.handle(self.session, op, args)

    async def write(self, op: str, *, timeout: float | None = None, **args: Any) -> Any:
        self.hub.calls += 1
        number = self.hub.calls
        reply = await self.read(op, **args)
        if reply is not None:
            return reply
        future = self.hub.waiting[self.session, number] = asyncio.get_running_loop().create_future()
        for _ in range(50):
            await asyncio.sleep(0)  # whatever else runs in this test goes on meanwhile
            if timeout is not None and not future.done():
                continue
            return await future
        del self.hub.waiting[self.session, number]
        self.hub.resources.cancel(self.session, number)
        self.hub.locks.cancel(self.session, number)
        raise TimeoutError

    async def follow_events(
        self, tags: Collection[str], *, hold: float = 1.0
    ) -> AsyncIterator[tuple[Any, ...]]:
        queue: asyncio.Queue[Event] = asyncio.Queue()
        self.hub.followers.append(queue)
        yield ("reset",)
        while True:
            event = await queue.get()
            if event[0] in tags or event[0] == "reset":
                yield event

    async def sleep(self, seconds: float) -> None:
        self.hub.clock += seconds
        await asyncio.sleep(0)

    def now(self) -> float:
        return self.hub.clock

    def lease_ends(self) -> float:
        return self.ends

    def follow(self, collection: str, pattern: str) -> AsyncIterator[Update]:
        raise NotImplementedError

    async def put_blob(self, data: bytes) -> str:
        raise NotImplementedError

    async def get_blob(self, digest: str) -> bytes:
        raise NotImplementedError


class LoopingBridge:
    """Runs work on a loop of its own, or leaves it to who awaits."""

    def __init__(self, *, asynchronous: bool = False) -> None:
        self.asynchronous = asynchronous
        self.loop = asyncio.new_event_loop()
        self.spawned: list[Coroutine[Any, Any, Any]] = []

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        if self.asynchronous:
            return work  # type: ignore[return-value]
        return self.loop.run_until_complete(work)

    def iterate(self, make: Callable[[], AsyncIterator[T]]) -> Any:
        return make()

    def spawn(self, work: Coroutine[Any, Any, Any]) -> Callable[[], None]:
        if self.loop.is_closed():
            raise RuntimeError("Event loop is closed")
        self.spawned.append(work)
        return work.close


@pytest.fixture
def bridge() -> Iterator[LoopingBridge]:
    bridge = LoopingBridge()
    yield bridge
    gc.collect()
    for work in bridge.spawned:
        work.close()
    bridge.loop.close()


CORES = {"cpu_cores": 2, "memory_gb": 4}


def manager(hub: Hub, bridge: Bridge, session: str = "me") -> tuple[ResourceManager, HubCaller]:
    caller = HubCaller(hub, session)
    return ResourceManager(caller, bridge), caller


def is_held(held: Lease | Lock | Election) -> bool:
    return held.is_leader if isinstance(held, Election) else held.is_held


# --- leases --------------------------------------------------------------------------------


def test_a_lease_is_held_until_it_is_released(bridge: LoopingBridge) -> None:
    hub = Hub(a=CORES)
    resources, caller = manager(hub, bridge)
    with resources.acquire("fit", cpu_cores=1, memory_gb=0.5, labels=()) as lease:
        assert (lease.worker, lease.token, lease.kind) == ("a", (1, 1), "fit")
        assert lease.amounts == {"cpu_cores": 1.0, "memory_gb": 0.5, "gpus": 0.0}
        assert repr(lease) == "<Lease 'fit' on a: cpu_cores=1, memory_gb=0.5, held>"
        assert lease.is_held
        lease.check()
        assert resources.usage("kind")["fit"]["leases"] == 1
    assert not is_held(lease)
    assert repr(lease).endswith("over>")
    assert resources.usage("kind") == {}
    with pytest.raises(LeaseExpiredError, match="was given back"):
        lease.check()
    lease.release()
    assert caller.ops.count("resources.release") == 1, "a second release asks nobody"


def test_a_lease_is_not_held_after_the_sessions_lease(bridge: LoopingBridge) -> None:
    hub = Hub(a=CORES)
    resources, caller = manager(hub, bridge)
    lease = resources.acquire("fit")
    caller.ends = hub.clock + 2
    assert lease.is_held
    hub.clock += 2
    assert not is_held(lease)
    caller.session, caller.ends = "another", float("inf")
    assert not is_held(lease), "another session of this process does not hold it"
    with pytest.raises(LeaseExpiredError, match="is lost"):
        lease.check()
    lease.release()
    assert "resources.release" not in caller.ops


def test_a_lease_whose_worker_left_is_lost_and_releasing_it_harms_nobody(
    bridge: LoopingBridge,
) -> None:
    hub = Hub(a=CORES)
    resources, _ = manager(hub, bridge)
    lease = resources.acquire("fit")
    hub.member("a", CORES, "lost")
    with pytest.raises(LeaseExpiredError, match=r"with token \(1, 1\) is lost"):
        lease.check()
    lease.release()


def test_a_release_that_nobody_heard_may_be_said_again(bridge: LoopingBridge) -> None:
    hub = Hub(a=CORES)
    resources, caller = manager(hub, bridge)
    lease = resources.acquire("fit")

    def fail(op: str) -> None:
        raise UnavailableError("away")

    caller.before = fail
    with pytest.raises(UnavailableError):
        lease.release()
    assert lease.is_held

    def expired(op: str) -> None:
        raise SessionExpiredError("gone")

    caller.before = expired
    lease.release()
    assert not is_held(lease)


def test_a_lease_that_is_forgotten_is_given_back_in_the_background(bridge: LoopingBridge) -> None:
    hub = Hub(a=CORES)
    resources, _ = manager(hub, bridge)
    lease = resources.acquire("fit")
    del lease
    gc.collect()
    assert len(bridge.spawned) == 1, "garbage collection does not wait for anybody"
    bridge.run(bridge.spawned.pop())
    assert resources.usage("kind") == {}
    with resources.acquire("fit"):
        pass
    gc.collect()
    assert not bridge.spawned


def test_nothing_that_is_held_is_pickled(bridge: LoopingBridge) -> None:
    hub = Hub(a=CORES)
    resources, caller = manager(hub, bridge)
    lease = resources.acquire("fit")
    lock = Lock(caller, bridge, namespace="", name="x")
    election = Election(caller, bridge, namespace="", name="y")
    for held in (lease, lock, election):
        with pytest.raises(NotPicklableError, match="send its token"):
            pickle.dumps(held)
    lease.release()


def test_what_does_not_become_free_in_time_raises_and_waits_no_longer(
    bridge: LoopingBridge,
) -> None:
    hub = Hub(a=CORES)
    resources, _ = manager(hub, bridge)
    with resources.acquire("fit", cpu_cores=2), pytest.raises(ResourceExhaustedError) as caught:
        resources.acquire("score", cpu_cores=1, tenant="me", timeout=5)
    assert str(caught.value).startswith(
        "1 cpu_cores of kind 'score' for tenant 'me' did not become free within 5 s;"
    )
    assert hub.resources.waiting() == []


def test_refusals_keep_their_kind(bridge: LoopingBridge) -> None:
    hub = Hub(a=CORES)
    resources, _ = manager(hub, bridge)
    with pytest.raises(UnsatisfiableRequestError, match="no worker could give 3 cpu_cores"):
        resources.acquire("fit", cpu_cores=3, timeout=1)
    resources.set_quota("me", cpu_cores=1)
    with pytest.raises(QuotaExceededError, match="'me' may have at most cpu_cores=1"):
        resources.acquire("fit", cpu_cores=2, tenant="me")
    assert resources.usage("tenant")["me"]["limits"]["cpu_cores"] == 1
    resources.set_quota("me")
    resources.acquire("fit", cpu_cores=2, tenant="me").release()


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"cpu_cores": "2"}, InvalidArgumentError),
        ({"cpu_cores": -1}, InvalidRequestError),
        ({"cpu_cores": True}, InvalidArgumentError),
        ({"placement": "nowhere"}, InvalidRequestError),
        ({"placement": 3}, InvalidArgumentError),
        ({"placement": "pack", "placement_strategy": "pack"}, InvalidArgumentError),
        ({"placement": max, "worker": "a"}, InvalidArgumentError),
        ({"timeout": 0}, InvalidArgumentError),
        ({"timeout": "2h"}, InvalidArgumentError),
        ({"priority": float("nan")}, InvalidRequestError),
    ],
)
def test_arguments_are_checked_at_the_door(
    bridge: LoopingBridge, arguments: dict[str, Any], error: type[Exception]
) -> None:
    resources, caller = manager(Hub(a=CORES), bridge)
    with pytest.raises(error):
        resources.acquire("fit", **arguments)
    assert caller.ops == []


def test_timeouts_are_read_by_what_is_given_for_it(bridge: LoopingBridge) -> None:
    hub = Hub(a=CORES)
    resources = ResourceManager(
        HubCaller(hub), bridge, seconds=lambda name, value: 60.0 if value == "1m" else None
    )
    with (
        resources.acquire("fit", cpu_cores=2),
        pytest.raises(ResourceExhaustedError, match="within 60 s"),
    ):
        resources.acquire("fit", cpu_cores=2, timeout="1m")


def test_the_seeds_words_and_a_single_label(bridge: LoopingBridge) -> None:
    hub = Hub(a=CORES, b={**CORES, "labels": ["ssd"]})
    resources, _ = manager(hub, bridge)
    with resources.acquire("fit", labels="ssd", placement_strategy="least_loaded_node") as lease:
        assert lease.worker == "b"


# --- callables -----------------------------------------------------------------------------


def test_a_callable_chooses_on_what_is_there(bridge: LoopingBridge) -> None:
    hub = Hub(a=CORES, b={"cpu_cores": 8, "labels": ["x"]})
    resources, _ = manager(hub, bridge)
    seen: list[WorkerView] = []

    def widest(workers: Any) -> WorkerView:
        seen.extend(workers)
        return max(seen, key=lambda worker: worker.free["cpu_cores"])

    with resources.acquire("fit", cpu_cores=1, placement=widest) as lease:
        assert lease.worker == "b"
    assert [(view.address, view.labels, view.load) for view in seen] == [
        ("a", (), 0.0),
        ("b", ("x",), 0.0),
    ]
    assert [view.address for view in resources.workers()] == ["a", "b"]


def test_a_callable_chooses_again_where_others_were_faster(bridge: LoopingBridge) -> None:
    hub = Hub(a=CORES, b=CORES)
    resources, _ = manager(hub, bridge)
    held: list[Lease] = []

    def choose(workers: Any) -> str:
        if len(held) < 2:
            held.append(Lease(HubCaller(hub), bridge, _taken(hub, workers[0].address)))
        return str(workers[0].address)

    with resources.acquire("fit", cpu_cores=1, placement=choose) as lease:
        assert lease.worker in ("a", "b")
    assert len(held) == 2


def _taken(hub: Hub, worker: str) -> Any:
    hub.calls += 1
    request = {"kind": "other", "amounts": {"cpu_cores": 0.5}, "worker": worker}
    return hub.handle("me", "resources.acquire", request)


def test_a_callable_that_is_never_fast_enough_is_told_so(bridge: LoopingBridge) -> None:
    hub = Hub(a={"cpu_cores": 1000})
    resources, caller = manager(hub, bridge)

    def choose(workers: Any) -> str:
        _taken(hub, "a")
        return "a"

    with pytest.raises(VersionConflictError, match="had changed 32 times"):
        resources.acquire("fit", placement=choose)
    assert caller.ops.count("resources.acquire") == 32


def test_a_callable_chooses_one_of_those_that_it_is_given(bridge: LoopingBridge) -> None:
    resources, _ = manager(Hub(a=CORES), bridge)
    with pytest.raises(InvalidArgumentError, match="returns one of the workers"):
        resources.acquire("fit", placement=lambda workers: "z")
    resources, _ = manager(Hub(), bridge)
    with pytest.raises(ResourceExhaustedError, match="there are none"):
        resources.acquire("fit", placement=lambda workers: "z")


# --- async code ----------------------------------------------------------------------------


def test_in_async_code_the_same_names_are_awaited() -> None:
    hub = Hub(a=CORES)

    async def use() -> None:
        bridge = LoopingBridge(asynchronous=True)
        bridge.loop.close()
        resources, caller = manager(hub, bridge)
        lease: Any = await resources.acquire("fit", cpu_cores=2)  # type: ignore[misc]
        with pytest.raises(InvalidArgumentError, match="async with"), lease:
            raise AssertionError
        waiting = asyncio.ensure_future(_entered(resources))
        await asyncio.sleep(0)
        assert len(hub.resources.waiting()) == 1
        async with lease:
            assert not waiting.done()
        assert await waiting == "a"
        assert hub.resources.leases() == ()
        lock = Lock(caller, bridge, namespace="", name="x")
        async with lock:
            assert lock.is_held
        with pytest.raises(InvalidArgumentError, match="async with"), lock:
            raise AssertionError
        limit = resources.rate_limit("api", per_second=5)
        await limit
        async with limit:
            await cast("Any", limit.acquire)(2)

    async def _entered(resources: ResourceManager) -> str:
        async with resources.acquire("fit", cpu_cores=2) as lease:
            return lease.worker

    asyncio.run(use())


# --- locks and elections -------------------------------------------------------------------


def test_a_lock_is_held_by_one_and_its_tokens_grow(bridge: LoopingBridge) -> None:
    hub = Hub()
    mine = Lock(HubCaller(hub, "me"), bridge, namespace="n", name="x")
    yours = Lock(HubCaller(hub, "you"), bridge, namespace="n", name="x")
    elsewhere = Lock(HubCaller(hub, "you"), bridge, namespace="m", name="x")
    first = mine.acquire()
    assert (mine.token, mine.is_held, repr(mine)) == (first, True, "<Lock 'x', held>")
    mine.check()
    assert elsewhere.acquire() > first
    with pytest.raises(LockTimeoutError, match="the lock 'x' did not become free within 1 s"):
        yours.acquire(timeout=1)
    assert not is_held(yours)
    mine.release()
    assert mine.token is None
    with yours:
        assert yours.token is not None
        assert yours.token > first
    for action in (mine.release, mine.check):
        with pytest.raises(LeaseExpiredError, match="not acquired, or was given back"):
            action()


def test_who_waits_in_the_same_process_gets_the_lock_next(bridge: LoopingBridge) -> None:
    hub = Hub()
    lock = Lock(HubCaller(hub), bridge, namespace="", name="x")
    lock.acquire()

    async def both() -> Token:
        waiting = asyncio.ensure_future(lock._claim.take(None))
        await asyncio.sleep(0)
        await lock._give()
        return await waiting

    assert bridge.run(both()) == lock.token
    lock.release()


def test_a_lock_that_was_lost_says_so_when_it_is_left(bridge: LoopingBridge) -> None:
    hub = Hub()
    lock = Lock(HubCaller(hub), bridge, namespace="", name="x")

    def work() -> None:
        with lock:
            hub.locks.session_gone("me", hub.token, hub.emit)

    with pytest.raises(LeaseExpiredError, match="may not have been alone"):
        work()
    lock.acquire()


def test_a_lock_release_that_nobody_heard_may_be_said_again(bridge: LoopingBridge) -> None:
    hub = Hub()
    caller = HubCaller(hub)
    lock = Lock(caller, bridge, namespace="", name="x")
    token = lock.acquire()

    def fail(op: str) -> None:
        raise UnavailableError("away")

    caller.before = fail
    with pytest.raises(UnavailableError):
        lock.release()
    assert lock.token == token
    caller.before = lambda op: None
    lock.release()


def test_one_leader_a_term_and_a_word_when_it_changes(bridge: LoopingBridge) -> None:
    hub = Hub()
    mine = Election(HubCaller(hub, "me"), bridge, namespace="", name="x")
    yours = Election(HubCaller(hub, "you"), bridge, namespace="", name="x")
    assert mine.leader() is None

    async def watch() -> list[Leader | None]:
        changes = mine.watch()
        seen = [await anext(changes)]
        term = await mine._take(None)
        assert await mine._take(None) == term, "who leads, leads"
        seen.append(await anext(changes))
        waiting = asyncio.ensure_future(yours._take(None))
        await asyncio.sleep(0)
        await mine._give()
        await mine._give()
        assert await waiting > term
        seen += [await anext(changes), await anext(changes)]
        hub.emit(("lock", "", "other", (1, 90), "me", "leader"))
        # What is told late of a term before is no news; a reset with no change neither.
        for event in (("unlock", "", "x", term, "late"), ("reset",)):
            for follower in hub.followers:
                follower.put_nowait(event)
        hub.locks.session_gone("you", hub.token, hub.emit)
        seen.append(await anext(changes))
        await changes.aclose()
        return seen

    seen = bridge.run(watch())
    assert seen == [None, Leader("me", (1, 1)), None, Leader("you", (1, 2)), None]
    assert not is_held(mine)
    assert mine.term is None


def test_an_election_knows_its_leader(bridge: LoopingBridge) -> None:
    hub = Hub()
    caller = HubCaller(hub)
    election = Election(caller, bridge, namespace="", name="x")
    term = election.campaign(timeout=1)
    assert election.is_leader
    assert (election.leader(), election.term) == (Leader("me", term), term)
    assert repr(election) == "<Election 'x', leading>"
    other = Election(HubCaller(hub, "you"), bridge, namespace="", name="x")
    with pytest.raises(LockTimeoutError, match="the leadership of 'x'"):
        other.campaign(timeout=1)
    election.check()
    caller.ends = hub.clock
    assert not is_held(election)
    election.resign()
    assert election.leader() is None


def test_an_election_is_held_for_a_block(bridge: LoopingBridge) -> None:
    hub = Hub()
    election = Election(HubCaller(hub), bridge, namespace="", name="x")
    with election as leading:
        assert leading.is_leader

    async def block() -> None:
        async with election:
            assert election.is_leader

    bridge.run(block())
    assert not is_held(election)


# --- rate limits ---------------------------------------------------------------------------


def test_permits_come_in_batches_so_that_most_calls_ask_nobody(bridge: LoopingBridge) -> None:
    hub = Hub()
    resources, caller = manager(hub, bridge)
    limit = resources.rate_limit("api", per_second=100, burst=200)
    for _ in range(100):
        limit.acquire()
    assert caller.ops.count("rates.take") < 12
    assert hub.clock == 100.0
    assert repr(limit) == "<RateLimit 'api': 100 a second, burst 200>"


def test_the_rate_holds_over_time_and_for_all(bridge: LoopingBridge) -> None:
    hub = Hub()
    limits = [
        manager(hub, bridge, session)[0].rate_limit("api", per_second=10, burst=5)
        for session in ("me", "you")
    ]
    start = hub.clock
    for at in range(105):
        with limits[at % 2]:
            pass
    assert 9.9 <= hub.clock - start <= 10.5


def test_permits_in_hand_are_void_after_their_time_and_return(bridge: LoopingBridge) -> None:
    hub = Hub()
    resources, _ = manager(hub, bridge)
    others, _ = manager(hub, bridge, "other")
    limit = resources.rate_limit("api", per_second=8, burst=4)
    limit.acquire()
    limit.acquire()  # a batch of two: one is left
    limit.acquire()
    hub.clock += 0.9
    others.rate_limit("api", per_second=8, burst=4).acquire(4)
    hub.clock += 0.2
    limit.acquire()
    assert hub.clock == pytest.approx(101.1), "the bucket had one again"


def test_a_large_request_is_served_whole(bridge: LoopingBridge) -> None:
    hub = Hub()
    resources, caller = manager(hub, bridge)
    limit = resources.rate_limit("api", per_second=2, burst=6)
    limit.acquire(6)
    start = hub.clock
    limit.acquire(6)
    assert hub.clock - start == pytest.approx(3)
    assert caller.ops.count("rates.take") == 3


def test_permits_that_do_not_come_in_time(bridge: LoopingBridge) -> None:
    hub = Hub()
    resources, _ = manager(hub, bridge)
    limit = resources.rate_limit("api", per_second=0.1, burst=1)
    limit.acquire()
    with pytest.raises(ResourceExhaustedError, match=r"1 permits of 'api', 0\.1 a second, did not"):
        limit.acquire(timeout=4)
    assert hub.clock == pytest.approx(104)


def test_rate_limits_are_checked_at_the_door(bridge: LoopingBridge) -> None:
    resources, caller = manager(Hub(), bridge)
    for settings in ({"per_second": 0}, {"per_second": 1, "burst": 0.5}, {"per_second": "1"}):
        with pytest.raises(InvalidArgumentError):
            resources.rate_limit("api", **cast("Any", settings))
    limit = resources.rate_limit("api", per_second=3)
    for n in (0, 4, True, 1.5):
        with pytest.raises(InvalidArgumentError, match="from 1 to burst=3"):
            limit.acquire(cast("Any", n))
    assert caller.ops == []
