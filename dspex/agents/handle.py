"""The logical name of an agent: it finds the agent where it is now.

Knows: ids, calls. Must not know: hosts, how a call travels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MethodType
from typing import Any, final

from dspex.agents.answer import AgentFuture
from dspex.agents.called import CallFuture
from dspex.agents.retrying import RetryPolicy, deadline_of, retried
from dspex.cluster.agents.requests import AUTO, Cast
from dspex.cluster.agents.resident import NO_ARGS, dumps
from dspex.cluster.agents.runtime import Runtime, current_runtime
from dspex.cluster.agents.turns import TurnContext, current_turn
from dspex.cluster.units import parse_seconds
from dspex.errors import InvalidArgumentError, NotPicklableError
from dspex.foundation.agents.dedup import BY_KEY
from dspex.foundation.agents.messages import (
    AT_LEAST_ONCE,
    AT_MOST_ONCE,
    CONTROL,
    EXACTLY_ONCE,
)
from dspex.foundation.ledger.agents.population import sender_of

__all__ = ["RESERVED", "AgentHandle"]

RESERVED = frozenset(
    {"call", "cast", "checkpoint", "id", "migrate", "state", "status", "stop", "worker"}
)
"""What a handle means itself; a class of agents defines none of them."""

MOST_METHODS = 1_000
"""Names that become methods of all handles."""

_LOOK_EVERY = 0.01

DELIVERIES: Mapping[str, int] = {
    "auto": AUTO,
    "at_most_once": AT_MOST_ONCE,
    "at_least_once": AT_LEAST_ONCE,
    "exactly_once": EXACTLY_ONCE,
}


@final
class AgentHandle:
    """An agent, by its name.

    ``handle.method(*args, **kwargs)`` calls a method and gives an `AgentFuture`. A handle pickles,
    survives failover and moves, and works in sync code, async code, Dask tasks and other agents.

    Parameters
    ----------
    key : str
        "namespace:id".
    name : str
        Of the class.

    Attributes
    ----------
    id : str

    Examples
    --------
    >>> from dspex.agents import create_agent
    >>> counter = create_agent(list, id="doc-handle", distribution="local")
    >>> counter.append("x").result()
    >>> counter.state().result()
    ['x']
    """

    __slots__ = ("_key", "_name", "_runtime")

    def __init__(self, key: str, name: str, runtime: Runtime | None = None) -> None:
        self._key = key
        self._name = name
        self._runtime = runtime

    def __reduce__(self) -> tuple[Any, ...]:
        return AgentHandle, (self._key, self._name)

    @property
    def id(self) -> str:
        """The id of the agent."""
        return self._key.partition(":")[2]

    def __repr__(self) -> str:
        space = self._key.partition(":")[0]
        where = f" in namespace {space!r}" if space else ""
        return f"<AgentHandle {self.id!r}{where}, {self._name.rpartition('.')[2]}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AgentHandle) and other._key == self._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __getattr__(self, name: str) -> Callable[..., AgentFuture]:
        # What a handle means itself is looked for here only where its property has failed.
        if name.startswith("_") or not name.isidentifier() or name in RESERVED:
            raise AttributeError(name)
        method = _method(name)
        if len(_methods) < MOST_METHODS:
            _methods.add(name)
            setattr(AgentHandle, name, method)
        return MethodType(method, self)

    # --- calls -------------------------------------------------------------------------------

    def call(
        self,
        name: str,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        timeout: float | str | None = None,
        delivery: str = "auto",
        idempotency_key: str | None = None,
        retry: RetryPolicy | None = None,
    ) -> AgentFuture:
        """Call a method.

        Parameters
        ----------
        name : str
        args, kwargs
            Picklable.
        timeout : float or str, optional
            Seconds in which it is to be answered; what its worker has had for as long and has not
            begun never does. A call that an agent makes has no longer than the call that it serves.
        delivery : "auto", "at_most_once", "at_least_once" or "exactly_once"
            auto: exactly once where the agent keeps its state, else at most once.
        idempotency_key : str, optional
            Calls of this method with the same key and the same arguments take effect once, whoever
            makes them, and all get the answer of the first. An agent that keeps its state remembers
            the last 1,000 keys, of calls that changed something.
        retry : RetryPolicy, optional
            After which errors it is called again, within `timeout` altogether. In a call of an
            agent the first attempt alone is part of that call.

        Returns
        -------
        AgentFuture
            Its error is what the method raised, or `AgentNotFoundError`, `DeadlineError`,
            `DeliveryError`, `AgentLostError`, `AgentFailedError`, `SessionExpiredError`.

        Raises
        ------
        InvalidArgumentError, NotPicklableError
        """
        _refuse_no_name(name)
        packed = _packed(args, kwargs)
        flags, seconds = _delivery(delivery), parse_seconds("timeout", timeout)
        if retry is None and idempotency_key is None:
            return self._send(name, packed, flags, seconds)

        def send(handle: AgentHandle, left: float | None) -> AgentFuture:
            if idempotency_key is not None:
                return handle._send_keyed(name, packed, delivery, left, idempotency_key)
            return handle._send(name, packed, flags, left)

        if retry is None:
            return send(self, seconds)
        runtime = self._reached()
        deadline = deadline_of(runtime, seconds)
        bound = AgentHandle(self._key, self._name, runtime)
        return retried(send(self, seconds), partial(send, bound), retry, runtime, deadline)

    def cast(
        self,
        name: str,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        delivery: str = "auto",
    ) -> None:
        """Call a method and hear nothing of it.

        In a call of an agent it leaves when that call has ended, and where the agent keeps its
        state, when the call is committed, exactly once; where the call raises it never leaves.
        What cannot be delivered, and what the method raises on, becomes a dead letter
        (`dead_letters`).
        """
        _refuse_no_name(name)
        packed = _packed(args, kwargs)
        turn = current_turn()
        flags = _delivery(delivery)
        if turn is not None and flags in (AUTO, EXACTLY_ONCE):
            turn.send(self._key, name, packed)
            return
        runtime = self._reached()

        def done(error: Any) -> None:
            if error is not None:
                runtime.dead_letter("", self._key, name, packed, error)

        runtime.messages.submit(Cast(self._key, name, packed, flags, done))

    def _reached(self) -> Runtime:
        turn = current_turn()
        if turn is not None:
            runtime: Runtime = turn.runtime
            return runtime
        former = self._runtime
        if former is not None and not former.messages.is_closed:
            return former
        found = current_runtime()
        if former is not None and not found.is_of_same_ledger(former):
            raise InvalidArgumentError(
                f"{self!r} was reached through a foundation that is closed, and the one that is "
                "open has other agents; connect to its own again"
            )
        self._runtime = found
        return found

    def _send_keyed(
        self, name: str, packed: bytes, delivery: str, timeout: float | None, key: str
    ) -> AgentFuture:
        if delivery not in ("auto", "exactly_once") or not key:
            raise InvalidArgumentError(
                "an idempotency_key is a text that is not empty, and goes with exactly_once; got "
                f"{key!r} and delivery={delivery!r}"
            )
        sender = f"{BY_KEY}{name}:{key}"
        return self._send(name, packed, EXACTLY_ONCE, timeout, sender=sender)

    def _send(
        self,
        name: str,
        packed: bytes,
        flags: int,
        timeout: float | None,
        *,
        sender: str = "",
    ) -> AgentFuture:
        turn = current_turn()
        runtime = self._runtime if turn is None else turn.runtime
        if runtime is None or runtime.messages.is_closed:
            runtime = self._reached()
        future = CallFuture(self._key, name, packed, flags, runtime)
        if timeout is not None:
            future.timeout = timeout
        if sender:
            future.sender, future.number, future.below = sender, 1, 1
        if turn is not None:
            _make_part(turn, future)
        runtime.messages.submit(future)
        return future

    def _control(self, what: str, timeout: float | None = None) -> AgentFuture:
        return self._send(what, b"", AT_LEAST_ONCE | CONTROL, timeout)

    # --- what a handle means itself ----------------------------------------------------------

    def state(self) -> AgentFuture:
        """Ask for a copy of its state: of an `Agent` a dict, of others what they would pickle."""
        return self._control("state")

    def checkpoint(self) -> AgentFuture:
        """Wait until all that it did before is kept."""
        return self._control("checkpoint")

    def stop(self, drain: bool = True) -> AgentFuture:
        """End the agent; what it has kept is gone.

        Parameters
        ----------
        drain : bool
            Let it do first what waits in its mailbox, and `on_stop`. Else it ends at once,
            wherever it is.
        """
        if drain:
            return self._control("stop")
        return self._ask(self._end())

    def migrate(self, worker: Any) -> AgentFuture:
        """Have it live on another worker (its address, or a `Member`); nothing is lost.

        The result comes when it has arrived, after the calls that were before it: whether it is
        there. It is False where that worker went meanwhile.
        """
        return self._ask(self._move(str(getattr(worker, "address", worker))))

    def status(self) -> Any:
        """What is known of it: a mapping with status, host, load, restarts; awaited in async code.

        Raises
        ------
        AgentNotFoundError
        """
        return self._reached().run(self._status())

    @property
    def worker(self) -> Any:
        """The address of the worker where it is now, "" where it is nowhere; awaited in async code.

        Raises
        ------
        AgentNotFoundError
        """
        return self._reached().run(self._worker())

    async def _status(self) -> dict[str, Any]:
        caller = self._reached().caller
        row: dict[str, Any] = await caller.read("agents.row", key=self._key)
        del row["key"]
        return {"id": self.id, **row}

    async def _worker(self) -> str:
        return str((await self._status())["host"])

    async def _end(self) -> bool:
        caller = self._reached().caller
        return bool(await caller.write("agents.end", keys=[self._key], reason="stopped"))

    async def _move(self, target: str) -> bool:
        caller = self._reached().caller
        await caller.write("agents.move", keys=[self._key], target=target)
        while True:
            status = await self._status()
            if status["status"] not in ("moving", "starting"):
                return bool(status["host"] == target)
            await caller.sleep(_LOOK_EVERY)

    def _ask(self, work: Any) -> AgentFuture:
        """A future of work on the loop."""
        runtime = self._reached()
        future = AgentFuture(describe=self.id, loop=runtime.loop)

        async def answer() -> None:
            try:
                future.set_result(await work)
            except Exception as error:
                future.set_exception(error)

        runtime.start(answer())
        return future


_methods: set[str] = set()
"""Names that were called once, and are methods of all handles since: any name may be one of the
agent's, and to look for what is not there takes Python longer than all else that a call begins
with."""


def _method(name: str) -> Callable[..., AgentFuture]:
    def call(self: AgentHandle, /, *args: Any, **kwargs: Any) -> AgentFuture:
        packed = _packed(args, kwargs) if args or kwargs else NO_ARGS
        return self._send(name, packed, AUTO, None)

    # Its qualified name stays that of a local function: it travels by value, as where it arrives
    # the name may not have been called yet.
    call.__name__ = name
    return call


def _refuse_no_name(name: Any) -> None:
    if not isinstance(name, str) or not name.isidentifier():
        raise InvalidArgumentError(f"a method is called by its name; got {name!r:.80}")


def _packed(args: tuple[Any, ...], kwargs: Mapping[str, Any] | None) -> bytes:
    if not args and not kwargs:
        return NO_ARGS
    try:
        return dumps((args, dict(kwargs or {})))
    except Exception as error:
        raise NotPicklableError(
            f"what an agent is called with travels to its worker; {args!r:.80}, {kwargs!r:.80} "
            f"cannot be pickled ({type(error).__name__}: {error})"
        ) from error


def _delivery(delivery: str) -> int:
    found = DELIVERIES.get(delivery)
    if found is None:
        raise InvalidArgumentError(f"delivery is one of {', '.join(DELIVERIES)}; got {delivery!r}")
    return found


def _make_part(turn: TurnContext, future: CallFuture) -> None:
    """Have a call end with the turn that makes it, and be the same when that is run again."""
    if turn.deadline is not None:
        left = turn.deadline - turn.runtime.caller.now()
        future.timeout = left if future.timeout is None else min(future.timeout, left)
    if turn.is_kept and future.flags in (AUTO, EXACTLY_ONCE) and not future.sender:
        future.sender, future.below = sender_of(turn.key), turn.base + 1
        future.number = turn.number()
