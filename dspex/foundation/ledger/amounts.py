"""How much of each resource: whole numbers inside, so that sums are exact.

Knows: the units. Must not know: who has it, who wants it.

Outside people write cores, gigabytes (10^9 bytes) and gpus, fractions too. Inside all of it is
counted in thousandths of a core, bytes and thousandths of a gpu: a thousand grants and releases
of 0.1 core leave what they found, which floats do not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from dspex.errors import InvalidRequestError

__all__ = ["NOTHING", "Amounts", "amounts_from", "in_units"]

_UNITS = {"cpu_cores": 1_000, "memory_gb": 1_000_000_000, "gpus": 1_000}
_MOST = 2**53  # beyond it floats are not exact


class Amounts(NamedTuple):
    """So much of each.

    Attributes
    ----------
    cpu : int
        Thousandths of a core.
    memory : int
        Bytes.
    gpus : int
        Thousandths of a gpu.
    """

    cpu: int = 0
    memory: int = 0
    gpus: int = 0

    def plus(self, other: Amounts) -> Amounts:
        """The sum of each."""
        cpu, memory, gpus = other
        return Amounts(self.cpu + cpu, self.memory + memory, self.gpus + gpus)

    def minus(self, other: Amounts) -> Amounts:
        """The difference of each."""
        cpu, memory, gpus = other
        return Amounts(self.cpu - cpu, self.memory - memory, self.gpus - gpus)

    def at_least(self, other: Amounts) -> Amounts:
        """The larger of each."""
        return Amounts(
            max(self.cpu, other.cpu), max(self.memory, other.memory), max(self.gpus, other.gpus)
        )

    def holds(self, other: Amounts) -> bool:
        """Whether there is no less of anything here than there."""
        return self.cpu >= other.cpu and self.memory >= other.memory and self.gpus >= other.gpus

    def public(self) -> dict[str, float]:
        """In the units that people write, as events and replies carry it.

        Examples
        --------
        >>> Amounts(1500, 4_000_000_000).public()
        {'cpu_cores': 1.5, 'memory_gb': 4.0, 'gpus': 0.0}
        """
        return {
            "cpu_cores": self.cpu / 1_000,
            "memory_gb": self.memory / 1_000_000_000,
            "gpus": self.gpus / 1_000,
        }

    def __str__(self) -> str:
        parts = [f"{value:g} {name}" for name, value in self.public().items() if value]
        return ", ".join(parts) or "nothing"


NOTHING = Amounts()


def amounts_from(public: Mapping[str, Any]) -> Amounts:
    """Whole numbers from what people write; what is absent or None is 0.

    Parameters
    ----------
    public : mapping
        Some of "cpu_cores", "memory_gb", "gpus".

    Raises
    ------
    InvalidRequestError
        For other names, and for what is negative or no finite number.

    Examples
    --------
    >>> amounts_from({"cpu_cores": 0.1})
    Amounts(cpu=100, memory=0, gpus=0)
    """
    if not public.keys() <= _UNITS.keys():
        unknown = sorted(map(str, public.keys() - _UNITS.keys()))
        raise InvalidRequestError(f"amounts are of {sorted(_UNITS)}; got {unknown!r:.120}")
    cpu, memory, gpus = public.get("cpu_cores"), public.get("memory_gb"), public.get("gpus")
    return Amounts(
        in_units("cpu_cores", cpu) if cpu else 0,
        in_units("memory_gb", memory) if memory else 0,
        in_units("gpus", gpus) if gpus else 0,
    )


def in_units(name: str, value: Any) -> int:
    """One amount as a whole number; never 0 where more than 0 was asked for."""
    unit = _UNITS[name]
    if type(value) in (int, float) and 0 <= value * unit < _MOST:
        return round(value * unit) or int(value > 0)
    raise InvalidRequestError(
        f"{name} is a number from 0 to {_MOST / unit:,.0f}; got {value!r:.80}"
    )
