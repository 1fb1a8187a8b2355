"""Owners killed or stopped in the middle: every acknowledged entry is there, none is half there."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import pytest

from dspex.errors import JournalError
from dspex.storage.journals.sqlite import SqliteJournal
from dspex.testing.journals import read_all

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals"),
]

# Entries and snapshots say their own numbers, so that whoever reads knows what should be there.
# Prints "a <last>" after an append, "c <upto>" after a snapshot, "b <digest>" after a large value.
# Dies at the `turn`-th time that it comes by `place`.
OWNER = """
import hashlib, os, signal, sys
from contextlib import contextmanager
from pathlib import Path
from dspex.storage.journals import blobs, sqlite, sqlite_owner, sqlite_writes

path, place, turn = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
passes = 0

def pass_by(here):
    global passes
    if here == place:
        passes += 1
        if passes == turn:
            os.kill(os.getpid(), signal.SIGKILL)

def around(module):
    whole = module.transaction
    @contextmanager
    def transaction(connection):
        doing = "claim" if module is sqlite_owner else now
        pass_by(f"before {doing}")
        with whole(connection):
            yield
            pass_by(f"inside {doing}")
        pass_by(f"after {doing}")
    module.transaction = transaction

now = ""
around(sqlite)
around(sqlite_owner)
fold_log, sync = sqlite_writes.fold_log, blobs.sync

def dying_fold(connection):
    pass_by("before fold")
    fold_log(connection)
    pass_by("after fold")

def dying_sync(path):
    pass_by("before rename is synced")
    sync(path)

sqlite_writes.fold_log, blobs.sync = dying_fold, dying_sync

def chunks(upto):
    for number in range(20):
        yield b"%d of snapshot %d " % (number, upto) * 3_000
        pass_by("between chunks")

journal = sqlite.SqliteJournal(path, patience=0.0)
journal.open()
loaded = journal.load()
last = loaded.upto
for _ in loaded.snapshot: pass
for last, _ in loaded.entries: pass
print("o", last, flush=True)
while True:
    count = last % 7 + 1
    now = "append"
    numbers = range(last + 1, last + 1 + count)
    journal.append(last + 1, [b"%d " % n * (n % 200 + 1) for n in numbers])
    last += count
    print("a", last, flush=True)
    if last % 5 == 0:
        now = "compact"
        journal.compact(last - 2, chunks(last - 2))
        print("c", last - 2, flush=True)
    if last % 4 == 0:
        data = b"%d" % last * 100_000
        digest = hashlib.sha256(data).hexdigest()
        pass_by("before blob")
        journal.put_blob(digest, data)
        print("b", digest, flush=True)
"""


def start(path: Path, place: str = "nowhere", turn: int = 0) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", OWNER, str(path), place, str(turn)],
        stdout=subprocess.PIPE,
        text=True,
    )


class Witness:
    """What an owner has acknowledged, and whether a journal holds it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.last = 0
        self.upto = 0
        self.digests: set[str] = set()

    def hear(self, line: str) -> None:
        if not line.endswith("\n"):
            return  # cut off with its process
        kind, value = line.split()
        if kind == "a":
            self.last = max(self.last, int(value))
        elif kind == "c":
            self.upto = max(self.upto, int(value))
        elif kind == "b":
            self.digests.add(value)

    def hear_out(self, owner: subprocess.Popen[str]) -> None:
        rest, _ = owner.communicate()
        for line in rest.splitlines(keepends=True):
            self.hear(line)

    def check(self) -> None:
        """Every acknowledged thing is there, whole, and the journal can be written."""
        journal = SqliteJournal(self.path, patience=0.0)
        journal.open()
        upto, chunks, entries = read_all(journal)
        assert upto >= self.upto
        expected = [b"%d of snapshot %d " % (number, upto) * 3_000 for number in range(20)]
        assert chunks == (expected if upto else [])
        last = entries[-1][0] if entries else upto
        assert last >= self.last
        assert entries == [(n, b"%d " % n * (n % 200 + 1)) for n in range(upto + 1, last + 1)]
        for digest in self.digests:
            assert sha256(journal.get_blob(digest)).hexdigest() == digest
        journal.keep_blobs(self.digests)
        folder = self.path.with_name("journal.db-blobs")
        assert {each.name for each in folder.glob("*")} == self.digests
        journal.close()
        self.last, self.upto = last, upto


@pytest.fixture
def witness(tmp_path: Path) -> Witness:
    return Witness(tmp_path / "journal.db")


def test_killed_at_any_moment(witness: Witness) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    draw = random.Random(seed)
    for _ in range(6):
        owner = start(witness.path)
        assert owner.stdout is not None
        for _ in range(draw.randrange(1, 60)):
            witness.hear(owner.stdout.readline())
        owner.kill()
        witness.hear_out(owner)
        witness.check()
    assert witness.last > 0


@pytest.mark.parametrize(
    ("place", "turns"),
    [
        ("before claim", (1, 1)),
        ("inside claim", (1, 1)),
        ("after claim", (1, 1)),
        ("before append", (1, 4)),
        ("inside append", (1, 4)),
        ("after append", (1, 4)),
        ("before compact", (1, 2)),
        ("between chunks", (1, 11, 20)),
        ("inside compact", (1, 2)),
        ("after compact", (1, 2)),
        ("before fold", (1, 2)),
        ("after fold", (1, 2)),
        ("before blob", (1, 2)),
        ("before rename is synced", (1, 2)),
    ],
)
def test_killed_at_a_named_point(place: str, turns: tuple[int, ...], witness: Witness) -> None:
    for turn in turns:
        owner = start(witness.path, place, turn)
        witness.hear_out(owner)
        assert owner.returncode == -signal.SIGKILL
        witness.check()


@pytest.fixture
def running(witness: Witness) -> Iterator[subprocess.Popen[str]]:
    owner = start(witness.path)
    assert owner.stdout is not None
    for _ in range(20):
        witness.hear(owner.stdout.readline())
    with owner:
        yield owner
        owner.kill()


def stop(owner: subprocess.Popen[str], path: Path, *, is_inside: bool) -> None:
    """Stop an owner inside a transaction, or where it holds no lock."""
    while True:
        owner.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, owner.pid, os.WSTOPPED | os.WNOWAIT)
        with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as probe:
            try:
                probe.execute("BEGIN IMMEDIATE")
                was_inside = False
            except sqlite3.OperationalError:
                was_inside = True
        if was_inside == is_inside:
            return
        owner.send_signal(signal.SIGCONT)
        assert owner.stdout is not None
        owner.stdout.readline()


def test_a_stopped_owner_lives_and_is_fenced_when_it_was_taken_over(
    witness: Witness, running: subprocess.Popen[str]
) -> None:
    stop(running, witness.path, is_inside=False)
    with pytest.raises(
        JournalError, match=rf"it belongs to process {running.pid} on .*, which is stopped"
    ):
        SqliteJournal(witness.path, patience=0.0).open()
    new = SqliteJournal(witness.path, patience=0.0, takeover=True)
    new.open()
    before = read_all(new)
    running.send_signal(signal.SIGCONT)
    witness.hear_out(running)
    assert running.returncode == 1
    # What it was about to say when it was stopped was kept before.
    assert before == read_all(new)
    assert new.owns()
    new.close()
    witness.check()


@pytest.mark.parametrize("takeover", [False, True])
def test_an_owner_that_was_stopped_inside_a_transaction_is_named(
    witness: Witness, running: subprocess.Popen[str], takeover: bool
) -> None:
    stop(running, witness.path, is_inside=True)
    with pytest.raises(
        JournalError,
        match=rf"process {running.pid} on .*, which is stopped .* is inside a transaction",
    ):
        SqliteJournal(witness.path, patience=0.0, takeover=takeover).open()
    running.kill()
    witness.hear_out(running)
    witness.check()


# Repairs a journal, and dies at a named point.
REPAIRER = """
import os, signal, sys
from pathlib import Path
from dspex.storage.journals import sqlite_repair
from dspex.storage.journals.sqlite import SqliteJournal

place = sys.argv[2]

def dying(module, name, here):
    whole = getattr(module, name)
    def call(*args, **kwargs):
        if place == f"before {here}":
            os.kill(os.getpid(), signal.SIGKILL)
        result = whole(*args, **kwargs)
        if place == f"after {here}":
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    setattr(module, name, call)

dying(sqlite_repair, "_salvage", "copy")
dying(sqlite_repair, "_put_aside", "aside")
dying(Path, "replace", "replace")
journal = SqliteJournal(Path(sys.argv[1]), repair=True, patience=0.0)
journal.open()
"""


@pytest.mark.parametrize(
    "place",
    ["before copy", "after copy", "before aside", "after aside", "before replace", "after replace"],
)
def test_a_repair_that_is_killed_can_be_made_again(place: str, tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal = SqliteJournal(path)
    journal.open()
    journal.append(1, [b"%d" % number for number in range(1, 101)])
    journal.close()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM entries WHERE number = 51")
    killed = subprocess.run([sys.executable, "-c", REPAIRER, str(path), place], check=False)
    assert killed.returncode == -signal.SIGKILL
    journal = SqliteJournal(path, repair=True, patience=0.0)
    journal.open()
    assert read_all(journal) == (0, [], [(n, b"%d" % n) for n in range(1, 51)])
    assert path.with_name("journal.db.damaged-1").exists()
    journal.close()
