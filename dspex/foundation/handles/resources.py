"""The resource manager, as a user holds it: leases, quotas, usage, rate limits.

Knows: what may be asked, how a callable chooses. Must not know: who gets what (the ledger).

Cooperative admission, not a fence around processes: whoever asks is counted, whoever does not ask
is not stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Real
from typing import Any, Literal, NamedTuple, TypeAlias, cast, final

from dspex.errors import (
    DspexError,
    InvalidArgumentError,
    ResourceExhaustedError,
    VersionConflictError,
)
from dspex.foundation.handles.holding import Seconds, plain_seconds
from dspex.foundation.handles.lease import Lease, PendingLease
from dspex.foundation.handles.rates import RateLimit
from dspex.foundation.ledger.requests import wish_from
from dspex.foundation.ports import Bridge, Caller

__all__ = ["Placement", "ResourceManager", "WorkerView"]

_CHOICES = 32
"""How often a callable chooses, when others are faster, before it is told so."""


class WorkerView(NamedTuple):
    """A worker as a callable sees it.

    Attributes
    ----------
    address, name, host : str
    capacity, free : mapping
        "cpu_cores", "memory_gb" and "gpus".
    labels : tuple of str
    load : float
        The largest leased share of any of its resources.
    leases : int
    version : int
        Another one after each change of the worker.
    """

    address: str
    name: str
    host: str
    capacity: Mapping[str, float]
    free: Mapping[str, float]
    labels: tuple[str, ...]
    load: float
    leases: int
    version: int


Placement: TypeAlias = str | Callable[[Sequence[WorkerView]], WorkerView | str]
"""A name of `dspex.foundation.ledger.placement`, or what chooses one of the workers."""


@final
class ResourceManager:
    """Leases of workers' cores, memory, gpus and labels.

    Parameters
    ----------
    caller : Caller
    bridge : Bridge
    seconds : callable
        Reads timeouts as users write them.

    Examples
    --------
    >>> import dspex
    >>> with dspex.connect("local") as foundation:
    ...     with foundation.resources.acquire("fit", cpu_cores=1, tenant="me"):
    ...         foundation.resources.usage(by="tenant")["me"]["cpu_cores"]
    1.0
    """

    def __init__(self, caller: Caller, bridge: Bridge, *, seconds: Seconds = plain_seconds) -> None:
        self._caller = caller
        self._bridge = bridge
        self._seconds = seconds

    def acquire(
        self,
        kind: str,
        *,
        cpu_cores: float = 0,
        memory_gb: float = 0,
        gpus: float = 0,
        labels: Iterable[str] = (),
        placement: Placement | None = None,
        placement_strategy: Placement | None = None,
        tenant: str | None = None,
        priority: float = 0,
        timeout: float | str | None = None,
        worker: str | None = None,
        key: str | None = None,
    ) -> Lease:
        """Wait for a lease.

        Requests wait by priority, then by arrival. A large one that waits keeps the workers that
        could serve it from those behind it.

        Parameters
        ----------
        kind : str
            What it is for; "spread" spreads each kind, and `usage` counts by it.
        cpu_cores, memory_gb, gpus : float
            How much, on one worker. Gigabytes are 10^9 bytes.
        labels : iterable of str
            All of which the worker must have.
        placement : str or callable
            "least_loaded" (the default), "pack", "spread", "round_robin", "random", "any_node",
            "compute_nodes" or "memory_nodes". A callable is given the workers as a sequence of
            `WorkerView` and returns one of them, or its address; it is called again where the
            worker changed meanwhile. It runs on the client's loop, and must not block.
        placement_strategy : str or callable
            Another word for `placement`.
        tenant : str, optional
            Whose quota it counts against.
        priority : float
            Larger comes first.
        timeout : float or str, optional
            Seconds, or a string such as "2m"; None waits as long as it takes.
        worker : str, optional
            The only address that will do.
        key : str, optional
            The same key has the same worker with "any_node".

        Returns
        -------
        Lease

        Raises
        ------
        UnsatisfiableRequestError
            At once, where no worker could give it if it were idle.
        QuotaExceededError
            At once, where the tenant may never have so much.
        ResourceExhaustedError
            Where it did not become free in time, or too many wait.
        """
        chosen = _one_of(placement, placement_strategy)
        request: dict[str, Any] = {
            "kind": kind,
            "amounts": {
                "cpu_cores": _number("cpu_cores", cpu_cores),
                "memory_gb": _number("memory_gb", memory_gb),
                "gpus": _number("gpus", gpus),
            },
            "labels": [labels] if isinstance(labels, str) else list(labels),
            "placement": chosen if isinstance(chosen, str) else "least_loaded",
            "tenant": tenant,
            "priority": _number("priority", priority),
            "worker": worker,
            "key": key,
        }
        wish_from(request, "")  # an error at the door needs no message to the scheduler
        limit = self._seconds("timeout", timeout)
        if isinstance(chosen, str):
            work = self._acquire(request, limit)
        elif worker is not None:
            raise InvalidArgumentError(
                f"either a callable chooses, or the worker is given; got both ({worker!r})"
            )
        else:
            work = self._choose(request, chosen, limit)
        if self._bridge.asynchronous:
            return cast("Lease", PendingLease(cast("Any", self._bridge.run(work))))
        return self._bridge.run(work)

    async def _acquire(self, request: Mapping[str, Any], timeout: float | None) -> Lease:
        try:
            granted = await self._caller.write("resources.acquire", timeout=timeout, **request)
        except DspexError:
            raise
        except TimeoutError:
            raise ResourceExhaustedError(
                f"{_said(request)} did not become free within {timeout:g} s; wait longer, ask for "
                "less, or add workers"
            ) from None
        return Lease(self._caller, self._bridge, granted)

    async def _choose(
        self,
        request: Mapping[str, Any],
        choose: Callable[[Sequence[WorkerView]], WorkerView | str],
        timeout: float | None,
    ) -> Lease:
        ends = None if timeout is None else self._caller.now() + timeout
        for _ in range(_CHOICES):
            views = {view.address: view for view in await self._workers()}
            if not views:
                raise ResourceExhaustedError(
                    "a callable chooses among the workers that are up, and there are none; add "
                    "workers, or pass a placement by name, which waits for them"
                )
            chosen = choose(tuple(views.values()))
            address = chosen.address if isinstance(chosen, WorkerView) else chosen
            if address not in views:
                raise InvalidArgumentError(
                    f"a callable placement returns one of the workers that it is given, or its "
                    f"address; got {chosen!r:.200}"
                )
            picked = {**request, "worker": address, "version": views[address].version}
            left = None if ends is None else max(ends - self._caller.now(), 0.001)
            try:
                return await self._acquire(picked, left)
            except VersionConflictError:
                continue
        raise VersionConflictError(
            f"a callable placement must be faster than others; the chosen worker had changed "
            f"{_CHOICES} times when the choice arrived; pass a placement by name"
        )

    def workers(self) -> list[WorkerView]:
        """List the workers that give leases now, with what is free on each.

        Returns
        -------
        list of WorkerView
            The least loaded first.
        """
        return self._bridge.run(self._workers())

    async def _workers(self) -> list[WorkerView]:
        found = await self._caller.read("resources.snapshot")
        return [WorkerView(**{**each, "labels": tuple(each["labels"])}) for each in found]

    def set_quota(
        self,
        tenant: str,
        *,
        cpu_cores: float | None = None,
        memory_gb: float | None = None,
        max_concurrent: int | None = None,
    ) -> None:
        """Limit what the leases of a tenant sum up to; all None ends the quota.

        A lower quota takes nothing away: leases stay until they are released.

        Parameters
        ----------
        tenant : str
        cpu_cores, memory_gb : float, optional
        max_concurrent : int, optional
            Leases at once, evaluations of its studies included.
        """
        limits = {
            "cpu_cores": None if cpu_cores is None else _number("cpu_cores", cpu_cores),
            "memory_gb": None if memory_gb is None else _number("memory_gb", memory_gb),
            "max_concurrent": max_concurrent,
        }
        given = None if all(each is None for each in limits.values()) else limits
        return self._bridge.run(self._set_quota(tenant, given))

    async def _set_quota(self, tenant: str, limits: Mapping[str, Any] | None) -> None:
        await self._caller.write("resources.quota", tenant=tenant, limits=limits)

    def usage(self, by: Literal["worker", "tenant", "kind"] = "worker") -> dict[str, Any]:
        """Tell what is leased.

        Parameters
        ----------
        by : "worker", "tenant" or "kind"

        Returns
        -------
        dict
            {name: {"cpu_cores", "memory_gb", "gpus", "leases"}}; of workers also "capacity" and
            "state", of tenants their "limits" (None: no quota).
        """
        return self._bridge.run(self._usage(by))

    async def _usage(self, by: str) -> dict[str, Any]:
        return dict(await self._caller.read("resources.usage", by=by))

    def rate_limit(self, name: str, *, per_second: float, burst: float | None = None) -> RateLimit:
        """A limit that all who use this name share; nothing is asked before it is used.

        Parameters
        ----------
        name : str
        per_second : float
            More than 0.
        burst : float, optional
            At most so many at once, from 1; None: what comes in a second.

        Returns
        -------
        RateLimit
        """
        rate = _number("per_second", per_second)
        most = max(1.0, rate) if burst is None else _number("burst", burst)
        if not (rate > 0 and most >= 1):
            raise InvalidArgumentError(
                f"per_second is more than 0 and burst at least 1; got per_second={per_second!r}, "
                f"burst={burst!r}"
            )
        return RateLimit(
            self._caller,
            self._bridge,
            name=name,
            per_second=rate,
            burst=most,
            seconds=self._seconds,
        )

    def __repr__(self) -> str:
        return f"<ResourceManager of session {self._caller.session}>"


def _one_of(placement: Placement | None, placement_strategy: Placement | None) -> Placement:
    if placement is not None and placement_strategy is not None:
        raise InvalidArgumentError(
            f"placement and placement_strategy are two words for one thing; got "
            f"{placement!r} and {placement_strategy!r}; pass one"
        )
    chosen = placement if placement is not None else placement_strategy
    if chosen is None:
        return "least_loaded"
    if not isinstance(chosen, str) and not callable(chosen):
        raise InvalidArgumentError(f"placement is a name or a callable; got {chosen!r:.80}")
    return chosen


def _number(name: str, value: Any) -> float:
    if type(value) is int:
        return value
    if isinstance(value, bool) or not isinstance(value, Real):
        raise InvalidArgumentError(f"{name} is a number; got {value!r:.80}")
    return float(value)


def _said(request: Mapping[str, Any]) -> str:
    wish = wish_from(request, "")
    who = f" for tenant {wish.tenant!r}" if wish.tenant else ""
    where = f" on {wish.worker}" if wish.worker else ""
    return f"{wish.amounts} of kind {wish.kind!r}{where}{who}"
