"""Which workers a study uses: those that fit, at most so many, the same while they stay.

Knows: who is there, who takes work, who fits. Must not know: Dask, clocks.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import final

from dspex.cluster.versions import Facts, explain, mismatches, own_facts

__all__ = ["Members"]


@final
class Members:
    """The workers of the cluster, as the study sees them.

    Examples
    --------
    >>> members = Members(max_workers=1)
    >>> _ = members.saw({"a": 2, "b": 2}, {"a", "b"})
    >>> _ = members.judge("a", own_facts()), members.judge("b", own_facts())
    >>> members.usable()
    {'a': 2}
    >>> members.saw({"b": 2}, {"b"})
    {'a': True}
    >>> members.usable()
    {'b': 2}
    """

    def __init__(self, max_workers: int | None = None) -> None:
        self._max_workers = max_workers
        self._own_facts = own_facts()
        self._slots: dict[str, int] = {}
        self._running: set[str] = set()
        self._asked: set[str] = set()
        self._fit: set[str] = set()
        self._unfit: dict[str, list[str]] = {}
        self._silent: set[str] = set()
        self._chosen: list[str] = []

    def __len__(self) -> int:
        return len(self._slots)

    def saw(self, everyone: Mapping[str, int], running: Collection[str]) -> dict[str, bool]:
        """Take note of who is there: {address: slots}, and who takes work.

        Returns
        -------
        dict
            Those that left since, and whether each took work when it was seen last.
        """
        left = {worker: worker in self._running for worker in self._slots if worker not in everyone}
        self._slots = dict(everyone)
        self._running = set(running)
        for worker in left:
            self._asked.discard(worker)
            self._fit.discard(worker)
            self._unfit.pop(worker, None)
            self._silent.discard(worker)
        self._choose()
        return left

    def unknown(self) -> list[str]:
        """Workers of which nobody has asked the versions yet."""
        known = self._asked | self._fit | self._unfit.keys()
        return [worker for worker in self._slots if worker not in known]

    def asked(self, workers: Collection[str]) -> None:
        """Take note that these are being asked."""
        self._asked.update(workers)

    def judge(self, worker: str, facts: Facts | None) -> list[str]:
        """Take a worker's answer, None for no answer; tells what does not fit, silence once."""
        self._asked.discard(worker)
        if worker not in self._slots:
            return []
        if facts is None:
            is_new = worker not in self._silent
            self._silent.add(worker)
            return ["it does not answer when it is asked for its versions"] if is_new else []
        found = mismatches(self._own_facts, facts)
        if found:
            self._unfit[worker] = found
        else:
            self._fit.add(worker)
        self._choose()
        return found

    def refuse_unfit(self) -> None:
        """Raise VersionMismatchError where a worker does not fit."""
        if self._unfit:
            raise explain(self._unfit, len(self._slots))

    def usable(self) -> dict[str, int]:
        """{address: slots} of the workers that may be given work."""
        return {worker: self._slots[worker] for worker in self._chosen if worker in self._running}

    def unusable(self) -> set[str]:
        """Those of which it is known that they may not be given work now."""
        judged = self._fit | self._unfit.keys() | self._silent
        return {worker for worker in judged if worker in self._slots} - self.usable().keys()

    def _choose(self) -> None:
        self._chosen = [worker for worker in self._chosen if worker in self._slots]
        for worker in self._slots:
            if self._max_workers is not None and len(self._chosen) >= self._max_workers:
                return
            if worker in self._fit and worker not in self._chosen:
                self._chosen.append(worker)
