"""Waiting for many answers to come, of agents and of Dask mixed.

Knows: threads, asyncio, what a Dask future can do. Must not know: agents, the wire; nor anything
that loads Dask, because where it was never loaded nobody has a future of it.

One body serves sync and async code (`flows`).
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import sys
import threading
from collections import deque
from collections.abc import (
    AsyncIterator,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import suppress
from itertools import filterfalse
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias, final, get_args

from dspex.agents.answer import AgentFuture
from dspex.agents.flows import Flow, end_of, is_done_by, run_flow, will_be_done_by
from dspex.agents.waiting import is_on_loop, seconds_of
from dspex.errors import InvalidArgumentError

__all__ = ["AgentFuture", "Completed", "Waited", "as_completed", "gather", "wait"]

ReturnWhen: TypeAlias = Literal["ALL_COMPLETED", "FIRST_COMPLETED", "FIRST_EXCEPTION"]


class Waited(NamedTuple):
    """Which futures are done, and which are not."""

    done: set[Any]
    not_done: set[Any]


def gather(
    *futures: Any, timeout: float | str | None = None, return_exceptions: bool = False
) -> Any:
    """The results of futures of agents and of Dask, in their order; in async code, await it.

    Parameters
    ----------
    *futures
        Futures, and lists of them, which become lists of results. One list alone gives its list.
    timeout : float or str, optional
        For all of them together.
    return_exceptions : bool
        Give errors in place of results. Else the first error is raised as soon as it is there,
        and the other calls go on.

    Raises
    ------
    TimeoutError
        The calls go on.
    concurrent.futures.CancelledError
        Where one was cancelled, in async code, too.
    InvalidArgumentError
        For what is no future.

    Examples
    --------
    >>> one, two, three = AgentFuture(), AgentFuture(), AgentFuture()
    >>> for number, future in enumerate([one, two, three], start=1):
    ...     future.set_result(number)
    >>> gather(three, [one, two])
    [3, [1, 2]]
    >>> gather([one, two])
    [1, 2]
    """
    nested: Sequence[Any] = futures
    if len(futures) == 1 and isinstance(futures[0], list | tuple):
        nested = futures[0]
    leaves = _leaves(nested)
    seconds = seconds_of(timeout)
    return run_flow(_gathering(nested, leaves, seconds, return_exceptions), seconds)


def wait(
    futures: Iterable[Any],
    *,
    timeout: float | str | None = None,
    return_when: ReturnWhen = "ALL_COMPLETED",
) -> Any:
    """Wait for futures of agents and of Dask; gives (done, not_done). In async code, await it.

    Parameters
    ----------
    futures : iterable of futures
    timeout : float or str, optional
        After that it gives what there is; it raises nothing.
    return_when : "ALL_COMPLETED", "FIRST_COMPLETED" or "FIRST_EXCEPTION"

    Returns
    -------
    Waited

    Examples
    --------
    >>> first, second = AgentFuture(describe="a.f"), AgentFuture(describe="b.f")
    >>> first.set_result(1)
    >>> wait([first, second], return_when="FIRST_COMPLETED")
    Waited(done={<AgentFuture a.f finished>}, not_done={<AgentFuture b.f pending>})
    """
    if return_when not in get_args(ReturnWhen):
        choices = ", ".join(get_args(ReturnWhen))
        raise InvalidArgumentError(f"return_when is one of {choices}; got {return_when!r}")
    return run_flow(_waiting(_flat(futures), return_when), seconds_of(timeout))


def as_completed(futures: Iterable[Any], *, timeout: float | str | None = None) -> Completed:
    """The futures, each as soon as it is done: with ``for``, in async code with ``async for``.

    Parameters
    ----------
    futures : iterable of futures
        Of agents and of Dask.
    timeout : float or str, optional
        For all of them together, from now on; then TimeoutError.

    Examples
    --------
    >>> first, second = AgentFuture(describe="a.f"), AgentFuture(describe="b.f")
    >>> second.set_result(2)
    >>> next(iter(as_completed([first, second], timeout="1 minute")))
    <AgentFuture b.f finished>
    """
    return Completed(_flat(futures), seconds_of(timeout))


@final
class Completed:
    """What `as_completed` gives; an iterable of futures."""

    def __init__(self, leaves: Sequence[Any], seconds: float | None) -> None:
        self._seconds = seconds
        self._ends = end_of(seconds)
        # The n-th slot is for the n-th future that is done.
        self._slots = [AgentFuture() for _ in leaves]
        free = iter(self._slots)
        lock = threading.Lock()

        def put(leaf: _Leaf) -> None:
            with lock:
                slot = next(free)
            slot.set_result(leaf)

        for leaf in leaves:
            _subscribe(leaf, put)

    def __iter__(self) -> Iterator[Any]:
        if is_on_loop():
            raise InvalidArgumentError(
                "on an event loop as_completed is iterated with `async for`; got `for`"
            )
        return self._iterate()

    def _iterate(self) -> Iterator[Any]:
        for slot in self._slots:
            if not is_done_by(slot, self._ends):
                raise self._late()
            yield slot.result()

    async def __aiter__(self) -> AsyncIterator[Any]:
        for slot in self._slots:
            if not await will_be_done_by(slot, self._ends):
                raise self._late()
            yield slot.result()

    def _late(self) -> TimeoutError:
        missing = sum(not slot.done() for slot in self._slots)
        return _late(missing, len(self._slots), self._seconds)


class _Outcome(NamedTuple):
    """What became of a Dask future."""

    value: Any = None
    error: BaseException | None = None


class _Leaf(Protocol):
    def done(self) -> bool: ...

    def add_done_callback(self, fn: Callable[[Any], object], /) -> None: ...


def _is_dask(item: object) -> bool:
    module = sys.modules.get("distributed.client")
    return module is not None and isinstance(item, module.Future)


def _leaves(nested: Iterable[Any]) -> list[_Leaf]:
    """The futures in lists of lists, in their order."""
    items = list(nested)
    if all(issubclass(kind, AgentFuture) for kind in set(map(type, items))):
        return items
    found: list[_Leaf] = []
    for item in items:
        if isinstance(item, AgentFuture) or _is_dask(item):
            found.append(item)
        elif isinstance(item, list | tuple):
            found += _leaves(item)
        else:
            if asyncio.iscoroutine(item):
                item.close()  # or Python warns, when this has been said already
            raise InvalidArgumentError(
                "only futures of agents and of Dask can be waited for together; got "
                f"{item!r}; await it by itself, or wrap it with client.submit"
            )
    return found


def _flat(futures: object) -> list[_Leaf]:
    """The futures of an iterable, each once."""
    if isinstance(futures, AgentFuture) or _is_dask(futures) or not isinstance(futures, Iterable):
        raise InvalidArgumentError(f"give a list of futures; got {futures!r}")
    return list(dict.fromkeys(_leaves(futures)))


def _failed(leaf: Any) -> bool:
    """Whether what is done has failed; decodes and fetches nothing."""
    return leaf.has_failed() if isinstance(leaf, AgentFuture) else leaf.status != "finished"


def _subscribe(leaf: _Leaf, listener: Callable[[Any], object]) -> None:
    # Dask would call back from another thread, later.
    if not isinstance(leaf, AgentFuture) and leaf.done():
        listener(leaf)
    else:
        leaf.add_done_callback(listener)


_ROUNDS = 8
"""For how many answers is waited one by one, before each is to tell that it is there."""

_IS_ENOUGH: Mapping[ReturnWhen, Callable[[Any], bool] | None] = {
    "ALL_COMPLETED": None,
    "FIRST_COMPLETED": lambda leaf: True,
    "FIRST_EXCEPTION": _failed,
}
"""Whether one that is done ends the wait for all."""


def _settling(leaves: Sequence[_Leaf], return_when: ReturnWhen) -> Flow[tuple[bool, _Leaf | None]]:
    """Wait until so many are done; gives whether that came in time, and which one was enough."""
    is_enough = _IS_ENOUGH[return_when]
    if is_enough is None:
        is_in_time, leaves = yield from _settling_some(leaves)
        if not is_in_time:
            return False, None
    pending = []
    for leaf in leaves:
        if not leaf.done():
            pending.append(leaf)
        elif is_enough is not None and is_enough(leaf):
            return True, leaf
    if not pending:
        return True, None
    total = len(pending)
    signal: concurrent.futures.Future[None] = concurrent.futures.Future()
    arrived: deque[_Leaf] = deque()  # whose appending is atomic
    enough: deque[_Leaf] = deque()

    def count(leaf: _Leaf) -> None:
        arrived.append(leaf)
        if is_enough is not None and is_enough(leaf):
            enough.append(leaf)
        if len(arrived) >= total or enough:
            with suppress(concurrent.futures.InvalidStateError):
                signal.set_result(None)

    for leaf in pending:
        _subscribe(leaf, count)
    try:
        is_in_time = yield signal
        return is_in_time, enough[0] if enough else None
    finally:
        if len(arrived) < total:
            for leaf in pending:
                if isinstance(leaf, AgentFuture):
                    leaf.unsubscribe(count)


def _settling_some(leaves: Sequence[_Leaf]) -> Flow[tuple[bool, Sequence[_Leaf]]]:
    """Wait for the last one, a few times; gives whether it came in time, and who is missing.

    Answers come many at a time, and when the last one is there the others mostly are: to have each
    of them call back takes longer.
    """
    for _ in range(_ROUNDS):
        if leaves and not leaves[-1].done() and not (yield from _settling_one(leaves[-1])):
            return False, leaves
        leaves = [leaf for leaf in leaves if not leaf.done()]
        if not leaves:
            break
    return True, leaves


def _settling_one(leaf: _Leaf) -> Flow[bool]:
    """Wait for one; gives whether it came in time."""
    signal: concurrent.futures.Future[None] = concurrent.futures.Future()

    def tell(_: _Leaf) -> None:
        signal.set_result(None)

    _subscribe(leaf, tell)
    try:
        return (yield signal)
    finally:
        if isinstance(leaf, AgentFuture):
            leaf.unsubscribe(tell)


def _waiting(leaves: Sequence[_Leaf], return_when: ReturnWhen) -> Flow[Waited]:
    yield from _settling(leaves, return_when)
    done = {leaf for leaf in leaves if leaf.done()}
    return Waited(done, set(leaves) - done)


def _gathering(
    nested: Sequence[Any], leaves: Sequence[Any], seconds: float | None, return_exceptions: bool
) -> Flow[list[Any]]:
    when: ReturnWhen = "ALL_COMPLETED" if return_exceptions else "FIRST_EXCEPTION"
    while True:
        is_in_time, failed = yield from _settling(leaves, when)
        if failed is None:
            break
        fetched = yield from _fetching([failed], seconds)
        _nested_results([failed], fetched, return_exceptions)  # which raises
        # Of Dask's one may have been lost, and be there again.
    if not is_in_time:
        each = set(leaves)
        raise _late(sum(not leaf.done() for leaf in each), len(each), seconds)
    fetched = yield from _fetching(leaves, seconds)
    return _nested_results(nested, fetched, return_exceptions)


def _fetching(leaves: Sequence[Any], seconds: float | None) -> Flow[dict[Any, _Outcome]]:
    """What became of those that are Dask's."""
    fetched: dict[Any, _Outcome] = {}
    of_client: dict[Any, list[Any]] = {}
    for leaf in filterfalse(AgentFuture.__instancecheck__, leaves):
        if leaf.status == "cancelled":  # its client may be closed
            fetched[leaf] = _Outcome(error=concurrent.futures.CancelledError(str(leaf.key)))
        else:
            of_client.setdefault(leaf.client, []).append(leaf)
    fetches = {
        asyncio.run_coroutine_threadsafe(_fetched(client, group), client.loop.asyncio_loop): group
        for client, group in of_client.items()
    }
    for fetch, group in fetches.items():
        if not (yield fetch):
            raise _late(len(group), len(leaves), seconds)
        fetched.update(zip(group, fetch.result(), strict=True))
    return fetched


def _nested_results(
    nested: Sequence[Any], fetched: Mapping[Any, _Outcome], return_exceptions: bool
) -> list[Any]:
    results: list[Any] = []
    for item in nested:
        if isinstance(item, AgentFuture):
            value, error = item.outcome()
        elif isinstance(item, list | tuple):
            value, error = _nested_results(item, fetched, return_exceptions), None
        else:
            value, error = fetched[item]
        if error is None:
            results.append(value)
        elif return_exceptions:
            results.append(error)
        else:
            raise error
    return results


async def _fetched(client: Any, futures: Sequence[Any]) -> list[_Outcome]:
    """What became of Dask futures that are done; runs on their client's own loop.

    There every client is asynchronous, also one that blocks elsewhere.
    """
    finished = [future for future in futures if future.status == "finished"]
    values: dict[Any, Any] = {}
    # If data was lost since, and does not come back, each future says so for itself, below.
    with suppress(Exception):
        values.update(zip(finished, await client.gather(finished, asynchronous=True), strict=True))
    outcomes = []
    for future in futures:
        try:
            outcomes.append(_Outcome(values[future] if future in values else await future))
        except Exception as error:
            outcomes.append(_Outcome(error=error))
    return outcomes


def _late(missing: int, total: int, seconds: float | None) -> TimeoutError:
    return TimeoutError(
        f"{missing} of {total} answers did not come within {seconds:g} seconds; the calls go on: "
        "wait again, or cancel() them"
    )
