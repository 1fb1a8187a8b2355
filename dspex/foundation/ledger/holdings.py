"""What is leased: who holds how much of which worker, and what each tenant may have.

Knows: members, grants, their ends, quotas, all as events. Must not know: who may be granted next
(`resources`), who waits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, final

from dspex.errors import InvalidRequestError
from dspex.foundation.ledger.amounts import NOTHING, Amounts, amounts_from
from dspex.foundation.ledger.events import Event, Token
from dspex.foundation.ledger.fleet import Fleet, Worker
from dspex.foundation.ledger.quotas import Limits, Quotas, Use, limits_from

__all__ = ["Held", "Holdings"]


class Held(NamedTuple):
    """A lease that is held.

    Attributes
    ----------
    incarnation : token
        Of the worker when it was granted; another one at the address has not given it.
    """

    token: Token
    session: str
    kind: str
    worker: str
    incarnation: Token
    amounts: Amounts
    labels: tuple[str, ...]
    tenant: str | None
    priority: float


@final
class Holdings:
    """All leases, and the sums over them.

    Attributes
    ----------
    fleet : Fleet
    quotas : Quotas
    leases : dict of token to Held
        Oldest first.
    over : dict of token to None
        Leases on workers that are gone, which have not ended yet.
    """

    def __init__(self) -> None:
        self.fleet = Fleet()
        self.quotas = Quotas()
        self.leases: dict[Token, Held] = {}
        self.over: dict[Token, None] = {}
        self._by_session: dict[str, dict[Token, None]] = {}
        self._kinds: dict[str, Use] = {}

    def apply(self, event: Event) -> None:
        """Take what happened."""
        tag = event[0]
        if tag == "grant":
            self._granted(*event[1:])
        elif tag == "free":
            self._freed((event[1][0], event[1][1]))
        elif tag == "member":
            _, address, incarnation, _, name, host, state, capacity = event
            over = self.fleet.saw(
                address, (incarnation[0], incarnation[1]), name, host, state, capacity
            )
            self.over.update(dict.fromkeys(over))
        elif tag == "quota":
            self.quotas.limit(event[1], None if event[2] is None else limits_from(event[2]))

    def _granted(
        self,
        token: Token,
        session: str,
        kind: str,
        address: str,
        amounts: Mapping[str, Any],
        labels: Iterable[str],
        tenant: str | None,
        priority: float,
    ) -> None:
        worker = self.fleet.get(address)
        assert worker is not None, "a lease is granted on a member"
        taken = amounts_from(amounts)
        lease = Held(
            (token[0], token[1]),
            session,
            kind,
            address,
            worker.incarnation,
            taken,
            tuple(labels),
            tenant,
            priority,
        )
        self.leases[lease.token] = lease
        self._by_session.setdefault(session, {})[lease.token] = None
        self.fleet.take(worker, lease.token, kind, taken)
        self.quotas.take(tenant, taken)
        self._kinds[kind] = self._kinds.get(kind, Use()).plus(taken)

    def _freed(self, token: Token) -> None:
        lease = self.leases.pop(token)
        tokens = self._by_session[lease.session]
        del tokens[token]
        if not tokens:
            del self._by_session[lease.session]
        if token in self.over:
            del self.over[token]
        else:
            worker = self.fleet.get(lease.worker)
            assert worker is not None
            assert worker.incarnation == lease.incarnation
            self.fleet.give(worker, token, lease.kind, lease.amounts)
        self.quotas.give(lease.tenant, lease.amounts)
        use = self._kinds[lease.kind].minus(lease.amounts)
        if use.leases:
            self._kinds[lease.kind] = use
        else:
            del self._kinds[lease.kind]

    def dump(self) -> Iterator[Event]:
        """Events that make the state; those of the members have been taken before."""
        # Quotas come last: what was granted before one was lowered is over it.
        return _dump(tuple(self.leases.values()), self.quotas.limits())

    def of_session(self, session: str) -> tuple[Token, ...]:
        """What a session holds, oldest first."""
        return tuple(self._by_session.get(session, ()))

    def snapshot(self) -> list[dict[str, Any]]:
        """The workers that give, with what is free on each, and its version."""
        return [
            {
                "address": worker.address,
                "name": worker.name,
                "host": worker.host,
                "capacity": worker.capacity.public(),
                "free": worker.free.public(),
                "labels": sorted(worker.labels),
                "load": worker.load / 1_000_000,
                "leases": len(worker.held),
                "version": worker.version,
            }
            for worker in self.fleet.least_loaded_first()
        ]

    def usage(self, by: str) -> dict[str, dict[str, Any]]:
        """What is leased by "worker", "tenant" or "kind".

        Returns
        -------
        dict
            {name: {"cpu_cores", "memory_gb", "gpus", "leases"}}, and of workers also their
            "capacity", of tenants their "limits".

        Raises
        ------
        InvalidRequestError
        """
        if by == "worker":
            return {worker.address: _use_of(worker) for worker in self.fleet}
        if by == "kind":
            return {kind: use.public() for kind, use in self._kinds.items()}
        if by == "tenant":
            uses, limits = self.quotas.uses(), self.quotas.limits()
            return {
                tenant: {
                    **uses.get(tenant, Use()).public(),
                    "limits": limits[tenant].public() if tenant in limits else None,
                }
                for tenant in sorted(uses.keys() | limits.keys())
            }
        raise InvalidRequestError(f'usage is by "worker", "tenant" or "kind"; got {by!r:.80}')

    def validate(self) -> None:
        """Assert the invariants; to be called between steps."""
        self.fleet.validate()
        self.quotas.validate()
        on: dict[str, Amounts] = {}
        tenants: dict[str, Use] = {}
        kinds: dict[str, Use] = {}
        for token, lease in self.leases.items():
            assert token == lease.token
            assert token in self._by_session[lease.session]
            kinds[lease.kind] = kinds.get(lease.kind, Use()).plus(lease.amounts)
            if lease.tenant is not None:
                tenants[lease.tenant] = tenants.get(lease.tenant, Use()).plus(lease.amounts)
            if token not in self.over:
                worker = self.fleet.get(lease.worker)
                assert worker is not None
                assert worker.incarnation == lease.incarnation
                assert token in worker.held
                on[lease.worker] = on.get(lease.worker, NOTHING).plus(lease.amounts)
        assert kinds == self._kinds
        assert tenants == self.quotas.uses()
        assert sum(map(len, self._by_session.values())) == len(self.leases)
        for worker in self.fleet:
            assert worker.taken == on.get(worker.address, NOTHING)


def _use_of(worker: Worker) -> dict[str, Any]:
    use = Use(worker.taken, len(worker.held))
    return {**use.public(), "capacity": worker.capacity.public(), "state": worker.state}


def _dump(leases: Iterable[Held], limits: Mapping[str, Limits]) -> Iterator[Event]:
    for token, session, kind, worker, _, amounts, labels, tenant, priority in leases:
        yield "grant", token, session, kind, worker, amounts.public(), labels, tenant, priority
    for tenant, each in limits.items():
        yield "quota", tenant, each.public()
