"""How much each tenant may have at once, and has.

Knows: limits, sums. Must not know: workers, who holds what.

A quota that is lowered takes nothing away: what was granted before stays until it is given back,
and nothing new is granted meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, final

from dspex.errors import InvalidRequestError
from dspex.foundation.ledger.amounts import NOTHING, Amounts, in_units

__all__ = ["Limits", "Quotas", "Use", "limits_from"]


class Use(NamedTuple):
    """A sum over leases."""

    amounts: Amounts = NOTHING
    leases: int = 0

    def plus(self, amounts: Amounts) -> Use:
        """One lease more."""
        return Use(self.amounts.plus(amounts), self.leases + 1)

    def minus(self, amounts: Amounts) -> Use:
        """One lease less."""
        return Use(self.amounts.minus(amounts), self.leases - 1)

    def public(self) -> dict[str, float]:
        """As replies carry it."""
        return {**self.amounts.public(), "leases": self.leases}


class Limits(NamedTuple):
    """The most that a tenant may have at once; None: no limit."""

    cpu: int | None = None
    memory: int | None = None
    leases: int | None = None

    def allows(self, use: Use) -> bool:
        """Whether a tenant may have so much."""
        cpu, memory, leases = self
        return (
            (cpu is None or use.amounts.cpu <= cpu)
            and (memory is None or use.amounts.memory <= memory)
            and (leases is None or use.leases <= leases)
        )

    def public(self) -> dict[str, float | None]:
        """In the units that people write, as events carry it."""
        return {
            "cpu_cores": None if self.cpu is None else self.cpu / 1_000,
            "memory_gb": None if self.memory is None else self.memory / 1_000_000_000,
            "max_concurrent": self.leases,
        }

    def __str__(self) -> str:
        given = {name: value for name, value in self.public().items() if value is not None}
        return ", ".join(f"{name}={value:g}" for name, value in given.items()) or "no limit"


def limits_from(public: Mapping[str, Any]) -> Limits:
    """Limits from what people write; what is absent or None has no limit.

    Raises
    ------
    InvalidRequestError
        For other names, and for what is negative or no number.

    Examples
    --------
    >>> limits_from({"cpu_cores": 2, "max_concurrent": 8})
    Limits(cpu=2000, memory=None, leases=8)
    """
    names = ("cpu_cores", "memory_gb", "max_concurrent")
    unknown = public.keys() - set(names)
    if unknown:
        raise InvalidRequestError(
            f"a quota limits {', '.join(names)}; got {sorted(unknown)!r:.120}"
        )
    cpu, memory, leases = map(public.get, names)
    if leases is not None and (
        isinstance(leases, bool)
        or not isinstance(leases, int | float)
        or not leases >= 0
        or leases % 1
    ):
        raise InvalidRequestError(
            f"max_concurrent is a whole number from 0, or None for no limit; got {leases!r:.80}"
        )
    return Limits(
        None if cpu is None else in_units("cpu_cores", cpu),
        None if memory is None else in_units("memory_gb", memory),
        None if leases is None else int(leases),
    )


@final
class Quotas:
    """Limits and use of every tenant.

    Examples
    --------
    >>> quotas = Quotas()
    >>> quotas.limit("me", limits_from({"max_concurrent": 1}))
    >>> quotas.has_room("me", NOTHING)
    True
    >>> quotas.take("me", NOTHING), quotas.has_room("me", NOTHING)
    (None, False)
    """

    def __init__(self) -> None:
        self._limits: dict[str, Limits] = {}
        self._uses: dict[str, Use] = {}
        self._over: set[str] = set()  # those who had more when their quota was lowered

    def limit(self, tenant: str, limits: Limits | None) -> None:
        """Set a quota; None ends it."""
        if limits is None:
            self._limits.pop(tenant, None)
        else:
            self._limits[tenant] = limits
        self._mark(tenant)

    def limits(self) -> dict[str, Limits]:
        """{tenant: limits}, a copy."""
        return dict(self._limits)

    def limits_of(self, tenant: str | None) -> Limits:
        """The limits of a tenant; without a quota there are none."""
        return self._limits.get(tenant, Limits()) if tenant is not None else Limits()

    def has_room(self, tenant: str | None, amounts: Amounts) -> bool:
        """Whether a tenant may have so much more now."""
        limits = self._limits.get(tenant) if tenant is not None else None
        if limits is None or tenant is None:
            return True
        return limits.allows(self._uses.get(tenant, Use()).plus(amounts))

    def could_have(self, tenant: str | None, amounts: Amounts) -> bool:
        """Whether a tenant may have so much when it has nothing else."""
        return self.limits_of(tenant).allows(Use(amounts, 1))

    def take(self, tenant: str | None, amounts: Amounts) -> None:
        """Take note of a lease."""
        if tenant is not None:
            self._uses[tenant] = self._uses.get(tenant, Use()).plus(amounts)

    def give(self, tenant: str | None, amounts: Amounts) -> None:
        """Take note that a lease is over."""
        if tenant is not None:
            use = self._uses[tenant].minus(amounts)
            if use.leases:
                self._uses[tenant] = use
            else:
                del self._uses[tenant]
            self._mark(tenant)

    def _mark(self, tenant: str) -> None:
        if self.limits_of(tenant).allows(self._uses.get(tenant, Use())):
            self._over.discard(tenant)
        else:
            self._over.add(tenant)

    def uses(self) -> dict[str, Use]:
        """{tenant: use} of those that have something, a copy."""
        return dict(self._uses)

    def validate(self) -> None:
        """Assert that nobody has more than allowed, but for those whose quota was lowered."""
        for tenant, use in self._uses.items():
            assert use.leases > 0
            assert use.amounts.holds(NOTHING)
            assert tenant in self._over or self.limits_of(tenant).allows(use)
