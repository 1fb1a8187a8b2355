"""One method for sync and async code; streams that may be interrupted, and ended from elsewhere."""

from __future__ import annotations

import asyncio
import gc
import os
import pickle
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from dspex.cluster.foundation.bridge import LoopBridge, LoopThread
from dspex.cluster.foundation.dropping import close_when_dropped
from dspex.errors import InvalidArgumentError, NotPicklableError, UnavailableError
from dspex.testing.ledgers import run
from dspex.testing.probe import wait_for


@pytest.fixture
def thread() -> Iterator[LoopThread]:
    thread = LoopThread("test")
    yield thread
    thread.stop()


@pytest.fixture
def bridge(thread: LoopThread) -> LoopBridge:
    return LoopBridge(thread.loop, asynchronous=False)


class Source:
    """What arrives is put here; counts how often it was ended."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.arrived: asyncio.Queue[Any] = asyncio.Queue()
        self.waits = threading.Event()
        self.ended = 0

    def put(self, item: Any) -> None:
        self.loop.call_soon_threadsafe(self.arrived.put_nowait, item)

    async def __call__(self) -> AsyncIterator[Any]:
        try:
            while True:
                self.waits.set()
                item = await self.arrived.get()
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            self.ended += 1


def interrupt_when(condition: Callable[[], object]) -> None:
    """Have Ctrl-C come to the main thread when it is time."""

    def watch() -> None:
        wait_for(condition)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=watch, daemon=True).start()


async def forever(entered: threading.Event, left: threading.Event) -> None:
    try:
        entered.set()
        await asyncio.Event().wait()
    finally:
        left.set()


# --- work ----------------------------------------------------------------------------------


def test_sync_code_waits_and_async_code_awaits(bridge: LoopBridge) -> None:
    assert bridge.run(asyncio.sleep(0, "done")) == "done"

    async def test() -> None:
        own = LoopBridge(asyncio.get_running_loop(), asynchronous=True)
        work: Any = own.run(asyncio.sleep(0, "done"))
        assert await work == "done"

    run(test())


def test_errors_come_through(bridge: LoopBridge) -> None:
    async def fail() -> None:
        raise KeyError("on purpose")

    with pytest.raises(KeyError, match="on purpose"):
        bridge.run(fail())


def test_blocking_on_the_loop_that_must_answer_is_refused(bridge: LoopBridge) -> None:
    async def block() -> None:
        bridge.run(asyncio.sleep(0))

    with pytest.raises(InvalidArgumentError, match="asynchronous Client"):
        bridge.run(block())


def test_ctrl_c_ends_the_work(bridge: LoopBridge) -> None:
    entered, left = threading.Event(), threading.Event()
    interrupt_when(entered.is_set)
    with pytest.raises(KeyboardInterrupt):
        bridge.run(forever(entered, left))
    assert left.wait(30)


def test_the_end_of_the_loop_is_told_to_those_who_wait_and_who_come_late() -> None:
    thread = LoopThread("test")
    bridge = LoopBridge(thread.loop, asynchronous=False)
    entered, left = threading.Event(), threading.Event()

    def end() -> None:
        entered.wait(30)
        thread.stop()

    ending = threading.Thread(target=end)
    ending.start()
    with pytest.raises(UnavailableError, match="connect again"):
        bridge.run(forever(entered, left))
    ending.join()
    for use in (bridge.run, bridge.spawn, bridge.submit):
        with pytest.raises(UnavailableError, match="connect again"):
            use(asyncio.sleep(0))
    thread.stop()


def test_background_work_goes_on_until_it_is_ended(bridge: LoopBridge) -> None:
    entered, left = threading.Event(), threading.Event()
    stop = bridge.spawn(forever(entered, left))
    assert entered.wait(30)
    assert not left.is_set()
    stop()
    assert left.wait(30)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_bridge_stays_in_its_process(bridge: LoopBridge) -> None:
    with pytest.raises(NotPicklableError, match="in the other process"):
        pickle.dumps(bridge)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            bridge.run(asyncio.sleep(0))
        except UnavailableError as error:
            os.write(writing, str(error).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as said:
        assert "does not survive a fork" in said.read()
    os.waitpid(child, 0)


# --- streams -------------------------------------------------------------------------------


def test_a_stream_gives_what_arrives_and_ends_with_its_block(bridge: LoopBridge) -> None:
    source = Source(bridge.loop)
    source.put(1)
    source.put(2)
    with bridge.iterate(source) as stream:
        assert next(stream) == 1
        assert next(iter(stream)) == 2
    assert source.ended == 1
    with pytest.raises(StopIteration):
        next(stream)
    stream.close()


def test_a_stream_is_ended_from_another_thread(bridge: LoopBridge) -> None:
    source = Source(bridge.loop)
    stream = bridge.iterate(source)

    def close() -> None:
        source.waits.wait(30)
        stream.close()

    closing = threading.Thread(target=close)
    closing.start()
    assert list(stream) == []
    closing.join()
    assert source.ended == 1


def test_ctrl_c_ends_no_stream(bridge: LoopBridge) -> None:
    source = Source(bridge.loop)
    stream = bridge.iterate(source)
    interrupt_when(source.waits.is_set)
    with pytest.raises(KeyboardInterrupt):
        next(stream)
    source.put("later")
    assert next(stream) == "later"
    stream.close()


def test_a_stream_that_failed_says_so_and_has_ended(bridge: LoopBridge) -> None:
    source = Source(bridge.loop)
    stream = bridge.iterate(source)
    source.put(UnavailableError("closed"))
    with pytest.raises(UnavailableError):
        next(stream)
    with pytest.raises(StopIteration):
        next(stream)
    stream.close()


def test_async_code_may_stop_waiting_for_an_item_and_ask_again() -> None:
    async def test() -> None:
        loop = asyncio.get_running_loop()
        source = Source(loop)
        async with LoopBridge(loop, asynchronous=True).iterate(source) as stream:
            for _ in range(3):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.001):
                        await anext(stream)
            source.put("later")
            assert await anext(stream) == "later"
            with pytest.raises(InvalidArgumentError, match="async for"):
                next(stream)
            waiting = asyncio.ensure_future(anext(stream))
            await asyncio.sleep(0)
        with pytest.raises(StopAsyncIteration):
            await waiting
        assert source.ended == 1
        await stream.close()

    run(test())


def test_two_threads_share_a_stream_and_get_each_item_once(bridge: LoopBridge) -> None:
    source = Source(bridge.loop)
    stream = bridge.iterate(source)
    got: list[int] = []
    threads = [threading.Thread(target=lambda: got.extend(stream)) for _ in range(2)]
    for each in threads:
        each.start()
    for number in range(50):
        source.put(number)
    wait_for(lambda: len(got) == 50)
    stream.close()
    for each in threads:
        each.join()
    assert sorted(got) == list(range(50))


def test_a_stream_whose_loop_has_ended_closes_without_a_word() -> None:
    thread = LoopThread("test")
    stream = LoopBridge(thread.loop, asynchronous=False).iterate(Source(thread.loop))
    thread.stop()
    stream.close()


# --- what nobody holds any more ------------------------------------------------------------


def test_what_is_dropped_is_closed_first_there_and_then_here(thread: LoopThread) -> None:
    closed: list[str] = []
    done = threading.Event()
    bridge = LoopBridge(thread.loop, asynchronous=False)

    def then() -> None:
        closed.append("then")
        done.set()

    closing = AsyncExitStack()
    closing.callback(closed.append, "closing")
    close_when_dropped(bridge, closing, then)
    assert not closed
    del bridge
    gc.collect()
    assert done.wait(30)
    assert closed == ["closing", "then"]


def test_what_was_closed_in_order_is_not_closed_again(thread: LoopThread) -> None:
    closed: list[str] = []
    bridge = LoopBridge(thread.loop, asynchronous=False)
    in_order = close_when_dropped(bridge, AsyncExitStack(), lambda: closed.append("then"))
    in_order()
    in_order()
    del bridge
    gc.collect()
    assert closed == ["then"]
