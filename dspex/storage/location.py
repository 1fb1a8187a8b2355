"""Where a store lies: from what a user writes to one absolute path.

Knows: paths, ``sqlite:///`` URLs, the configured default file. Must not know: what is in the file.

The default file is ``$DSPEX_STORAGE`` (a path or URL), else ``studies.db`` in the user's data
directory: ``$XDG_DATA_HOME/dspex`` where that is set, else the platform's own place.

Sources: XDG Base Directory Specification 0.8; SQLAlchemy's form of SQLite URLs (three slashes and
a relative path, four and an absolute one).
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

from dspex.errors import InvalidArgumentError, StorageError

__all__ = ["default_storage", "resolve_storage", "store_path"]

_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]+):/")
_REMEDY = 'pass a path such as "studies.db", or "sqlite:///studies.db"'


def resolve_storage(storage: str | os.PathLike[str] | None, study: str | None) -> str | None:
    """Say where a study is kept.

    Parameters
    ----------
    storage : str, path or None
        A path or a ``sqlite:///path`` URL; ``~`` is the home directory.
    study : str or None
        The study's name; with a name alone the default file serves.

    Returns
    -------
    str or None
        An absolute path; None means in memory only.

    Raises
    ------
    InvalidArgumentError
        For another kind of URL, or an empty path.
    StorageError
        Where the path is a directory.

    Examples
    --------
    >>> resolve_storage(None, None) is None
    True
    >>> resolve_storage("sqlite:////data/studies.db", "digits")
    '/data/studies.db'
    """
    if storage is None:
        return None if study is None else str(default_storage())
    return str(store_path(storage))


def default_storage() -> Path:
    """Say which file serves where a study has a name and no storage."""
    configured = os.environ.get("DSPEX_STORAGE")
    if configured:
        return store_path(configured)
    return _data_directory() / "dspex" / "studies.db"


def store_path(storage: str | os.PathLike[str]) -> Path:
    """Turn `storage` into an absolute path."""
    path = Path(os.path.expanduser(_path_text(storage))).absolute()
    if path.is_dir():
        raise StorageError(
            f"a store is a file; {path} is a directory; name a file in it, such as "
            f"{path / 'studies.db'}"
        )
    return path


def _path_text(storage: Any) -> str:
    if not isinstance(storage, str | os.PathLike):
        raise InvalidArgumentError(f"storage is a path or a URL; got {storage!r}; {_REMEDY}")
    text = os.fspath(storage)
    if not isinstance(text, str) or "\0" in text:
        raise InvalidArgumentError(f"storage is a path as text; got {text!r}; {_REMEDY}")
    scheme = _SCHEME.match(text)
    # A path object is never a URL, whatever its first part is called.
    if isinstance(storage, str) and scheme:
        name, rest = scheme[1].lower(), text[scheme.end() :]
        if name != "sqlite" or not rest.startswith("//"):
            raise InvalidArgumentError(
                f"storage is a path or a sqlite:///path URL; got {text!r}; {_REMEDY}"
            )
        text = rest[2:]
    if not text or text == ":memory:":
        raise InvalidArgumentError(
            f"storage names a file; got {storage!r}; {_REMEDY}, or leave out both storage and "
            "study to keep the study in memory only"
        )
    return text


def _data_directory() -> Path:
    configured = os.environ.get("XDG_DATA_HOME", "")
    # The specification says that a relative path is to be ignored.
    if os.path.isabs(configured):
        return Path(configured)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    return Path.home() / ".local" / "share"
