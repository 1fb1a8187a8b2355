"""Dead letters: messages that could not be delivered, or whose receiver raised.

Knows: the records in which they are kept. Must not know: how a message dies.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, final

from dspex.cluster.agents.requests import AUTO, Cast
from dspex.cluster.agents.resident import loads
from dspex.cluster.agents.runtime import DEAD_LETTERS, Runtime, current_runtime, runtime_of
from dspex.foundation.query import Query
from dspex.foundation.record import Record, drop

__all__ = ["DeadLetter", "dead_letters"]


@final
@dataclass(frozen=True, kw_only=True)
class DeadLetter:
    """A message that nobody has.

    Attributes
    ----------
    sender : str
        Id of the agent that sent it; "" where it was none.
    target : str
        Id of the agent that it was for.
    method : str
    error : str
        Why it is dead.
    at : float
        When, in unix seconds.
    """

    sender: str
    target: str
    method: str
    error: str
    at: float
    _record: Record = field(repr=False)
    _runtime: Runtime = field(repr=False)

    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """What the method was to be called with; unpickled here."""
        positional, named = loads(self._record.value)
        return positional, named

    def replay(self) -> Any:
        """Send it again, and forget it here; in async code, await it.

        If it cannot be delivered again, there is another dead letter of it.
        """
        return self._runtime.run(self._replay())

    def drop(self) -> Any:
        """Forget it; in async code, await it."""
        return self._runtime.run(self._drop())

    async def _drop(self) -> None:
        await self._runtime.caller.write(
            "records.commit",
            collection=DEAD_LETTERS,
            operations=[drop(self._record.key, missing_ok=True)],
            wait_durable=True,
        )

    async def _replay(self) -> None:
        record, runtime = self._record, self._runtime
        sender, target = record.metadata["sender"], record.metadata["target"]
        assert isinstance(sender, str)
        assert isinstance(target, str)

        def done(error: Any) -> None:
            if error is not None:
                runtime.dead_letter(sender, target, self.method, record.value, error)

        # Forgotten first: rather lost with this process than delivered twice.
        await self._drop()
        runtime.messages.submit(Cast(target, self.method, record.value, AUTO, done))


def dead_letters(
    foundation: Any = None, *, target: str | None = None, limit: int | None = None
) -> list[DeadLetter]:
    """The dead letters there are, the oldest first; in async code, await it.

    Parameters
    ----------
    foundation : Foundation, optional
    target : str, optional
        Id of the agent that they were for; None: of all.
    limit : int, optional

    Examples
    --------
    >>> import dspex
    >>> with dspex.connect("local") as foundation:
    ...     dead_letters(foundation)
    []
    """
    runtime = current_runtime() if foundation is None else runtime_of(foundation)
    return runtime.run(_dead_letters(runtime, target, limit))


async def _dead_letters(
    runtime: Runtime, target: str | None, limit: int | None
) -> list[DeadLetter]:
    query = Query.made(order_by="key")
    rows = await runtime.caller.read("records.select", collection=DEAD_LETTERS, query=list(query))
    letters = []
    for row in rows:
        record = Record(*row)
        fields: Any = record.metadata
        space, _, name = fields["target"].partition(":")
        if space == runtime.namespace and target in (None, name):
            letters.append(
                DeadLetter(
                    sender=fields["sender"].partition(":")[2],
                    target=name,
                    method=fields["method"],
                    error=fields["error"],
                    at=fields["at"],
                    _record=record,
                    _runtime=runtime,
                )
            )
    return letters[:limit]
