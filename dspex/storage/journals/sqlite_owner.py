"""One owner at a time: who has a journal, how it is waited for, how it is fenced.

Knows: processes, the owner's columns, terms. Must not know: entries.

Each opening counts the *term* up, in a transaction. Every write names the term under which its
writer owns the journal, inside the writing transaction; an owner that was paused and replaced
finds another term when it wakes, and writes nothing (fencing). It answers strong reads for a
moment after each look at the term, and who takes over from an owner that may be alive waits for as
long. So taking over is always safe; the rules below keep it from being done by mistake.

1. The owner's process is gone, or was on another machine, boot or container (a journal lies on a
   local disk, so that machine is gone): it is taken over at once.
2. It lives, be it stopped: it is waited for, then named in the error; `takeover` overrides this.
3. Somebody is inside a transaction, which an owner that was stopped there stays until it goes on:
   SQLite's lock cannot be broken, only waited for; `takeover` changes nothing.
"""

from __future__ import annotations

import math
import os
import secrets
import socket
import sqlite3
import time
from pathlib import Path

import psutil

from dspex.errors import JournalError
from dspex.storage.journals.sqlite_tables import Head, read_head, write_head
from dspex.storage.ownership import Owner, forget, hold, process_start, this_machine
from dspex.storage.sqlite_file import result_code, transaction

__all__ = ["BELIEF", "claim", "read_owner", "release"]

BELIEF = 0.1
"""Monotonic seconds for which an owner answers strong reads without a look at the term.

A journal lies on a local disk, so the old owner and the new one go by the same clock.
"""

_POLL_SECONDS = 0.05


def claim(
    connection: sqlite3.Connection, path: Path, *, patience: float, takeover: bool
) -> tuple[Head, str]:
    """Own a journal; gives its head, with the new term, and the token of this claim.

    Raises
    ------
    JournalError
        Where its owner, or whoever has it locked, did not let go within `patience` seconds.
    JournalCorruptError
        Where its head is damaged.
    """
    deadline = time.monotonic() + patience
    token = secrets.token_hex(8)
    hold(token)
    try:
        while True:
            try:
                with transaction(connection):
                    owner = read_owner(connection)
                    is_free = owner is None or takeover or not owner.lives(time.time())
                    head = _take(connection, path, token) if is_free else None
                if head is not None:
                    if owner is not None and _may_answer(owner):
                        time.sleep(BELIEF)
                    return head, token
                is_locked = False
            except sqlite3.OperationalError as error:
                if result_code(error) != sqlite3.SQLITE_BUSY:
                    raise
                owner = read_owner(connection)
                is_locked = True
            if time.monotonic() >= deadline:
                raise _occupied(path, owner, is_locked, patience)
            time.sleep(_POLL_SECONDS)
    except BaseException:
        forget(token)
        raise


def release(connection: sqlite3.Connection, token: str) -> None:
    """Give a journal up, where it still belongs to this claim."""
    connection.execute(
        "UPDATE head SET host = NULL, machine = NULL, pid = NULL, process = NULL, token = NULL, "
        "since = NULL WHERE token = ?",
        (token,),
    )


def read_owner(connection: sqlite3.Connection) -> Owner | None:
    """Who opened the journal last, and has not closed it."""
    row = connection.execute(
        "SELECT term, host, machine, pid, process, token, since FROM head WHERE token IS NOT NULL"
    ).fetchone()
    # It gives no signs: on another machine it is never believed to live.
    return None if row is None else Owner(*(*row, -math.inf))


def _take(connection: sqlite3.Connection, path: Path, token: str) -> Head:
    head = read_head(connection, path)
    head = head._replace(term=head.term + 1)
    write_head(connection, head)
    pid = os.getpid()
    connection.execute(
        "UPDATE head SET host = ?, machine = ?, pid = ?, process = ?, token = ?, since = ?",
        (socket.gethostname(), this_machine(), pid, process_start(pid), token, time.time()),
    )
    return head


def _may_answer(owner: Owner) -> bool:
    return owner.machine != this_machine() or owner.lives(time.time())


def _occupied(path: Path, owner: Owner | None, is_locked: bool, patience: float) -> JournalError:
    waited = f"this was waited for {patience:g} s"
    if owner is None or not owner.lives(time.time()):
        who = "another program is inside a transaction of it"
        remedy = "look which program holds the file open, and end it"
    elif is_locked:
        who = f"{owner}{_stopped(owner)} is inside a transaction of it"
        remedy = "let that process go on, or end it: its lock cannot be broken"
    else:
        who = f"it belongs to {owner}{_stopped(owner)}"
        remedy = "end that process, wait for it to end, or open the journal with takeover=True"
    fields = {} if owner is None else {"host": owner.host, "pid": owner.pid, "since": owner.since}
    return JournalError(
        f"one process owns a journal at a time; {path}: {who}; {waited}; {remedy}",
        path=str(path),
        **fields,
    )


def _stopped(owner: Owner) -> str:
    try:
        is_stopped = psutil.Process(owner.pid).status() == psutil.STATUS_STOPPED
    except psutil.Error:
        return ""
    return ", which is stopped (as by SIGSTOP)," if is_stopped else ""
