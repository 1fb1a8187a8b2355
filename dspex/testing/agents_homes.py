"""An agent's object without a host: its turns, what is kept of them, its next home.

Knows: residents. Must not know: mailboxes, ledgers.
"""

from __future__ import annotations

from typing import Any, final

from dspex.cluster.agents.resident import Changes, Outcome, Resident, dumps, loads
from dspex.cluster.agents.turns import TurnContext

__all__ = ["Home"]


@final
class Home:
    """A resident, and what a ledger would have of it."""

    def __init__(self, cls: type, *args: Any, is_kept: bool = True) -> None:
        self.cls = cls
        self.is_kept = is_kept
        self.version = int(getattr(cls, "version", 0))
        self.args = dumps((args, {}))
        self.kept: dict[str, bytes] = {}
        self.resident = Resident(cls, is_kept=is_kept)

    def context(self) -> TurnContext:
        return TurnContext(":x", None, 0, None, is_kept=self.is_kept)

    def make(self) -> Changes:
        context = self.context()
        assert self.resident.make(self.args, context) is None
        return self.keep(self.resident.first_changes(context, self.version))

    def keep(self, changes: Changes) -> Changes:
        self.kept |= changes.changed
        for key in changes.deleted:
            del self.kept[key]
        return changes

    def call(self, name: str, *args: Any, **named: Any) -> Outcome:
        outcome = self.resident.run(name, dumps((args, named)), self.context())
        self.keep(outcome.changes)
        if self.is_kept:
            assert self.resident.committed == self.kept
        return outcome

    def result(self, name: str, *args: Any) -> Any:
        outcome = self.call(name, *args)
        assert outcome.is_ok, loads(outcome.payload)
        return loads(outcome.payload)

    def error(self, name: str, *args: Any) -> BaseException:
        outcome = self.call(name, *args)
        assert not outcome.is_ok
        error, told = loads(outcome.payload)
        assert isinstance(error, BaseException)
        assert isinstance(told, str)
        return error

    def changed(self, name: str, *args: Any) -> tuple[list[str], list[str]]:
        outcome = self.call(name, *args)
        return sorted(outcome.changes.changed), sorted(outcome.changes.deleted)

    def again(self, cls: type | None = None, *, kept: Any = None) -> Home:
        """The same agent at its next host."""
        home = Home(cls or self.cls, is_kept=self.is_kept)
        home.args = self.args
        home.kept = dict(self.kept if kept is None else kept)
        context = home.context()
        assert home.resident.restore(home.args, home.kept, context, home.version) is None
        home.keep(home.resident.first_changes(context, home.version))
        return home
