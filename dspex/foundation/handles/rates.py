"""A rate limit that all processes of the cluster share, as a user holds it.

Knows: permits in hand, and when they are void. Must not know: how full the bucket is.

Permits come in batches, so that most calls ask nobody. How large a batch is asked for doubles
while batches are used up in time, and halves when permits are left over.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, final

from dspex.errors import InvalidArgumentError, ResourceExhaustedError
from dspex.foundation.handles.holding import Seconds, plain_seconds, sync_only
from dspex.foundation.ledger.rates import batch_of
from dspex.foundation.ports import Bridge, Caller

__all__ = ["RateLimit"]


@final
class RateLimit:
    """So many permits a second for the whole cluster, and so many at once.

    Entered by ``with`` or ``async with``, or awaited, it waits for one permit.

    Parameters
    ----------
    caller : Caller
    bridge : Bridge
    name : str
    per_second, burst : float
        The same wherever this name is used.
    seconds : callable
        Reads timeouts as users write them.

    Examples
    --------
    >>> import dspex
    >>> with dspex.connect("local") as foundation:
    ...     limit = foundation.resources.rate_limit("api", per_second=100, burst=5)
    ...     limit.acquire(3)
    ...     with limit:
    ...         "calling"
    'calling'
    """

    def __init__(
        self,
        caller: Caller,
        bridge: Bridge,
        *,
        name: str,
        per_second: float,
        burst: float,
        seconds: Seconds = plain_seconds,
    ) -> None:
        self._caller = caller
        self._bridge = bridge
        self._seconds = seconds
        self.name = name
        self.per_second = per_second
        self.burst = burst
        self._permits = 0
        self._void_at = float("-inf")
        self._ahead = 1

    def acquire(self, n: int = 1, timeout: float | str | None = None) -> None:
        """Wait for permits.

        Parameters
        ----------
        n : int
            From 1 to `burst`.
        timeout : float or str, optional
            Seconds, or a string such as "2m"; None waits as long as it takes.

        Raises
        ------
        ResourceExhaustedError
            Where they did not come in time.
        """
        if type(n) is not int or not 1 <= n <= self.burst:
            raise InvalidArgumentError(
                f"from 1 to burst={self.burst:g} permits of {self.name!r} are taken at once; "
                f"got {n!r}"
            )
        return self._bridge.run(self._acquire(n, self._seconds("timeout", timeout)))

    def change(self, *, per_second: float, burst: float) -> None:
        """Give the name another rate, for all who use it; they make their objects anew."""
        return self._bridge.run(self._change(per_second, burst))

    async def _change(self, per_second: float, burst: float) -> None:
        await self._caller.read("rates.change", name=self.name, per_second=per_second, burst=burst)
        self.per_second, self.burst = per_second, burst

    async def _acquire(self, n: int, timeout: float | None) -> None:
        caller = self._caller
        ends = None if timeout is None else caller.now() + timeout
        got = 0
        while True:
            now = caller.now()
            if now < self._void_at:
                used = min(n - got, self._permits)
                self._permits -= used
                got += used
            if got == n:
                return
            wait = await self._ask(n - got)
            if wait is None:
                continue
            if ends is not None and caller.now() >= ends:
                self._permits += got  # told as unused with the next question
                raise ResourceExhaustedError(
                    f"{n} permits of {self.name!r}, {self.per_second:g} a second, did not come "
                    f"within {timeout:g} s; wait longer, or raise the rate"
                )
            await caller.sleep(wait if ends is None else min(wait, max(0.0, ends - caller.now())))

    async def _ask(self, need: int) -> float | None:
        """Take another batch; gives the seconds to wait where there is none."""
        caller = self._caller
        sent = caller.now()
        batch = batch_of(self.per_second)
        unused, self._permits = self._permits, 0
        if unused:
            self._ahead = max(1, self._ahead // 2)
        elif sent < self._void_at:
            self._ahead = min(batch, self._ahead * 2)
        want = need if need > batch else min(max(need, self._ahead), int(self.burst))
        permits, expiry, retry_after = await caller.read(
            "rates.take",
            name=self.name,
            per_second=self.per_second,
            burst=self.burst,
            want=want,
            unused=unused,
        )
        if not permits:
            return float(retry_after)
        self._permits += permits
        self._void_at = sent + expiry
        return None

    def __enter__(self) -> RateLimit:
        sync_only(self._bridge)
        self._bridge.run(self._acquire(1, None))
        return self

    def __exit__(self, *exc: object) -> None:
        """Nothing is given back: a permit is used by time."""

    async def __aenter__(self) -> RateLimit:
        await self._acquire(1, None)
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Nothing is given back: a permit is used by time."""

    def __await__(self) -> Generator[Any, Any, None]:
        return self._acquire(1, None).__await__()

    def __repr__(self) -> str:
        return f"<RateLimit {self.name!r}: {self.per_second:g} a second, burst {self.burst:g}>"
