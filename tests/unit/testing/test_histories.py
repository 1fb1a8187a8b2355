"""Histories of several processes in one file, some of which are killed."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import textwrap

import pytest

import dspex
from dspex.testing.histories import UNKNOWN, History, Operation, read_histories


def test_calls_and_returns_are_put_together(tmp_path: pathlib.Path) -> None:
    clock = iter(range(100)).__next__
    path = tmp_path / "calls"
    with History(path, "a", clock=clock) as a, History(path, "b", clock=clock) as b:
        with a.calling("x", "put", [1, [2]]) as call, b.calling("x", "get") as other:
            other.returned([[1, [2]], 7])
            call.returned(7)
        with a.calling("y", "delete") as call:
            call.had_no_effect()
        with b.calling("y", "delete"):
            pass
        with pytest.raises(ConnectionError), b.calling("y", "get"):
            raise ConnectionError
    a.close()
    assert read_histories(path) == [
        Operation("a", "x", "put", ((1, (2,)),), 7, 0, 3),
        Operation("b", "x", "get", (), ((1, (2,)), 7), 1, 2),
        Operation("b", "y", "delete", (), UNKNOWN, 6),
        Operation("b", "y", "get", (), UNKNOWN, 7),
    ]


def test_a_torn_line_harms_no_other(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "calls"
    with History(path, "a") as history, history.calling("x", "put", 1) as call:
        whole = path.read_bytes()
        for cut in range(1, len(whole) - 1):
            with path.open("ab") as file:
                file.write(whole.replace(b"put", b"torn")[:cut])
            with history.calling("x", "get") as other:
                other.returned(None)
            call.returned(cut)
            (put, *gets) = read_histories(path)
            assert put.result == cut
            assert [get.op for get in gets] == ["get"] * cut


def test_what_returns_was_called(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "calls"
    with History(path, "a") as history, history.calling("x", "put", 1) as call:
        path.write_bytes(b"")
        call.returned(1)
    with pytest.raises(ValueError, match="what returns was called before"):
        read_histories(path)


WRITER = """
    import sys
    from dspex.testing.histories import History
    history = History(sys.argv[1], sys.argv[2])
    number = 0
    while True:
        number += 1
        with history.calling("x", "put", number, "x" * 3000) as call:
            call.returned(number)
        if number == 20:
            print("under way", flush=True)
"""


def test_processes_that_are_killed_leave_a_history(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "calls"
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(WRITER), path, name],
            env={**os.environ, "PYTHONPATH": str(pathlib.Path(dspex.__file__).parents[1])},
            stdout=subprocess.PIPE,
        )
        for name in "abc"
    ]
    try:
        for writer in writers:
            assert writer.stdout is not None
            assert writer.stdout.readline()
    finally:
        for writer in writers:
            writer.send_signal(signal.SIGKILL)
            writer.communicate()
    operations = read_histories(path)
    for name in "abc":
        mine = [each for each in operations if each.process == name]
        assert [each.args[0] for each in mine] == list(range(1, len(mine) + 1))
        assert len(mine) >= 20
        assert all(each.result == each.args[0] for each in mine[:-1])
        assert mine[-1].result in (UNKNOWN, len(mine))
