"""Which file systems can carry SQLite's write-ahead log.

Knows: the types of file systems that several machines share. Must not know: SQLite.

Why it matters: in WAL mode all processes that use a database share an index through a memory map,
which NFS and its like do not keep coherent between machines; "WAL does not work over a network
filesystem" (sqlite.org/wal.html). There a rollback journal serves instead: slower, and right as
far as the file system's locks are.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import psutil

__all__ = ["is_network", "mounts"]

# fmt: off
NETWORK = frozenset({
    "9p", "afpfs", "afs", "beegfs", "ceph", "cifs", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs",
    "nfs3", "nfs4", "orangefs", "panfs", "smb2", "smb3", "smbfs", "vboxsf", "virtiofs", "webdav",
})
# fmt: on


def mounts() -> list[tuple[str, str]]:
    """(mount point, type) of every mounted file system."""
    return [(each.mountpoint, each.fstype) for each in psutil.disk_partitions(all=True)]


def is_network(path: Path, mounted: Iterable[tuple[str, str]]) -> bool:
    """Whether `path` lies where other machines may write too.

    The longest mount point above `path` counts, of equal ones the last, which covers the others.
    Every ``fuse.*`` type (sshfs, gcsfuse, s3fs ...) counts as a network: none promises the memory
    map.

    Examples
    --------
    >>> mounted = [("/", "ext4"), ("/home", "nfs4"), ("/home/scratch", "xfs")]
    >>> is_network(Path("/home/ann/studies.db"), mounted)
    True
    >>> is_network(Path("/home/scratch/studies.db"), mounted)
    False
    """
    real = path.resolve()
    above = [(point, kind) for point, kind in mounted if real.is_relative_to(point)]
    if not above:
        return False
    depth = max(len(Path(point).parts) for point, _ in above)
    kind = [kind for point, kind in above if len(Path(point).parts) == depth][-1].lower()
    return kind in NETWORK or kind.startswith("fuse.")
