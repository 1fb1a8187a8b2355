"""The workers that give capacity, and how much of each is taken.

Knows: who is there in which state, what is free where, an order by load that is kept up to date.
Must not know: who holds what (`resources`), who waits (`waiting`), which worker to prefer
(`placement`).

A worker gives while it is "up". "joining", "suspected" and "draining" workers keep their leases
and are given no new ones; "lost" and "left" ones are no longer here. A new incarnation at an old
address is another worker: what was leased on the older one is not on this one.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from statistics import median_high
from typing import Any, final

from dspex.foundation.ledger.amounts import NOTHING, Amounts, amounts_from
from dspex.foundation.ledger.events import Token
from dspex.foundation.ledger.hashing import stable_hash

__all__ = ["GONE", "Fleet", "Worker"]

GONE = frozenset({"lost", "left"})
"""States in which a worker's leases are over."""

_WHOLE = 1_000_000
"""A load of one."""


@final
class Worker:
    """One incarnation of a worker, with what is taken of it.

    Attributes
    ----------
    address, name, host, state : str
    incarnation : token
    capacity : Amounts
    labels : frozenset of str
    free : Amounts
    is_short : bool
        Whether it has said that it has less than what was leased on it; then `free` is below 0.
    load : int
        Millionths: the largest taken share of any of its resources.
    held : dict of token to None
        The leases on it, oldest first.
    kinds : Counter of str
        How many leases of each kind are on it.
    version : int
        Another one after each change of state, capacity or leases.
    place : int
        Its hash, for placements that hash.
    """

    __slots__ = (
        "address",
        "capacity",
        "free",
        "held",
        "host",
        "incarnation",
        "is_short",
        "kinds",
        "labels",
        "load",
        "name",
        "place",
        "state",
        "version",
    )

    def __init__(self, address: str, incarnation: Token) -> None:
        self.address = address
        self.incarnation = incarnation
        self.name = ""
        self.host = ""
        self.state = "joining"
        self.capacity = NOTHING
        self.labels: frozenset[str] = frozenset()
        self.free = NOTHING
        self.is_short = False
        self.load = 0
        self.held: dict[Token, None] = {}
        self.kinds: Counter[str] = Counter()
        self.version = 0
        self.place = stable_hash(address)

    def __repr__(self) -> str:
        return f"<Worker {self.address} {self.state}: {self.free} free of {self.capacity}>"

    @property
    def taken(self) -> Amounts:
        """What the leases on it sum up to."""
        return self.capacity.minus(self.free)

    def could_give(self, amounts: Amounts, labels: frozenset[str]) -> bool:
        """Whether it could if it were idle."""
        return self.capacity.holds(amounts) and labels <= self.labels

    def measure(self) -> None:
        """Compute the load anew."""
        capacity, free = self.capacity, self.free
        load = 0
        if capacity.cpu:
            load = (capacity.cpu - free.cpu) * _WHOLE // capacity.cpu
        if capacity.memory:
            load = max(load, (capacity.memory - free.memory) * _WHOLE // capacity.memory)
        if capacity.gpus:
            load = max(load, (capacity.gpus - free.gpus) * _WHOLE // capacity.gpus)
        self.load = load


@final
class Fleet:
    """All workers that are not gone.

    Examples
    --------
    >>> fleet = Fleet()
    >>> fleet.saw("a", (1, 1), "a", "here", "up", {"cpu_cores": 2, "labels": ["ssd"]})
    ()
    >>> fleet.get("a").free
    Amounts(cpu=2000, memory=0, gpus=0)
    >>> fleet.saw("a", (1, 1), "a", "here", "lost", {}), len(fleet)
    ((), 0)
    """

    def __init__(self) -> None:
        self._workers: dict[str, Worker] = {}
        self._by_load: list[tuple[int, int, str]] = []  # (load, leases, address) of those up
        self._addresses: list[str] = []  # of those up, sorted
        self._shapes: Counter[tuple[Amounts, frozenset[str]]] = Counter()
        self._hosts: Counter[tuple[str, str]] = Counter()  # (host, kind): leases
        self._changes = 0
        self._typical: Amounts | None = None

    def __len__(self) -> int:
        return len(self._workers)

    def __iter__(self) -> Iterator[Worker]:
        return iter(self._workers.values())

    def get(self, address: str) -> Worker | None:
        """The worker at an address, None where nobody is there."""
        return self._workers.get(address)

    # --- who is there --------------------------------------------------------------------

    def saw(
        self,
        address: str,
        incarnation: Token,
        name: str,
        host: str,
        state: str,
        capacity: Mapping[str, Any],
    ) -> Collection[Token]:
        """Take a member as it is now; gives the leases that are over because of it."""
        over: Collection[Token] = ()
        worker = self._workers.get(address)
        if worker is not None and (state in GONE or worker.incarnation != incarnation):
            if incarnation < worker.incarnation:
                return ()  # news of one that has been replaced
            over = self._forget(worker)
            worker = None
        if state in GONE:
            return over
        if worker is None:
            worker = self._workers[address] = Worker(address, incarnation)
        else:
            self._unlist(worker)
        taken = worker.taken
        for kind, count in worker.kinds.items():
            self._count_host(worker.host, kind, -count)
            self._count_host(host, kind, count)
        worker.name, worker.host, worker.state = name, host, state
        worker.labels = frozenset(capacity.get("labels") or ())
        worker.capacity = amounts_from({k: v for k, v in capacity.items() if k != "labels"})
        worker.free = worker.capacity.minus(taken)
        worker.is_short = not worker.free.holds(NOTHING)
        self._list(worker)
        return over

    def _forget(self, worker: Worker) -> Collection[Token]:
        self._unlist(worker)
        del self._workers[worker.address]
        for kind, count in worker.kinds.items():
            self._count_host(worker.host, kind, -count)
        return tuple(worker.held)

    def _list(self, worker: Worker) -> None:
        worker.measure()
        self._shapes[worker.capacity, worker.labels] += 1
        if worker.state == "up":
            insort(self._by_load, (worker.load, len(worker.held), worker.address))
            insort(self._addresses, worker.address)
        self._touch(worker)
        self._typical = None

    def _unlist(self, worker: Worker) -> None:
        shape = worker.capacity, worker.labels
        self._shapes[shape] -= 1
        if not self._shapes[shape]:
            del self._shapes[shape]
        if worker.state == "up":
            self._remove(self._by_load, (worker.load, len(worker.held), worker.address))
            self._remove(self._addresses, worker.address)
        self._typical = None

    @staticmethod
    def _remove(sorted_list: list[Any], item: Any) -> None:
        at = bisect_left(sorted_list, item)
        assert sorted_list[at] == item
        del sorted_list[at]

    def _touch(self, worker: Worker) -> None:
        self._changes += 1
        worker.version = self._changes

    # --- what is taken -------------------------------------------------------------------

    def take(self, worker: Worker, token: Token, kind: str, amounts: Amounts) -> None:
        """Take note of a lease."""
        old = worker.load, len(worker.held), worker.address
        worker.held[token] = None
        worker.free = worker.free.minus(amounts)
        # Who grants has looked at what is free; so this is a snapshot of one that shrank.
        worker.is_short = not worker.free.holds(NOTHING)
        worker.kinds[kind] += 1
        self._count_host(worker.host, kind, 1)
        self._moved(worker, old)

    def give(self, worker: Worker, token: Token, kind: str, amounts: Amounts) -> None:
        """Take note that a lease is over."""
        old = worker.load, len(worker.held), worker.address
        del worker.held[token]
        worker.free = worker.free.plus(amounts)
        worker.is_short = not worker.free.holds(NOTHING)
        worker.kinds[kind] -= 1
        if not worker.kinds[kind]:
            del worker.kinds[kind]
        self._count_host(worker.host, kind, -1)
        self._moved(worker, old)

    def _moved(self, worker: Worker, old: tuple[int, int, str]) -> None:
        worker.measure()
        if worker.state == "up":
            self._remove(self._by_load, old)
            insort(self._by_load, (worker.load, len(worker.held), worker.address))
        self._touch(worker)

    def _count_host(self, host: str, kind: str, change: int) -> None:
        self._hosts[host, kind] += change
        if not self._hosts[host, kind]:
            del self._hosts[host, kind]

    # --- what can be given ---------------------------------------------------------------

    @property
    def addresses(self) -> list[str]:
        """Those that are up, sorted; not to be changed."""
        return self._addresses

    def least_loaded_first(self) -> Iterator[Worker]:
        """Those that are up, by load, then by number of leases, then by address."""
        workers = self._workers
        return (workers[address] for _, _, address in self._by_load)

    def most_loaded_first(self) -> Iterator[Worker]:
        """The other way around."""
        workers = self._workers
        return (workers[address] for _, _, address in reversed(self._by_load))

    def of_kind(self, host: str, kind: str) -> int:
        """How many leases of a kind are on a host."""
        return self._hosts.get((host, kind), 0)

    def typical(self) -> Amounts:
        """The median capacity of those that are up, each resource by itself."""
        if self._typical is None:
            capacities = [self._workers[address].capacity for address in self._addresses]
            self._typical = Amounts(*map(median_high, zip(*capacities, strict=True)))
        return self._typical

    def could_give(self, amounts: Amounts, labels: frozenset[str]) -> bool:
        """Whether any worker that is here, in whatever state, could if it were idle."""
        return any(
            capacity.holds(amounts) and labels <= theirs for capacity, theirs in self._shapes
        )

    def best(self, labels: frozenset[str]) -> Amounts | None:
        """The most that a worker with these labels has, each resource by itself."""
        most = None
        for capacity, theirs in self._shapes:
            if labels <= theirs:
                most = capacity if most is None else most.at_least(capacity)
        return most

    def labels(self) -> set[str]:
        """All labels that there are."""
        return {label for _, theirs in self._shapes for label in theirs}

    def validate(self) -> None:
        """Assert that the orders and counts say what the workers say."""
        up = [worker for worker in self._workers.values() if worker.state == "up"]
        assert self._addresses == sorted(worker.address for worker in up)
        assert self._by_load == sorted((each.load, len(each.held), each.address) for each in up)
        assert self._shapes == Counter((each.capacity, each.labels) for each in self)
        hosts: Counter[tuple[str, str]] = Counter()
        for worker in self:
            assert worker.taken.holds(NOTHING)
            assert worker.is_short or worker.free.holds(NOTHING), f"{worker} has given too much"
            assert sum(worker.kinds.values()) == len(worker.held)
            hosts.update({(worker.host, kind): count for kind, count in worker.kinds.items()})
        assert self._hosts == hosts
