"""Who registered, acquired, moved and dropped what, and when: lines made of events.

Knows: events, words. Must not know: where lines are shown, clocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

from dspex.foundation.ledger.events import Event

__all__ = ["AuditLine", "audit_lines"]

AuditLine: TypeAlias = tuple[float, int, str, str]
"""(unix time, revision, what was done, to what and by whom)."""

_MANY = 20
"""Events of one kind in one entry that are told one by one; more are counted."""


def _amounts(amounts: dict[str, Any]) -> str:
    return ", ".join(f"{value:g} {name}" for name, value in amounts.items() if value) or "a slot"


# {tag: (what was done, how to say the rest)}
_WORDS: dict[str, tuple[str, Callable[..., str]]] = {
    "put": ("put", lambda c, key, version, *rest: f"{c}/{key} version {version} by {rest[-1]}"),
    "drop": ("drop", lambda c, key, version, reason: f"{c}/{key}: {reason}"),
    "session": ("session", lambda session, kind, name, lease: f"{kind} {name} as {session}"),
    "gone": ("session ended", lambda session, reason: f"{session}: {reason}"),
    "member": (
        "member",
        lambda address, incarnation, session, name, host, state, capacity: (
            f"{name} at {address} is {state}, incarnation {tuple(incarnation)}"
        ),
    ),
    "grant": (
        "lease",
        lambda token, session, kind, worker, amounts, labels, tenant, priority: (
            f"{tuple(token)} of {_amounts(amounts)} on {worker} for {kind}"
            f"{f', tenant {tenant},' if tenant else ''} to {session}"
        ),
    ),
    "free": ("lease ended", lambda token, reason: f"{tuple(token)}: {reason}"),
    "quota": ("quota", lambda tenant, limits: f"of {tenant}: {limits}"),
    "lock": (
        "lock",
        lambda namespace, name, token, session, kind: (
            f"{kind} {namespace}/{name} {tuple(token)} to {session}"
        ),
    ),
    "unlock": (
        "unlock",
        lambda namespace, name, token, reason: f"{namespace}/{name} {tuple(token)}: {reason}",
    ),
}


def audit_lines(time: float, revision: int, events: Sequence[Event]) -> Iterator[AuditLine]:
    """Say what the events of one entry did.

    Examples
    --------
    >>> list(audit_lines(1.5, 7, [("free", (1, 2), "released")]))
    [(1.5, 7, 'lease ended', '(1, 2): released')]
    """
    counts: dict[str, int] = {}
    for event in events:
        tag = event[0]
        if tag not in _WORDS:
            continue
        counts[tag] = counts.get(tag, 0) + 1
        if counts[tag] <= _MANY:
            done, say = _WORDS[tag]
            yield time, revision, done, say(*event[1:])
    for tag, count in counts.items():
        if count > _MANY:
            yield time, revision, _WORDS[tag][0], f"{count - _MANY} more of the same call"
