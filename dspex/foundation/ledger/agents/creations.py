"""Who waits until agents are made.

Knows: calls, keys. Must not know: what an agent is.

It need not survive: a call that waits is made again at the next scheduler, which finds the agents.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, final

from dspex.foundation.ledger.events import Emit

__all__ = ["Creations"]

_Call = tuple[str, int]


@final
class Creations:
    """Creations that are under way.

    Examples
    --------
    >>> creations, told = Creations(), []
    >>> creations.wait(("me", 1), {"a"})
    >>> creations.made(["a"], told.append)
    >>> told
    [('reply', 'me', 1, True, {'failed': []})]
    """

    def __init__(self) -> None:
        self._unready: dict[_Call, set[str]] = {}
        self._calls: dict[str, list[_Call]] = {}
        self._failures: dict[_Call, list[Any]] = {}

    def __contains__(self, call: object) -> bool:
        return call in self._unready

    def wait(self, call: _Call, keys: set[str]) -> None:
        """Have a call wait for agents."""
        self._unready[call] = set(keys)
        for key in keys:
            self._calls.setdefault(key, []).append(call)

    def made(self, keys: Iterable[str], emit: Emit, failure: Any = None) -> None:
        """Tell those who wait for agents that they are made, or cannot be."""
        for key in keys:
            for call in self._calls.pop(key, ()):
                unready = self._unready.get(call)
                if unready is None:
                    continue
                unready.discard(key)
                if failure is not None:
                    self._failures.setdefault(call, []).append([key, failure])
                if not unready:
                    del self._unready[call]
                    failed = self._failures.pop(call, [])
                    emit(("reply", *call, True, {"failed": failed}))

    def cancel(self, call: _Call) -> None:
        """Forget a creation that nobody waits for any more; its agents stay."""
        self._unready.pop(call, None)
        self._failures.pop(call, None)

    def session_gone(self, session: str) -> None:
        """Forget who waits for agents to be made."""
        for call in [each for each in self._unready if each[0] == session]:
            self.cancel(call)
