"""Several processes and one store."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dspex.errors import StorageError
from dspex.storage import open_log, read_records, studies
from dspex.testing.logs import example_records

HOLD = """
import sys
from dspex.storage import open_log
from dspex.testing.logs import example_records
log = open_log(sys.argv[1], "s")
log.append(example_records())
log.sync()
print("open", flush=True)
sys.stdin.read()
log.close()
"""

OPEN = """
import sys
from dspex.errors import StudyInUseError
from dspex.storage import open_log
try:
    open_log(sys.argv[1], "s").close()
except StudyInUseError as error:
    print(error)
else:
    print("mine")
"""

WRITE = """
import sys
from dspex.storage import open_log
from dspex.testing.logs import example_records
sys.stdin.read(1)
log = open_log(sys.argv[1], sys.argv[2])
for record in example_records(100):
    log.append([record])
    log.sync()
log.close()
"""


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_the_second_process_on_a_study_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    holder = start(HOLD, path)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "open\n"
    refused, _ = start(OPEN, path).communicate()
    assert f"process {holder.pid} on" in refused
    assert list(read_records(path, "s")) == example_records()
    # Killed, not yet reaped: the study is free at once.
    holder.kill()
    os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)
    taken, _ = start(OPEN, path).communicate()
    assert taken == "mine\n"
    holder.communicate()
    assert list(read_records(path, "s")) == example_records()


def test_many_studies_in_one_new_file_at_the_same_time(tmp_path: Path) -> None:
    path = tmp_path / "new" / "s.db"
    writers = [start(WRITE, path, f"study {number}") for number in range(4)]
    # All of them are let go at once, so that they also race for making the file.
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("x")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate()
        assert writer.returncode == 0
    assert sorted(info.name for info in studies(path)) == [f"study {n}" for n in range(4)]
    for number in range(4):
        assert list(read_records(path, f"study {number}")) == example_records(100)


@pytest.mark.skipif(sys.platform == "win32", reason="no fork there")
# Python warns of forks while threads run, which is what this test is about.
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_neither_uses_nor_harms_the_log(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    log = open_log(path, "s")
    log.append(example_records())
    log.sync()

    def in_the_fork() -> None:
        with pytest.raises(StorageError, match="open logs after forking"):
            log.append(example_records())
        log.close()

    child = multiprocessing.get_context("fork").Process(target=in_the_fork)
    child.start()
    child.join()
    assert child.exitcode == 0
    log.append(example_records())
    log.close()
    assert list(read_records(path, "s")) == example_records() * 2


def test_a_log_that_nobody_closed_is_closed_when_python_ends(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    code = HOLD.replace("log.sync()", "").replace("log.close()", "")
    subprocess.run([sys.executable, "-c", code, str(path)], input=b"", check=True, timeout=60)
    assert list(read_records(path, "s")) == example_records()
    assert studies(path)[0].running is None
