from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from dspex.monitoring.report import StudySummary, write_report
from dspex.space import Choice, Space
from dspex.study.goal import Goal
from dspex.study.trial import ErrorInfo, Trial

MakeStudy = Callable[..., Any]

EVIL = "<script>alert('x')</script><img src=http://evil.example/x onerror=alert(1)>"


class Page(HTMLParser):
    """What a browser would find: tags with attributes, and text outside of scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._inside: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self._inside and self._inside.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self._inside[-1:]):
            self.words.append(data.strip())

    @property
    def text(self) -> str:
        return " ".join(word for word in self.words if word)


@pytest.fixture
def page(tmp_path: Path) -> Callable[[Any], Page]:
    def write(study: Any) -> Page:
        path = write_report(
            tmp_path / "report.html", study.trials, study.space, study.goal, study.summary
        )
        return Page(path.read_text(encoding="utf-8"))

    return write


@pytest.fixture(scope="module")
def common(make_study: MakeStudy, tmp_path_factory: pytest.TempPathFactory) -> Page:
    """The report of one ordinary study, which several tests look at."""
    study = make_study(60)
    path = tmp_path_factory.mktemp("common") / "report.html"
    write_report(path, study.trials, study.space, study.goal, study.summary)
    return Page(path.read_text(encoding="utf-8"))


def test_the_report_says_what_happened(make_study: MakeStudy, common: Page) -> None:
    study = make_study(60)
    text = common.text
    best = max((t for t in study.trials if t.score is not None), key=lambda t: t.score)
    for part in [
        "example",
        "maximize auc",
        f"{best.score:.5g}",
        f"trial {best.number}, higher is better; the defaults give",
        "all trials are done",
        "1 min 01 s",
        "93 %",
        "some variables are conditional",
        "0.001 to 1000, log",
        "6 trials · ValueError: no convergence",
        "Traceback: here",
        "kept in studies.db",
        "dspex 0.1.0",
    ]:
        assert part in text


def test_no_request_leaves_the_page(common: Page) -> None:
    for tag, attributes in common.tags:
        assert tag not in {"link", "iframe", "object", "embed", "base"}
        for name in ("src", "href", "action", "data", "srcset"):
            assert name not in attributes
    policies = [a["content"] for _, a in common.tags if a.get("http-equiv")]
    assert policies
    assert policies[0] is not None
    assert policies[0].startswith("default-src 'none'")
    assert "http" not in policies[0]


def test_what_users_wrote_is_text_and_never_markup(
    make_trial: Callable[..., Trial],
    page: Callable[[Any], Page],
    make_study: MakeStudy,
    common: Page,
) -> None:
    space = Space({EVIL: Choice([EVIL, "b"])})
    error = ErrorInfo(EVIL, EVIL, EVIL)
    trials = [
        make_trial(0, 1.0, params={EVIL: EVIL}, worker=EVIL, proposed_by=EVIL),
        make_trial(1, params={EVIL: "b"}, error=error),
    ]
    summary = StudySummary(
        name=EVIL, storage=EVIL, strategy=EVIL, reason=EVIL, stop_reason=EVIL, versions={EVIL: EVIL}
    )
    goal = Goal.of({EVIL: "maximize"}, {"<b>": ("le", 1.0)})
    trials[0] = replace(trials[0], scores={EVIL: 1.0, "<b>": 0.5})
    study = replace(make_study(0), trials=trials, space=space, goal=goal, summary=summary)
    found = page(study)
    assert EVIL in found.text
    assert not [tag for tag, _ in found.tags if tag == "img"]
    scripts = [sum(tag == "script" for tag, _ in each.tags) for each in (common, found)]
    assert scripts[0] == scripts[1]


@pytest.mark.parametrize("n", [0, 1])
def test_a_study_with_nothing_yet_has_a_report(
    make_study: MakeStudy, page: Callable[[Any], Page], n: int
) -> None:
    text = page(make_study(n)).text
    assert "example" in text
    assert ("No trial has completed" in text) == (n == 0)


def test_a_thousand_trials_with_two_objectives(make_study: MakeStudy, tmp_path: Path) -> None:
    study = make_study(1000, objectives=2)
    path = write_report(tmp_path / "r.html", study.trials, study.space, study.goal, study.summary)
    assert path.stat().st_size < 3_000_000
    found = Page(path.read_text(encoding="utf-8"))
    assert "100 trials · ValueError: no convergence" in found.text
    assert "300 shown: the best and the failed of 1000 trials" in found.text
    assert sum(tag == "details" for tag, _ in found.tags) == 1
    assert "Pareto front" in found.text
    assert re.search(r"maximize auc\s*, minimize latency", found.text)


def test_numbers_sort_as_numbers(common: Page) -> None:
    keys = [a["data-sort"] for tag, a in common.tags if tag == "td" and "data-sort" in a]
    assert keys
    assert all(key is not None and (key == "" or float(key) == float(key)) for key in keys)


def test_the_path_is_made_and_an_old_report_replaced(make_study: MakeStudy, tmp_path: Path) -> None:
    study = make_study(0)
    target = tmp_path / "new" / "folder" / "report.html"
    first = write_report(target, study.trials, study.space, study.goal, study.summary)
    second = write_report(str(target), study.trials, study.space, study.goal, study.summary)
    assert first == second == target
