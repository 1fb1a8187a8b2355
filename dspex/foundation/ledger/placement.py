"""Which worker gets it: one vocabulary for leases, agents and tasks.

Knows: the names of placements, and what each prefers. Must not know: how much is free for whom
(`fleet`), who may overtake whom (`resources`).

A placement is a function of a fleet and a wish that looks among the workers which fit now:

==================  ==============================================================================
least_loaded        the least loaded, then the one with the fewest leases, then by address
pack                the most loaded one that still fits: the others stay free for large requests
spread              the host, then the worker, with the fewest leases of this kind
round_robin         by address, the next after the one that a round_robin request got last
random              any, by a counter-based generator
any_node            rendezvous hashing of the key: the same worker each time while it is there, and
                    only the keys of a worker that comes or goes move
compute_nodes       the workers with at least the median of cores, the least loaded first; the
                    others where none of them fits
memory_nodes        the same by memory
==================  ==============================================================================

``"least_loaded_node"`` is another word for ``"least_loaded"``. The two classes are soft and read
from measured capacity, so they strand nobody: where all workers are alike, all are in both.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import NamedTuple, final

from dspex.foundation.ledger.amounts import Amounts
from dspex.foundation.ledger.fleet import Fleet, Worker
from dspex.foundation.ledger.hashing import mix, stable_hash

__all__ = ["ALIASES", "PLACEMENTS", "Placer", "Wish", "rendezvous"]

_MASK = 2**64 - 1

_TRIES = 8

ALIASES: Mapping[str, str] = {"least_loaded_node": "least_loaded"}


class Wish(NamedTuple):
    """What is wanted of a worker.

    Attributes
    ----------
    kind : str
    amounts : Amounts
    labels : frozenset of str
        All of which the worker must have.
    placement : str
    worker : str or None
        The only address that will do.
    tenant : str or None
    priority : float
        Larger comes first.
    key : str
        What `any_node` hashes.
    is_chosen : bool
        Whether the caller chose `worker` among those of a snapshot.
    """

    kind: str
    amounts: Amounts
    labels: frozenset[str] = frozenset()
    placement: str = "least_loaded"
    worker: str | None = None
    tenant: str | None = None
    priority: float = 0
    key: str = ""
    is_chosen: bool = False


def rendezvous(key: str, workers: Iterable[Worker]) -> Worker | None:
    """The worker whose hash together with the key's is the largest; None of none.

    Thaler and Ravishankar, "Using name-based mappings to increase hit rates" (1998). The weights
    are products with an odd number, the universal hashing of Dietzfelbinger et al. (1997): one
    multiplication for each worker.
    """
    factor = stable_hash(key) | 1
    return max(workers, key=lambda worker: worker.place * factor & _MASK, default=None)


@final
class Placer:
    """Chooses workers; remembers where round_robin is, and how often random has drawn.

    What it remembers need not survive: it decides nothing that must be decided the same again.

    Parameters
    ----------
    seed : int
        Of random.
    """

    def __init__(self, seed: int = 0) -> None:
        self._seed = mix(seed)
        self._draws = 0
        self._last = ""

    def choose(self, fleet: Fleet, wish: Wish, *, except_of: Collection[str] = ()) -> Worker | None:
        """A worker that is up and has it free now; None where there is none.

        Parameters
        ----------
        fleet : Fleet
        wish : Wish
        except_of : collection of str
            Addresses that will not do.
        """
        if wish.worker is not None:
            worker = fleet.get(wish.worker)
            one = (worker,) if worker is not None and worker.state == "up" else ()
            return next(_fitting(one, wish, except_of), None)
        return PLACEMENTS[wish.placement](self, fleet, wish, except_of)

    def _least_loaded(self, fleet: Fleet, wish: Wish, except_of: Collection[str]) -> Worker | None:
        return next(_fitting(fleet.least_loaded_first(), wish, except_of), None)

    def _pack(self, fleet: Fleet, wish: Wish, except_of: Collection[str]) -> Worker | None:
        return next(_fitting(fleet.most_loaded_first(), wish, except_of), None)

    def _spread(self, fleet: Fleet, wish: Wish, except_of: Collection[str]) -> Worker | None:
        best, fewest = None, (0, 0)
        for worker in _fitting(fleet.least_loaded_first(), wish, except_of):
            count = fleet.of_kind(worker.host, wish.kind), worker.kinds.get(wish.kind, 0)
            if count == (0, 0):
                return worker  # of equals the first, and so the least loaded
            if best is None or count < fewest:
                best, fewest = worker, count
        return best

    def _round_robin(self, fleet: Fleet, wish: Wish, except_of: Collection[str]) -> Worker | None:
        addresses = fleet.addresses
        after = bisect_right(addresses, self._last)
        around = (
            fleet.get(each) for part in (addresses[after:], addresses[:after]) for each in part
        )
        worker = next(_fitting((each for each in around if each), wish, except_of), None)
        if worker is not None:
            self._last = worker.address
        return worker

    def _random(self, fleet: Fleet, wish: Wish, except_of: Collection[str]) -> Worker | None:
        # Drawing until one fits is as fair as a draw among those that fit, and mostly faster.
        for _ in range(_TRIES if fleet.addresses else 0):
            worker = fleet.get(fleet.addresses[self._draw(len(fleet.addresses))])
            if worker and next(_fitting((worker,), wish, except_of), None):
                return worker
        fitting = sorted(
            _fitting(fleet.least_loaded_first(), wish, except_of),
            key=lambda worker: worker.address,
        )
        return fitting[self._draw(len(fitting))] if fitting else None

    def _draw(self, below: int) -> int:
        self._draws += 1
        return mix(self._seed + self._draws) % below

    def _any_node(self, fleet: Fleet, wish: Wish, except_of: Collection[str]) -> Worker | None:
        return rendezvous(wish.key, _fitting(fleet.least_loaded_first(), wish, except_of))

    def _compute_nodes(self, fleet: Fleet, wish: Wish, except_of: Collection[str]) -> Worker | None:
        return _of_class(fleet, wish, except_of, lambda amounts: amounts.cpu)

    def _memory_nodes(self, fleet: Fleet, wish: Wish, except_of: Collection[str]) -> Worker | None:
        return _of_class(fleet, wish, except_of, lambda amounts: amounts.memory)


def _fitting(workers: Iterable[Worker], wish: Wish, except_of: Collection[str]) -> Iterator[Worker]:
    cpu, memory, gpus = wish.amounts
    labels = wish.labels
    for worker in workers:
        free = worker.free
        if (
            free.cpu >= cpu
            and free.memory >= memory
            and free.gpus >= gpus
            and worker.address not in except_of
            and (not labels or labels <= worker.labels)
        ):
            yield worker


def _of_class(
    fleet: Fleet, wish: Wish, except_of: Collection[str], of: Callable[[Amounts], int]
) -> Worker | None:
    other = None
    for worker in _fitting(fleet.least_loaded_first(), wish, except_of):
        if of(worker.capacity) >= of(fleet.typical()):
            return worker
        other = other or worker
    return other


PLACEMENTS: Mapping[str, Callable[[Placer, Fleet, Wish, Collection[str]], Worker | None]] = {
    "least_loaded": Placer._least_loaded,
    "pack": Placer._pack,
    "spread": Placer._spread,
    "round_robin": Placer._round_robin,
    "random": Placer._random,
    "any_node": Placer._any_node,
    "compute_nodes": Placer._compute_nodes,
    "memory_nodes": Placer._memory_nodes,
}
"""{name: how it chooses}"""
