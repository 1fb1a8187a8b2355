"""Writers killed or paused in the middle: a log is a prefix, with all that was synced."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from dspex.errors import StudyInUseError
from dspex.storage import open_log, ownership, read_records
from dspex.study.records import Asked

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals"),
]

# Appends records numbered from where the log ends, and says what is safe.
WRITER = """
import os, signal, sys
from contextlib import contextmanager
from dspex.storage import batches, filesystem, open_log
from dspex.study.records import Asked

path, kind, place, turn = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
filesystem.mounts = lambda: [("/", kind)]
whole = batches.transaction
turns = 0

@contextmanager
def dying(connection):
    global turns
    turns += 1
    due = turns == turn
    if due and place == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    with whole(connection):
        yield
        if due and place == "inside":
            os.kill(os.getpid(), signal.SIGKILL)
    if due and place == "after":
        os.kill(os.getpid(), signal.SIGKILL)

batches.transaction = dying
log = open_log(path, "s")
number = sum(1 for _ in log.load())
while True:
    for _ in range(number % 7 + 1):
        log.append([Asked(first=number, told=0, by=["x"], params=[{"pad": "y" * (number % 900)}])])
        number += 1
    if number % 3 == 0:
        log.sync()
        print(number, flush=True)
"""


def assert_prefix(path: Path, at_least: int) -> int:
    log = open_log(path, "s")
    records = list(log.load())
    log.close()
    assert [each.first for each in records if isinstance(each, Asked)] == list(range(len(records)))
    assert len(records) >= at_least
    return len(records)


def start(path: Path, kind: str, place: str = "nowhere", turn: int = 0) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), kind, place, str(turn)],
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("kind", ["ext4", "nfs4"])
def test_killed_at_any_moment(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "s.db"
    safe = 0
    for round_ in range(5):
        writer = start(path, kind)
        assert writer.stdout is not None
        for _ in range(1 + 13 * round_ % 29):
            safe = int(writer.stdout.readline())
        writer.kill()
        rest, _ = writer.communicate()
        # The last line may be torn; every whole one was printed after a sync.
        safe = max([safe, *(int(line) for line in rest.splitlines(keepends=True) if "\n" in line)])
        safe = assert_prefix(path, safe)


@pytest.mark.parametrize("place", ["before", "inside", "after"])
@pytest.mark.parametrize("kind", ["ext4", "nfs4"])
def test_killed_around_a_commit(tmp_path: Path, place: str, kind: str) -> None:
    path = tmp_path / "s.db"
    safe = 0
    for turn in (1, 4):
        writer = start(path, kind, place, turn)
        printed, _ = writer.communicate()
        assert writer.returncode == -signal.SIGKILL
        safe = assert_prefix(path, max([safe, *map(int, printed.split())]))


def stop_between_commits(writer: subprocess.Popen[str], path: Path) -> None:
    """Pause a writer where it holds no lock: within a commit it would keep everybody out."""
    while True:
        writer.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, writer.pid, os.WSTOPPED | os.WNOWAIT)
        with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as probe:
            try:
                probe.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                writer.send_signal(signal.SIGCONT)
                assert writer.stdout is not None
                writer.stdout.readline()
            else:
                return


def test_a_paused_owner_that_was_replaced_writes_nothing_when_it_wakes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s.db"
    writer = start(path, "ext4")
    assert writer.stdout is not None
    for _ in range(5):
        writer.stdout.readline()
    stop_between_commits(writer, path)
    with pytest.raises(StudyInUseError, match=f"process {writer.pid} on"):
        open_log(path, "s")
    # For another machine only the owner's signs count, and those have stopped.
    with monkeypatch.context() as patch:
        patch.setattr(ownership, "this_machine", lambda: "another machine")
        patch.setattr(ownership, "LEASE_SECONDS", 0.0)
        successor = open_log(path, "s")
    before = list(successor.load())
    writer.send_signal(signal.SIGCONT)
    writer.communicate()
    assert writer.returncode == 1
    successor.append([Asked(first=len(before), told=0, by=["x"], params=[{}])])
    successor.close()
    assert list(read_records(path, "s"))[: len(before)] == before
    assert_prefix(path, len(before) + 1)
