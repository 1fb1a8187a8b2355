"""What every `Log` must keep, as a suite of tests.

Knows: the port `dspex.engine.ports.Log`. Must not know: any one log.

Subclass `DurableLogConformance`, or `LogConformance` for a log that ends with its process, in a
test module, and give it a fixture ``opener``::

    class TestMyLog(DurableLogConformance):
        @pytest.fixture
        def opener(self, tmp_path):
            return lambda study="study": MyLog(tmp_path / "log", study)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import pytest

from dspex.engine.ports import Log
from dspex.errors import StorageError, StudyInUseError
from dspex.study.measurement import Measurement
from dspex.study.records import Asked, Failed, Measured, Opened, Record, Stopped
from dspex.study.trial import ErrorInfo, TrialState

__all__ = ["DurableLogConformance", "LogConformance", "Opener", "example_records"]

Opener: TypeAlias = Callable[..., Log]
"""Called with a study's name, or without: opens the log of that study, always in one store."""


def example_records(trials: int = 3) -> list[Record]:
    """Make one record of every kind, and ``trials`` trials.

    Examples
    --------
    >>> sorted({type(record).__name__ for record in example_records()})
    ['Asked', 'Failed', 'Measured', 'Opened', 'Stopped']
    """
    records: list[Record] = [Opened(head={"seed": 7, "space": {"x": [0.1, 1e-300]}}, time=1.5)]
    for number in range(trials):
        records += [
            Asked(first=number, told=number, by=["random"], params=[{"x": 0.1 * number, "k": "ü"}]),
            Measured(
                trial=number,
                fold=0,
                attempt=number % 2,
                steps=(Measurement(1 / 3), Measurement({"auc": 0.1 + 0.2}, feedback="\u2028 ok")),
                worker="tcp://127.0.0.1:1",
                started=1e9 + number,
                seconds=0.1,
            ),
        ]
    records.append(
        Failed(
            trial=trials,
            fold=1,
            attempt=0,
            state=TrialState.TIMED_OUT,
            error=ErrorInfo("TimeoutError", "past 3 s", "Traceback ..."),
            worker="w",
            started=2.0,
            seconds=3.0,
        )
    )
    records.append(Stopped(reason="trials", time=9.0))
    return records


class LogConformance:
    """The promises of every `Log`; subclasses give the fixture ``opener``."""

    def test_a_new_log_is_empty(self, opener: Opener) -> None:
        log = opener()
        assert list(log.load()) == []
        log.close()

    def test_records_come_back_as_they_were_in_order(self, opener: Opener) -> None:
        log = opener()
        records = example_records(300)
        log.append(records[:5])
        log.append([])
        log.append(records[5:])
        assert list(log.load()) == records
        log.close()

    def test_what_is_appended_while_reading_does_not_disturb_it(self, opener: Opener) -> None:
        log = opener()
        records = example_records(300)
        log.append(records)
        reading = iter(log.load())
        first = next(reading)
        log.append([Stopped(reason="later", time=10.0)])
        log.sync()
        assert [first, *reading] == records
        log.close()

    def test_the_list_that_was_appended_may_be_used_again(self, opener: Opener) -> None:
        log = opener()
        records = example_records()
        given = list(records)
        log.append(given)
        given.clear()
        assert list(log.load()) == records
        log.close()

    def test_nothing_is_accepted_after_close(self, opener: Opener) -> None:
        log = opener()
        log.close()
        log.close()
        with pytest.raises(StorageError, match="closed"):
            log.append(example_records())
        with pytest.raises(StorageError, match="closed"):
            log.load()
        with pytest.raises(StorageError, match="closed"):
            log.sync()


class DurableLogConformance(LogConformance):
    """The promises of a log that can be opened again."""

    def test_a_log_goes_on_where_it_ended(self, opener: Opener) -> None:
        records = example_records(200)
        for part in (records[:1], records[1:150], records[150:]):
            log = opener()
            log.append(part)
            log.close()
        log = opener()
        assert list(log.load()) == records
        log.close()

    def test_studies_in_one_store_do_not_mix(self, opener: Opener) -> None:
        records = example_records()
        one, other = opener("one"), opener("other")
        one.append(records[:3])
        other.append(records[3:])
        assert list(one.load()) == records[:3]
        assert list(other.load()) == records[3:]
        one.close()
        other.close()

    def test_a_study_has_one_owner(self, opener: Opener) -> None:
        log = opener()
        with pytest.raises(StudyInUseError, match="one process owns a study at a time"):
            opener()
        log.append(example_records())
        log.close()
        opener().close()
