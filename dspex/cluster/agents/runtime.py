"""What code in this process reaches agents through, whoever runs it: a user, a task, a turn.

Knows: foundations and hosts of this process, turns. Must not know: handles, what is called.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import time
import weakref
from collections.abc import Coroutine
from typing import Any, TypeVar, final

from dspex.cluster.agents.messenger import Messenger
from dspex.cluster.agents.turns import current_turn
from dspex.cluster.connect import current_client
from dspex.cluster.inside import is_inside_task
from dspex.errors import DspexError, InvalidArgumentError
from dspex.foundation.handles.foundation import Foundation
from dspex.foundation.ports import Caller
from dspex.foundation.record import Operation, put

__all__ = [
    "DEAD_LETTERS",
    "Runtime",
    "add_host",
    "current_runtime",
    "remember",
    "remove_host",
    "runtime_of",
]

logger = logging.getLogger("dspex.agents")

T = TypeVar("T")

DEAD_LETTERS = "s:dspex-dead-letters"
"""The collection of records in which they are kept."""

_of_foundations: weakref.WeakKeyDictionary[Foundation, Runtime] = weakref.WeakKeyDictionary()
_latest: list[weakref.ref[Foundation]] = []
_of_hosts: dict[str, Runtime] = {}


@final
class Runtime:
    """The way of this process to agents.

    Attributes
    ----------
    caller : Caller
    messages : Messenger
    namespace : str
    loop : asyncio loop
        On which all of it happens.
    asynchronous : bool
        Whether the user awaits what calls return, wherever they are made.
    host : Any
        The `Host` of this process, if it is a worker.
    """

    def __init__(
        self,
        caller: Caller,
        messages: Messenger,
        *,
        namespace: str,
        asynchronous: bool = False,
        host: Any = None,
        client: Any = None,
    ) -> None:
        self.caller = caller
        self.messages = messages
        self.namespace = namespace
        self.loop = asyncio.get_running_loop()
        self.asynchronous = asynchronous
        self.host = host
        self.client = client

    def is_of_same_ledger(self, other: Runtime) -> bool:
        """Whether both reach the same agents."""
        own, others = self.caller.facts, other.caller.facts
        return bool(own["identity"] == others["identity"])

    def space(self, namespace: str | None) -> str:
        """The namespace that is meant: as given, else of the agent that asks, else of this way."""
        if namespace is not None:
            return namespace
        turn = current_turn()
        if turn is not None and turn.runtime is self:
            return turn.key.partition(":")[0]
        return self.namespace

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for the work; where this is the loop that must do it, give it to be awaited."""
        try:
            is_here = asyncio.get_running_loop() is self.loop
        except RuntimeError:
            is_here = False
        if is_here or self.asynchronous:
            return work  # type: ignore[return-value]  # one signature for both kinds of code
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()

    def start(self, work: Coroutine[Any, Any, Any]) -> None:
        """Start work; nobody waits for it here."""
        asyncio.run_coroutine_threadsafe(work, self.loop)

    def dead_letter(
        self, sender: str, target: str, method: str, args: bytes, error: DspexError
    ) -> None:
        """Keep a message that could not be delivered, for people to look at."""
        logger.warning("a message %s from %s to %s is dead: %s", method, sender, target, error)
        metadata = {
            "sender": sender,
            "target": target,
            "method": method,
            "error": f"{type(error).__name__}: {error}",
            "at": time.time(),
        }
        # In the order of their deaths, which is that of their keys.
        key = f"{time.time_ns():020d}-{secrets.token_hex(4)}"
        self.start(self._keep_dead(put(key, args, metadata)))

    async def _keep_dead(self, operation: Operation) -> None:
        try:
            await self.caller.write(
                "records.commit",
                collection=DEAD_LETTERS,
                operations=[operation],
                wait_durable=True,
            )
        except DspexError as error:
            logger.error("a dead letter could not be kept: %s", error)


def remember(foundation: Foundation, runtime: Runtime) -> None:
    """Let agents be reached through a foundation; the latest one serves who names none."""
    _of_foundations[foundation] = runtime
    _latest.append(weakref.ref(foundation))


def add_host(address: str, runtime: Runtime) -> None:
    """Let tasks of a worker of this process reach agents."""
    _of_hosts[address] = runtime


def remove_host(address: str) -> None:
    """Undo it."""
    _of_hosts.pop(address, None)


def runtime_of(foundation: Foundation) -> Runtime:
    """The runtime of a foundation.

    Raises
    ------
    InvalidArgumentError
    """
    found = _of_foundations.get(foundation)
    if found is None or foundation.is_closed:
        raise InvalidArgumentError(
            "agents are reached through a foundation that is open; this one is closed; call "
            "dspex.connect again"
        )
    return found


def current_runtime() -> Runtime:
    """The runtime of the turn or the task that this code is part of, else of the user's foundation.

    Raises
    ------
    InvalidArgumentError
        Where there is none.
    """
    turn = current_turn()
    if turn is not None:
        runtime: Runtime = turn.runtime
        return runtime
    if is_inside_task():
        from distributed import get_worker

        found = _of_hosts.get(get_worker().address)
        if found is not None:
            return found
    while _latest:
        foundation = _latest[-1]()
        if foundation is not None and not foundation.is_closed and foundation.pid == os.getpid():
            return _of_foundations[foundation]
        _latest.pop()
    if current_client() is not None:
        raise InvalidArgumentError(
            "agents live on a foundation; call dspex.connect(client) first, and keep what it gives"
        )
    raise InvalidArgumentError(
        "agents live on a foundation; call dspex.connect(cluster) first and keep what it gives, or "
        'use distribution="local"'
    )
