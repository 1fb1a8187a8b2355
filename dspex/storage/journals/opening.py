"""From what a user writes to a journal.

Knows: the forms of URLs. Must not know: how any journal works.

=====================================  =========================================================
``memory``                             nothing survives the scheduler
``sqlite:///path``                     a file on the scheduler's disk; three slashes and a path
                                       that is relative or begins with ``~``, four: an absolute one
``etcd://host:port[,...][/prefix]``    an etcd cluster; one or several of its members
``etcds://...``                        the same by TLS
=====================================  =========================================================
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from dspex.errors import InvalidArgumentError
from dspex.foundation.ports import Journal
from dspex.storage.journals.memory import MemoryJournal
from dspex.storage.journals.sqlite import SqliteJournal

__all__ = ["open_journal"]

_REMEDY = 'pass "memory", "sqlite:///journal.db" or "etcd://host:2379"'


def open_journal(url: str, *, repair: bool = False) -> Journal:
    """Give the journal that a URL names; its `open` is the caller's.

    Parameters
    ----------
    url : str
        "memory", "sqlite:///path" or "etcd://host:port[,host:port...][/prefix]".
    repair : bool
        Whether a damaged one is cut off before the damage, in place of an error.

    Raises
    ------
    InvalidArgumentError
        For any other URL.

    Examples
    --------
    >>> open_journal("sqlite:////var/lib/dspex/journal.db")
    <SqliteJournal /var/lib/dspex/journal.db, closed>
    """
    given: Any = url
    if not isinstance(given, str):
        raise InvalidArgumentError(f"a journal is named by a URL; got {given!r}; {_REMEDY}")
    if url == "memory":
        return MemoryJournal()
    scheme, slashes, rest = url.partition("://")
    if scheme == "sqlite" and slashes:
        return SqliteJournal(_path(url, rest), repair=repair)
    if scheme in ("etcd", "etcds") and rest:
        from dspex.storage.journals.etcd import EtcdJournal

        return EtcdJournal(url, repair=repair)
    raise InvalidArgumentError(f"no journal has such a URL; got {url!r}; {_REMEDY}")


def _path(url: str, rest: str) -> Path:
    text = rest.removeprefix("/")
    if text == rest:
        raise InvalidArgumentError(
            f"a path comes after sqlite and three slashes; got {url!r}; {_REMEDY}"
        )
    path = Path(os.path.expanduser(text)).absolute()
    if not text or "\0" in text or text == ":memory:" or path.is_dir():
        raise InvalidArgumentError(
            f"sqlite:/// names a file; got {url!r}; {_REMEDY}, or a file in that directory"
        )
    return path
