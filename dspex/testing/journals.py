"""What every `Journal` must keep, as a suite of tests.

Knows: the port `dspex.foundation.ports.Journal`. Must not know: any one journal.

Subclass `DurableJournalConformance`, or `JournalConformance` for a journal that ends with its
process, in a test module, and give it a fixture ``opener``::

    class TestMyJournal(DurableJournalConformance):
        @pytest.fixture
        def opener(self, tmp_path):
            return lambda takeover=False: MyJournal(tmp_path, takeover=takeover)
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import TypeAlias

import pytest

from dspex.errors import JournalError, JournalFencedError
from dspex.foundation.ports import Journal

__all__ = ["DurableJournalConformance", "JournalConformance", "JournalOpener", "read_all"]

JournalOpener: TypeAlias = Callable[..., Journal]
"""Makes a journal, always over the same place, that is not open yet. It does not wait for a living
owner; called with ``takeover=True`` it makes one that takes the journal from it."""

Contents: TypeAlias = tuple[int, list[bytes], list[tuple[int, bytes]]]


def read_all(journal: Journal) -> Contents:
    """Load a journal as (upto, snapshot, entries)."""
    loaded = journal.load()
    return loaded.upto, list(loaded.snapshot), list(loaded.entries)


def example_entries(count: int, first: int = 1) -> list[bytes]:
    """Make entries of many lengths, none among them.

    Examples
    --------
    >>> [len(entry) for entry in example_entries(3)]
    [0, 2, 4]
    """
    return [
        bytes([number % 256]) * ((number - 1) * 2 % 701) for number in range(first, first + count)
    ]


class JournalConformance:
    """The promises of every `Journal`; subclasses give the fixture ``opener``."""

    @pytest.fixture
    def journal(self, opener: JournalOpener) -> Iterator[Journal]:
        journal = opener()
        journal.open()
        yield journal
        journal.close()

    def test_a_new_journal_is_empty(self, journal: Journal) -> None:
        assert read_all(journal) == (0, [], [])

    def test_it_says_what_it_is(self, journal: Journal) -> None:
        assert journal.url
        assert journal.copies >= 1
        assert journal.identity
        assert journal.identity == journal.identity
        assert journal.durable == isinstance(self, DurableJournalConformance)

    def test_terms_grow(self, opener: JournalOpener) -> None:
        terms = []
        for _ in range(4):
            journal = opener()
            terms.append(journal.open())
            journal.close()
        assert terms[0] > 0
        assert sorted(set(terms)) == terms

    def test_entries_follow_each_other(self, journal: Journal) -> None:
        journal.append(1, [b"1", b"2"])
        journal.append(3, [b"3"])
        with pytest.raises(JournalError):
            journal.append(5, [b"5"])
        with pytest.raises(JournalError):
            journal.append(0, [b"0"])
        journal.append(4, [b"4"])

    def test_it_is_owned_from_open_to_close(self, opener: JournalOpener) -> None:
        journal = opener()
        assert not journal.owns()
        journal.open()
        assert journal.owns()
        journal.append(1, [b"1"])
        assert journal.owns()
        journal.close()
        assert not journal.owns()

    def test_any_thread_may_ask_who_owns_it_while_another_writes(self, journal: Journal) -> None:
        answers: list[bool] = []
        done = threading.Event()

        def ask() -> None:
            while not done.is_set():
                answers.append(journal.owns())

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        for number in range(1, 30):
            journal.append(number, [b"x" * 300])
        journal.compact(29, [b"all"])
        done.set()
        for thread in threads:
            thread.join()
        assert answers
        assert all(answers)

    def test_nothing_is_accepted_after_close(self, opener: JournalOpener) -> None:
        journal = opener()
        journal.open()
        journal.close()
        journal.close()
        uses: list[Callable[[], object]] = [
            lambda: journal.append(1, [b"1"]),
            lambda: journal.load(),
            lambda: journal.compact(0, []),
            lambda: journal.put_blob(sha256(b"x").hexdigest(), b"x"),
            lambda: journal.get_blob(sha256(b"x").hexdigest()),
            lambda: journal.keep_blobs([]),
        ]
        for use in uses:
            with pytest.raises(JournalError):
                use()

    def test_large_values_come_back_until_they_are_dropped(self, journal: Journal) -> None:
        values = {sha256(data).hexdigest(): data for data in (b"", b"small", b"x\0y" * 1_500_000)}
        for digest, data in values.items():
            journal.put_blob(digest, data)
            journal.put_blob(digest, data)
        assert {digest: journal.get_blob(digest) for digest in values} == values
        small = sha256(b"small").hexdigest()
        assert journal.keep_blobs({small, sha256(b"never put").hexdigest()}) == 2
        assert journal.get_blob(small) == b"small"
        for digest in values.keys() - {small}:
            with pytest.raises(KeyError):
                journal.get_blob(digest)
        journal.put_blob(sha256(b"").hexdigest(), b"")
        assert journal.get_blob(sha256(b"").hexdigest()) == b""

    @pytest.mark.parametrize("digest", ["", ".", "../other", "0" * 63, sha256(b"x").hexdigest()])
    def test_a_large_value_that_is_not_there_is_a_key_error(
        self, digest: str, journal: Journal
    ) -> None:
        with pytest.raises(KeyError):
            journal.get_blob(digest)


class DurableJournalConformance(JournalConformance):
    """The promises of a journal that survives its process."""

    def test_entries_come_back_as_they_were_in_order(self, journal: Journal) -> None:
        entries = example_entries(1_500)
        journal.append(1, entries[:1])
        journal.append(2, [])
        journal.append(2, entries[1:1_400])
        journal.append(1_401, entries[1_400:])
        assert read_all(journal) == (0, [], list(enumerate(entries, 1)))

    def test_a_large_entry_comes_back(self, journal: Journal) -> None:
        entry = bytes(range(256)) * 4_000
        journal.append(1, [entry, b"small", entry])
        assert read_all(journal)[2] == [(1, entry), (2, b"small"), (3, entry)]

    def test_it_goes_on_where_it_ended(self, opener: JournalOpener) -> None:
        entries = example_entries(60)
        identities = set()
        for first in (1, 21, 41):
            journal = opener()
            journal.open()
            identities.add(journal.identity)
            assert read_all(journal)[2] == list(enumerate(entries[: first - 1], 1))
            journal.append(first, entries[first - 1 : first + 19])
            journal.close()
        journal = opener()
        journal.open()
        assert read_all(journal) == (0, [], list(enumerate(entries, 1)))
        assert identities == {journal.identity}
        journal.close()

    def test_what_is_appended_again_is_kept_once(self, journal: Journal) -> None:
        journal.append(1, [b"1", b"2", b"3"])
        journal.append(2, [b"2", b"3"])
        journal.append(1, [b"1", b"2", b"3", b"4"])
        journal.append(4, [b"4", b"5"])
        assert read_all(journal)[2] == [(n, b"%d" % n) for n in range(1, 6)]

    def test_what_is_appended_while_reading_does_not_disturb_it(self, journal: Journal) -> None:
        entries = example_entries(1_200)
        journal.append(1, entries)
        loaded = journal.load()
        first = next(loaded.entries)
        journal.append(1_201, [b"later"])
        assert [first, *loaded.entries] == list(enumerate(entries, 1))

    def test_a_snapshot_takes_the_place_of_what_it_covers(self, opener: JournalOpener) -> None:
        entries = example_entries(50)
        chunks = [b"one", b"", b"x" * 2_000_000, b"four"]
        journal = opener()
        journal.open()
        journal.append(1, entries[:40])
        journal.compact(30, iter(chunks))
        assert read_all(journal) == (30, chunks, list(enumerate(entries[30:40], 31)))
        journal.append(41, entries[40:])
        journal.close()
        journal = opener()
        journal.open()
        assert read_all(journal) == (30, chunks, list(enumerate(entries[30:], 31)))
        journal.compact(50, [b"all"])
        assert read_all(journal) == (50, [b"all"], [])
        journal.compact(50, [])
        assert read_all(journal) == (50, [], [])
        journal.append(51, [b"next"])
        journal.close()
        journal = opener()
        journal.open()
        assert read_all(journal) == (50, [], [(51, b"next")])
        journal.close()

    def test_a_snapshot_that_fails_changes_nothing(self, journal: Journal) -> None:
        journal.append(1, [b"1", b"2"])
        journal.compact(1, [b"first"])
        before = read_all(journal)

        def failing() -> Iterator[bytes]:
            yield b"x" * 1_000_000
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            journal.compact(2, failing())
        assert read_all(journal) == before
        journal.append(3, [b"3"])
        journal.compact(3, [b"second"])
        assert read_all(journal) == (3, [b"second"], [])

    def test_a_snapshot_covers_only_entries_that_are_there(self, journal: Journal) -> None:
        journal.append(1, [b"1", b"2"])
        with pytest.raises(JournalError):
            journal.compact(3, [b"too early"])
        journal.compact(2, [b"two"])
        with pytest.raises(JournalError):
            journal.compact(1, [b"too late"])
        assert read_all(journal) == (2, [b"two"], [])

    def test_large_values_survive(self, opener: JournalOpener) -> None:
        data = bytes(range(256)) * 20_000
        digest = sha256(data).hexdigest()
        journal = opener()
        journal.open()
        journal.put_blob(digest, data)
        journal.close()
        journal = opener()
        journal.open()
        assert journal.get_blob(digest) == data
        journal.close()

    def test_it_has_one_owner(self, opener: JournalOpener) -> None:
        owner, other = opener(), opener()
        owner.open()
        with pytest.raises(JournalError):
            other.open()
        owner.append(1, [b"1"])
        assert owner.owns()
        assert not other.owns()
        owner.close()
        other.open()
        assert read_all(other)[2] == [(1, b"1")]
        other.close()

    def test_an_owner_that_was_replaced_is_refused(self, opener: JournalOpener) -> None:
        old, new = opener(), opener(takeover=True)
        old_term = old.open()
        old.append(1, [b"1"])
        value = sha256(b"value").hexdigest()
        assert old.owns()
        assert new.open() > old_term
        assert not old.owns()
        new.put_blob(value, b"value")
        writes: list[Callable[[], object]] = [
            lambda: old.append(2, [b"of the old one"]),
            lambda: old.append(1, [b"1"]),
            lambda: old.compact(1, [b"of the old one"]),
            lambda: old.keep_blobs([]),
        ]
        for write in writes:
            assert not old.owns()
            with pytest.raises(JournalFencedError):
                write()
        new.append(2, [b"2"])
        with pytest.raises(JournalFencedError):
            old.append(3, [b"of the old one"])
        old.close()
        assert new.owns()
        assert read_all(new) == (0, [], [(1, b"1"), (2, b"2")])
        assert new.get_blob(value) == b"value"
        new.close()
