"""Owners and members of etcd killed or stopped: what was acknowledged is there, once, in order."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from hashlib import sha256
from itertools import count

import pytest

from dspex.errors import JournalError
from dspex.storage.journals.etcd import EtcdJournal
from dspex.testing.etcd import EtcdServers, needs_etcd
from dspex.testing.journals import read_all

pytestmark = [pytest.mark.chaos, needs_etcd]
_prefixes = count()

# Entries and snapshots say their own numbers, so that whoever reads knows what should be there.
# Prints "a <last>" after an append, "c <upto>" after a snapshot, "b <digest>" after a large value,
# and at its end what kept it from going on, and whether it still owns the journal.
# Dies `when` ("before" or "after") its `turn`-th request to etcd is performed.
OWNER = """
import hashlib, os, signal, sys, threading
from dspex.errors import JournalError, JournalFencedError
from dspex.storage.journals.etcd import EtcdJournal
from dspex.storage.journals.etcd_gateway import Gateway

url, when, turn = sys.argv[1], sys.argv[2], int(sys.argv[3])
call, requests = Gateway.call, 0

def dying(self, path, body):
    global requests
    if threading.current_thread() is not threading.main_thread():
        return call(self, path, body)
    requests += 1
    if requests == turn and when == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    answer = call(self, path, body)
    if requests == turn and when == "after":
        os.kill(os.getpid(), signal.SIGKILL)
    return answer

Gateway.call = dying

def chunks(upto):
    for number in range(20):
        yield b"%d of snapshot %d " % (number, upto) * 5_000

def persist(act):
    while True:
        try:
            return act()
        except JournalFencedError as error:
            print("fenced", journal.owns(), flush=True)
            sys.exit(3)
        except JournalError:
            pass

journal = EtcdJournal(url, patience=20.0, lease=2.0)
journal.open()
loaded = journal.load()
last = loaded.upto
for _ in loaded.snapshot: pass
for last, _ in loaded.entries: pass
print("o", last, flush=True)
while True:
    numbers = range(last + 1, last + 2 + last % 7)
    entries = [b"%d " % n * (400_000 if n % 23 == 0 else n % 200 + 1) for n in numbers]
    persist(lambda: journal.append(last + 1, entries))
    last += len(entries)
    print("a", last, flush=True)
    if last % 5 == 0:
        persist(lambda: journal.compact(last - 2, chunks(last - 2)))
        print("c", last - 2, flush=True)
    if last % 4 == 0:
        data = b"%d" % last * 600_000
        digest = hashlib.sha256(data).hexdigest()
        persist(lambda: journal.put_blob(digest, data))
        print("b", digest, flush=True)
"""


def start(url: str, when: str = "never", turn: int = 0) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", OWNER, url, when, str(turn)], stdout=subprocess.PIPE, text=True
    )


class Witness:
    """What owners have acknowledged, and whether the journal holds it."""

    def __init__(self, url: str) -> None:
        self.url = url
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

    def hear_lines(self, owner: subprocess.Popen[str], lines: int) -> None:
        assert owner.stdout is not None
        for _ in range(lines):
            line = owner.stdout.readline()
            assert line, "it ended"
            self.hear(line)

    def hear_out(self, owner: subprocess.Popen[str]) -> str:
        """All that it still says; gives it."""
        rest, _ = owner.communicate()
        for line in rest.splitlines(keepends=True):
            self.hear(line)
        return rest

    def check(self, *, takeover: bool = False) -> EtcdJournal:
        """Every acknowledged thing is there, once and whole; gives the journal, open."""
        journal = EtcdJournal(self.url, patience=0.0, takeover=takeover, lease=2.0)
        journal.open()
        upto, chunks, entries = read_all(journal)
        assert upto >= self.upto
        expected = [b"%d of snapshot %d " % (number, upto) * 5_000 for number in range(20)]
        assert chunks == (expected if upto else [])
        last = entries[-1][0] if entries else upto
        assert last >= self.last
        for place, (number, entry) in enumerate(entries, upto + 1):
            assert number == place
            size = 400_000 if number % 23 == 0 else number % 200 + 1
            assert entry == b"%d " % number * size
        for digest in self.digests:
            assert sha256(journal.get_blob(digest)).hexdigest() == digest
        self.last, self.upto = last, upto
        return journal


@pytest.fixture(scope="module")
def one() -> Iterator[EtcdServers]:
    with EtcdServers() as etcd:
        yield etcd


@pytest.fixture
def witness(one: EtcdServers) -> Witness:
    return Witness(one.url(f"kills-{next(_prefixes)}"))


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[str]]]:
    """What is put in here ends with the test."""
    processes: list[subprocess.Popen[str]] = []
    with ExitStack() as stack:
        yield processes
        for process in processes:
            stack.enter_context(process)
            process.kill()


def kill_at(witness: Witness, when: str, turn: int) -> None:
    with start(witness.url, when, turn) as owner:
        try:
            witness.hear_out(owner)
        finally:
            owner.kill()
    assert owner.returncode == -signal.SIGKILL
    witness.check().close()


# The first requests open and load it; then come appends, large ones, snapshots, large values.
@pytest.mark.parametrize(("when", "turn"), [("after", 3), ("before", 12), ("after", 17)])
def test_an_owner_is_killed_at_a_request(when: str, turn: int, witness: Witness) -> None:
    kill_at(witness, when, turn)
    kill_at(witness, when, turn)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("when", ["before", "after"])
def test_an_owner_is_killed_at_each_request(when: str, witness: Witness) -> None:
    for turn in range(1, 46):
        kill_at(witness, when, turn)
    assert witness.upto > 0
    assert witness.digests


def test_an_owner_that_was_stopped_past_its_lease_is_fenced_when_it_wakes(
    witness: Witness, started: list[subprocess.Popen[str]]
) -> None:
    owner = start(witness.url)
    started.append(owner)
    witness.hear_lines(owner, 10)
    owner.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, owner.pid, os.WSTOPPED | os.WNOWAIT)
    with pytest.raises(JournalError, match=rf"belongs to process {owner.pid} on"):
        witness.check()
    # Its lease runs out, and whoever waits for that takes over.
    new = EtcdJournal(witness.url, patience=60.0, lease=2.0)
    new.open()
    before = read_all(new)
    owner.send_signal(signal.SIGCONT)
    assert witness.hear_out(owner).splitlines()[-1] == "fenced False"
    assert owner.returncode == 3
    # What it was about to say when it was stopped was kept before.
    assert read_all(new) == before
    assert new.owns()
    new.close()
    witness.check().close()


def stop_and_start(etcd: EtcdServers, witness: Witness, turns: int, seed: int) -> None:
    """Kill and pause members, mostly the leader, while an owner writes; two are always there."""
    draw = random.Random(seed)
    owner = start(witness.url)
    with owner:
        try:
            witness.hear_lines(owner, 5)
            for turn in range(turns):
                member = etcd.leader() if turn % 3 < 2 else draw.randrange(3)
                is_killed = turn % 2 == 0
                (etcd.kill if is_killed else etcd.pause)(member)
                # It goes on without that one.
                witness.hear_lines(owner, 1 + draw.randrange(20))
                (etcd.restart if is_killed else etcd.resume)(member)
                witness.hear_lines(owner, draw.randrange(5))
        finally:
            owner.kill()
        witness.hear_out(owner)
    journal = witness.check()
    assert journal.copies == 3
    journal.close()
    assert witness.last > 0


def test_the_leader_of_three_members_is_killed_under_an_owner() -> None:
    with EtcdServers(3) as etcd:
        stop_and_start(etcd, Witness(etcd.url("leader")), 1, seed=0)


@pytest.mark.slow
def test_members_are_killed_and_paused_under_an_owner() -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    with EtcdServers(3) as etcd:
        stop_and_start(etcd, Witness(etcd.url("members")), 8, seed)


@pytest.mark.slow
def test_all_members_are_gone_for_longer_than_a_lease() -> None:
    with EtcdServers(3) as etcd:
        journal = EtcdJournal(etcd.url("all"), lease=1.0)
        journal.open()
        journal.append(1, [b"1"])
        for member in range(3):
            etcd.kill(member)
        with pytest.raises(JournalError, match="majority of its members"):
            journal.append(2, [b"2"])
        # Nobody knows whether another one has taken it over meanwhile.
        assert not journal.owns()
        for member in range(3):
            etcd.start(member)
        etcd.wait_until_up()
        journal.append(2, [b"2"])
        while not journal.owns():
            pass
        assert read_all(journal) == (0, [], [(1, b"1"), (2, b"2")])
        journal.close()
