"""An answer to come as a Dask future, on which tasks may depend.

Knows: Dask's client, worker and events. Must not know: agents.

A task stands for the answer. It is a coroutine on its worker's loop and secedes at once, so that
it holds neither a slot nor a thread. It says by an event where it waits; when that and the answer
are known, the client brings the answer there. If its worker dies, Dask runs it again elsewhere,
and all this happens again.

Why no `distributed.Variable` or `Queue`: each that is waited for holds a connection to the
scheduler, of which a worker has 512 for everything.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import time
import uuid
import weakref
from contextlib import suppress
from typing import Any, final

import distributed
from distributed import Reschedule
from distributed.protocol.pickle import dumps, loads
from distributed.worker_state_machine import SecedeEvent

from dspex.cluster.background import Background
from dspex.errors import (
    AgentRaisedError,
    InvalidArgumentError,
    NotPicklableError,
    WorkerLostError,
)

__all__ = ["as_dask"]

TOPIC = "dspex-answers"
"""One for all clients: a scheduler keeps the newest events of every topic for ever."""

LOOK_SECONDS = 1.0
"""How often a task that waits looks whether anybody still wants it."""

PRIORITY = 1_000
"""Such a task takes no time, and others may wait for it."""


def as_dask(future: concurrent.futures.Future[Any], client: Any = None) -> Any:
    """A Dask future that ends with the same result or error.

    It does not keep the client open: where that closes before the answer has come, Dask releases
    the task, unless another client wants it, which then waits in vain.

    Parameters
    ----------
    future : concurrent.futures.Future
        Is not cancelled with the Dask future.
    client : distributed.Client, optional
        None: Dask's current one.

    Returns
    -------
    distributed.Future

    Raises
    ------
    InvalidArgumentError
        Where there is no client.

    Examples
    --------
    >>> as_dask(concurrent.futures.Future(), client="tcp://10.0.0.1:8786")
    Traceback (most recent call last):
    dspex.errors.InvalidArgumentError: client is a distributed.Client; got 'tcp://10.0.0.1:8786'
    """
    if client is None:
        try:
            client = distributed.get_client()
        except ValueError:
            raise InvalidArgumentError(
                "a Dask future belongs to a client, and there is none here; pass as_dask(client)"
            ) from None
    if not isinstance(client, distributed.Client):
        raise InvalidArgumentError(f"client is a distributed.Client; got {client!r}")
    return _courier_of(client).expect(future)


@final
class _Courier:
    """Brings answers to the tasks of one client; all but `expect` runs on the client's loop."""

    def __init__(self, client: Any) -> None:
        self._client = weakref.ref(client)  # the client holds this object, by the subscription
        self._id: str = client.id
        self._loop = client.loop
        self._expected: dict[str, concurrent.futures.Future[Any]] = {}
        # An answer that was brought may be needed again, after the loss of a worker. It is kept
        # as long as the user holds one of the two futures.
        self._brought: weakref.WeakValueDictionary[str, concurrent.futures.Future[Any]] = (
            weakref.WeakValueDictionary()
        )
        self._held: weakref.WeakKeyDictionary[Any, concurrent.futures.Future[Any]] = (
            weakref.WeakKeyDictionary()
        )
        self._places: dict[str, str] = {}
        self._background = Background()
        client.subscribe_topic(TOPIC, self._on_event)

    def expect(self, answer: concurrent.futures.Future[Any]) -> Any:
        """Submit the task that stands for an answer."""
        name = f"agent-answer-{uuid.uuid4().hex}"
        client, loop = self._client(), self._loop
        assert client is not None
        self._expected[name] = answer
        # A name that is also the key would be a dependency of the task on itself.
        stands_for_it = client.submit(
            _arrival, {"name": name, "client": self._id}, key=name, pure=False, priority=PRIORITY
        )
        self._held[stands_for_it] = answer
        answer.add_done_callback(lambda _: loop.add_callback(self._on_answer, name))
        return stands_for_it

    def _on_answer(self, name: str) -> None:
        if name in self._places:
            self._background.spawn(self._bring(name))

    def _on_event(self, event: tuple[float, dict[str, str]]) -> None:
        _, message = event
        if message["client"] != self._id:
            return
        name = message["name"]
        self._places[name] = message["worker"]
        answer = self._answer(name)
        if answer is None or answer.done():
            self._background.spawn(self._bring(name))

    def _answer(self, name: str) -> concurrent.futures.Future[Any] | None:
        return self._expected.get(name) or self._brought.get(name)

    async def _bring(self, name: str) -> None:
        worker = self._places.pop(name, None)
        client, answer = self._client(), self._answer(name)
        if worker is None or client is None or client.status != "running":
            return
        packed = await asyncio.to_thread(_packed, answer)
        # Whether it arrives does not matter: a task that runs elsewhere meanwhile says so.
        with suppress(OSError):  # the scheduler is gone, and with it the task
            await client.run(_hand_over, name, packed, workers=[worker], on_error="ignore")
        if answer is not None:
            self._brought[name] = answer
            self._expected.pop(name, None)


_couriers: weakref.WeakKeyDictionary[Any, _Courier] = weakref.WeakKeyDictionary()
_couriers_lock = threading.Lock()


def _courier_of(client: Any) -> _Courier:
    with _couriers_lock:
        courier = _couriers.get(client)
        if courier is None:
            courier = _couriers[client] = _Courier(client)
        return courier


def _packed(answer: concurrent.futures.Future[Any] | None) -> bytes:
    """(value, error) as bytes; may decode, so it runs in a thread."""
    if answer is None:
        return bytes(dumps((None, _gone())))
    try:
        error = answer.exception()
    except concurrent.futures.CancelledError as cancelled:
        error = cancelled
    value = answer.result() if error is None else None
    try:
        return bytes(dumps((value, error)))
    except Exception as why:
        if error is None:
            refusal: Exception = NotPicklableError(
                f"an answer must be pickled to become a Dask future; got {type(value)}: {why}"
            )
        else:
            refusal = AgentRaisedError(f"{type(error).__name__}: {error}")
        return bytes(dumps((None, refusal)))


def _gone() -> Exception:
    return WorkerLostError(
        "the answer was on a worker that was lost, and is nowhere else: neither the agent's "
        "future nor the Dask future is held any more; keep one of them until tasks are done"
    )


# What follows runs on a worker, on its loop.

_arrivals: dict[tuple[str, str], asyncio.Future[bytes]] = {}
"""{(worker, name): what its task waits for}."""


async def _arrival(of: dict[str, str]) -> Any:
    worker: Any = distributed.get_worker()
    name, place = of["name"], (worker.address, of["name"])
    arrives = _arrivals[place] = asyncio.get_running_loop().create_future()
    try:
        # `distributed.secede` is for threads.
        worker.handle_stimulus(
            SecedeEvent(key=name, compute_duration=0.0, stimulus_id=f"answer-{time.time()}")
        )
        worker.log_event(TOPIC, {**of, "worker": worker.address})
        while not arrives.done():
            await asyncio.wait([arrives], timeout=LOOK_SECONDS)
            task = worker.state.tasks.get(name)
            # Dask lets a coroutine run on that nobody wants.
            if not arrives.done() and (task is None or task.state in ("cancelled", "resumed")):
                raise Reschedule
    finally:
        if _arrivals.get(place) is arrives:
            del _arrivals[place]
    value, error = await asyncio.to_thread(loads, arrives.result())
    if error is not None:
        raise error
    return value


def _hand_over(name: str, packed: bytes, dask_worker: Any) -> None:
    arrives = _arrivals.get((dask_worker.address, name))
    if arrives is not None and not arrives.done():
        arrives.set_result(packed)
