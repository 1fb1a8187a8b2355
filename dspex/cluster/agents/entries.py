"""What the ledger is told of a turn.

Knows: the fields of a turn (`ledger.agents.record.Agent.take`). Must not know: when it is told.
"""

from __future__ import annotations

from typing import Any

from dspex.cluster.agents.resident import Changes, Outcome, Resident
from dspex.cluster.agents.turns import TurnContext
from dspex.foundation.agents.inbox import Cell
from dspex.foundation.agents.messages import CAST, DELIVERY, EXACTLY_ONCE, Message, fingerprint_of

__all__ = ["entry_of", "what_changed"]


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


def entry_of(cell: Cell, message: Message, outcome: Outcome) -> dict[str, Any] | None:
    """What is kept of a turn that was called for; None where it had no effect.

    Such a turn may run again: nobody can tell.
    """
    resident: Resident = cell.resident
    context = outcome.context
    has_effect = outcome.changes.changed or outcome.changes.deleted or context.sent > context.base
    if not resident.is_kept or not has_effect:
        return None
    entry = what_changed(cell, outcome.changes, context)
    if message.flags & DELIVERY == EXACTLY_ONCE:
        entry["r"] = (
            message.sender,
            message.number,
            message.below,
            outcome.is_ok,
            None if message.flags & CAST else outcome.payload,
            fingerprint_of(message),
        )
    return entry
