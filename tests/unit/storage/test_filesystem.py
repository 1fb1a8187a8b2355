"""Which file systems are shared between machines."""

from __future__ import annotations

from pathlib import Path

import pytest

from dspex.storage.filesystem import is_network, mounts


@pytest.mark.parametrize(
    ("mounted", "expected"),
    [
        ([("/", "ext4")], False),
        ([("/", "overlay"), ("/home", "nfs4")], True),
        ([("/home", "nfs4"), ("/", "overlay")], True),
        ([("/", "nfs"), ("/home/ann", "tmpfs")], False),
        ([("/", "ext4"), ("/home/an", "nfs")], False),
        ([("/", "ext4"), ("/home", "autofs"), ("/home", "nfs")], True),
        ([("/", "ext4"), ("/home", "fuse.sshfs")], True),
        ([("/", "ext4"), ("/home", "fuseblk")], False),
        ([("/", "ext4"), ("/home/ann", "CIFS")], True),
        ([], False),
    ],
)
def test_the_longest_mount_point_counts(mounted: list[tuple[str, str]], expected: bool) -> None:
    assert is_network(Path("/home/ann/studies.db"), mounted) is expected


def test_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "near").symlink_to(tmp_path / "far")
    mounted = [("/", "ext4"), (str((tmp_path / "far").resolve()), "nfs")]
    assert is_network(tmp_path / "near" / "studies.db", mounted)


def test_this_machine_has_a_root() -> None:
    assert "/" in {point for point, _ in mounts()}
