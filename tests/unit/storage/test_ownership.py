"""Who lives, who is taken over, and who is fenced."""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dspex.errors import StudyInUseError
from dspex.storage import delete_study, open_log, ownership, read_records, studies
from dspex.storage.ownership import LEASE_SECONDS, Owner, process_start, this_machine
from dspex.testing.logs import example_records


def owner(**changes: object) -> Owner:
    fields: dict[str, object] = {
        "epoch": 1,
        "host": "elsewhere",
        "machine": this_machine(),
        "pid": os.getppid(),
        "process": process_start(os.getppid()),
        "token": "t",
        "since": 100.0,
        "renewed": 100.0,
    }
    return Owner(**{**fields, **changes})  # type: ignore[arg-type]


@pytest.fixture
def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_running_process_of_this_machine_lives_however_long_it_was_silent() -> None:
    assert owner().lives(now=1e12)


def test_a_process_that_is_gone_does_not_live(dead_pid: int) -> None:
    assert not owner(pid=dead_pid).lives(now=100.0)


def test_a_process_id_that_was_given_to_another_process_does_not_live() -> None:
    assert not owner(process="some other start").lives(now=100.0)


@pytest.mark.skipif(sys.platform == "win32", reason="no zombies there")
def test_a_process_that_is_dead_and_not_reaped_does_not_live() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    start = process_start(process.pid)
    assert owner(pid=process.pid, process=start).lives(now=100.0)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert not owner(pid=process.pid, process=start).lives(now=100.0)
    assert process.stdin is not None
    process.stdin.close()
    process.wait()


def test_an_owner_elsewhere_lives_by_its_signs() -> None:
    far = owner(machine="far", pid=1)
    assert far.lives(now=100.0 + LEASE_SECONDS - 1)
    assert not far.lives(now=100.0 + LEASE_SECONDS)


def test_the_error_names_host_process_time_and_remedy_and_pickles(tmp_path: Path) -> None:
    log = open_log(tmp_path / "s.db", "s")
    with pytest.raises(StudyInUseError, match="that is this very process") as caught:
        open_log(tmp_path / "s.db", "s")
    error = pickle.loads(pickle.dumps(caught.value))
    assert (error.pid, error.host) == (os.getpid(), socket.gethostname())
    assert str(os.getpid()) in str(error)
    assert socket.gethostname() in str(error)
    assert "since 20" in str(error)
    log.close()


def test_an_owner_elsewhere_is_named_with_the_time_when_it_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = open_log(tmp_path / "s.db", "s")
    with monkeypatch.context() as patch:
        patch.setattr(ownership, "this_machine", lambda: "another machine")
        with pytest.raises(StudyInUseError, match="if it is dead, the study is free at 20"):
            open_log(tmp_path / "s.db", "s")
    log.close()


def test_a_former_owner_that_wakes_up_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s.db"
    records = example_records()
    paused = open_log(path, "s")
    paused.append(records[:2])
    paused.sync()
    with monkeypatch.context() as patch:
        patch.setattr(ownership, "this_machine", lambda: "another machine")
        patch.setattr(time, "time", lambda: 1e11)
        successor = open_log(path, "s")
    successor.append(records[2:])
    successor.sync()
    paused.append(records[:1])
    with pytest.raises(StudyInUseError, match="was taken over"):
        paused.sync()
    with pytest.raises(StudyInUseError, match="was taken over"):
        paused.append(records[:1])
    with pytest.raises(StudyInUseError, match="was taken over"):
        paused.close()
    # Its end does not give up what is not its own any more.
    successor.append(records[:1])
    assert list(successor.load()) == [*records, *records[:1]]
    successor.close()


def test_epochs_are_never_used_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "s.db"
    paused = open_log(path, "s")
    paused.append(example_records())
    paused.sync()
    with monkeypatch.context() as patch:
        patch.setattr(ownership, "this_machine", lambda: "another machine")
        patch.setattr(time, "time", lambda: 1e11)
        open_log(path, "s").close()
    delete_study(path, "s")
    again = open_log(path, "s")
    paused.append(example_records())
    with pytest.raises(StudyInUseError):
        paused.close()
    again.append(example_records())
    again.close()
    assert list(read_records(path, "s")) == example_records()


def test_a_claim_that_could_not_be_given_up_does_not_block_its_own_process(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    log = open_log(path, "s")
    log.append(example_records())
    log.sync()
    held = set(ownership._held)
    ownership._held.clear()
    open_log(path, "s").close()
    ownership._held.update(held)
    log.append(example_records())
    with pytest.raises(StudyInUseError):
        log.close()


def test_a_running_study_says_so_and_is_not_deleted(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    log = open_log(path, "s")
    log.append(example_records())
    log.sync()
    assert f"process {os.getpid()} on" in str(studies(path)[0].running)
    with pytest.raises(StudyInUseError):
        delete_study(path, "s")
    log.close()
    assert studies(path)[0].running is None
    delete_study(path, "s")
    assert studies(path) == []
