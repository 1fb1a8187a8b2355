"""The anchors of a study: on each worker that works for it one, and behind it a pool (`tasks`).

Knows: how work is tied to an anchor, and an anchor to its worker. Must not know: which worker is
given which work.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, KeysView
from typing import Any, final

from distributed import Future

from dspex.cluster.dispatch import Chunk
from dspex.cluster.link import Link
from dspex.cluster.tasks import pack_chunk

__all__ = ["Anchors"]


@final
class Anchors:
    """Runs chunks.

    Attributes
    ----------
    used : dict of address to keys
        Of all anchors that a worker that is there has had; their pools are to be ended.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._anchors: dict[str, Future[Any]] = {}
        self.isolation = "process"
        self.used: dict[str, set[str]] = {}

    @property
    def workers(self) -> KeysView[str]:
        """Those that have one."""
        return self._anchors.keys()

    def run(self, chunk: Chunk, find_copy: Callable[[str], Future[Any] | None]) -> Future[Any]:
        """Submit a chunk, where needed with an anchor made from a copy of the payload."""
        worker = chunk.worker
        if worker not in self._anchors:
            copy = find_copy(worker)
            assert copy is not None
            key = self._link.new_key()
            opening = operator.methodcaller("open", self.isolation)
            self._anchors[worker] = self._link.submit_task(key, opening, copy, worker)
            self.used.setdefault(worker, set()).add(key)
        running = operator.methodcaller("run", pack_chunk(chunk.evaluations))
        anchor = self._anchors[worker]
        future: Future[Any] = self._link.submit_task(self._link.new_key(), running, anchor, worker)
        return future

    # Dropping the last reference to a future releases its key.

    def drop(self, worker: str) -> None:
        """Make another one for the next chunk."""
        self._anchors.pop(worker, None)

    def left(self, worker: str) -> None:
        """The worker is gone, with all that it had."""
        self.drop(worker)
        self.used.pop(worker, None)

    def forget(self) -> None:
        """Release all."""
        self._anchors.clear()
