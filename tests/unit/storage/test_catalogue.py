"""What a store tells without its logs being read."""

from __future__ import annotations

from pathlib import Path

import pytest

from dspex.errors import (
    InvalidArgumentError,
    StorageError,
    StudyNotFoundError,
)
from dspex.storage import MemoryLog, delete_study, open_log, read_records, studies
from dspex.study.records import Asked, Opened, Stopped
from dspex.testing.logs import example_records


def write(path: Path, study: str, *records: Opened | Asked | Stopped) -> None:
    log = open_log(path, study)
    log.append(records)
    log.close()


def test_what_a_store_holds(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    asked = Asked(first=0, told=0, by=["sobol"] * 2, params=[{"x": 1}, {"x": 2}])
    write(
        path, "old", Opened(head={"seed": 1}, time=1.0), asked, Stopped(reason="trials", time=2.0)
    )
    write(path, "new", Opened(head={"seed": 2}, time=3.0))
    old, new = studies(path)
    assert (old.name, old.head, old.records, old.trials, old.stop_reason, old.running) == (
        "old",
        {"seed": 1},
        3,
        2,
        "trials",
        None,
    )
    assert (new.name, new.head, new.stop_reason) == ("new", {"seed": 2}, None)
    assert old.created <= new.created


def test_a_resumed_study_has_the_head_of_its_last_session(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    write(path, "s", Opened(head={"seed": 1}, time=1.0), Stopped(reason="trials", time=2.0))
    write(path, "s", Opened(head={"seed": 2}, time=3.0))
    (info,) = studies(path)
    assert (info.head, info.stop_reason, info.records) == ({"seed": 2}, None, 3)


def test_reading_along_while_the_study_runs(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    records = example_records(200)
    log = open_log(path, "s")
    log.append(records[:100])
    log.sync()
    reading = read_records(path, "s")
    first = next(reading)
    log.append(records[100:])
    log.sync()
    assert [first, *reading] == records[:100]
    assert list(read_records(path, "s")) == records
    log.close()


def test_a_study_exists_from_its_first_record(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    log = open_log(path, "s")
    assert studies(path) == []
    with pytest.raises(StudyNotFoundError, match="there is no study 's'"):
        read_records(path, "s")
    log.close()
    with pytest.raises(StudyNotFoundError):
        open_log(path, "s", create=False)
    write(path, "s", Stopped(reason="trials", time=2.0))
    open_log(path, "s", create=False).close()


def test_deleting_takes_one_study_only(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    for name in ("a", "b"):
        write(path, name, Stopped(reason=name, time=2.0))
    delete_study(path, "a")
    assert [info.name for info in studies(path)] == ["b"]
    assert list(read_records(path, "b")) == [Stopped(reason="b", time=2.0)]
    with pytest.raises(StudyNotFoundError):
        delete_study(path, "a")
    write(path, "a", Stopped(reason="again", time=2.0))
    assert list(read_records(path, "a")) == [Stopped(reason="again", time=2.0)]


def test_nothing_is_made_by_looking(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "s.db"
    with pytest.raises(StorageError, match="there is none at"):
        studies(path)
    for look in (read_records, delete_study):
        with pytest.raises(StudyNotFoundError):
            look(path, "s")
    with pytest.raises(StudyNotFoundError):
        open_log(path, "s", create=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [None, "", "  ", 3, "two\nlines", "\ud800", "nul\0"])
def test_a_name_is_one_line_of_text(name: object, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="one line of text"):
        open_log(tmp_path / "s.db", name)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["digits", "Größe/1 %_'; --", "study " * 50, "数字"])
def test_any_other_name_is_good(name: str, tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    write(path, name, Stopped(reason="x", time=2.0))
    assert studies(path)[0].name == name
    assert len(list(read_records(path, name))) == 1


def test_no_storage_is_memory() -> None:
    assert isinstance(open_log(None, None), MemoryLog)
    assert isinstance(open_log(None, "s"), MemoryLog)
