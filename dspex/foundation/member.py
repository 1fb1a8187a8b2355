"""A worker as the foundation sees it, and what happens to workers.

Knows: the fields. Must not know: who judges.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

__all__ = ["Member", "MemberEvent"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A worker.

    Attributes
    ----------
    address, name, host : str
    state : str
        "joining", "up", "suspected" (silent for two thirds of its lease), "draining" (gets nothing
        new), "lost" or "left".
    incarnation : tuple of (term, n)
        Another one each time that it joins; larger than all before.
    capacity : mapping
        ``{"cpu_cores": float, "memory_gb": float, "gpus": float, "labels": list of str}``.
    load : mapping
        ``{"cpu_percent", "memory_gb", "tasks"}`` as measured by its last heartbeat to Dask; empty
        where it is not known.
    """

    address: str
    name: str
    host: str
    state: str
    incarnation: tuple[int, int]
    capacity: Mapping[str, Any]
    load: Mapping[str, float]

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Member:
        """Take what the ledger tells."""
        term, n = fields["incarnation"]
        return cls(
            address=fields["address"],
            name=fields["name"],
            host=fields["host"],
            state=fields["state"],
            incarnation=(term, n),
            capacity=fields["capacity"],
            load=fields.get("load", {}),
        )


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class MemberEvent:
    """What happened to a member.

    Attributes
    ----------
    kind : str
        "joined", "suspected", "recovered", "draining", "lost" or "left".
    member : Member
    """

    kind: str
    member: Member
