from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from dspex.errors import MissingDependencyError
from dspex.monitoring.summary import StudySummary
from dspex.monitoring.tables import result_html, result_text, trials_dataframe
from dspex.monitoring.views import pareto_front
from dspex.study.trial import ErrorInfo, Trial

MakeStudy = Callable[..., Any]


def test_the_frame_has_a_row_per_trial_and_a_column_per_variable(make_study: MakeStudy) -> None:
    study = make_study(20)
    frame = trials_dataframe(study.trials)
    columns = list(frame.columns)
    assert columns[:3] == ["number", "state", "score"]
    assert set(columns[3:7]) == {f"params.{name}" for name in study.space.names}
    assert columns[7:] == [
        "seconds",
        "started",
        "finished",
        "worker",
        "attempts",
        "proposed_by",
        "violation",
        "error",
    ]
    assert list(frame["number"]) == list(range(20))
    assert frame.loc[7, "error"] == "ValueError: no convergence\nafter 10 steps"
    assert frame["score"].isna().sum() == 2
    assert frame.loc[0, "started"] == datetime.fromtimestamp(1000, UTC)


def test_several_scores_have_columns(make_study: MakeStudy) -> None:
    frame = trials_dataframe(make_study(5, objectives=2).trials)
    assert list(frame["scores.latency"]) == [
        t.scores["latency"] for t in make_study(5, objectives=2).trials
    ]


def test_the_frame_of_nothing_has_its_columns() -> None:
    assert list(trials_dataframe([]).columns)[:3] == ["number", "state", "score"]


def test_without_pandas_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingDependencyError, match="pip install pandas"):
        trials_dataframe([])


def test_a_result_in_plain_text(make_study: MakeStudy) -> None:
    study = make_study(40)
    lines = result_text(study.trials, study.space, study.goal, study.summary).splitlines()
    assert lines[0].startswith("Study 'example': best auc 0.9")
    assert ", defaults 0." in lines[0]
    assert lines[1].startswith("  best params: kernel=")
    assert lines[2:] == [
        "  trials: 40 trials done, 4 of them failed",
        "  time: 1 min 01 s, slots 93 % busy",
        "  stopped: all trials are done",
        "  strategy: tpe (some variables are conditional)",
        "  kept in: studies.db",
    ]


def test_several_objectives_have_a_front(make_study: MakeStudy) -> None:
    study = make_study(40, objectives=2)
    text = result_text(study.trials, study.space, study.goal, study.summary)
    size = len(pareto_front(study.trials, study.goal))
    assert size > 1
    assert f"\n  Pareto front: {size} trials over auc and latency\n" in text


def test_none_is_a_label_and_not_an_inactive_variable(
    make_trial: Callable[..., Trial],
) -> None:
    params: list[dict[str, Any]] = [{"w": None}, {"w": "balanced"}, {}]
    frame = trials_dataframe([make_trial(i, 0.5, params=each) for i, each in enumerate(params)])
    none, label, inactive = frame["params.w"]
    assert none is None
    assert label == "balanced"
    assert inactive != inactive


def test_what_is_not_known_is_not_said(make_study: MakeStudy) -> None:
    study = make_study(0)
    text = result_text([], study.space, study.goal, StudySummary())
    assert text.splitlines() == [
        "Study: no trial completed yet",
        "  trials: 0 trials done",
        "  time: 0.0 s",
    ]


def test_a_broken_constraint_is_told(make_study: MakeStudy) -> None:
    study = make_study(1)
    trials = [replace(study.trials[0], violation=0.5)]
    text = result_text(trials, study.space, study.goal, study.summary)
    assert "which breaks a constraint" in text


def test_the_card_escapes_and_loads_nothing(
    make_study: MakeStudy, make_trial: Callable[..., Trial]
) -> None:
    study = make_study(1)
    evil = "<script>alert(1)</script>"
    trials = [
        make_trial(0, 0.1, params={evil: evil}),
        make_trial(1, 0.2, params={evil: evil}),
        make_trial(2, error=ErrorInfo(evil, evil)),
    ]
    summary = StudySummary(name=evil, storage=evil, strategy=evil, reason=evil, stop_reason=evil)
    html = result_html(trials, study.space, study.goal, summary)
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert "http" not in html


def test_the_card_has_a_curve_from_two_scores_on(make_study: MakeStudy) -> None:
    for n, curves in [(0, 0), (1, 0), (30, 1)]:
        study = make_study(n)
        html = result_html(study.trials, study.space, study.goal, study.summary)
        assert html.count("<svg") == curves


def test_many_params_are_cut_in_the_card(
    make_study: MakeStudy, make_trial: Callable[..., Trial]
) -> None:
    study = make_study(0)
    trials = [make_trial(0, 1.0, params={f"x{i}": i for i in range(30)})]
    html = result_html(trials, study.space, study.goal, study.summary)
    assert "18 more" in html
