"""G3: the client is killed at any instant; the same call goes on, and nothing recorded is lost."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

import dspex
from dspex.storage import read_records
from dspex.study.records import Measured

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore:with .* trials and:UserWarning"),
]

# The program's text must be the same in every process, or its hash warns on resume.
SCRIPT = """
    import sys, dspex

    def program(params, data, trial):
        return (params["x"] - 1) ** 2 + float(trial.rng.normal()) * 0.01

    def study(**options):
        return dspex.optimize(
            program, 0, space={"x": dspex.Float(-5, 5), "kind": ["a", "b"]}, direction="minimize",
            strategy="tpe", trials=60, parallel_evaluations=4, seed=2, progress=False, **options)

    if __name__ == "__main__":
        study(storage=sys.argv[1], study="s", distributed=False,
              callbacks=[lambda event: print(type(event).__name__, flush=True)])
"""


def history(trials: Any) -> list[tuple[Any, ...]]:
    return [(t.number, tuple(t.params.items()), t.state, t.score) for t in trials]


def run_and_kill(script: Path, store: str, after: int) -> bool:
    """Run the study and kill it once it said so much; whether it came to its end before."""
    with subprocess.Popen(
        [sys.executable, str(script), store], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for count, _ in enumerate(process.stdout):
            if count == after:
                os.kill(process.pid, signal.SIGKILL)
    return process.returncode == 0


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_killed_client_goes_on_where_it_was(tmp_path: Path, seed: int) -> None:
    script = tmp_path / "study.py"
    script.write_text(textwrap.dedent(SCRIPT))
    assert run_and_kill(script, str(tmp_path / "whole.db"), after=10**6)
    expected = history(dspex.load(str(tmp_path / "whole.db"), "s").trials)
    assert len(expected) == 60

    store = str(tmp_path / "killed.db")
    rng = random.Random(seed)
    for _ in range(4):
        run_and_kill(script, store, after=rng.randrange(1, 25))
    assert run_and_kill(script, store, after=10**6)
    assert history(dspex.load(store, "s").trials) == expected
    measured = [(r.trial, r.fold) for r in read_records(store, "s") if isinstance(r, Measured)]
    assert len(measured) == len(set(measured)) == 60
