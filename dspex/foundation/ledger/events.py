"""What can happen to a ledger: events, as tuples that msgpack can carry.

Knows: the tags and the fields of each. Must not know: who decides, who applies.

The journal holds events, never requests, so that a newer version which decides otherwise reads an
old journal as it was meant. Snapshots are events too: those that would make the same state.

===========  =================================================================================
tag          fields
===========  =================================================================================
put          collection, key, version, value, metadata, capabilities, ttl, owner, writer
drop         collection, key, version, reason
session      session, kind ("client" or "worker"), name, lease (seconds)
acked        session, the number below which replies are not kept, but for those of these numbers
             (in snapshots only)
gone         session, reason
reply        session, number, is_ok, payload
member       address, incarnation, session, name, host, state, capacity
grant        token, session, kind, worker, amounts, labels, tenant, priority
free         token, reason
quota        tenant, limits
lock         namespace, name, token, session, kind ("lock" or "leader")
unlock       namespace, name, token, reason
===========  =================================================================================

A token is ``(term, n)``. ``amounts`` is ``{"cpu_cores", "memory_gb", "gpus"}``. ``capacity`` is
the same with ``"labels"``. ``limits`` is ``{"cpu_cores", "memory_gb", "max_concurrent"}``, each
None where there is no limit; ``limits`` None ends the quota.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeAlias

__all__ = ["Emit", "Event", "Part", "Token"]

Event: TypeAlias = tuple[Any, ...]

Token: TypeAlias = tuple[int, int]
"""(term, n): grows with every grant, over restarts of the scheduler too."""

Emit: TypeAlias = Callable[[Event], None]
"""Applies an event to every part that knows its tag, and has it journalled with the step."""


class Part(Protocol):
    """One pure state machine of the ledger.

    A part decides in methods that are given `emit`, and changes its state in `apply` alone, so
    that a replay of its events gives the same state. What need not survive (who waits, when a
    session was renewed) may change without an event.
    """

    tags: frozenset[str]

    def apply(self, event: Event, now: float) -> None:
        """Take what happened; `now` is the instant of the live clock, or that of the replay."""

    def dump(self) -> Iterator[Event]:
        """Events that make the state as it is at this call, however late they are taken."""

    def validate(self) -> None:
        """Assert the invariants."""
