"""The README's first screen, as a newcomer runs it: a script without a guard, a new home."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"


@pytest.mark.timeout(180)
def test_the_first_example_runs_and_prints_what_it_says(tmp_path: Path) -> None:
    text = README.read_text()
    code, output = re.findall(r"```(?:python|text)\n(.*?)```", text, re.DOTALL)[:2]
    script = tmp_path / "example.py"
    script.write_text(code)
    run = subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, "XDG_DATA_HOME": str(tmp_path), "DSPEX_STORAGE": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    labels = [line.partition(":")[0] for line in output.splitlines()]
    assert [line.partition(":")[0] for line in run.stdout.splitlines()] == labels
    # Scores differ in the last digits from processor to processor, and durations always do.
    assert "accuracy 0.98" in run.stdout
    assert (tmp_path / "dspex" / "studies.db").is_file()
