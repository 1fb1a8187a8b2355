"""A lease of a worker's resources, as a user holds it.

Knows: what was granted, how it is given back. Must not know: how it was chosen.
"""

from __future__ import annotations

from collections.abc import Awaitable, Generator, Mapping
from contextlib import suppress
from typing import Any, NoReturn, final

from dspex.errors import LeaseExpiredError, UnavailableError
from dspex.foundation.handles.holding import Holding, refuse_pickling, sync_only, token_of
from dspex.foundation.ledger.events import Token
from dspex.foundation.ports import Bridge, Caller

__all__ = ["Lease", "PendingLease"]


@final
class Lease:
    """So much of one worker, for this process, until it is released.

    A context manager. It ends by `release`, with this process's session, or with its worker. One
    that is garbage collected is given back in the background.

    Attributes
    ----------
    worker : str
        The worker's address.
    token : (int, int)
        The fencing token: larger than that of every lease before.
    kind : str
    amounts : mapping
        "cpu_cores", "memory_gb" and "gpus".

    Examples
    --------
    >>> import dspex
    >>> with dspex.connect("local") as foundation:
    ...     with foundation.resources.acquire("fit", cpu_cores=1) as lease:
    ...         lease.worker, lease.is_held
    ('local', True)
    """

    def __init__(self, caller: Caller, bridge: Bridge, granted: Mapping[str, Any]) -> None:
        self._caller = caller
        self._bridge = bridge
        self.worker: str = granted["worker"]
        self.kind: str = granted["kind"]
        self.amounts: Mapping[str, float] = dict(granted["amounts"])
        self._holding = Holding(
            caller, token_of(granted["token"]), f"the lease of {self.kind!r} on {self.worker}"
        )

    @property
    def token(self) -> Token:
        """(term, n); grows with every grant."""
        return self._holding.token

    @property
    def is_held(self) -> bool:
        """Whether it is held, as far as this process can know without asking.

        True while this process's session is sure to last. Of a worker that left only `check`
        knows.
        """
        return self._holding.is_held

    def check(self) -> None:
        """Ask whether the lease is held.

        Raises
        ------
        LeaseExpiredError
        """
        return self._bridge.run(self._holding.check())

    def release(self) -> None:
        """Give it back; may be called twice, and when it is over already."""
        return self._bridge.run(self._release())

    async def _release(self) -> None:
        if self._holding.is_over:
            return
        self._holding.is_over = True
        try:
            await _given_back(self._caller, self._holding)
        except UnavailableError:
            self._holding.is_over = False  # nobody heard it; it may be said again
            raise

    def __enter__(self) -> Lease:
        sync_only(self._bridge)
        return self

    def __exit__(self, *exc: object) -> None:
        self.release()

    async def __aenter__(self) -> Lease:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._release()

    def __del__(self) -> None:
        if self._holding.is_held:
            with suppress(UnavailableError):  # the loop is closed, and with it the session
                self._bridge.spawn(_forgotten(self._caller, self._holding))

    def __repr__(self) -> str:
        amounts = ", ".join(f"{name}={value:g}" for name, value in self.amounts.items() if value)
        state = "held" if self.is_held else "over"
        return f"<Lease {self.kind!r} on {self.worker}: {amounts or 'a slot'}, {state}>"

    def __reduce__(self) -> NoReturn:
        refuse_pickling(self)


async def _given_back(caller: Caller, holding: Holding) -> None:
    if caller.session != holding.session:
        return  # it ended with its session
    with suppress(LeaseExpiredError):  # the session ended meanwhile
        await caller.write("resources.release", token=list(holding.token))


async def _forgotten(caller: Caller, holding: Holding) -> None:
    with suppress(UnavailableError):  # then the session is about to end by itself
        await _given_back(caller, holding)


@final
class PendingLease:
    """A lease that is being waited for in async code: to be awaited, or entered.

    Examples
    --------
    ::

        lease = await foundation.resources.acquire("fit", cpu_cores=1)
        async with foundation.resources.acquire("fit", cpu_cores=1) as lease:
            ...
    """

    def __init__(self, work: Awaitable[Lease]) -> None:
        self._work = work
        self._lease: Lease | None = None

    def __await__(self) -> Generator[Any, Any, Lease]:
        return self._work.__await__()

    async def __aenter__(self) -> Lease:
        self._lease = await self._work
        return self._lease

    async def __aexit__(self, *exc: object) -> None:
        assert self._lease is not None
        await self._lease._release()
