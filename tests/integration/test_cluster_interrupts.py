"""Ctrl-C in a terminal: every process of the foreground group gets it, the study answers it."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import textwrap

import dspex

SOURCE = str(pathlib.Path(dspex.__file__).parents[1])

# Without a guard, so that this case is tried too. A callback stands for the person at the keyboard:
# signals come at a known moment, to all processes of the group.
SCRIPT = """
    import os, signal, dspex
    from dspex.cluster import connect_cluster

    def program(params):
        return params["x"]

    def press_ctrl_c(event):
        if type(event).__name__ == "TrialEnded" and event.number in (3, 4)[:presses]:
            os.killpg(0, signal.SIGINT)

    def study(**where):
        return dspex.optimize(
            program, space={"x": dspex.Float(0, 1)}, direction="minimize", trials=100_000,
            parallel_evaluations=2, callbacks=[press_ctrl_c], progress=False, **where)

    presses = 1
    result = study(cluster_nodes=1)
    print(result.stop_reason, result.best_score is not None, len(result.trials) >= 4)

    presses = 2
    with connect_cluster(cluster_nodes=1) as connection:
        workers = connection.client.run(os.getpid)
        try:
            study(cluster=connection.client)
        except KeyboardInterrupt:
            print("raised")
        print(connection.client.run(os.getpid) == workers)
"""


def test_workers_do_not_hear_it_and_the_best_is_returned(tmp_path: pathlib.Path) -> None:
    (tmp_path / "script.py").write_text(textwrap.dedent(SCRIPT))
    ended = subprocess.run(
        [sys.executable, "-W", "error", "script.py"],
        env={**os.environ, "PYTHONPATH": SOURCE},
        cwd=tmp_path,
        start_new_session=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ended.stderr, ended.returncode) == ("", 0)
    assert ended.stdout == "interrupted True True\nraised\nTrue\n"
