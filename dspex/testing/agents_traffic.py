"""Calls to agents that go on while a test harms those who run them.

Knows: agents that count. Must not know: what is harmed meanwhile.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Self, final

from dspex.agents import AgentHandle, gather
from dspex.testing.probe import wait_for

__all__ = ["Traffic"]

_WITHIN = 90.0


@final
class Traffic:
    """Has each of some counters count by one, again and again, and checks every answer.

    An answer that is not the number after the one before is a call that was lost or took effect
    twice. Leaving the block ends it and raises what was found.

    Parameters
    ----------
    agents : sequence of AgentHandle
        Of `dspex.testing.agents.Counter` or `Plain`, which nobody else calls; with their counts.
    threads : int
        Among which they are shared out.

    Attributes
    ----------
    counts : list of int
        The last answer of each.
    rounds : list of int
        Of each thread.
    """

    def __init__(self, agents: Sequence[AgentHandle], *, threads: int = 2) -> None:
        self._agents = list(agents)
        self.counts = [0] * len(agents)
        self.rounds = [0] * threads
        self._errors: list[BaseException] = []
        self._ended = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(each,), name=f"traffic-{each}")
            for each in range(threads)
        ]

    def _run(self, name: int) -> None:
        mine = range(name, len(self._agents), len(self._threads))
        try:
            while not self._ended.is_set():
                answers: list[Any] = gather(
                    [self._agents[at].add() for at in mine], timeout=_WITHIN
                )
                for at, answer in zip(mine, answers, strict=True):
                    wanted = self.counts[at] + 1
                    assert answer == wanted, f"{self._agents[at]!r}: {answer} after {wanted - 1}"
                    self.counts[at] = answer
                self.rounds[name] += 1
        except BaseException as error:
            self._errors.append(error)

    def check(self) -> None:
        """Raise what was found so far."""
        if self._errors:
            raise self._errors[0]

    def go_on(self, rounds: int = 5) -> None:
        """Wait until every agent was called so many times more."""
        before = list(self.rounds)

        def are_done() -> bool:
            self.check()
            return all(now >= then + rounds for now, then in zip(self.rounds, before, strict=True))

        wait_for(are_done, seconds=_WITHIN)

    def during(self, harm: Callable[[], Any]) -> Any:
        """Do something in the midst of it: some rounds before, some after; gives what it gave."""
        self.go_on()
        given = harm()
        self.go_on()
        return given

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: object, *exc: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()
        if kind is None:
            self.check()
