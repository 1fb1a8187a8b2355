"""The command line as a person uses it: what it prints, its exit codes, no traceback."""

from __future__ import annotations

import textwrap
import warnings
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from dspex.cli import main

pytestmark = pytest.mark.filterwarnings("ignore:with .* trials and:UserWarning")

DECLARATION = """
    import dspex
    from helper import loss

    mine = {
        "program": loss,
        "space": {"x": dspex.Float(-1, 1), "kind": ["a", "b"]},
        "direction": "minimize",
        "trials": 30,
        "distributed": False,
        "progress": False,
    }
    misspelt = {**mine, "trails": 3}
    nothing = {"trials": 3}
    broken = {**mine, "program": lambda params: 1 / 0}
"""


@pytest.fixture
def study_file(tmp_path: Path) -> Path:
    (tmp_path / "helper.py").write_text("def loss(params):\n    return params['x'] ** 2\n")
    (tmp_path / "imports.py").write_text("import nowhere")
    (tmp_path / "syntax.py").write_text("x = (")
    path = tmp_path / "study.py"
    path.write_text(textwrap.dedent(DECLARATION))
    return path


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(main, [str(each) for each in arguments])
    # What click turned into an exit code is fine; anything else is a traceback for the user.
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "click/core.py" not in result.output
    assert "Traceback" not in result.output or "ZeroDivisionError" in result.output
    return result


def test_help_says_what_to_do_first() -> None:
    result = run("--help")
    assert result.exit_code == 0
    assert "\n    dspex demo      " in result.output
    assert "\n    mine = dict(" in run("optimize", "--help").output
    for command in ("demo", "optimize", "studies", "show", "report"):
        assert run(command, "--help").exit_code == 0


def test_a_study_is_run_listed_shown_verified_and_reported(study_file: Path) -> None:
    store = study_file.with_name("s.db")
    result = run("optimize", f"{study_file}:mine", "--storage", store, "--seed", 1)
    assert result.exit_code == 0, result.output
    assert "best score" in result.output
    again = run("optimize", f"{study_file}:mine", "--storage", store, "--seed", 1)
    assert again.exit_code == 0, again.output

    listed = run("studies", store)
    assert "mine" in listed.output
    assert "30" in listed.output

    shown = run("show", store, "mine", "--trials", 3, "--verify")
    assert shown.exit_code == 0, shown.output
    assert "30 suggestions derived again" in shown.output
    assert "kind=" in shown.output

    page = study_file.with_name("report.html")
    assert run("report", store, "mine", "-o", page).exit_code == 0
    assert page.read_text().startswith("<!DOCTYPE html>")


@pytest.mark.parametrize(
    ("declaration", "code", "words"),
    [
        ("study.py", 2, "FILE.py:NAME"),
        ("absent.py:mine", 2, "no file"),
        ("study.py:yours", 2, "'yours' in .* is not a dict"),
        ("study.py:misspelt", 2, "trails"),
        ("study.py:nothing", 2, "no 'program'"),
        ("imports.py:mine", 1, "No module named 'nowhere'"),
        ("syntax.py:mine", 1, "syntax.py cannot be run"),
        ("study.py:broken", 1, "the first 10 trials all failed"),
    ],
)
def test_mistakes_in_a_declaration(
    study_file: Path, declaration: str, code: int, words: str
) -> None:
    result = run("optimize", study_file.parent / declaration)
    assert result.exit_code == code, result.output
    assert words.split(" .* ")[-1] in " ".join(result.output.split())


def test_a_warning_is_one_line(study_file: Path) -> None:
    warnings.simplefilter("always")
    result = run("optimize", f"{study_file}:mine", "--trials", 20, "--seed", 1)
    assert "cli.py" not in result.output
    assert "dspex: with 20 trials and 16 of them" in result.output


def test_a_store_that_is_not_there(tmp_path: Path) -> None:
    for arguments in (
        ("studies", "no.db"),
        ("show", "no.db", "x"),
        ("report", "no.db", "x", "-o", "r"),
    ):
        command, name, *rest = arguments
        result = run(command, tmp_path / name, *rest)
        assert result.exit_code == 1
        assert result.output.startswith("dspex: ")


def test_a_dead_scheduler_is_an_answer_not_a_traceback(study_file: Path) -> None:
    text = study_file.read_text().replace('"distributed": False,', "")
    study_file.write_text(text)
    result = run("optimize", f"{study_file}:mine", "--cluster", "tcp://127.0.0.1:9")
    assert result.exit_code == 1
    assert "127.0.0.1:9" in result.output
