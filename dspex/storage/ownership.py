"""One process per study: who owns it, whether the owner still lives, and how it is fenced.

Knows: processes, machines, the owner's columns. Must not know: records.

Each time a study changes hands its *epoch* grows. Every write names the epoch under which the
writer owns the study, inside the writing transaction; an owner that was paused, taken for dead
and replaced finds another epoch when it wakes, and writes nothing (fencing).

Whether an owner lives:

1. Its process is on this machine: it lives if a process of its id and start time is there.
2. It is elsewhere (another machine, boot or container): it lives if it gave a sign within
   `LEASE_SECONDS`. Clocks that differ by more can free a study early; the epoch keeps it whole.
"""

from __future__ import annotations

import os
import secrets
import socket
import sqlite3
import sys
import time
import uuid
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import final

import psutil

from dspex.errors import StudyInUseError, StudyNotFoundError
from dspex.storage.sqlite_file import transaction

__all__ = ["Claim", "Owner", "claim", "current_owner", "evicted", "release"]

LEASE_SECONDS = 30.0
"""How long an owner on another machine is believed to live without a sign."""

RENEW_SECONDS = 5.0
"""How often an owner gives a sign."""

_COLUMNS = "epoch, host, machine, pid, process, token, since, renewed"

_LINUX = sys.platform.startswith("linux")

# Tokens of the claims that this process holds, so that one left behind by a failed close is known.
_held: set[str] = set()


@final
@dataclass(frozen=True, slots=True)
class Owner:
    """The process that owns a study.

    Attributes
    ----------
    host : str
        For people.
    machine : str
        Names one boot of one machine (and one container), within which process ids are unique.
    pid, process : int, str
        The process and when it started.
    token : str
        Of this claim alone.
    since, renewed : float
        Unix times in seconds.
    """

    epoch: int
    host: str
    machine: str
    pid: int
    process: str
    token: str
    since: float
    renewed: float

    def lives(self, now: float) -> bool:
        """Whether the owner may still write."""
        if self.machine != this_machine():
            return now - self.renewed < LEASE_SECONDS
        if self.pid == os.getpid() and self.process == process_start(self.pid):
            return self.token in _held
        return self.process == process_start(self.pid)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} since {_clock(self.since)}"


@final
@dataclass(frozen=True, slots=True)
class Claim:
    """A study owned by this process.

    Attributes
    ----------
    study, epoch : int
    token : str
    batches, checksum : int
        How many batches there are, and the checksum of the last.
    """

    study: int
    name: str
    epoch: int
    token: str
    batches: int
    checksum: int


def claim(connection: sqlite3.Connection, name: str, path: Path, *, create: bool) -> Claim:
    """Own a study, new or existing.

    Raises
    ------
    StudyNotFoundError
        Where there is none and `create` is false.
    StudyInUseError
        Where a live process owns it.
    """
    now = time.time()
    token = secrets.token_hex(8)
    with transaction(connection):
        if create:
            connection.execute(
                "INSERT OR IGNORE INTO studies (name, created) VALUES (?, ?)", (name, now)
            )
        row = connection.execute(
            "SELECT id, batches, checksum FROM studies WHERE name = ? AND (batches > 0 OR ?)",
            (name, create),
        ).fetchone()
        if row is None:
            raise no_study(name, path)
        study, batches, checksum = row
        refuse_if_owned(connection, study, name, path)
        connection.execute(
            "UPDATE studies SET epoch = epoch + 1, host = ?, machine = ?, pid = ?, process = ?, "
            "token = ?, since = ?, renewed = ? WHERE id = ?",
            (
                socket.gethostname(),
                this_machine(),
                os.getpid(),
                process_start(os.getpid()),
                token,
                now,
                now,
                study,
            ),
        )
        (epoch,) = connection.execute("SELECT epoch FROM studies WHERE id = ?", (study,)).fetchone()
    hold(token)
    return Claim(study, name, epoch, token, batches, checksum)


def release(connection: sqlite3.Connection, held: Claim) -> None:
    """Give a study up; one that was never written to goes away."""
    mine = (held.study, held.epoch)
    with transaction(connection):
        connection.execute(
            "UPDATE studies SET host = NULL, machine = NULL, pid = NULL, process = NULL, "
            "token = NULL WHERE id = ? AND epoch = ?",
            mine,
        )
        connection.execute("DELETE FROM studies WHERE id = ? AND epoch = ? AND batches = 0", mine)


def hold(token: str) -> None:
    """Note that this process makes use of a claim."""
    _held.add(token)


def forget(token: str) -> None:
    """Note that this process makes no use of a claim any more."""
    _held.discard(token)


def current_owner(connection: sqlite3.Connection, study: int) -> Owner | None:
    """Who owns a study, as far as it can be told from here; None where nobody lives that does."""
    row = connection.execute(
        f"SELECT {_COLUMNS} FROM studies WHERE id = ? AND token IS NOT NULL", (study,)
    ).fetchone()
    owner = None if row is None else Owner(*row)
    return owner if owner is not None and owner.lives(time.time()) else None


def refuse_if_owned(connection: sqlite3.Connection, study: int, name: str, path: Path) -> None:
    """Raise StudyInUseError where a live process owns the study."""
    owner = current_owner(connection, study)
    if owner is None:
        return
    if owner.machine != this_machine():
        free = _clock(owner.renewed + LEASE_SECONDS)
        remedy = f"wait for it to end (if it is dead, the study is free at {free})"
    elif owner.pid == os.getpid():
        remedy = "that is this very process: wait for the call that runs the study, or close it"
    else:
        remedy = "wait for it to end, or end it"
    raise StudyInUseError(
        f"one process owns a study at a time; {name!r} in {path} belongs to {owner}; {remedy}, "
        "or give your study another name",
        host=owner.host,
        pid=owner.pid,
        since=owner.since,
    )


def evicted(connection: sqlite3.Connection, held: Claim, path: Path) -> StudyInUseError:
    """Make the error for an owner that finds another epoch than its own."""
    owner = current_owner(connection, held.study)
    now_with = f"now it belongs to {owner}" if owner else "now nobody runs it"
    return StudyInUseError(
        f"one process owns a study at a time; this process gave no sign for more than "
        f"{LEASE_SECONDS:.0f} s, and {held.name!r} in {path} was taken over or deleted; "
        f"{now_with}; what was recorded before is kept; make the same call again to go on"
    )


def no_study(name: str, path: Path) -> StudyNotFoundError:
    """Make the error for a name that is not there."""
    return StudyNotFoundError(
        f"there is no study {name!r} in {path}; `dspex studies {path}` lists those that are there"
    )


def this_machine() -> str:
    """Names this boot of this machine, and this container."""
    if _LINUX:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    return f"{uuid.getnode():x}/{psutil.boot_time():.0f}"


def process_start(pid: int) -> str | None:
    """When a process started, as text to compare; None where it is gone, or dead and not reaped."""
    if _LINUX:
        # In ticks since boot, so that it does not move when the clock is set (proc(5), field 22).
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return None
        return None if fields[0] in "ZX" else fields[19]
    try:
        process = psutil.Process(pid)
        dead = process.status() == psutil.STATUS_ZOMBIE
        return None if dead else f"{process.create_time():.2f}"
    except psutil.NoSuchProcess:
        return None


def _clock(moment: float) -> str:
    return datetime.fromtimestamp(moment).astimezone().isoformat(sep=" ", timespec="seconds")
