"""What there is, for people: a mapping whose repr fits a terminal.

Knows: the numbers that the ledger's ring tells. Must not know: how they came about.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, final

__all__ = ["Status"]

_SHOWN = 10


@final
class Status(Mapping[str, Any]):
    """The state of a foundation at one moment; plain data, to be read as a dict.

    Keys: ``term``, ``revision``, ``committed``, ``journal``, ``members``, ``sessions``,
    ``entries``, ``resources``, ``tenants``, ``leases``, ``waiting``, ``locks``, ``agents``,
    ``calls``, ``refused``, ``loop_seconds``, ``recovery_seconds``.
    """

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self._fields = dict(fields)

    def __getitem__(self, key: str) -> Any:
        return self._fields[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __repr__(self) -> str:
        journal = self["journal"]
        copies = "1 copy" if journal["copies"] == 1 else f"{journal['copies']} copies"
        kept = "kept on disk" if journal["durable"] else "in memory only"
        lines = [
            f"Foundation, term {self['term']}, revision {self['revision']}",
            f"  journal   {journal['url']} ({kept}, {copies})",
            f"  members   {len(self['members'])}",
        ]
        if journal["trouble"]:
            lines.insert(2, f"  TROUBLE   {journal['trouble']}")
        for member in self["members"]:
            if member["state"] == "joining":
                lines.append(
                    f"    {'joining':<10}{member['name']} at {member['address']}: known to Dask "
                    "alone; if it stays so, install dspex there"
                )
                continue
            capacity, load = member["capacity"], member.get("load", {})
            busy = f", {load['cpu_percent']:.0f} % cpu" if load else ""
            lines.append(
                f"    {member['state']:<10}{member['name']} at {member['address']}: "
                f"{capacity['cpu_cores']:g} cores, {capacity['memory_gb']:.1f} GB{busy}"
            )
        lines += [
            f"  sessions  {self['sessions']}",
            f"  entries   {self['entries']}",
            f"  leases    {self['leases']}, {self['waiting']} calls waiting",
            f"  locks     {self['locks']}",
        ]
        agents = self["agents"]
        if agents["count"]:
            nowhere = f", {agents['unplaced']} of them nowhere" if agents["unplaced"] else ""
            lines.append(f"  agents    {agents['count']}{nowhere}")
            for key, reason in list(agents["reasons"].items())[:_SHOWN]:
                lines.append(f"    {key.partition(':')[2]}: {reason}")
        return "\n".join(lines)
