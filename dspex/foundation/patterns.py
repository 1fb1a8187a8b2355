"""Patterns of keys: ``"workers/*"``.

Knows: `fnmatch` with upper and lower case apart; ``*`` crosses slashes.
Must not know: what the keys name.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from fnmatch import translate
from functools import lru_cache

__all__ = ["matcher", "matches"]

_SPECIAL = re.compile(r"[*?\[]")


@lru_cache(maxsize=1024)
def matcher(pattern: str) -> Callable[[str], bool]:
    """What tells whether a key matches.

    Examples
    --------
    >>> is_worker = matcher("workers/*")
    >>> is_worker("workers/gpu/1"), is_worker("Workers/1")
    (True, False)
    """
    special = _SPECIAL.search(pattern)
    if special is None:
        return pattern.__eq__
    if special.start() == len(pattern) - 1 and pattern.endswith("*"):
        prefix = pattern[:-1]
        return lambda key: key.startswith(prefix)
    found = re.compile(translate(pattern)).match
    return lambda key: found(key) is not None


def matches(key: str, pattern: str) -> bool:
    """Whether a key matches.

    Examples
    --------
    >>> matches("a/b", "a/?"), matches("a/b", "a")
    (True, False)
    """
    return matcher(pattern)(key)
