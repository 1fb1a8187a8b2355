"""Hashes that are the same in every process and on every day.

Knows: two functions. Must not know: what is hashed, and why.
"""

from __future__ import annotations

from hashlib import blake2b

__all__ = ["mix", "stable_hash"]

_MASK = 2**64 - 1


def stable_hash(text: str) -> int:
    """64 bits of a text."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")


def mix(number: int) -> int:
    """64 bits that look random, another for each number below 2^64.

    The finalizer of SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number
    generators", 2014): each of its steps can be undone, so no two numbers give the same.

    Examples
    --------
    >>> mix(1) == mix(2)
    False
    """
    number = (number + 0x9E3779B97F4A7C15) & _MASK
    number = ((number ^ (number >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    number = ((number ^ (number >> 27)) * 0x94D049BB133111EB) & _MASK
    return number ^ (number >> 31)
