from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable

import pytest

from dspex.engine.ports import Notice, Progress, Progressed, StudyEnded, StudyStarted, TrialEnded
from dspex.monitoring import LogObserver
from dspex.study.trial import ErrorInfo, Trial, TrialState


@pytest.fixture
def seen(caplog: pytest.LogCaptureFixture) -> Callable[[], list[tuple[str, str]]]:
    caplog.set_level(logging.DEBUG, logger="dspex")
    return lambda: [(record.levelname, record.getMessage()) for record in caplog.records]


def ended(trial: Trial) -> TrialEnded:
    return TrialEnded(number=trial.number, state=trial.state, look=lambda number: trial)


def test_a_study_in_the_log(
    seen: Callable[[], list[tuple[str, str]]],
    started: Callable[..., StudyStarted],
    progress: Callable[..., Progress],
    make_trial: Callable[..., Trial],
) -> None:
    observer = LogObserver()
    observer(started(resumed=7, storage="studies.db"))
    observer(ended(make_trial(7, 0.5)))
    error = ErrorInfo("ValueError", "first line\nsecond line", "Traceback ...")
    observer(ended(make_trial(8, error=error)))
    observer(ended(make_trial(9, error=error, state=TrialState.TIMED_OUT)))
    observer(Progressed(progress=progress()))
    observer(Notice(message="a worker left"))
    observer(StudyEnded(reason="trials", progress=progress(failed=2)))
    assert seen() == [
        (
            "INFO",
            "study 'digits' started: strategy tpe (eight variables); 100 trials in all, "
            "7 done before, kept in studies.db",
        ),
        ("DEBUG", "study 'digits': trial 7 ended: 0.5"),
        ("WARNING", "study 'digits': trial 8 failed: ValueError: first line"),
        ("WARNING", "study 'digits': trial 9 timed out: ValueError: first line"),
        ("INFO", "study 'digits': a worker left"),
        (
            "INFO",
            "study 'digits' ended (trials) after 20 s: 40 trials done, 2 failed, "
            "best auc 0.875 (trial 31), slots 97 % busy",
        ),
    ]


def test_a_study_without_name_total_or_score(
    seen: Callable[[], list[tuple[str, str]]],
    started: Callable[..., StudyStarted],
    progress: Callable[..., Progress],
) -> None:
    observer = LogObserver()
    observer(started(study=None, trials=None))
    observer(StudyEnded(reason="interrupted", progress=progress(best=None)))
    (_, first), (_, last) = seen()
    assert "no limit of trials, 0 done before, kept in memory" in first
    assert "best auc none" in last


def test_another_logger(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="mine")
    LogObserver(logging.getLogger("mine"))(Notice(message="hello"))
    assert [record.name for record in caplog.records] == ["mine"]


def test_a_user_without_logging_sees_no_warning_twice() -> None:
    code = (
        "import logging; import dspex.monitoring; "
        "logging.getLogger('dspex').warning('a failed trial')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""
