"""What holders believe, and what is so: the promises of leases and locks.

Knows: what clients of a simulated foundation hold, and its ledger. Must not know: who did what.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from dspex.foundation.ledger.holdings import Held
from dspex.foundation.ledger.ledger import Ledger
from dspex.foundation.ledger.locks import LockHeld
from dspex.testing.foundation_parties import CORES, Process
from dspex.testing.foundation_scheduler import QUOTA

__all__ = ["RECORDS", "HeldName", "HeldPart", "check_beliefs", "check_rest"]

RECORDS = "r:"


class HeldName(NamedTuple):
    """A lock or a leadership that is believed to be held."""

    name: str


class HeldPart(NamedTuple):
    """A part of a worker that is believed to be held."""

    worker: str
    cores: float
    tenant: str | None


def check_beliefs(ledger: Ledger, clients: Sequence[Process]) -> None:
    """Assert that no two believe to hold one thing, and that what is believed is so."""
    names: dict[str, str] = {}
    cores: dict[str, float] = {}
    team = 0
    for client in clients:
        for token, what in client.believes().items():
            if isinstance(what, HeldName):
                assert what.name not in names, f"{client.name} and {names[what.name]}: {what}"
                names[what.name] = client.name
                assert ledger.locks.verify(token), f"{client.name} lost {what} too early"
            elif ledger.resources.verify(token):
                cores[what.worker] = cores.get(what.worker, 0.0) + what.cores
                team += what.tenant is not None
            else:
                # A lease dies with the incarnation of its worker, of which its holder need not
                # have heard; tokens and incarnations are of one count.
                worker = ledger.members.get(what.worker)
                is_same = worker is not None and (0, 0) < worker["incarnation"] < token
                assert not is_same, f"{client.name} lost {what} too early"
    assert all(amount <= CORES for amount in cores.values()), cores
    assert team <= QUOTA, f"{team} leases of a tenant that may have {QUOTA}"


def check_rest(ledger: Ledger, clients: Sequence[Process], workers: Sequence[Process]) -> None:
    """Assert, after a time of calm, that holders know what they hold, and the rest is gone."""
    holders = {client.session: client for client in clients}
    held: list[Held | LockHeld] = [*ledger.resources.leases(), *ledger.locks.held().values()]
    for each in held:
        assert each.session in holders, f"{each} is held by nobody"
        assert each.token in holders[each.session].held, f"nobody knows that he has {each}"
    for client in clients:
        assert client.believes() == client.held, f"{client.name} has no session"
    for record in ledger.records.all(RECORDS):
        assert record.owner is None or record.owner in holders, f"{record} is tied to nobody"
    # One that died before it joined is Dask's, until Dask finds out.
    states = {each["address"]: each["state"] for each in ledger.members.everyone()}
    there = {address for address, state in states.items() if state != "joining"}
    assert there == {worker.name for worker in workers}, states
    assert set(states.values()) <= {"up", "draining", "joining"}, states
