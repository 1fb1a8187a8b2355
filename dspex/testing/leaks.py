"""A checker for what must not be left behind: processes and open files.

Knows: what this process has open. Must not know: who opened it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import psutil

__all__ = ["no_leaks"]


def _open_files() -> dict[int, str]:
    files: dict[int, str] = {}
    folder = "/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"
    for name in os.listdir(folder):
        with contextlib.suppress(OSError):  # the listing's own
            os.fstat(int(name))
            target = os.readlink(f"{folder}/{name}") if "proc" in folder else ""
            # A cluster in this process opens connections, and looks at the machine, all the time.
            if not target.startswith(("socket:", "/proc/")):
                files[int(name)] = target
    return files


def _children() -> set[int]:
    # Children's children belong to them; those of a cluster's workers come and go.
    return {child.pid for child in psutil.Process().children()}


@contextlib.contextmanager
def no_leaks() -> Iterator[None]:
    """Assert that the block leaves no child process (zombies are some too) and no open file.

    Sockets do not count, where the system tells them apart (Linux): other threads may have some.

    Examples
    --------
    >>> with no_leaks():
    ...     os.close(os.dup(0))
    """
    children, files = _children(), _open_files()
    yield
    left = _children() - children
    assert not left, f"processes left behind: {left}"
    opened = {number: name for number, name in _open_files().items() if number not in files}
    assert not opened, f"files left open: {opened}"
