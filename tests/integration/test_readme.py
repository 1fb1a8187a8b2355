"""The README's examples, as a newcomer runs them: a script without a guard, a new home."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"


def run_alone(code: str, folder: Path) -> str:
    """Run an example as a script, with a home of its own; gives what it prints."""
    script = folder / "example.py"
    script.write_text(code)
    run = subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, "XDG_DATA_HOME": str(folder), "DSPEX_STORAGE": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def example_with(words: str) -> str:
    """The one example in which these words are."""
    [code] = [
        each
        for each in re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
        if words in each
    ]
    return str(code)


@pytest.mark.timeout(180)
def test_the_first_example_runs_and_prints_what_it_says(tmp_path: Path) -> None:
    text = README.read_text()
    code, output = re.findall(r"```(?:python|text)\n(.*?)```", text, re.DOTALL)[:2]
    printed = run_alone(code, tmp_path)
    labels = [line.partition(":")[0] for line in output.splitlines()]
    assert [line.partition(":")[0] for line in printed.splitlines()] == labels
    # Scores differ in the last digits from processor to processor, and durations always do.
    assert "accuracy 0.98" in printed
    assert (tmp_path / "dspex" / "studies.db").is_file()


@pytest.mark.timeout(180)
def test_the_example_of_the_foundation_runs(tmp_path: Path) -> None:
    printed = run_alone(example_with("find_by_capability"), tmp_path)
    assert "models/a" in printed


@pytest.mark.timeout(180)
def test_the_example_of_agents_runs(tmp_path: Path) -> None:
    assert run_alone(example_with("create_agent"), tmp_path) == "[1, 2, 3]\n"
