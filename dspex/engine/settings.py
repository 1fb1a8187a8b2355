"""How a study is to proceed: the rules that the engine keeps.

Knows: numbers and their bounds. Must not know: where they come from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

from dspex.errors import InvalidArgumentError

__all__ = ["REPRODUCIBLE_K", "Settings", "block_size"]

REPRODUCIBLE_K = 16
"""Trials in flight of a reproducible study that says nothing else, whatever the cluster."""


def block_size(k: int) -> int:
    """How many trials one ask of a reproducible study gives: a divisor of k, about k / 16.

    Small blocks wait less for stragglers; larger ones pay the strategy's fixed cost less often.

    Examples
    --------
    >>> [block_size(k) for k in (1, 16, 100, 256)]
    [1, 1, 5, 16]
    """
    return max(b for b in range(1, max(1, k // 16) + 1) if k % b == 0)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The rules of one session of a study.

    Attributes
    ----------
    trials : int or None
        The study's total, resumed ones included; None: until something else stops it.
    k : int or None
        Trials suggested and not yet told, at most. None: two per slot, growing for short trials.
    block : int or None
        Trials per ask of a reproducible study (divides k); None: arrival order.
    retries : int
        How often an evaluation may be lost, or fail with one of ``retry_on``, and run again.
    blame_losses : bool
        Whether an evaluation lost too often fails its trial, rather than the study. Never where a
        study is reproducible.
    survive_losses : bool
        Whether evaluations may be lost without bound: where they run in children of the worker, a
        lost worker is not their doing.
    max_failures : "auto" or int
        "auto": give up when the first ten trials of a session all fail. A number: stop once more
        trials than that failed.
    target_score : float or None
        Stop once the first objective is at least this good.
    trial_timeout : float or None
        Seconds that the evaluations of one trial may take in sum.
    """

    trials: int | None = 100
    k: int | None = None
    block: int | None = None
    retries: int = 2
    blame_losses: bool = True
    survive_losses: bool = False
    max_failures: Literal["auto"] | int = "auto"
    target_score: float | None = None
    trial_timeout: float | None = None

    def __post_init__(self) -> None:
        at_least = {"trials": 1, "k": 1, "block": 1, "retries": 0}
        for name, least in at_least.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise InvalidArgumentError(f"{name} is at least {least}; got {value!r}")
        if self.max_failures != "auto" and self.max_failures < 0:
            raise InvalidArgumentError(
                f'max_failures is "auto" or a number from 0; got {self.max_failures!r}'
            )
        if self.trial_timeout is not None and self.trial_timeout <= 0:
            raise InvalidArgumentError(
                f"trial_timeout is more than 0 seconds; got {self.trial_timeout!r}"
            )
        if self.block is not None and (self.k is None or self.k % self.block):
            raise InvalidArgumentError(f"block divides k; got block={self.block}, k={self.k}")

    @property
    def reproducible(self) -> bool:
        """Whether the study keeps G2."""
        return self.block is not None
