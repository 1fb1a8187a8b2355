"""Who may have a journal, who is waited for, who is refused."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from dspex.errors import JournalError, JournalFencedError
from dspex.storage.journals.sqlite import SqliteJournal
from dspex.testing.journals import read_all


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture
def owner(path: Path) -> Iterator[SqliteJournal]:
    owner = SqliteJournal(path)
    owner.open()
    yield owner
    owner.close()


def impatient(path: Path, *, takeover: bool = False) -> SqliteJournal:
    return SqliteJournal(path, patience=0.0, takeover=takeover)


def set_owner(path: Path, **columns: object) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        for name, value in columns.items():
            connection.execute(f"UPDATE head SET {name} = ?", (value,))


def test_a_living_owner_is_named(path: Path, owner: SqliteJournal) -> None:
    with pytest.raises(JournalError, match=f"it belongs to process {os.getpid()} on ") as caught:
        impatient(path).open()
    assert "open the journal with takeover=True" in str(caught.value)
    assert vars(caught.value)["pid"] == os.getpid()
    assert owner.owns()
    owner.append(1, [b"1"])


def test_an_owner_that_lets_go_in_time_is_waited_for(
    path: Path, owner: SqliteJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: owner.close())
    new = SqliteJournal(path, patience=60.0)
    assert new.open() == 2
    new.close()


@pytest.mark.parametrize(
    "gone",
    [
        {"machine": "another machine"},
        {"process": "started at another time"},
        {"token": "left by a close that failed"},
    ],
)
def test_an_owner_that_is_gone_is_taken_over_at_once(
    path: Path, owner: SqliteJournal, gone: dict[str, object]
) -> None:
    owner.append(1, [b"1"])
    set_owner(path, **gone)
    new = impatient(path)
    assert new.open() == 2
    assert read_all(new)[2] == [(1, b"1")]
    with pytest.raises(JournalFencedError):
        owner.append(2, [b"2"])
    new.close()


def test_an_owner_whose_process_has_ended_is_taken_over_at_once(path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path\n"
        "from dspex.storage.journals.sqlite import SqliteJournal\n"
        "journal = SqliteJournal(Path(sys.argv[1])); journal.open()\n"
        "journal.append(1, [b'1']); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)
    new = impatient(path)
    assert new.open() == 2
    assert read_all(new)[2] == [(1, b"1")]
    new.close()


def test_the_refusal_names_the_new_owner_and_the_terms(path: Path, owner: SqliteJournal) -> None:
    new = impatient(path, takeover=True)
    new.open()
    with pytest.raises(JournalFencedError, match=r"term 1: process \d+ on .* has term 2") as caught:
        owner.append(1, [b"1"])
    assert "nothing was written" in str(caught.value)
    new.close()
    with pytest.raises(JournalFencedError, match="term 1: nobody has term 2"):
        owner.append(1, [b"1"])


def test_a_fenced_owner_that_closes_leaves_the_new_one_its_place(
    path: Path, owner: SqliteJournal
) -> None:
    new = impatient(path, takeover=True)
    new.open()
    owner.close()
    with pytest.raises(JournalError, match="it belongs to process"):
        impatient(path).open()
    new.close()


@pytest.mark.parametrize("takeover", [False, True])
def test_who_is_inside_a_transaction_is_named_and_waited_for(
    path: Path, owner: SqliteJournal, takeover: bool
) -> None:
    inside, go_on = threading.Event(), threading.Event()

    def chunks() -> Iterator[bytes]:
        inside.set()
        go_on.wait()
        yield b"chunk"

    thread = threading.Thread(target=owner.compact, args=(0, chunks()))
    thread.start()
    try:
        inside.wait()
        with pytest.raises(
            JournalError, match=rf"process {os.getpid()} on .* is inside a transaction"
        ) as caught:
            impatient(path, takeover=takeover).open()
        assert "its lock cannot be broken" in str(caught.value)
    finally:
        go_on.set()
        thread.join()
    assert owner.owns()
    assert read_all(owner) == (0, [b"chunk"], [])


def test_another_program_inside_a_transaction_is_told(path: Path, owner: SqliteJournal) -> None:
    owner.close()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(JournalError, match="another program is inside a transaction"):
            impatient(path).open()


@pytest.mark.parametrize("put_back", [False, True])
def test_a_file_that_is_removed_or_replaced_is_not_written(
    path: Path, owner: SqliteJournal, put_back: bool
) -> None:
    owner.append(1, [b"1"])
    path.rename(path.with_name("moved.db"))
    assert not owner.owns()
    if put_back:
        path.touch()
        assert not owner.owns()
    error = JournalFencedError if put_back else JournalError
    uses: list[Callable[[], object]] = [
        lambda: owner.append(2, [b"2"]),
        lambda: owner.compact(1, []),
        lambda: owner.keep_blobs([]),
    ]
    for use in uses:
        with pytest.raises(error, match=r"removed while it was in use|another file lies there"):
            use()


def test_a_file_that_comes_back_is_written_again(path: Path, owner: SqliteJournal) -> None:
    path.rename(path.with_name("moved.db"))
    with pytest.raises(JournalError, match="put it back"):
        owner.append(1, [b"1"])
    path.with_name("moved.db").rename(path)
    owner.append(1, [b"1"])
    assert owner.owns()


def test_a_journal_is_opened_once(owner: SqliteJournal) -> None:
    with pytest.raises(JournalError, match="is opened once"):
        owner.open()
    owner.append(1, [b"1"])


def test_a_journal_may_be_opened_again_after_close(owner: SqliteJournal) -> None:
    owner.append(1, [b"1"])
    owner.close()
    assert owner.open() == 2
    assert read_all(owner)[2] == [(1, b"1")]


def test_of_many_that_open_at_once_one_wins(path: Path) -> None:
    journals = [impatient(path) for _ in range(6)]
    start = threading.Barrier(len(journals))

    def open_it(journal: SqliteJournal) -> None:
        start.wait()
        with suppress(JournalError):
            journal.open()

    threads = [threading.Thread(target=open_it, args=(each,)) for each in journals]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # Who finds the file locked by a rival gives up, too, so there may be none.
    assert sum(journal.owns() for journal in journals) <= 1
    for journal in journals:
        journal.close()
    last = impatient(path)
    assert last.open() >= 1
    last.close()
