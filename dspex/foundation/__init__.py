"""Who holds what: the registry, the state store, leases, locks, members.

Knows: pure state machines (`ledger`) and what users hold of them (`handles`). Must not know: Dask,
clocks, files. Names are imported when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dspex.foundation.handles.entry import Entry
    from dspex.foundation.handles.foundation import Foundation
    from dspex.foundation.handles.lease import Lease
    from dspex.foundation.handles.locks import Election, Leader, Lock
    from dspex.foundation.handles.rates import RateLimit
    from dspex.foundation.handles.registry import Registry
    from dspex.foundation.handles.resources import ResourceManager, WorkerView
    from dspex.foundation.handles.state_store import StateStore
    from dspex.foundation.handles.watching import WatchEvent
    from dspex.foundation.member import Member, MemberEvent
    from dspex.foundation.ports import RegistryBackend
    from dspex.foundation.query import Query
    from dspex.foundation.record import Record
    from dspex.foundation.state import State, Version
    from dspex.foundation.status import Status

# {public name: where it lives}
_HOMES = {
    "Election": "handles.locks",
    "Entry": "handles.entry",
    "Foundation": "handles.foundation",
    "Leader": "handles.locks",
    "Lease": "handles.lease",
    "Lock": "handles.locks",
    "Member": "member",
    "MemberEvent": "member",
    "Move": "handles.scaling",
    "Query": "query",
    "RateLimit": "handles.rates",
    "Record": "record",
    "RecoveryReport": "handles.recovery",
    "Registry": "handles.registry",
    "RegistryBackend": "ports",
    "ResourceManager": "handles.resources",
    "Restarted": "handles.scaling",
    "State": "state",
    "StateStore": "handles.state_store",
    "Status": "status",
    "Version": "state",
    "WatchEvent": "handles.watching",
    "WorkerView": "handles.resources",
}

__all__ = [
    "Election",
    "Entry",
    "Foundation",
    "Leader",
    "Lease",
    "Lock",
    "Member",
    "MemberEvent",
    "Move",
    "Query",
    "RateLimit",
    "Record",
    "RecoveryReport",
    "Registry",
    "RegistryBackend",
    "ResourceManager",
    "Restarted",
    "State",
    "StateStore",
    "Status",
    "Version",
    "WatchEvent",
    "WorkerView",
]


def __getattr__(name: str) -> Any:
    # Workers that are asked for their protocol should not load all of it.
    if name in _HOMES:
        return getattr(import_module(f"dspex.foundation.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
