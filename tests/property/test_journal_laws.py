"""Whatever is done to a journal or to its file, nobody reads an entry that was not written."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dspex.errors import JournalCorruptError, JournalError, JournalFencedError
from dspex.storage.journals.sqlite import SqliteJournal
from dspex.testing.journals import example_entries, read_all

large = st.builds(
    lambda byte, size: bytes([byte]) * size, st.integers(0, 255), st.integers(1, 20_000)
)
entries_lists = st.lists(st.binary(max_size=20) | large, max_size=4)


class JournalMachine(RuleBasedStateMachine):
    """A journal against a list, over restarts, snapshots and takeovers."""

    @initialize()
    def make(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.term = 0
        self.upto = 0
        self.snapshot: list[bytes] = []
        self.entries: list[bytes] = []
        self.blobs: dict[str, bytes] = {}
        self.journal = self.opened()
        self.identity = self.journal.identity
        self.fenced: list[SqliteJournal] = []

    def opened(self, *, takeover: bool = False) -> SqliteJournal:
        journal = SqliteJournal(self.folder / "journal.db", patience=0.0, takeover=takeover)
        term = journal.open()
        assert term > self.term
        self.term = term
        return journal

    @property
    def last(self) -> int:
        return self.upto + len(self.entries)

    @rule(new=entries_lists)
    def append(self, new: list[bytes]) -> None:
        self.journal.append(self.last + 1, new)
        self.entries += new

    @rule(back=st.integers(0, 5), new=entries_lists)
    def append_again(self, back: int, new: list[bytes]) -> None:
        back = min(back, len(self.entries))
        again = self.entries[len(self.entries) - back :]
        self.journal.append(self.last + 1 - back, again + new)
        self.entries += new

    @rule(left=st.integers(0, 5), chunks=entries_lists)
    def compact(self, left: int, chunks: list[bytes]) -> None:
        left = min(left, len(self.entries))
        self.journal.compact(self.last - left, iter(chunks))
        self.upto = self.last - left
        self.entries = self.entries[len(self.entries) - left :]
        self.snapshot = chunks

    @rule(data=st.binary(max_size=3))
    def put_blob(self, data: bytes) -> None:
        digest = sha256(data).hexdigest()
        self.journal.put_blob(digest, data)
        self.blobs[digest] = data

    @rule(kept=st.integers(0, 3))
    def keep_blobs(self, kept: int) -> None:
        wanted = dict(list(self.blobs.items())[:kept])
        assert self.journal.keep_blobs(wanted.keys()) == len(self.blobs) - len(wanted)
        self.blobs = wanted

    @rule()
    def open_again(self) -> None:
        self.journal.close()
        self.journal = self.opened()

    @rule()
    def take_over(self) -> None:
        self.fenced.append(self.journal)
        self.journal = self.opened(takeover=True)

    @precondition(lambda self: self.fenced)
    @rule(new=entries_lists)
    def wake_up(self, new: list[bytes]) -> None:
        old = self.fenced.pop()
        assert not old.owns()
        for write in (
            lambda: old.append(self.last + 1, new),
            lambda: old.compact(self.upto, new),
            lambda: old.keep_blobs([]),
        ):
            with pytest.raises(JournalFencedError):
                write()
        old.close()

    @invariant()
    def it_is_what_was_written(self) -> None:
        entries = list(enumerate(self.entries, self.upto + 1))
        assert read_all(self.journal) == (self.upto, self.snapshot, entries)
        assert {digest: self.journal.get_blob(digest) for digest in self.blobs} == self.blobs
        assert self.journal.owns()
        assert self.journal.identity == self.identity

    def teardown(self) -> None:
        if hasattr(self, "journal"):
            for each in (self.journal, *self.fenced):
                each.close()
            shutil.rmtree(self.folder)


JournalMachine.TestCase.settings = settings(max_examples=15, stateful_step_count=20)
TestJournalMachine = JournalMachine.TestCase


CHUNKS = [bytes([number]) * 900 for number in range(8)]
ENTRIES = list(enumerate(example_entries(60, 41), 41))


@pytest.fixture(scope="module")
def good_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("good") / "journal.db"
    journal = SqliteJournal(path)
    journal.open()
    journal.append(1, example_entries(40))
    journal.compact(40, CHUNKS)
    journal.append(41, [entry for _, entry in ENTRIES])
    journal.close()
    return path


damages = st.tuples(
    # Half of the flips hit the first pages, where the header, the tables and the head are.
    st.lists(
        st.tuples(st.integers(0, 20_000) | st.integers(0, 1 << 20), st.integers(1, 255)), max_size=3
    ),
    st.just(1.0) | st.floats(0.0, 1.0),
)


def damaged_copy(good_file: Path, folder: str, damage: tuple[list[tuple[int, int]], float]) -> Path:
    flips, kept = damage
    data = bytearray(good_file.read_bytes())
    for place, flip in flips:
        data[place % len(data)] ^= flip
    del data[int(kept * len(data)) :]
    path = Path(folder) / "journal.db"
    path.write_bytes(data)
    return path


@settings(max_examples=150)
@given(damages)
def test_damage_anywhere_is_refused_or_harmless(
    good_file: Path, damage: tuple[list[tuple[int, int]], float]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = damaged_copy(good_file, folder, damage)
        is_blank = path.stat().st_size == 0
        journal = SqliteJournal(path)
        chunks: list[bytes] = []
        entries: list[tuple[int, bytes]] = []
        # A version or a setting in the header may be hit: then it is an error, but no damage.
        with suppress(JournalError):
            journal.open()
            loaded = journal.load()
            chunks.extend(loaded.snapshot)
            entries.extend(loaded.entries)
            assert (chunks, entries) == (([], []) if is_blank else (CHUNKS, ENTRIES))
        assert chunks == CHUNKS[: len(chunks)]
        assert entries == ENTRIES[: len(entries)]
        journal.close()


@settings(max_examples=100)
@given(damages)
def test_repair_gives_a_whole_journal_with_a_part_of_what_was_there(
    good_file: Path, damage: tuple[list[tuple[int, int]], float]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = damaged_copy(good_file, folder, damage)
        before = path.read_bytes()
        journal = SqliteJournal(path, repair=True)
        try:
            journal.open()
        except JournalCorruptError:
            # What does not bear the mark any more is not ours to change.
            assert path.read_bytes() == before
            return
        except JournalError:
            return
        upto, chunks, entries = read_all(journal)
        assert chunks == CHUNKS[: len(chunks)]
        assert entries == ENTRIES[: len(entries)]
        is_whole = (chunks, entries) == (CHUNKS, ENTRIES)
        assert is_whole or journal.repairs or not before
        last = entries[-1][0] if entries else upto
        journal.append(last + 1, [b"after"])
        journal.close()
        again = SqliteJournal(path)
        again.open()
        assert read_all(again) == (upto, chunks, [*entries, (last + 1, b"after")])
        again.close()
