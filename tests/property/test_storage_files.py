"""Whatever happens to a file, nobody reads a record that was not written."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspex.errors import StorageError, StudyError
from dspex.storage import MemoryLog, open_log, read_records, studies
from dspex.study.measurement import Measurement
from dspex.study.records import Asked, Measured, Opened, Record, Stopped
from dspex.testing.logs import example_records

numbers = st.floats(allow_nan=False, allow_infinity=False)
labels = st.none() | st.booleans() | st.integers() | numbers | st.text()
json_objects = st.dictionaries(st.text(), labels | st.lists(labels), max_size=4)
measurements = st.builds(
    Measurement,
    st.dictionaries(st.text(), numbers, min_size=1, max_size=3),
    cost=st.none() | numbers,
    feedback=st.none() | st.text(),
    constraints=st.dictionaries(st.text(), numbers, max_size=2),
)
any_record: st.SearchStrategy[Record] = st.one_of(
    st.builds(Opened, head=json_objects, time=numbers),
    st.builds(
        Asked,
        first=st.integers(0),
        told=st.integers(0),
        by=st.lists(st.text(), max_size=3),
        params=st.lists(st.dictionaries(st.text(), labels, max_size=4), max_size=3),
    ),
    st.builds(
        Measured,
        trial=st.integers(0),
        fold=st.integers(0),
        attempt=st.integers(0),
        steps=st.lists(measurements, max_size=3).map(tuple),
        worker=st.text(),
        started=numbers,
        seconds=numbers,
    ),
    st.builds(Stopped, reason=st.text(), time=numbers),
)


@settings(max_examples=30)
@given(st.lists(st.lists(any_record, max_size=5), max_size=5))
def test_any_records_come_back_as_they_were(appends: list[list[Record]]) -> None:
    everything = [record for records in appends for record in records]
    with tempfile.TemporaryDirectory() as folder:
        log = open_log(f"{folder}/s.db", "s")
        for records in appends:
            log.append(records)
        assert list(log.load()) == everything
        log.close()
    memory = MemoryLog()
    for records in appends:
        memory.append(records)
    assert list(memory.load()) == everything


@pytest.fixture(scope="module")
def good_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("good") / "s.db"
    log = open_log(path, "s")
    log.append(example_records(200))
    log.close()
    return path


@settings(max_examples=100)
@given(
    # Half of the flips hit the first page, where the file's header and tables are described.
    flips=st.lists(
        st.tuples(st.integers(0, 4095) | st.integers(0, 1 << 20), st.integers(1, 255)), max_size=3
    ),
    kept=st.just(1.0) | st.floats(0.0, 1.0),
)
def test_damage_anywhere_is_refused_or_harmless(
    good_file: Path, flips: list[tuple[int, int]], kept: float
) -> None:
    damaged = bytearray(good_file.read_bytes())
    for place, flip in flips:
        damaged[place % len(damaged)] ^= flip
    del damaged[int(kept * len(damaged)) :]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "s.db"
        path.write_bytes(damaged)
        with suppress(StorageError):
            studies(path)
        read: list[Record] = []
        # An empty file, or one in which the study's name was hit, holds no study "s".
        with suppress(StorageError, StudyError):
            read.extend(read_records(path, "s"))
            assert read == example_records(200)
        assert read == example_records(200)[: len(read)]
