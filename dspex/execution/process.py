"""The parent's side of one evaluator child: start it, give it chunks, end it.

Knows: pipes, deadlines, limits, and how to put into words why a child ended.
Must not know: how many children there are and who gets which (`pool`).

A child belongs to one thread at a time. Only `EvaluatorChild.kill` may be called from another.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import final

from dspex.engine.ports import Evaluation
from dspex.errors import ProgramLoadError
from dspex.execution.chunk import Chunk, ChunkResult
from dspex.execution.frames import STOP, FrameReader, Hello, frame
from dspex.study.trial import ErrorInfo, TrialState

__all__ = ["EvaluatorChild", "NeverBegunError"]

_output = logging.getLogger("dspex.programs.output")

# Children run side by side, and sums must not depend on how many cores there are.
_THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "LOKY_MAX_CPU_COUNT",
)
_WANTED_EVERY = 0.25
_MEMORY_EVERY = 0.1
_GRACE = 1.0
_TAIL = 4096
_READ = 1 << 18


class NeverBegunError(Exception):
    """A child ended before it began the chunk, so that nobody is to blame for it."""


@final
class EvaluatorChild:
    """One evaluator child.

    Parameters
    ----------
    data : int
        An open file that `Payload.write` wrote.
    worker : str
        The name that outcomes carry.
    memory_limit : int or None
        Bytes of its own that the child may hold, pages that it shares with others aside.
    threads : int
        How many threads BLAS and OpenMP may use.

    Notes
    -----
    Must be made by a thread that lives as long as the child should: on Linux the child dies with
    the thread that made it.
    """

    def __init__(
        self, data: int, *, worker: str, memory_limit: int | None, threads: int = 1
    ) -> None:
        self._worker = worker
        self._memory_limit = memory_limit
        self._tail = b""
        self._frames = FrameReader()
        hello = Hello(path=list(sys.path), python_path=os.environ.get("PYTHONPATH"), worker=worker)
        self._to_send = memoryview(frame(hello))
        pipes: list[tuple[int, int]] = []
        try:
            pipes += (os.pipe() for _ in range(4))
            (requests, self._requests), (self._answers, answers) = pipes[:2]
            (self._bell, bell), (self._output, output) = pipes[2:]
            self._ours = [self._requests, self._answers, self._bell, self._output]
            theirs = (requests, answers, bell, data)
            for descriptor in self._ours:
                os.set_blocking(descriptor, False)
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-P",  # no module of the current directory hides another
                    "-u",  # the last words of a process that dies are not in its buffer
                    "-m",
                    "dspex.execution.child",
                    *map(str, (os.getpid(), *theirs)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=theirs,
                env=_environment(threads),
                # A session of its own: Ctrl-C in a terminal does not reach it, and whatever the
                # program starts can be ended with it, as one process group.
                start_new_session=True,
            )
        except BaseException:
            for pair in pipes:
                for descriptor in pair:
                    os.close(descriptor)
            raise
        for descriptor in (requests, answers, bell, output):
            os.close(descriptor)

    @property
    def pid(self) -> int:
        """Of the process, also after its end."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether the process has not ended."""
        return self._process.poll() is None

    def __repr__(self) -> str:
        return f"<EvaluatorChild {self.pid} of {self._worker}>"

    # --- a chunk ---------------------------------------------------------------------------

    def run(
        self, evaluations: Sequence[Evaluation], patience: float, is_wanted: Callable[[], bool]
    ) -> ChunkResult:
        """Have a chunk evaluated; the child may be gone afterwards (`is_alive`).

        Raises
        ------
        NeverBegunError
            Where the child ended before it began, by no limit of ours.
        ProgramLoadError
            Where the program or its data cannot be loaded, in time or in the memory allowed.
        """
        chunk = Chunk(evaluations, self._worker)
        batch = [(e.trial, e.fold, e.attempt, dict(e.params)) for e in evaluations]
        self._send((patience, batch))
        poller = select.poll()
        for descriptor in (self._bell, self._output):
            poller.register(descriptor, select.POLLIN)
        is_writing = False
        next_wanted = time.monotonic() + _WANTED_EVERY
        next_memory = time.monotonic() if self._memory_limit is not None else float("inf")
        give_up = float("inf")
        while True:
            if bool(self._to_send) != is_writing:
                is_writing = not is_writing
                if is_writing:
                    poller.register(self._requests, select.POLLOUT)
                else:
                    poller.unregister(self._requests)
            wake = min(next_wanted, next_memory, chunk.deadline, give_up)
            ready = poller.poll(max(0.0, wake - time.monotonic()) * 1000)
            is_dead = False
            for descriptor, _event in ready:
                if descriptor == self._requests:
                    is_dead |= not self._write()
                elif descriptor == self._bell:
                    is_dead |= not self._hear_bell()
                elif not self._drain_output():
                    poller.unregister(self._output)
            self._drain_answers(chunk)
            if chunk.is_ended:
                return chunk.result()

            now = time.monotonic()
            # A program that forked may hold the pipes open after the child's death.
            if is_dead or ((not ready or now >= next_wanted) and not self.is_alive):
                return self._after_death(chunk, is_wanted)
            if now >= chunk.deadline:
                return self._time_out(chunk, now)
            if now >= next_memory:
                next_memory = now + _MEMORY_EVERY
                used = self._own_memory()
                if used > (self._memory_limit or 0):
                    return self._out_of_memory(chunk, used)
            if now >= give_up:
                self._bury(chunk)
                return chunk.result()
            if now >= next_wanted:
                next_wanted = now + _WANTED_EVERY
                if not is_wanted() and give_up == float("inf"):
                    give_up = now + _GRACE
                    self._send(STOP)

    def _send(self, message: object) -> None:
        self._to_send = memoryview(bytes(self._to_send) + frame(message))
        self._write()

    def _write(self) -> bool:
        """Write what the pipe takes; False where nobody reads it any more."""
        try:
            while self._to_send:
                self._to_send = self._to_send[os.write(self._requests, self._to_send) :]
        except BlockingIOError:
            pass
        except BrokenPipeError:
            self._to_send = memoryview(b"")
            return False
        return True

    def _hear_bell(self) -> bool:
        try:
            return bool(os.read(self._bell, 4096))
        except BlockingIOError:
            return True

    def _drain_answers(self, chunk: Chunk) -> None:
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._answers, _READ):
                for message in self._frames.feed(data):
                    chunk.take(*message)

    def _drain_output(self) -> bool:
        """Take what the program printed; False at the end of it."""
        try:
            data = os.read(self._output, _READ)
        except BlockingIOError:
            return True
        self._tail = (self._tail + data)[-_TAIL:]
        if data and _output.isEnabledFor(logging.INFO):
            _output.info("%s: %s", self._worker, data.decode(errors="replace").rstrip())
        return bool(data)

    # --- its end ---------------------------------------------------------------------------

    def kill(self) -> None:
        """End it, with everything that it started; from any thread, at any time."""
        # The group's id is the child's; it is not given to others while the child is unreaped.
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def close(self) -> None:
        """End it, wait for it, free its pipes; may be called twice."""
        self.kill()
        self._process.wait()
        while self._ours:
            os.close(self._ours.pop())

    def _bury(self, chunk: Chunk) -> None:
        self.kill()
        self._process.wait()
        # Answers outlive their sender in the pipe.
        self._drain_answers(chunk)
        self._drain_output()

    def _time_out(self, chunk: Chunk, now: float) -> ChunkResult:
        overdue = chunk.current
        assert overdue is not None
        self._bury(chunk)
        # It may have finished at the last moment; the next one is not to pay for it.
        if chunk.current is overdue:
            chunk.fail_current(
                TrialState.TIMED_OUT,
                ErrorInfo(
                    "timed out",
                    f"an evaluation is ended when its trial's time is over; {overdue.seconds_left} "
                    "seconds were left to it; raise trial_timeout, or make the program faster",
                    self._last_words(),
                ),
            )
        return chunk.result()

    def _out_of_memory(self, chunk: Chunk, used: int) -> ChunkResult:
        self._bury(chunk)
        message = (
            f"an evaluation may hold memory_limit = {self._memory_limit} bytes of its own; "
            f"its process held {used} bytes; raise memory_limit, or make the program smaller"
        )
        if not chunk.is_begun:
            raise ProgramLoadError(
                f"the program and its data alone do not fit on {self._worker}: {message}"
            )
        chunk.fail_current(
            TrialState.FAILED, ErrorInfo("memory limit", message, self._last_words())
        )
        return chunk.result()

    def _after_death(self, chunk: Chunk, is_wanted: Callable[[], bool]) -> ChunkResult:
        self._bury(chunk)
        if not is_wanted():  # it was ended on purpose
            return chunk.result()
        if not chunk.is_begun:
            raise NeverBegunError(f"{self._epitaph()}\n{self._last_words()}".rstrip())
        chunk.fail_current(
            TrialState.FAILED,
            ErrorInfo("child died", self._epitaph(), self._last_words()),
        )
        return chunk.result()

    def _epitaph(self) -> str:
        code = self._process.returncode
        if code >= 0:
            how = f"exited with code {code}"
            hint = "a program ends by returning or raising, not by os._exit"
        else:
            try:
                name = signal.Signals(-code).name
            except ValueError:
                name = "unknown"
            how = f"was ended by signal {-code} ({name})"
            hint = (
                "perhaps the machine ran out of memory: use fewer threads per worker or less data"
                if -code == signal.SIGKILL
                else "native code crashed: look for the extension module that the program was in"
            )
        last = self._last_words().strip().rpartition("\n")[2][:200]
        said = f"; its last words: {last}" if last else ""
        return f"the process of this evaluation {how}{said}; {hint}"

    def _last_words(self) -> str:
        return self._tail.decode(errors="replace")

    def _own_memory(self) -> int:
        import psutil  # only where there is a limit to watch

        try:
            memory = psutil.Process(self.pid).memory_info()
        except psutil.Error:
            return 0
        # Mapped data is shared by all children of the worker; macOS does not tell how much.
        return int(memory.rss - getattr(memory, "shared", 0))


def _environment(threads: int) -> dict[str, str]:
    environment = dict(os.environ)
    environment.update(dict.fromkeys(_THREADS, str(threads)))
    # The order of sets of strings, and what programs make of it, is the same everywhere (G2).
    environment["PYTHONHASHSEED"] = "0"
    environment["PYTHONPATH"] = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    return environment
