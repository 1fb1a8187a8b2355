"""What may be asked of the resource manager: a request's rules, and why some can never be met.

Knows: the fields of a request. Must not know: what is free now, who waits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from dspex.errors import (
    InvalidRequestError,
    QuotaExceededError,
    UnsatisfiableRequestError,
    VersionConflictError,
)
from dspex.foundation.ledger.amounts import amounts_from
from dspex.foundation.ledger.fleet import Fleet
from dspex.foundation.ledger.placement import ALIASES, PLACEMENTS, Wish
from dspex.foundation.ledger.quotas import Quotas

__all__ = ["refuse_changed", "refuse_impossible", "wish_from"]


def wish_from(request: Mapping[str, Any], caller: str) -> Wish:
    """Make a wish of a request's fields.

    Parameters
    ----------
    request : mapping
        "kind" and "amounts"; perhaps "labels", "placement", "worker", "tenant", "priority", "key".
    caller : str
        What `any_node` hashes where there is no key.

    Raises
    ------
    InvalidRequestError

    Examples
    --------
    >>> wish_from({"kind": "fit", "amounts": {"cpu_cores": 2}}, "me/1").amounts.cpu
    2000
    """
    placement = request.get("placement") or "least_loaded"
    placement = ALIASES.get(placement, placement)
    if placement not in PLACEMENTS:
        raise InvalidRequestError(
            f"placement is one of {', '.join(PLACEMENTS)}, or a callable; got {placement!r:.80}"
        )
    priority = request.get("priority") or 0
    if not math.isfinite(priority):
        raise InvalidRequestError(f"priority is a finite number; got {priority!r}")
    return Wish(
        kind=request["kind"],
        amounts=amounts_from(request.get("amounts") or {}),
        labels=frozenset(request.get("labels") or ()),
        placement=placement,
        worker=request.get("worker"),
        tenant=request.get("tenant"),
        priority=priority,
        key=request.get("key") or caller,
        is_chosen=request.get("version") is not None,
    )


def refuse_changed(wish: Wish, version: int | None, fleet: Fleet) -> None:
    """Refuse a worker that is not as it was when the caller chose it.

    Raises
    ------
    VersionConflictError
    """
    if version is None:
        return
    worker = fleet.get(wish.worker or "")
    if worker is None or worker.version != version or worker.state != "up":
        raise VersionConflictError(
            f"a worker is chosen as it is now; {wish.worker} was chosen at version {version} and "
            + ("is gone" if worker is None else f"is {worker.state} at version {worker.version}")
            + "; take a new snapshot and choose again"
        )


def refuse_impossible(wish: Wish, fleet: Fleet, quotas: Quotas) -> None:
    """Refuse what nobody that is here could give, and what the tenant may never have.

    Where there are no workers at all nothing is known to be impossible.

    Raises
    ------
    QuotaExceededError
    UnsatisfiableRequestError
    VersionConflictError
        Where the worker was chosen by the caller and is gone.
    """
    if not quotas.could_have(wish.tenant, wish.amounts):
        raise QuotaExceededError(
            f"tenant {wish.tenant!r} may have at most {quotas.limits_of(wish.tenant)} at once; one "
            f"lease of {wish.amounts} was asked for; ask for less, or raise it by set_quota",
            tenant=wish.tenant,
        )
    if wish.worker is not None:
        _refuse_pinned(wish, fleet)
    elif len(fleet) and not fleet.could_give(wish.amounts, wish.labels):
        raise UnsatisfiableRequestError(_reason(wish, fleet))


def _refuse_pinned(wish: Wish, fleet: Fleet) -> None:
    worker = fleet.get(wish.worker or "")
    if worker is None and wish.is_chosen:
        raise VersionConflictError(
            f"{wish.worker} was chosen and left before it could give; choose again"
        )
    if worker is None:
        raise UnsatisfiableRequestError(
            f"a lease is given on a worker that is a member; {wish.worker!r} is not; see members()"
        )
    if not worker.could_give(wish.amounts, wish.labels):
        raise UnsatisfiableRequestError(
            f"{worker.address} could not give {wish.amounts}{_with(wish.labels)} if it were idle; "
            f"it has {worker.capacity}{_with(worker.labels)}; ask for less, or elsewhere"
        )


def _reason(wish: Wish, fleet: Fleet) -> str:
    unknown = wish.labels - fleet.labels()
    if unknown:
        there = ", ".join(sorted(fleet.labels())) or "none"
        return (
            f"no worker has the labels {', '.join(sorted(unknown))}; there are {there}; ask "
            "without them, or add such a worker"
        )
    best = fleet.best(wish.labels)
    if best is None:
        return (
            f"no worker has all of the labels {', '.join(sorted(wish.labels))} together; ask for "
            "fewer, or add such a worker"
        )
    and_not_in_one = ", though not in one worker" if best.holds(wish.amounts) else ""
    return (
        f"no worker could give {wish.amounts}{_with(wish.labels)} if it were idle; the most there "
        f"is on one is {best}{and_not_in_one}; ask for less, or add larger workers"
    )


def _with(labels: frozenset[str]) -> str:
    return f" with {', '.join(sorted(labels))}" if labels else ""
