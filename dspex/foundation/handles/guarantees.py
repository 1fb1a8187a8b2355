"""What a backend is asked for, against what it gives.

Knows: the three guarantees of a backend, and which read needs which. Must not know: any backend.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, TypeAlias

from dspex.errors import InvalidArgumentError, UnsupportedGuaranteeError
from dspex.foundation.ports import RegistryBackend

__all__ = ["GUARANTEES", "Consistency", "check_consistency", "check_required"]

Consistency: TypeAlias = Literal["strong", "eventual"]

GUARANTEES = ("linearizable", "shared", "durable")


def check_required(backend: RegistryBackend, require: Iterable[str]) -> None:
    """Refuse a backend that does not give all that is required.

    Raises
    ------
    UnsupportedGuaranteeError, InvalidArgumentError
    """
    wanted = (require,) if isinstance(require, str) else tuple(require)
    for name in wanted:
        if name not in GUARANTEES:
            raise InvalidArgumentError(
                f"a guarantee is one of {', '.join(GUARANTEES)}; got {name!r:.80}"
            )
    missing = [name for name in wanted if not getattr(backend, name)]
    if missing:
        given = [name for name in GUARANTEES if getattr(backend, name)]
        raise UnsupportedGuaranteeError(
            f"the registry is required to be {', '.join(wanted)}; {type(backend).__name__} is "
            f"{', '.join(given) or 'none of these'}; choose another backend or journal, or "
            f"require less",
            missing=", ".join(missing),
        )


def check_consistency(
    backend: RegistryBackend, consistency: Consistency | None, partition_tolerance: bool
) -> bool:
    """Whether a read is eventual.

    Raises
    ------
    UnsupportedGuaranteeError, InvalidArgumentError
    """
    if consistency not in (None, "strong", "eventual"):
        raise InvalidArgumentError(
            f'consistency is "strong", "eventual" or None; got {consistency!r:.80}'
        )
    if consistency == "strong" and not backend.linearizable:
        raise UnsupportedGuaranteeError(
            f'consistency="strong" needs a linearizable backend; {type(backend).__name__} is not; '
            "leave consistency out, or choose another backend"
        )
    if partition_tolerance and consistency != "eventual":
        raise UnsupportedGuaranteeError(
            "no system gives strong reads to the side of a partition that is cut off; got "
            f'partition_tolerance=True with consistency={consistency!r}; pass "eventual", or leave '
            "partition_tolerance out"
        )
    return consistency == "eventual"
