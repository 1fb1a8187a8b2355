"""A call of an agent's method: on its way, and its answer to come, in one object.

Knows: requests, futures, the runtime that carries it. Must not know: what is called.

They are one because calls are made by the hundred thousand, and Python's garbage collector looks at
each object that is alive again and again: it took a third of the time of a call when there were
five of them.
"""

from __future__ import annotations

import asyncio
from typing import Any, final

from dspex.agents.answer import AgentFuture
from dspex.cluster.agents.requests import Raised, Request
from dspex.cluster.agents.resident import loads
from dspex.cluster.agents.runtime import Runtime
from dspex.errors import DspexError

__all__ = ["CallFuture"]


@final
class CallFuture(AgentFuture, Request):
    """The answer of an agent to one call, to come; filled with a pickle, or a `Raised`."""

    __slots__ = (
        "_runtime",
        "args",
        "below",
        "flags",
        "key",
        "left",
        "method",
        "mid",
        "number",
        "sender",
    )

    def __init__(self, key: str, method: str, args: bytes, flags: int, runtime: Runtime) -> None:
        self._begin()
        self._address(key, method, args, flags)
        self._runtime = runtime

    # --- as a request ------------------------------------------------------------------------

    def answer(self, payload: bytes | None) -> None:
        """Take what the method returned, as it came; it is taken once."""
        self._fill(payload, None)

    def fail(self, error: Raised | DspexError) -> None:
        """Take what it raised, or why there is no answer; it is taken once."""
        if isinstance(error, Raised):
            self._fill(error, None)
        else:
            self._fill(None, error)

    # --- as a future -------------------------------------------------------------------------

    @property
    def description(self) -> str:
        """The agent and its method."""
        return f"{self.key.partition(':')[2]}.{self.method}"

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The loop that brings the answer."""
        return self._runtime.loop

    def has_failed(self) -> bool:
        """Whether it ended in an error; one of decoding a result does not count."""
        return isinstance(self._result, Raised) or self._exception is not None or self.cancelled()

    def _decode(self, raw: Any) -> Any:
        if type(raw) is not Raised:
            return loads(raw)
        error, told = loads(raw.payload)
        error.add_note(f"in the agent:\n{told}")
        raise error

    def _cancelled(self) -> None:
        self._runtime.messages.cancel(self)
