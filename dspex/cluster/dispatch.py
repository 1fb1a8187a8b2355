"""Which evaluations go to which worker, in which portions: the pure core of the Dask executor.

Knows: the waiting evaluations, the workers' slots, what each worker has in hand, how long an
evaluation takes. Must not know: Dask, clocks, threads.

Why not leave the choice of the worker to Dask: it looks only at workers that hold a task's
dependencies (`distributed.scheduler.decide_worker`), so that all chunks would queue where the data
lies; and it starts the task of a dead worker again, by itself and up to four times, so that one
evaluation that kills its worker would kill four. A chunk bound to one worker is simply lost with
it, and the loss is ours to judge.

Work starts in the order of (trial, fold). A chunk is sized to last `CHUNK_SECONDS`, and a worker
has at most one more chunk per slot in hand than it can run, and that only while evaluations are so
short that the way there and back matters.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias, final

from dspex.engine.ports import Evaluation, Lost

__all__ = ["Chunk", "Dispatcher"]

CHUNK_SECONDS = 0.05
MOST_PER_CHUNK = 256
SHORT_SECONDS = 0.2
"""Evaluations up to this long are worth having a second chunk per slot in hand."""

_NEWEST = 0.3
"""The weight of the newest chunk in the average duration."""

Key: TypeAlias = tuple[int, int, int]


def _key(evaluation: Evaluation) -> Key:
    return evaluation.trial, evaluation.fold, evaluation.attempt


@final
@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """Evaluations that travel to one worker together."""

    number: int
    worker: str
    evaluations: tuple[Evaluation, ...]
    forgotten: set[Key] = field(default_factory=set)

    @property
    def wanted(self) -> list[Evaluation]:
        """Those not cancelled since."""
        return [each for each in self.evaluations if _key(each) not in self.forgotten]


@final
class Dispatcher:
    """The state of all work that is not done.

    Examples
    --------
    >>> dispatcher = Dispatcher()
    >>> dispatcher.set_workers({"a": 1, "b": 1})
    >>> dispatcher.add([Evaluation(n, 0, 0, {}) for n in (2, 1, 0)])
    >>> [(c.worker, [e.trial for e in c.evaluations]) for c in dispatcher.assign({"a", "b"})]
    [('a', [0]), ('b', [1])]
    """

    def __init__(self) -> None:
        self.chunks: dict[int, Chunk] = {}
        self.seconds: float | None = None
        self._waiting: list[tuple[Key, int, Evaluation]] = []
        self._suspects: set[Key] = set()
        self._slots: dict[str, int] = {}
        self._threads: Mapping[str, int] = {}
        self._in_hand: dict[str, int] = {}
        self._added = 0
        self._chunks_made = 0

    @property
    def waiting(self) -> int:
        """How many evaluations have no worker yet."""
        return len(self._waiting)

    @property
    def slots(self) -> int:
        """How many evaluations the workers run at once."""
        return sum(self._slots.values())

    @property
    def workers(self) -> int:
        """How many workers may be given work."""
        return len(self._slots)

    @property
    def in_hand(self) -> dict[str, int]:
        """{worker: how many chunks it has}."""
        return dict(self._in_hand)

    def set_workers(
        self, slots: Mapping[str, int], threads: Mapping[str, int] | None = None
    ) -> None:
        """Say which workers may be given work, and how much each may run at once.

        Where that is less than its threads, which would run whatever it has, it gets no more.
        """
        self._slots = dict(slots)
        self._threads = slots if threads is None else threads

    def beyond(self, held: Mapping[str, int]) -> list[Chunk]:
        """The newest chunks of workers that run more than so many at once."""
        newest: list[Chunk] = []
        left = {worker: count - held.get(worker, 0) for worker, count in self._in_hand.items()}
        for chunk in sorted(self.chunks.values(), key=lambda each: -each.number):
            worker = chunk.worker
            if left[worker] > 0 and held.get(worker, 0) < self._threads.get(worker, 1):
                left[worker] -= 1
                newest.append(chunk)
        return newest

    def add(self, evaluations: Iterable[Evaluation]) -> None:
        """Queue evaluations."""
        for each in evaluations:
            self._added += 1
            heapq.heappush(self._waiting, (_key(each), self._added, each))

    def cancel(self, trials: Collection[int]) -> tuple[list[Chunk], list[Chunk]]:
        """Forget trials; answers the chunks that nobody wants now, and those wanted in part."""
        gone = set(trials)
        kept = [each for each in self._waiting if each[0][0] not in gone]
        if len(kept) < len(self._waiting):
            heapq.heapify(kept)
            self._waiting = kept
        ended: list[Chunk] = []
        partly: list[Chunk] = []
        for chunk in self.chunks.values():
            hit = {_key(each) for each in chunk.evaluations if each.trial in gone}
            if hit:
                chunk.forgotten.update(hit)
                (partly if chunk.wanted else ended).append(chunk)
        return ended, partly

    def has_idle(self, avoided: Collection[str] = ()) -> bool:
        """Whether a worker could run more than there is to run, those to be avoided aside."""
        return not self._waiting and any(
            self._in_hand.get(worker, 0) < slots and worker not in avoided
            for worker, slots in self._slots.items()
        )

    def assign(self, ready: Collection[str], avoided: Collection[str] = ()) -> list[Chunk]:
        """Give waiting evaluations to those of the workers that are ready for them."""
        room = {
            worker: (slots, self._depth(worker, slots) - self._in_hand.get(worker, 0))
            for worker, slots in self._slots.items()
            if worker in ready
        }
        free = sum(max(0, left) for _, left in room.values())
        # Those to be avoided last; least relative load first; the order of joining breaks ties.
        order: list[tuple[bool, float, int, str]] = [
            (worker in avoided, self._in_hand.get(worker, 0) / slots, place, worker)
            for place, (worker, (slots, left)) in enumerate(room.items())
            if left > 0
        ]
        heapq.heapify(order)
        made: list[Chunk] = []
        while self._waiting and order:
            is_avoided, _, place, worker = heapq.heappop(order)
            slots, _ = room[worker]
            made.append(self._make_chunk(worker, free))
            free -= 1
            held = self._in_hand[worker]
            if held < self._depth(worker, slots):
                heapq.heappush(order, (is_avoided, held / slots, place, worker))
        return made

    def finished(self, number: int, done: int, unstarted: Sequence[Key], seconds: float) -> None:
        """A chunk came back with ``done`` outcomes after ``seconds`` on its worker."""
        chunk = self._take(number)
        left = set(unstarted)
        self.add(each for each in chunk.wanted if _key(each) in left)
        self._suspects -= {_key(each) for each in chunk.evaluations} - left
        if done:
            each = seconds / done
            old = each if self.seconds is None else self.seconds
            self.seconds = old + _NEWEST * (each - old)

    def returned(self, number: int) -> None:
        """A chunk came back untouched, or was ended: what is still wanted of it waits again."""
        self.add(self._take(number).wanted)

    def lost(self, number: int, reason: str) -> Lost | None:
        """A chunk vanished with its worker; answers for the evaluation that is charged with it.

        Nobody knows how far the chunk was. The first is charged; the others wait again, and from
        now on each travels alone, so that one which kills workers is charged itself next time.
        """
        chunk = self._take(number)
        if not chunk.wanted:
            return None
        charged, *others = chunk.wanted
        self._suspects.update(map(_key, others))
        self.add(others)
        return Lost(
            trial=charged.trial,
            fold=charged.fold,
            attempt=charged.attempt,
            worker=chunk.worker,
            reason=reason,
        )

    def _take(self, number: int) -> Chunk:
        chunk = self.chunks.pop(number)
        self._in_hand[chunk.worker] -= 1
        if not self._in_hand[chunk.worker]:
            del self._in_hand[chunk.worker]
        return chunk

    def _make_chunk(self, worker: str, free: int) -> Chunk:
        size = self._chunk_size(free)
        taken = [heapq.heappop(self._waiting)]
        while (
            len(taken) < size
            and self._waiting
            and taken[0][0] not in self._suspects
            and self._waiting[0][0] not in self._suspects
        ):
            taken.append(heapq.heappop(self._waiting))
        self._chunks_made += 1
        chunk = Chunk(self._chunks_made, worker, tuple(each for _, _, each in taken))
        self.chunks[chunk.number] = chunk
        self._in_hand[worker] = self._in_hand.get(worker, 0) + 1
        return chunk

    def _chunk_size(self, free: int) -> int:
        if self.seconds is None or len(self._waiting) <= free:
            return 1
        by_time = int(CHUNK_SECONDS / max(self.seconds, 1e-9))
        by_share = math.ceil(len(self._waiting) / free)
        return max(1, min(MOST_PER_CHUNK, by_time, by_share))

    def _depth(self, worker: str, slots: int) -> int:
        """How many chunks a worker may have in hand.

        One more per slot hides the way there and back; where evaluations are long it would only
        make the next one wait behind them while a slot elsewhere falls idle.
        """
        if self.seconds is None or slots < self._threads.get(worker, slots):
            return slots
        return slots + round(slots * min(1.0, SHORT_SECONDS / max(self.seconds, 1e-9)))
