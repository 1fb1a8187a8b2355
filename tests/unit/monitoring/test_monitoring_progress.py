from __future__ import annotations

import io
import sys
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from dspex.engine.ports import Notice, Progress, Progressed, StudyEnded, StudyStarted
from dspex.errors import InvalidArgumentError
from dspex.monitoring import PlainLines, ProgressBar, make_progress
from dspex.study.goal import Goal

MakeStarted = Callable[..., StudyStarted]
MakeProgress = Callable[..., Progress]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    @property
    def screen(self) -> list[str]:
        """What stands on each line once all carriage returns have been obeyed."""
        lines = []
        for line in self.getvalue().replace("\x1b[A", "").split("\n"):
            shown = ""
            for piece in line.split("\r"):
                shown = piece + shown[len(piece) :]
            lines.append(shown.rstrip())
        return lines


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")


def narrow(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))


# --- which observer ------------------------------------------------------------------------


def test_false_is_nothing_true_is_a_bar() -> None:
    assert make_progress(False) is None
    assert isinstance(make_progress(True), ProgressBar)


@pytest.mark.parametrize(
    ("stream", "kind"), [(Terminal(), ProgressBar), (io.StringIO(), PlainLines)]
)
def test_auto_looks_whether_somebody_watches(
    monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, kind: type
) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    assert isinstance(make_progress("auto"), kind)


def test_auto_is_a_bar_in_a_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    shell = SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert isinstance(make_progress("auto"), ProgressBar)


def test_ipython_in_a_log_is_no_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: None))
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert isinstance(make_progress("auto"), PlainLines)


@pytest.mark.parametrize("value", ["yes", None, 1, 0])
def test_other_values_are_refused(value: Any) -> None:
    with pytest.raises(InvalidArgumentError, match='True, False or "auto"'):
        make_progress(value)


# --- the bar -------------------------------------------------------------------------------


def test_the_bar_tells_all(started: MakeStarted, progress: MakeProgress) -> None:
    terminal = Terminal()
    bar = ProgressBar(terminal)
    bar(started())
    bar(Progressed(progress=progress(failed=3, busy=0.9, waiting_for="the strategy")))
    last = terminal.screen[-1]
    for part in [
        "digits:  40%",
        "40/100",
        "best auc 0.875",
        "30 s left",
        "3 failed",
        "2 workers 90 % busy",
        "waiting for the strategy",
        "4 running",
    ]:
        assert part in last
    bar.close()


def test_it_keeps_what_matters_on_a_narrow_screen(
    started: MakeStarted, progress: MakeProgress, monkeypatch: pytest.MonkeyPatch
) -> None:
    narrow(monkeypatch, 80)
    terminal = Terminal()
    bar = ProgressBar(terminal)
    bar(started())
    bar(Progressed(progress=progress(failed=3)))
    last = terminal.screen[-1]
    assert len(last) <= 80
    for part in ["40/100", "best 0.875", "30 s left", "3 failed"]:
        assert part in last
    bar.close()


def test_a_long_name_leaves_room_for_what_changes(
    started: MakeStarted, progress: MakeProgress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    stream = io.StringIO()
    bar = ProgressBar(stream)
    bar(started(study="a-study-with-a-rather-long-name"))
    bar(Progressed(progress=progress()))
    line = stream.getvalue().split("\r")[-1]
    assert line.startswith("a-study-with-a-…")
    assert "2 workers 97 %" in line
    bar.close()


def test_the_cause_of_idle_slots_is_told_while_they_are_idle(
    started: MakeStarted, progress: MakeProgress, monkeypatch: pytest.MonkeyPatch
) -> None:
    cause = "trial 7 (parallel_evaluations=2)"
    for busy, columns, words, told in [
        (0.58, 160, "58 % busy · waiting for trial 7 (parallel_evaluations=2)", True),
        (0.58, 85, "58 % · waits: trial 7", True),
        (0.98, 160, "waiting", False),
    ]:
        narrow(monkeypatch, columns)
        stream = io.StringIO()
        bar = ProgressBar(stream)
        bar(started(study=None))
        bar(Progressed(progress=progress(busy=busy, waiting_for=cause)))
        bar.close()
        assert (words in stream.getvalue()) is told, stream.getvalue()


def test_long_sentences_wrap_between_words(
    started: MakeStarted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    stream = io.StringIO()
    bar = ProgressBar(stream)
    bar(started(reason="tpe, because it serves every kind of variable and learns fast"))
    bar.close()
    first, second = stream.getvalue().split("\r")[0].splitlines()[:2]
    assert len(first) <= 60
    assert second.startswith("  ")
    assert "every kind of variable" in " ".join(f"{first} {second}".split())


def test_a_very_narrow_screen_never_wraps(
    started: MakeStarted, progress: MakeProgress, monkeypatch: pytest.MonkeyPatch
) -> None:
    narrow(monkeypatch, 30)
    terminal = Terminal()
    bar = ProgressBar(terminal)
    bar(started())
    bar(Progressed(progress=progress()))
    assert "40/100" in terminal.screen[-1]
    assert len(terminal.screen[-1]) <= 30
    bar.close()


def test_resumed_trials_start_the_bar_and_are_in_no_rate(
    started: MakeStarted, progress: MakeProgress
) -> None:
    terminal = Terminal()
    bar = ProgressBar(terminal)
    bar(started(resumed=30))
    assert "continues after 30 of 100 trials" in terminal.screen[0]
    bar(Progressed(progress=progress(done=30, elapsed=5.0)))
    assert "30/100" in terminal.screen[-1]
    assert "per trial" not in terminal.screen[-1]
    # 10 new trials in 20 s, not 40 in 20 s.
    bar(Progressed(progress=progress(done=40, elapsed=20.0)))
    assert "2.0 s per trial" in terminal.screen[-1]
    bar.close()


def test_an_unknown_total_has_a_count_and_no_bar(
    started: MakeStarted, progress: MakeProgress
) -> None:
    terminal = Terminal()
    bar = ProgressBar(terminal)
    bar(started(trials=None))
    bar(Progressed(progress=progress(trials=None, time_left=None)))
    last = terminal.screen[-1]
    assert last.startswith("digits: 40 done · best auc 0.875")
    assert "%|" not in last
    assert "left" not in last
    bar.close()


def test_the_total_may_shrink_on_the_way(started: MakeStarted, progress: MakeProgress) -> None:
    terminal = Terminal()
    bar = ProgressBar(terminal)
    bar(started())
    bar(Progressed(progress=progress(trials=44)))
    assert "40/44" in terminal.screen[-1]
    bar.close()


def test_a_notice_stands_on_its_own_line(started: MakeStarted, progress: MakeProgress) -> None:
    terminal = Terminal()
    bar = ProgressBar(terminal)
    bar(started())
    bar(Progressed(progress=progress()))
    bar(Notice(message="worker left"))
    bar(Progressed(progress=progress(done=41)))
    assert "worker left" in terminal.screen
    assert "41/100" in terminal.screen[-1]
    assert sum("41/100" in line for line in terminal.screen) == 1
    bar.close()


def test_the_last_line_says_why_it_stopped(started: MakeStarted, progress: MakeProgress) -> None:
    terminal = Terminal()
    bar = ProgressBar(terminal)
    bar(started(resumed=10))
    bar(StudyEnded(reason="timeout", progress=progress(failed=1, elapsed=200.0)))
    *_, drawn, farewell, rest = terminal.screen
    assert "40/100" in drawn
    assert "left" not in drawn
    assert farewell == (
        "Stopped: the time is up. 40 trials (10 from before) · 1 failed · best auc 0.875 · "
        "3 min 20 s, slots 97 % busy"
    )
    assert rest == ""


def test_the_best_has_the_users_sign_and_tells_a_broken_constraint(
    started: MakeStarted, progress: MakeProgress, make_trial: Callable[..., Any]
) -> None:
    terminal = Terminal()
    bar = ProgressBar(terminal)
    bar(started(goal=Goal.of({"{loss}": "minimize"})))
    bar(Progressed(progress=progress(best=make_trial(3, -2.5, violation=0.1))))
    assert "best {loss} -2.5 (breaks a constraint)" in terminal.screen[-1]
    bar.close()


def test_no_workers_and_no_score_are_told(started: MakeStarted, progress: MakeProgress) -> None:
    terminal = Terminal()
    bar = ProgressBar(terminal)
    bar(started())
    bar(Progressed(progress=progress(workers=0, slots=0, best=None, time_left=None)))
    assert "no workers" in terminal.screen[-1]
    assert "best" not in terminal.screen[-1]
    bar.close()


def test_one_bar_serves_two_sessions_and_closes_twice(
    started: MakeStarted, progress: MakeProgress
) -> None:
    terminal = Terminal()
    bar = ProgressBar(terminal)
    bar(started())
    bar(Progressed(progress=progress()))
    bar(started(study="second"))
    bar(Progressed(progress=progress()))
    assert terminal.screen[-1].startswith("second:")
    bar.close()
    bar.close()
    bar(Progressed(progress=progress()))
    assert repr(bar) == "<ProgressBar idle>"


def test_the_bar_starts_no_thread(started: MakeStarted, progress: MakeProgress) -> None:
    before = set(threading.enumerate())
    bar = ProgressBar(Terminal())
    bar(started())
    bar(Progressed(progress=progress()))
    assert set(threading.enumerate()) <= before
    bar.close()


# --- plain lines ---------------------------------------------------------------------------


def test_plain_lines_come_every_ten_seconds_without_carriage_returns(
    started: MakeStarted, progress: MakeProgress
) -> None:
    stream = io.StringIO()
    lines = PlainLines(stream)
    lines(started())
    for tenth in range(250):
        lines(Progressed(progress=progress(elapsed=tenth / 10)))
    lines(Notice(message="worker left"))
    lines(StudyEnded(reason="trials", progress=progress(elapsed=25.0)))
    written = stream.getvalue()
    assert "\r" not in written
    assert written.splitlines() == [
        "Study 'digits': strategy tpe (eight variables)",
        "40/100 trials · 10 s · best auc 0.875 · 30 s left · 2 workers 97 % busy · 4 running"
        " · 0.2 s per trial",
        "40/100 trials · 20 s · best auc 0.875 · 30 s left · 2 workers 97 % busy · 4 running"
        " · 0.5 s per trial",
        "worker left",
        "Stopped: all trials are done. 40 trials · best auc 0.875 · 25 s, slots 97 % busy",
    ]


def test_a_short_study_has_two_lines(started: MakeStarted, progress: MakeProgress) -> None:
    stream = io.StringIO()
    lines = PlainLines(stream)
    lines(started(study=None, reason=""))
    lines(Progressed(progress=progress(elapsed=0.4)))
    lines(StudyEnded(reason="trials", progress=progress(elapsed=0.5, best=None)))
    assert stream.getvalue().splitlines() == [
        "Study: strategy tpe",
        "Stopped: all trials are done. 40 trials · no score yet · 0.5 s, slots 97 % busy",
    ]
