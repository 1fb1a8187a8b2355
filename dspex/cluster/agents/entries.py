"""What the ledger is told of a turn.

Knows: the fields of a turn (`ledger.agents.turns`). Must not know: when it is told.
"""

from __future__ import annotations

from typing import Any

from dspex.cluster.agents.resident import NO_CHANGES, Changes, Outcome
from dspex.cluster.agents.turns import TurnContext
from dspex.foundation.agents.cells import Cell, Verdict
from dspex.foundation.agents.dedup import Fields
from dspex.foundation.agents.messages import (
    CAST,
    DONE,
    MessageLike,
    fingerprint_of,
)
from dspex.foundation.ledger.agents.turns import pack_turn

__all__ = ["answer_of", "entry_of", "what_changed"]


def what_changed(cell: Cell, changes: Changes, context: TurnContext) -> dict[str, Any]:
    """Its state, what it sent, how far it has counted."""
    entry: dict[str, Any] = {"a": cell.key, "i": cell.token}
    if changes.changed:
        entry["s"] = changes.changed
    if changes.deleted:
        entry["d"] = changes.deleted
    if context.is_kept and context.outgoing:
        entry["o"] = context.outgoing
    if context.is_kept and context.sent > context.base:
        entry["n"] = context.sent
    return entry


def entry_of(
    cell: Cell, message: MessageLike, outcome: Outcome, answered: Fields | None
) -> bytes | None:
    """What is kept of a turn of a persistent agent; None where it had no effect.

    Such a turn may run again: nobody can tell.

    Parameters
    ----------
    answered : tuple or None
        What is kept of its answer, where the message takes effect once.
    """
    context = outcome.context
    if outcome.changes is NO_CHANGES and context.sent == context.base:
        return None
    entry = what_changed(cell, outcome.changes, context)
    if answered is not None:
        entry["r"] = (message.sender, message.number, message.below, *answered)
    return pack_turn(entry)


def answer_of(message: MessageLike, verdict: Verdict) -> Fields:
    """What is kept of the answer to a message that takes effect once."""
    status, payload = verdict
    return status == DONE, None if message.flags & CAST else payload, fingerprint_of(message)
