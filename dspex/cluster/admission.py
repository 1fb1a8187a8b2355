"""How many leases a study holds, and where: one for each evaluation that runs at once.

Knows: the study's workers, the foundation's members, what is held and what is asked for.
Must not know: Dask, clocks, how a lease is asked for (`gatekeeper`).

A worker's *limit* is how many evaluations the study may run there: no more than its threads, than
its capacity holds, and none while it drains. The study wants the sum of the limits, or `most`
where it cannot use so many. What it wants beyond what it has, it asks for: at any worker, so that
the ledger places and orders the requests. Only while some members are not the study's to use (a
version that does not fit, more than `cluster_nodes`), or while the ledger places more on a worker
than its threads can run, it asks at each of its workers; what comes too much is given back.

What is asked for beyond capacity would wait for ever and keep others from what is free; hence the
limits. A lease of which the study wants to be rid is given back when what runs on it has ended.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias, final

from dspex.foundation.ledger.amounts import NOTHING, Amounts, amounts_from
from dspex.foundation.ledger.events import Token

__all__ = ["Admission", "Ask", "Command", "GiveBack", "LeaseRequest", "Withdraw", "explain"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRequest:
    """What each evaluation of a study needs.

    Attributes
    ----------
    cpu_cores, memory_gb, gpus : float
    labels : tuple of str
        All of which the worker must have.
    tenant : str or None
    priority : int
        Larger comes first.
    is_sized : bool
        Whether the user said how much; False where a tenant alone was named.

    Examples
    --------
    >>> request = LeaseRequest(cpu_cores=2, memory_gb=4)
    >>> request.fits({"cpu_cores": 5.0, "memory_gb": 64.0, "gpus": 0.0, "labels": []})
    2
    """

    cpu_cores: float = 1
    memory_gb: float = 0
    gpus: float = 0
    labels: tuple[str, ...] = ()
    tenant: str | None = None
    priority: int = 0
    is_sized: bool = True

    @property
    def amounts(self) -> dict[str, float]:
        """As the ledger takes them."""
        return {"cpu_cores": self.cpu_cores, "memory_gb": self.memory_gb, "gpus": self.gpus}

    @property
    def threads(self) -> int:
        """How many threads an evaluation may use: its whole cores, and one at least."""
        return max(1, int(self.cpu_cores))

    def fits(self, capacity: Mapping[str, Any]) -> int:
        """How many evaluations a worker of this capacity holds at once."""
        if not set(self.labels) <= set(capacity.get("labels") or ()):
            return 0
        there = amounts_from({name: capacity.get(name) for name in self.amounts})
        wanted = amounts_from(self.amounts)
        return min(have // want for have, want in zip(there, wanted, strict=True) if want)

    def __str__(self) -> str:
        labels = f" with {', '.join(self.labels)}" if self.labels else ""
        return f"{amounts_from(self.amounts)}{labels}"


class Ask(NamedTuple):
    """Ask for one lease, at any worker or at this one."""

    number: int
    worker: str | None


class Withdraw(NamedTuple):
    """Do not ask for it any more."""

    number: int


class GiveBack(NamedTuple):
    """Release a lease."""

    token: Token


Command: TypeAlias = Ask | Withdraw | GiveBack


class _Member(NamedTuple):
    """A worker as the foundation sees it."""

    state: str
    fits: int
    capacity: Amounts


_UNKNOWN = _Member("joining", 0, NOTHING)
_MANY = 2**53


@final
class Admission:
    """The leases of one study.

    Parameters
    ----------
    request : LeaseRequest
    most : int, optional
        How many evaluations the study can run at once.

    Examples
    --------
    >>> admission = Admission(LeaseRequest(cpu_cores=1), most=2)
    >>> admission.workers({"a": 4}, others=(), in_hand={})
    >>> admission.member("a", "up", {"cpu_cores": 4.0})
    >>> admission.decide()
    [Ask(number=1, worker=None), Ask(number=2, worker=None)]
    >>> admission.granted(1, (1, 7), "a")
    >>> admission.decide(), admission.slots
    ([], {'a': 1})
    """

    def __init__(self, request: LeaseRequest, most: int | None = None) -> None:
        self.request = request
        self._most = math.inf if most is None else most
        self._usable: Mapping[str, int] = {}
        self._others: frozenset[str] = frozenset()
        self._in_hand: Mapping[str, int] = {}
        self._members: dict[str, _Member] = {}
        self._leases: dict[Token, str] = {}  # oldest first
        self._asks: dict[int, str | None] = {}
        self._asks_made = 0
        self._strays: list[Token] = []
        self._overfull: set[str] = set()
        self.was_granted = False

    # --- what is known ---------------------------------------------------------------------

    def workers(
        self, usable: Mapping[str, int], *, others: Collection[str], in_hand: Mapping[str, int]
    ) -> None:
        """Take the study's view.

        Parameters
        ----------
        usable : mapping of address to threads
            The workers that the study may use.
        others : collection of str
            Those that it may not use. A worker in neither may turn out to be of use.
        in_hand : mapping of address to int
            How many portions of work each has.
        """
        self._usable, self._others, self._in_hand = dict(usable), frozenset(others), dict(in_hand)

    def member(self, address: str, state: str, capacity: Mapping[str, Any]) -> None:
        """Take what the foundation says of a worker."""
        if state in ("lost", "left"):
            self._members.pop(address, None)
            return
        self._members[address] = _Member(state, self.request.fits(capacity), _amounts(capacity))

    def forget_members(self) -> None:
        """Begin anew with members."""
        self._members.clear()

    # --- what came of it -------------------------------------------------------------------

    def granted(self, number: int, token: Token, worker: str) -> None:
        """A lease was given; one that was not asked for any more goes back."""
        if self._asks.pop(number, "withdrawn") == "withdrawn":
            self._strays.append(token)
            return
        self._leases[token] = worker
        self.was_granted = True

    def refused(self, number: int) -> None:
        """An ask came to nothing."""
        self._asks.pop(number, None)

    def lost(self, tokens: Iterable[Token]) -> None:
        """Leases are over without our doing."""
        for token in tokens:
            self._leases.pop(token, None)

    def lost_all(self) -> None:
        """All leases are over; what was asked for is still being asked for."""
        self._leases.clear()
        self._strays.clear()

    # --- what there is ---------------------------------------------------------------------

    @property
    def leases(self) -> dict[Token, str]:
        """{token: worker} of all that are held."""
        return dict(self._leases)

    @property
    def held(self) -> dict[str, int]:
        """{worker: leases} of all that are held."""
        return dict(Counter(self._leases.values()))

    @property
    def slots(self) -> dict[str, int]:
        """{worker: how many evaluations it may be given at once}."""
        kept = Counter(self._kept().values())
        return {worker: kept[worker] for worker in self._usable if kept[worker]}

    @property
    def waiting(self) -> int:
        """How many leases are asked for."""
        return len(self._asks)

    @property
    def able(self) -> int:
        """How many of the study's workers could hold an evaluation, as far as is known."""
        members = [self._members.get(worker, _UNKNOWN) for worker in self._usable]
        return sum(member.state == "joining" or member.fits > 0 for member in members)

    @property
    def refusal(self) -> str | None:
        """Why no worker that is here could ever hold an evaluation; None where one could."""
        is_unknown = self._members.keys() - self._usable.keys() - self._others
        if not self._usable or self.able or is_unknown:
            return None
        best = NOTHING
        for worker in self._usable:
            best = best.at_least(self._members[worker].capacity)
        return (
            f"an evaluation was to have {self.request}, on one worker; none of the "
            f"{len(self._usable)} that the study may use could give it if it were idle (the most "
            f"of each that there is on a worker is {best}); ask for less in resources=, or "
            "start larger workers"
        )

    # --- what is decided -------------------------------------------------------------------

    def decide(self) -> list[Command]:
        """Say what to do now; taken as done."""
        commands: list[Command] = [GiveBack(token) for token in self._strays]
        self._strays.clear()
        commands += map(GiveBack, self._give_back())
        wanted = self._asks_wanted()
        there: Counter[str | None] = Counter()
        for number, worker in list(self._asks.items()):
            there[worker] += 1
            if there[worker] > wanted[worker]:
                del self._asks[number]
                commands.append(Withdraw(number))
        for worker, count in wanted.items():
            for _ in range(count - there[worker]):
                self._asks_made += 1
                self._asks[self._asks_made] = worker
                commands.append(Ask(self._asks_made, worker))
        return commands

    def _give_back(self) -> list[Token]:
        """Leases to be given back: too many, and with nothing running on them."""
        kept, held = self._kept(), Counter(self._leases.values())
        back = []
        for token, worker in reversed(self._leases.items()):
            if token not in kept and held[worker] > self._in_hand.get(worker, 0):
                held[worker] -= 1
                back.append(token)
        for token in back:
            worker = self._leases.pop(token)
            if 0 < self._limit(worker) <= held[worker]:
                self._overfull.add(worker)
        return back

    def _asks_wanted(self) -> Counter[str | None]:
        kept = Counter(self._kept().values())
        limits = {worker: self._limit(worker) for worker in self._usable}
        missing = min(self._most, sum(limits.values())) - kept.total()
        wanted: Counter[str | None] = Counter()
        if missing <= 0:
            return wanted
        self._overfull = {each for each in self._overfull if 0 < limits.get(each, 0) <= kept[each]}
        if self._overfull or any(self._fits(other) for other in self._others):
            wanted.update({each: limits[each] - kept[each] for each in limits})
        else:
            wanted[None] = int(missing)
        return +wanted

    def _kept(self) -> dict[Token, str]:
        """The leases that the study wants to keep: the oldest of each worker, and of all."""
        kept: dict[Token, str] = {}
        on: Counter[str] = Counter()
        for token, worker in self._leases.items():
            if len(kept) < self._most and on[worker] < self._limit(worker):
                kept[token] = worker
                on[worker] += 1
        return kept

    def _limit(self, worker: str) -> int:
        """How many leases of a worker are of use."""
        if worker in self._others:
            return 0
        # Of one that has just joined nothing is known yet, and soon will be.
        return min(self._usable.get(worker, _MANY), self._fits(worker))

    def _fits(self, worker: str) -> int:
        member = self._members.get(worker, _UNKNOWN)
        return 0 if member.state == "draining" else member.fits


def explain(
    request: LeaseRequest,
    tenants: Mapping[str, Mapping[str, Any]],
    workers: Mapping[str, Mapping[str, Any]],
) -> str:
    """Say why nothing is granted, as far as usage by tenant and by worker tells.

    Examples
    --------
    >>> limits = {"cpu_cores": None, "memory_gb": None, "max_concurrent": 1}
    >>> mine = {"cpu_cores": 1.0, "memory_gb": 0.0, "gpus": 0.0, "leases": 1, "limits": limits}
    >>> explain(LeaseRequest(tenant="me"), {"me": mine}, {})
    "waiting for resources (1 cpu_cores an evaluation): tenant 'me' has 1 of max_concurrent=1"
    """
    beginning = f"waiting for resources ({request} an evaluation)"
    mine = tenants.get(request.tenant) if request.tenant is not None else None
    at_limit = [] if mine is None else _limits_reached(request, mine)
    if at_limit:
        return f"{beginning}: tenant {request.tenant!r} has {', '.join(at_limit)}"
    leases = sum(each["leases"] for each in workers.values())
    if not leases:
        return f"{beginning}: no worker gives leases yet"
    named = {name: int(each["leases"]) for name, each in tenants.items() if each["leases"]}
    nobodys = leases - sum(named.values())
    holders = [f"{count:g} by {name!r}" for name, count in named.items()]
    holders += [f"{nobodys:g} without a tenant"] if nobodys > 0 else []
    total = sum(_amounts(each["capacity"]).cpu for each in workers.values()) / 1_000
    taken = sum(each["cpu_cores"] for each in workers.values())
    return (
        f"{beginning}: {taken:g} of {total:g} cpu_cores are leased; leases are held "
        f"{', '.join(holders)}"
    )


def _limits_reached(request: LeaseRequest, mine: Mapping[str, Any]) -> list[str]:
    limits: Mapping[str, Any] = mine["limits"] or {}
    more = {**request.amounts, "max_concurrent": 1}
    has = {**mine, "max_concurrent": mine["leases"]}
    return [
        f"{has[name]:g} of {name}={limit:g}"
        for name, limit in limits.items()
        if limit is not None and has[name] + more[name] > limit
    ]


def _amounts(capacity: Mapping[str, Any]) -> Amounts:
    return amounts_from({name: capacity.get(name) for name in ("cpu_cores", "memory_gb", "gpus")})
