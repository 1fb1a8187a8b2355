"""Clients in processes of their own write down what registers told them, which is then judged.

Knows: processes, histories, the checker. Must not know: what is called, who is harmed meanwhile.
"""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace

import dspex
from dspex.testing.histories import UNKNOWN, Operation, read_histories
from dspex.testing.linearizability import check
from dspex.testing.models import Register

__all__ = ["check_registers", "history_of"]

_SOURCE = str(pathlib.Path(dspex.__file__).parents[1])
_SAYS_EVERY = 20
_WITHIN = 100.0


def history_of(
    clients: Sequence[Sequence[str]],
    path: pathlib.Path,
    *,
    calls: int,
    harms: Sequence[Callable[[], object]],
) -> list[Operation]:
    """Have clients call, and do harm in their midst; gives their history.

    Parameters
    ----------
    clients : sequence of sequence of str
        What each runs of Python: ``("-c", code, ...)``. It writes histories to `path`, and prints a
        line with its first call, and each 20 calls.
    path : pathlib.Path
    calls : int
        Of each.
    harms : sequence of callables
        Called one after the other, as the first client gets on.
    """
    every = calls // _SAYS_EVERY // (len(harms) + 1)
    with ExitStack() as stack:
        running = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, *each],
                    env={**os.environ, "PYTHONPATH": _SOURCE},
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for each in clients
        ]
        for client in running:
            stack.callback(client.kill)
        said = [client.stdout for client in running if client.stdout is not None]
        for lines in said:
            # None is harmed before all have begun: to begin they need the one who is harmed.
            assert lines.readline(), "a client has ended"
        for harm in harms:
            for _ in range(every):
                assert said[0].readline(), "a client has ended"
            harm()
        for client in running:
            client.communicate(timeout=_WITHIN)
            assert client.returncode == 0, "a client failed"
    return read_histories(path)


def check_registers(history: Sequence[Operation], *, count: int, known: float = 0.9) -> None:
    """Judge a history of registers.

    Parameters
    ----------
    history : sequence of Operation
    count : int
        How long it is to be.
    known : float
        The part of it of which the outcome must be known: what is unknown explains anything.

    Raises
    ------
    AssertionError
    """
    assert len(history) == count
    certain = [operation for operation in history if operation.result is not UNKNOWN]
    assert len(certain) >= known * len(history)
    verdict = check(history, Register())
    assert verdict.ok, str(verdict)
    # A checker that says yes to anything would say yes to this too.
    first = next(op for op in certain if op.op == "get" and op.result is not None)
    wrong = [op for op in history if op is not first]
    wrong.append(replace(first, result=("never written", first.result[1])))
    assert not check(wrong, Register()).ok
