"""The evaluator child: the process in which evaluations run.

Started as ``python -m dspex.execution.child PARENT REQUESTS ANSWERS BELL DATA``: the parent's
process id, then four open descriptors. Knows: how to load a payload and evaluate a chunk.
Must not know: deadlines, limits, other children; whoever started it ends it.

Three pipes. Requests come in on one. Answers go out on another, each as soon as it is there, so
that none is lost when this process is killed; but nobody watches that pipe: a third, the *bell*,
wakes the parent, once per chunk and whenever unread answers pile up. So sixty tiny evaluations
cost the parent one wake-up instead of sixty.

While a chunk runs, the parent sends nothing but the word to stop. Hence anything to read on the
requests' pipe, its end included, means: nobody waits for this any more.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import os
import pickle
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

from dspex.engine.ports import Evaluation
from dspex.execution.evaluation import evaluate
from dspex.execution.frames import (
    BEGIN,
    END,
    LENGTH,
    LOAD_FAILED,
    LOADED,
    OUTCOME,
    STOP,
    Hello,
    frame,
    pack_outcome,
)
from dspex.execution.payload import LoadedJob, Payload

__all__ = ["main"]

# The least that a pipe holds: ringing at least so often, a full pipe never blocks us unheard.
_UNREAD = 4096
_PR_SET_PDEATHSIG = 1


class _ParentGone(Exception):
    """The requests' pipe was closed."""


def _die_with(parent: int) -> None:
    """Make sure that this process ends when its parent does, even in the middle of a C call."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    else:

        def watch() -> None:
            while os.getppid() == parent:
                time.sleep(0.5)
            os._exit(1)

        threading.Thread(target=watch, name="dspex-parent-watch", daemon=True).start()
    # It may have died before we asked to be told.
    if os.getppid() != parent:
        os._exit(1)


def _read_exactly(descriptor: int, length: int) -> bytes:
    parts: list[bytes] = []
    while length:
        part = os.read(descriptor, length)
        if not part:
            raise _ParentGone
        parts.append(part)
        length -= len(part)
    return b"".join(parts)


def _read(descriptor: int) -> Any:
    """Read the next message and not a byte more, so that the rest stays visible to `poll`."""
    (length,) = LENGTH.unpack(_read_exactly(descriptor, LENGTH.size))
    return pickle.loads(_read_exactly(descriptor, length))


class _Answers:
    """The way back to the parent."""

    def __init__(self, descriptor: int, bell: int) -> None:
        self._descriptor = descriptor
        self._bell = bell
        self._unread = 0

    def send(self, *message: object) -> None:
        data = frame(message)
        while data:
            sent = os.write(self._descriptor, data[:_UNREAD])
            data = data[sent:]
            self._unread += sent
            if self._unread >= _UNREAD:
                self.ring()

    def ring(self) -> None:
        self._unread = 0
        os.write(self._bell, b"!")


def _evaluate_chunk(
    job: LoadedJob,
    patience: float,
    batch: list[tuple[int, int, int, dict[str, Any]]],
    answers: _Answers,
    worker: str,
    should_stop: Callable[[], bool],
) -> None:
    this_process = os.getpid()
    began = time.monotonic()
    answers.send(BEGIN, began, time.time())
    for number, (trial, fold, attempt, params) in enumerate(batch):
        # The first is always run, so that every chunk makes progress.
        if number and (time.monotonic() - began >= patience or should_stop()):
            break
        outcome = evaluate(
            job.program,
            job.space,
            Evaluation(trial, fold, attempt, params),
            seed=job.seed,
            retry_on=job.retry_on,
            worker=worker,
            should_stop=should_stop,
            passes=(),
        )
        if os.getpid() != this_process:
            # The program forked and its copy came back through here: it must not answer.
            os._exit(0)
        answers.send(OUTCOME, pack_outcome(outcome), time.monotonic())
    answers.send(END)
    answers.ring()


def main() -> None:
    """Serve chunks until the parent closes the pipe."""
    parent, requests, out, bell, data = map(int, sys.argv[1:])
    _die_with(parent)
    # Ctrl-C in a terminal is for the user's own process, which ends us in order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    faulthandler.enable()
    for descriptor in (requests, out, bell, data):
        os.set_inheritable(descriptor, False)
    answers = _Answers(out, bell)
    waiting = select.poll()
    waiting.register(requests, select.POLLIN)

    def should_stop() -> bool:
        return bool(waiting.poll(0))

    with contextlib.suppress(_ParentGone, BrokenPipeError):
        hello: Hello = _read(requests)
        sys.path[:] = hello.path
        os.environ.pop("PYTHONPATH", None)
        if hello.python_path is not None:
            os.environ["PYTHONPATH"] = hello.python_path
        try:
            job = Payload.map(data).load()
        except BaseException:
            answers.send(LOAD_FAILED, traceback.format_exc())
            answers.ring()
            return
        answers.send(LOADED)
        while True:
            request = _read(requests)
            if request != STOP:
                patience, batch = request
                _evaluate_chunk(job, patience, batch, answers, hello.worker, should_stop)


if __name__ == "__main__":
    main()
