"""Rate limits: token buckets for the whole cluster, handed out in small batches.

Knows: how full each bucket is, who got the last permits of it.
Must not know: clocks (instants are arguments), how callers wait.

All of it is volatile: nothing is journalled. After a restart a bucket starts as if it had been
emptied at that instant, so that a burst is not given twice; it is refilled at its own rate.

A batch is what the bucket gains in 0.25 s, or one permit; it is void `EXPIRY` seconds after the
holder asked. The holder tells what it has not used when it asks again. Of a session that is gone
the last batch, where it was not void yet, returns when it would be void: whether it had been used
nobody knows, so a death may let through as many permits more. What is older counts as used.
"""

from __future__ import annotations

import math
from typing import NamedTuple, final

from dspex.errors import InvalidRequestError, ResourceExhaustedError

__all__ = ["BATCH_SECONDS", "EXPIRY", "MAX_RATES", "Rates", "Taken", "batch_of"]

BATCH_SECONDS = 0.25
EXPIRY = 1.0
MAX_RATES = 10_000

_PATIENCE = 1.0
"""For how long after its time a bucket is kept for a large request that does not come back."""

_SHORTEST = 0.001
"""Seconds; a shorter wait would be lost in the rounding of instants."""

_SLACK = 1e-9  # sums of floats; it is not given away, the bucket is that much below 0 afterwards


class Taken(NamedTuple):
    """The answer to `Rates.take`.

    Attributes
    ----------
    permits : int
        0: try again after `retry_after`.
    expiry : float
        Seconds after the request was sent in which they are void.
    retry_after : float
        Seconds.
    """

    permits: int
    expiry: float
    retry_after: float


def batch_of(per_second: float) -> int:
    """How many permits go out at once.

    Examples
    --------
    >>> batch_of(100), batch_of(0.1)
    (25, 1)
    """
    return max(1, int(per_second * BATCH_SECONDS))


class _Bucket:
    __slots__ = ("burst", "fill", "filled_at", "holders", "kept_for", "per_second", "returning")

    def __init__(self, per_second: float, burst: float, fill: float, now: float) -> None:
        self.per_second = per_second
        self.burst = burst
        self.fill = fill
        self.filled_at = now
        # {session: (void at, permits)} of the last batch of each
        self.holders: dict[str, tuple[float, int]] = {}
        self.returning: list[tuple[float, int]] = []
        self.kept_for: tuple[str, int, float] | None = None  # session, permits, until

    def refill(self, now: float) -> None:
        gained = max(0.0, now - self.filled_at) * self.per_second
        gained += sum(permits for at, permits in self.returning if at <= now)
        self.returning = [each for each in self.returning if each[0] > now]
        self.fill = min(self.burst, self.fill + gained)
        self.filled_at = max(self.filled_at, now)

    def forget(self, now: float) -> None:
        """Drop what is void: it counts as used, or its holder has told otherwise."""
        self.holders = {session: batch for session, batch in self.holders.items() if batch[0] > now}

    def is_idle(self) -> bool:
        return self.fill >= self.burst and not self.holders and not self.returning

    def kept_from(self, session: str, want: int, now: float) -> int:
        """How many permits are kept for another request."""
        if self.kept_for is not None and now >= self.kept_for[2]:
            self.kept_for = None
        if self.kept_for is None or self.kept_for[:2] == (session, want):
            return 0
        return self.kept_for[1]

    def take(self, session: str, want: int, now: float) -> tuple[int, float]:
        """Permits, and seconds to wait where there are none."""
        kept = self.kept_from(session, want, now)
        there = math.floor(self.fill - kept + _SLACK)
        batch = batch_of(self.per_second)
        # A large request gets all or nothing: parts of it would be void before the last came.
        least = want if want > batch else 1
        if there < least:
            wait = max(_SHORTEST, (least + kept - self.fill) / self.per_second)
            if want > batch and not kept:
                # Kept, so that small requests do not empty it again and again.
                self.kept_for = (session, want, now + wait + _PATIENCE)
            return 0, wait
        if not kept:
            self.kept_for = None
        permits = min(want, there)
        self.fill -= permits
        self.holders[session] = (now + EXPIRY, permits)
        return permits, 0.0


@final
class Rates:
    """All buckets by name.

    Examples
    --------
    >>> rates = Rates()
    >>> rates.take("me", "api", per_second=2, burst=1, want=1, unused=0, now=0.0)
    Taken(permits=1, expiry=1.0, retry_after=0.0)
    >>> rates.take("me", "api", per_second=2, burst=1, want=1, unused=0, now=0.0)
    Taken(permits=0, expiry=1.0, retry_after=0.5)
    """

    def __init__(self) -> None:
        self._buckets: dict[str, _Bucket] = {}
        self._restarted_at: float | None = None
        self._now = -math.inf

    def restarted(self, now: float) -> None:
        """Take note that another scheduler has given permits until now."""
        self._restarted_at = now

    def take(
        self,
        session: str,
        name: str,
        per_second: float,
        burst: float,
        want: int,
        unused: int,
        now: float,
    ) -> Taken:
        """Take permits out of a bucket.

        Parameters
        ----------
        session : str
        name : str
        per_second, burst : float
            The same in all calls.
        want : int
            At most so many; more than a batch: so many or none.
        unused : int
            Of the last batch, void or not, to be put back.
        now : float

        Raises
        ------
        InvalidRequestError
            For settings that break a rule or are not those of this name, and for more than burst.
        ResourceExhaustedError
            Where there are too many names.
        """
        _check(name, per_second, burst, want, unused)
        self._now = max(self._now, now)
        bucket = self._bucket(name, per_second, burst)
        bucket.refill(self._now)
        void_at, last = bucket.holders.get(session, (0.0, 0))
        returned = min(unused, last)
        if returned:
            bucket.fill = min(bucket.burst, bucket.fill + returned)
            bucket.holders[session] = (void_at, last - returned)
        permits, retry_after = bucket.take(session, want, self._now)
        return Taken(permits, EXPIRY, retry_after)

    def change(self, name: str, per_second: float, burst: float, now: float) -> None:
        """Give a name other settings; what is in the bucket stays, up to the new burst.

        Raises
        ------
        InvalidRequestError
        """
        _check(name, per_second, burst, 1, 0)
        self._now = max(self._now, now)
        bucket = self._buckets.get(name)
        if bucket is None:
            self._bucket(name, per_second, burst)
            return
        bucket.refill(self._now)
        bucket.per_second, bucket.burst = per_second, burst
        bucket.fill = min(bucket.fill, burst)
        bucket.kept_for = None

    def session_gone(self, session: str) -> None:
        """Have the last permits of a session return when they would be void."""
        for bucket in self._buckets.values():
            void_at, permits = bucket.holders.pop(session, (-math.inf, 0))
            if permits and void_at > self._now:
                bucket.returning.append((void_at, permits))
            if bucket.kept_for is not None and bucket.kept_for[0] == session:
                bucket.kept_for = None

    def expire(self, now: float) -> None:
        """Let time pass."""
        self._now = max(self._now, now)

    def settings(self) -> dict[str, tuple[float, float]]:
        """{name: (per_second, burst)} of the buckets in use."""
        return {name: (each.per_second, each.burst) for name, each in self._buckets.items()}

    def validate(self) -> None:
        """Assert the invariants."""
        assert len(self._buckets) <= MAX_RATES
        for bucket in self._buckets.values():
            assert -_SLACK <= bucket.fill <= bucket.burst

    def _bucket(self, name: str, per_second: float, burst: float) -> _Bucket:
        bucket = self._buckets.get(name)
        if bucket is None:
            if len(self._buckets) >= MAX_RATES:
                self._forget_idle()
            if self._restarted_at is None:
                fill = burst
            else:
                fill = min(burst, (self._now - self._restarted_at) * per_second)
            bucket = self._buckets[name] = _Bucket(per_second, burst, fill, self._now)
        elif (bucket.per_second, bucket.burst) != (per_second, burst):
            raise InvalidRequestError(
                f"all who use a rate limit name the same rate; {name!r} is per_second="
                f"{bucket.per_second:g}, burst={bucket.burst:g}, got per_second={per_second:g}, "
                f"burst={burst:g}; use these, or change it for all by change()"
            )
        return bucket

    def _forget_idle(self) -> None:
        # A full bucket is as good as none.
        for name, bucket in list(self._buckets.items()):
            bucket.refill(self._now)
            bucket.forget(self._now)
            if bucket.is_idle():
                del self._buckets[name]
        if len(self._buckets) >= MAX_RATES:
            raise ResourceExhaustedError(
                f"there are at most {MAX_RATES:,} rate limits in use at once, and so many are; "
                "use fewer names"
            )


def _check(name: str, per_second: float, burst: float, want: int, unused: int) -> None:
    if not (per_second > 0 and math.isfinite(per_second) and burst >= 1 and math.isfinite(burst)):
        raise InvalidRequestError(
            "a rate limit has per_second above 0 and a burst of at least 1; "
            f"got per_second={per_second!r}, burst={burst!r}"
        )
    if not 1 <= want <= burst:
        raise InvalidRequestError(
            f"1 to burst={burst:g} permits of {name!r} are taken at once; got {want}"
        )
    if unused < 0:
        raise InvalidRequestError(f"unused permits are counted from 0; got {unused}")
