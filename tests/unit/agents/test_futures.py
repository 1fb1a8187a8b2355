"""Answers to come, without Dask: filled by hand, asked for in every way."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import pickle
import threading
import weakref
from collections.abc import Callable, Generator
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from dspex.agents import answer
from dspex.agents import futures as waiting
from dspex.agents.answer import _CLOSED
from dspex.agents.futures import AgentFuture, as_completed, gather, wait
from dspex.errors import InvalidArgumentError, NotPicklableError


def futures(count: int) -> list[AgentFuture]:
    return [AgentFuture(describe=f"agent{n}.go") for n in range(count)]


def filled(value: Any) -> AgentFuture:
    future = AgentFuture(describe="agent.go")
    future.set_result(value)
    return future


def failed(error: Exception) -> AgentFuture:
    future = AgentFuture(describe="agent.go")
    future.set_exception(error)
    return future


def cancelled() -> AgentFuture:
    future = AgentFuture(describe="agent.go")
    assert future.cancel()
    return future


def refuse(raw: Any) -> NoReturn:
    raise LookupError(raw)


def in_thread(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


class TestResult:
    def test_is_what_was_given(self) -> None:
        assert filled(3).result() == 3
        assert filled(3).exception() is None

    def test_comes_from_another_thread(self) -> None:
        future = AgentFuture()
        thread = in_thread(lambda: future.set_result(1))
        assert future.result(timeout="1 minute") == 1
        thread.join()

    def test_is_decoded_by_whoever_asks_first(self) -> None:
        threads = []

        def decode(raw: str) -> list[str]:
            threads.append(threading.current_thread())
            return [raw]

        future = AgentFuture(decode)
        in_thread(lambda: future.set_result("x")).join()
        assert not threads
        assert future.result() is future.result()
        assert threads == [threading.current_thread()]

    def test_all_who_ask_at_the_same_time_get_the_same(self) -> None:
        both_decode = threading.Barrier(2)

        def decode(raw: str) -> list[str]:
            both_decode.wait(60)
            return [raw]

        future = AgentFuture(decode)
        future.set_result("x")
        results: list[Any] = []
        askers = [in_thread(lambda: results.append(future.result())) for _ in range(2)]
        for each in askers:
            each.join()
        assert results == [["x"]] * 2
        assert results[0] is results[1] is future.result()

    def test_who_is_interrupted_while_decoding_may_ask_again(self) -> None:
        interrupts = [KeyboardInterrupt()]

        def decode(raw: int) -> int:
            if interrupts:
                raise interrupts.pop()
            return raw

        future = AgentFuture(decode)
        future.set_result(1)
        with pytest.raises(KeyboardInterrupt):
            future.result()
        assert future.result() == 1

    def test_who_is_interrupted_before_decoding_may_ask_again(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Interrupted:
            def __enter__(self) -> None: ...

            def __exit__(self, *exc: object) -> None:
                monkeypatch.undo()
                raise KeyboardInterrupt

        future = AgentFuture(int)
        future.set_result("1")
        monkeypatch.setattr(answer, "MOMENT", Interrupted())
        with pytest.raises(KeyboardInterrupt):
            future.result()
        asker = in_thread(future.result)
        asker.join(10)
        assert not asker.is_alive()

    def test_outcome_gives_what_there_is_and_raises_nothing(self) -> None:
        assert filled(3).outcome() == (3, None)
        [pending] = futures(1)
        for future, kind in (
            (failed(KeyError("x")), KeyError),
            (cancelled(), concurrent.futures.CancelledError),
            (pending, TimeoutError),
        ):
            value, error = future.outcome()
            assert value is None
            assert isinstance(error, kind)
        undecodable = AgentFuture(refuse)
        undecodable.set_result("raw")
        assert isinstance(undecodable.outcome()[1], LookupError)
        assert not undecodable.has_failed()

    def test_an_error_of_decoding_is_the_error_each_time(self) -> None:
        future = AgentFuture(refuse)
        future.set_result("raw")
        with pytest.raises(LookupError, match="raw"):
            future.result()
        error = future.exception()
        assert isinstance(error, LookupError)
        with pytest.raises(LookupError) as caught:
            future.result()
        assert caught.value is error

    def test_raises_the_error(self) -> None:
        future = failed(KeyError("x"))
        with pytest.raises(KeyError):
            future.result()
        assert isinstance(future.exception(), KeyError)

    def test_a_timeout_says_what_and_how_long(self) -> None:
        [future] = futures(1)
        message = r"answer of agent0.go did not come within 0.001 seconds; the call goes on"
        for ask in (future.result, future.exception):
            with pytest.raises(TimeoutError, match=message):
                ask(timeout="1ms")
        with pytest.raises(TimeoutError, match="the answer did not come within 0 seconds"):
            AgentFuture().result(0)
        assert not future.done()

    def test_the_agents_own_timeout_error_is_an_error_like_any_other(self) -> None:
        future = failed(TimeoutError("mine"))
        assert str(future.exception(timeout=1)) == "mine"
        with pytest.raises(TimeoutError, match="mine"):
            future.result(timeout=1)

    @pytest.mark.parametrize("timeout", [-1, "soon", float("nan")])
    def test_a_bad_timeout_is_refused(self, timeout: Any) -> None:
        with pytest.raises(InvalidArgumentError, match="timeout"):
            AgentFuture().result(timeout)

    def test_on_a_loop_it_does_not_block(self) -> None:
        async def ask() -> None:
            [future] = futures(1)
            with pytest.raises(InvalidArgumentError, match="write `await future`"):
                future.result()
            with pytest.raises(InvalidArgumentError, match=r"<AgentFuture agent0.go pending>"):
                future.exception(timeout=1)
            with pytest.raises(TimeoutError):
                future.result(timeout=0)
            assert filled(1).result() == 1

        asyncio.run(ask())


class TestAwait:
    def test_works_in_any_loop(self) -> None:
        async def ask(future: AgentFuture) -> Any:
            return await future

        future = AgentFuture(int)
        thread = in_thread(lambda: future.set_result("1"))
        assert asyncio.run(ask(future)) == 1
        assert asyncio.run(ask(future)) == 1
        thread.join()

    def test_raises_the_error_of_the_call_and_of_decoding(self) -> None:
        async def ask() -> None:
            with pytest.raises(KeyError):
                await failed(KeyError("x"))
            future = AgentFuture(refuse)
            asyncio.get_running_loop().call_soon(future.set_result, "raw")
            with pytest.raises(LookupError):
                await future
            with pytest.raises(asyncio.CancelledError):
                await cancelled()

        asyncio.run(ask())

    def test_who_gives_up_waiting_does_not_cancel_the_call_and_leaves_nothing_behind(self) -> None:
        async def ask() -> None:
            [future] = futures(1)
            for _ in range(3):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(future, 0.001)
            task = asyncio.ensure_future(future)
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert not future.done()
            assert future._done_callbacks == []
            future.set_result(1)
            assert await future == 1

        asyncio.run(ask())

    def test_a_cancel_reaches_who_waits(self) -> None:
        async def ask() -> None:
            [future] = futures(1)
            task = asyncio.ensure_future(future)
            await asyncio.sleep(0)
            future.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(ask())

    def test_an_answer_after_the_loop_was_closed_is_no_error(self) -> None:
        [future] = futures(1)

        async def leave_waiting() -> None:
            iterator = future.__await__()
            next(iterator)
            left.append(iterator)

        left: list[Any] = []
        asyncio.run(leave_waiting())
        future.set_result(1)
        assert future.result() == 1

    def test_wrap_future_and_asyncio_gather_take_it(self) -> None:
        async def ask() -> Any:
            future = AgentFuture(int)
            wrapped = asyncio.wrap_future(future)
            future.set_result("1")
            return await wrapped, await asyncio.gather(future, filled(2))

        assert asyncio.run(ask()) == (1, [1, 2])


class TestCancel:
    def test_calls_back_once_in_the_calling_thread(self) -> None:
        called: list[object] = []
        future = AgentFuture(cancel=lambda: called.append(threading.current_thread()))
        assert future.cancel()
        assert future.cancel()
        assert called == [threading.current_thread()]
        assert future.cancelled()
        with pytest.raises(concurrent.futures.CancelledError):
            future.result()
        with pytest.raises(concurrent.futures.CancelledError):
            future.exception()

    def test_what_is_done_is_not_cancelled(self) -> None:
        called: list[object] = []
        future = AgentFuture(cancel=lambda: called.append(1))
        future.set_result(1)
        assert not future.cancel()
        assert not called

    def test_a_late_answer_is_dropped_but_a_second_one_is_a_mistake(self) -> None:
        future = cancelled()
        future.set_result(1)
        future.set_exception(KeyError())
        assert future.cancelled()
        future = filled(1)
        with pytest.raises(concurrent.futures.InvalidStateError):
            future.set_result(2)
        with pytest.raises(concurrent.futures.InvalidStateError):
            future.set_exception(KeyError())

    def test_concurrent_futures_sees_it(self) -> None:
        done, _ = concurrent.futures.wait([cancelled()], timeout=5)
        assert len(done) == 1


class TestBeing:
    def test_its_repr_tells_what_and_how_it_stands(self) -> None:
        assert repr(AgentFuture()) == "<AgentFuture pending>"
        assert repr(AgentFuture(describe="a.f")) == "<AgentFuture a.f pending>"
        assert repr(filled(1)) == "<AgentFuture agent.go finished>"
        assert repr(failed(KeyError())) == "<AgentFuture agent.go error>"
        assert repr(cancelled()) == "<AgentFuture agent.go cancelled>"

    def test_it_does_not_travel(self) -> None:
        with pytest.raises(NotPicklableError, match="send the agent's handle"):
            pickle.dumps(filled(1))

    def test_it_goes_without_the_garbage_collector(self) -> None:
        future = AgentFuture(describe="a.f")
        watched = weakref.ref(future)
        gc.disable()
        try:
            del future
            assert watched() is None
        finally:
            gc.enable()

    def test_callbacks(self) -> None:
        seen: list[object] = []
        [future] = futures(1)
        future.add_done_callback(seen.append)
        future.set_result(1)
        future.add_done_callback(seen.append)
        assert seen == [future, future]


class TestGather:
    def test_keeps_order_and_nesting(self) -> None:
        one, two, three = filled(1), filled(2), filled(3)
        assert gather(three, [one, [two]], (), one) == [3, [1, [2]], [], 1]
        assert gather([one, two]) == [1, 2]
        assert gather(one) == [1]
        assert gather() == []
        assert gather([]) == []

    def test_waits_for_all(self) -> None:
        pending = futures(3)

        def fill() -> None:
            for n, each in enumerate(pending):
                each.set_result(n)

        thread = in_thread(fill)
        assert gather(pending, timeout=60) == [0, 1, 2]
        thread.join()

    def test_the_first_error_comes_at_once(self) -> None:
        late, bad = futures(2)
        thread = in_thread(lambda: bad.set_exception(KeyError("bad")))
        with pytest.raises(KeyError, match="bad"):
            gather(late, bad)
        thread.join()
        assert not late.done()
        assert late._done_callbacks == []

    def test_errors_may_be_results(self) -> None:
        undecodable = AgentFuture(refuse)
        undecodable.set_result("raw")
        one, key, lookup, cancel = gather(
            filled(1), failed(KeyError()), undecodable, cancelled(), return_exceptions=True
        )
        assert one == 1
        assert isinstance(key, KeyError)
        assert isinstance(lookup, LookupError)
        assert isinstance(cancel, concurrent.futures.CancelledError)
        with pytest.raises(LookupError):
            gather(filled(1), undecodable)
        with pytest.raises(concurrent.futures.CancelledError):
            gather(filled(1), cancelled())

    def test_a_timeout_tells_how_many(self) -> None:
        with pytest.raises(TimeoutError, match=r"1 of 2 answers did not come within 0.001 sec"):
            gather(filled(1), futures(1), timeout=0.001)

    @pytest.mark.parametrize("wrong", [3, "x", None, concurrent.futures.Future(), {1: 2}])
    def test_what_is_no_future_is_refused(self, wrong: Any) -> None:
        with pytest.raises(InvalidArgumentError, match="only futures of agents and of Dask"):
            gather(filled(1), [wrong])

    def test_a_coroutine_is_refused_without_a_warning(self) -> None:
        async def nothing() -> None: ...

        with pytest.raises(InvalidArgumentError, match="coroutine object"):
            gather(nothing())
        gc.collect()

    def test_in_async_code_it_is_awaited(self) -> None:
        async def ask() -> None:
            one, two = futures(2)
            asyncio.get_running_loop().call_soon(one.set_result, 1)
            thread = in_thread(lambda: two.set_result(2))
            assert await gather([two, [one]]) == [2, [1]]
            thread.join()
            with pytest.raises(KeyError):
                await gather(failed(KeyError()), futures(1))
            with pytest.raises(concurrent.futures.CancelledError):
                await gather(cancelled())
            [never] = futures(1)
            with pytest.raises(TimeoutError, match="1 of 1"):
                await gather(never, timeout=0.001)
            with pytest.raises(InvalidArgumentError):
                gather(3)
            task = asyncio.create_task(gather(never))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert not never.done()
            assert never._done_callbacks == []

        asyncio.run(ask())

    def test_an_error_that_is_kept_holds_no_results(self) -> None:
        class Value: ...

        first = AgentFuture()
        first.set_result(Value())
        results = gather(first, failed(KeyError()), cancelled(), return_exceptions=True)
        errors, alive = results[1:], weakref.ref(results[0])
        gc.disable()
        try:
            del results, first
            assert alive() is None
        finally:
            gc.enable()
        assert [each.__traceback__ for each in errors] == [None, None]

    def test_one_of_dask_that_was_lost_and_is_there_again_is_no_error(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lost = Lost()
        loop = lost.loop.asyncio_loop
        monkeypatch.setattr(waiting, "_is_dask", lambda item: isinstance(item, Lost))
        thread = in_thread(loop.run_forever)
        try:
            assert gather(filled(1), lost, filled(3)) == [1, 2, 3]
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()


class Lost:
    """As a future of Dask whose data is lost, until somebody waits for it."""

    key = "key"

    def __init__(self) -> None:
        self.status = "lost"
        self.client = self
        self.loop = SimpleNamespace(asyncio_loop=asyncio.new_event_loop())

    def done(self) -> bool:
        return True

    async def gather(self, found: list[Any], asynchronous: bool) -> list[int]:
        return [2 for _ in found]

    def __await__(self) -> Generator[Any, None, int]:
        yield from asyncio.sleep(0).__await__()
        self.status = "finished"
        return 2


class TestWait:
    def test_all(self) -> None:
        first, second = filled(1), failed(KeyError())
        assert wait([first, second, first]) == ({first, second}, set())
        assert wait([]) == (set(), set())

    def test_the_first(self) -> None:
        first, second = futures(2)
        thread = in_thread(lambda: second.set_result(2))
        done, not_done = wait([first, second], return_when="FIRST_COMPLETED")
        thread.join()
        assert (done, not_done) == ({second}, {first})
        assert first._done_callbacks == []

    def test_the_first_error(self) -> None:
        first, second, third = futures(3)

        def fill() -> None:
            second.set_result(2)
            third.cancel()

        thread = in_thread(fill)
        waited = wait([first, second, third], return_when="FIRST_EXCEPTION")
        thread.join()
        assert waited.not_done == {first}
        assert waited.done == {second, third}

    def test_a_timeout_is_no_error(self) -> None:
        first, second = filled(1), AgentFuture()
        assert wait([first, second], timeout="1ms") == ({first}, {second})
        assert wait([first, second], timeout=0) == ({first}, {second})
        assert second._done_callbacks == []

    def test_nothing_is_decoded(self) -> None:
        undecodable = AgentFuture(refuse)
        undecodable.set_result("raw")
        assert wait([undecodable], return_when="FIRST_EXCEPTION").done == {undecodable}
        assert undecodable._value is _CLOSED

    def test_bad_arguments_are_refused(self) -> None:
        with pytest.raises(InvalidArgumentError, match=r"return_when is one of ALL_COMPLETED"):
            wait([], return_when="LAST")  # type: ignore[arg-type]
        with pytest.raises(InvalidArgumentError, match="give a list of futures"):
            wait(filled(1))  # type: ignore[arg-type]
        with pytest.raises(InvalidArgumentError, match="got 3"):
            wait(3)  # type: ignore[arg-type]

    def test_in_async_code_it_is_awaited(self) -> None:
        async def ask() -> None:
            first, second = futures(2)
            asyncio.get_running_loop().call_soon(first.set_result, 1)
            done, not_done = await wait([first, second], return_when="FIRST_COMPLETED")
            assert (done, not_done) == ({first}, {second})
            assert await wait([first, second], timeout=0.001) == ({first}, {second})

        asyncio.run(ask())


class TestAsCompleted:
    def test_gives_each_as_it_is_done(self) -> None:
        first, second, third = futures(3)
        second.set_result(2)
        arrivals = iter(as_completed([first, second, third, second]))
        assert next(arrivals) is second
        third.set_exception(KeyError())
        assert next(arrivals) is third
        thread = in_thread(first.cancel)
        assert next(arrivals) is first
        thread.join()
        assert list(arrivals) == []
        assert list(as_completed([])) == []

    def test_a_timeout_tells_how_many(self) -> None:
        arrivals = iter(as_completed([filled(1), AgentFuture()], timeout=0.001))
        assert next(arrivals).result() == 1
        with pytest.raises(TimeoutError, match=r"1 of 2 answers did not come within 0.001 sec"):
            next(arrivals)

    def test_in_async_code_it_is_iterated_so(self) -> None:
        async def ask() -> None:
            first, second = futures(2)
            second.set_result(2)
            asyncio.get_running_loop().call_soon(first.set_result, 1)
            assert [each async for each in as_completed([first, second])] == [second, first]
            with pytest.raises(InvalidArgumentError, match="async for"):
                list(as_completed([first]))
            with pytest.raises(TimeoutError, match="1 of 1"):
                [each async for each in as_completed(futures(1), timeout=0.001)]

        asyncio.run(ask())
