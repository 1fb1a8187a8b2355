"""Counter-based randomness: a stream is a hash of (root seed, purpose, numbers).

Knows: how to make a generator for a purpose. Must not know: who draws from it.
There is no generator state to save: whoever knows the seed, the purpose and the trial's number
draws the same numbers, in any process and in any order.

Sources: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3" for the idea;
BLAKE2b (RFC 7693) is the hash.
"""

from __future__ import annotations

import secrets
from hashlib import blake2b

import numpy as np

__all__ = ["derive_seed", "fresh_seed", "generator"]


def derive_seed(root: int, purpose: str, *numbers: int) -> int:
    """A 63-bit seed for one purpose.

    Parameters
    ----------
    root : int
        The study's seed.
    purpose : str
        For example ``"ask"`` or ``"evaluate"``.
    *numbers : int
        What else tells one stream from another, for example trial and fold.

    Examples
    --------
    >>> derive_seed(7, "ask", 3) == derive_seed(7, "ask", 3)
    True
    >>> derive_seed(7, "ask", 3) == derive_seed(7, "ask", 4)
    False
    """
    key = f"{root}/{purpose}/{'/'.join(map(str, numbers))}"
    return int.from_bytes(blake2b(key.encode(), digest_size=8).digest(), "little") >> 1


def generator(root: int, purpose: str, *numbers: int) -> np.random.Generator:
    """A generator seeded by `derive_seed`."""
    return np.random.Generator(np.random.PCG64(derive_seed(root, purpose, *numbers)))


def fresh_seed() -> int:
    """A root seed from the system's entropy, for a study that was given none."""
    return secrets.randbits(63)
