"""A program that does on demand everything that programs do to the process they run in.

Knows: ways to finish, to fail, to hang and to die. Must not know: who runs it, or how that is
judged (`dspex.testing.executors`, the tests).

It lies in the package so that every process that evaluates can import it.
"""

from __future__ import annotations

import ctypes
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, final

import numpy as np

from dspex.programs.base import RunningTrial
from dspex.space import Choice, Float, Space
from dspex.study.measurement import Measurement

__all__ = ["BEHAVIOURS", "Probe", "probe_space", "wait_for"]

_HANG_SECONDS = 600.0


def wait_for(condition: Callable[[], object], *, seconds: float = 60.0) -> None:
    """Wait until ``condition()`` is true.

    Raises
    ------
    AssertionError
        Where it is not within ``seconds``.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.005)


class _Asked:
    """What one evaluation of the probe was asked for."""

    def __init__(self, data: Any, params: Mapping[str, Any], trial: RunningTrial) -> None:
        self.data = data
        self.x: float = params["x"]
        self.trial = trial

    @property
    def gates(self) -> pathlib.Path:
        return pathlib.Path(self.data)

    def enter(self, text: str = "") -> None:
        """Say that this evaluation runs: a file whose name tells which."""
        name = f"entered-{self.trial.number}-{self.trial.fold}"
        (self.gates / f"{name}.new").write_text(text or str(os.getpid()))
        (self.gates / f"{name}.new").rename(self.gates / name)


def _gate(asked: _Asked) -> float:
    asked.enter()
    while not (asked.gates / "release").exists():
        if asked.trial.should_stop():
            return -1.0
        time.sleep(0.005)
    return asked.x


def _loop(asked: _Asked) -> float:
    asked.enter()
    while True:
        pass


def _sleep(asked: _Asked) -> float:
    asked.enter()
    time.sleep(_HANG_SECONDS)
    return asked.x


def _hang_in_c(asked: _Asked) -> float:
    asked.enter()
    re.match(r"(a+)+$", "a" * 64 + "b")  # holds the GIL for longer than anybody waits
    return asked.x


def _allocate(asked: _Asked) -> float:
    memory = bytearray(int(asked.x))
    memory[::4096] = b"\1" * len(memory[::4096])
    asked.enter()
    time.sleep(_HANG_SECONDS)
    return float(len(memory))


def _leave_a_grandchild(asked: _Asked) -> float:
    grandchild = subprocess.Popen(
        [sys.executable, "-c", f"import time; time.sleep({_HANG_SECONDS})"]
    )
    asked.enter(str(grandchild.pid))
    os._exit(7)


def _fork_and_come_back(asked: _Asked) -> float:
    forked = os.fork()
    if forked == 0:
        return -1.0  # the copy runs on into the evaluator's own code
    os.waitpid(forked, 0)
    return asked.x


def _kill_myself(asked: _Asked) -> float:
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(_HANG_SECONDS)
    return asked.x


def _exit(asked: _Asked) -> float:
    sys.stderr.write("I am off\n")
    sys.stderr.flush()
    os._exit(3)


def _crash(asked: _Asked) -> float:
    return float(len(ctypes.string_at(0)))


def _raise(asked: _Asked) -> float:
    raise ValueError("on purpose")


def _leave(asked: _Asked) -> float:
    sys.exit("leaving")


def _interrupt(asked: _Asked) -> float:
    raise KeyboardInterrupt


def _steps(asked: _Asked) -> Iterator[Measurement]:
    asked.trial.report(asked.x + 10)
    yield Measurement(asked.x)
    yield Measurement(asked.x + 1)


def _print(asked: _Asked) -> float:
    # More than any pipe holds, from Python and from below it.
    for _ in range(3):
        print("spam " * 20_000)
        os.write(1, b"spam " * 20_000)
        os.write(2, b"eggs " * 20_000)
    return asked.x


def _write_data(asked: _Asked) -> float:
    asked.data[0] = 1.0
    return asked.x


BEHAVIOURS: dict[str, Callable[[_Asked], Any]] = {
    "measure": lambda asked: asked.x,
    "gate": _gate,
    "loop": _loop,
    "sleep": _sleep,
    "hang in C": _hang_in_c,
    "allocate": _allocate,
    "exit": _exit,
    "crash": _crash,
    "kill myself": _kill_myself,
    "leave a grandchild": _leave_a_grandchild,
    "fork and come back": _fork_and_come_back,
    "raise": _raise,
    "leave": _leave,
    "interrupt": _interrupt,
    "none": lambda asked: None,
    "nan": lambda asked: float("nan"),
    "infinity": lambda asked: {"good": 1.0, "bad": float("inf")},
    "steps": _steps,
    "print": _print,
    "pid": lambda asked: os.getpid(),
    "sum data": lambda asked: float(np.sum(asked.data)),
    "write data": _write_data,
    "environment": lambda asked: {
        name: float(os.environ[name]) for name in ("OMP_NUM_THREADS", "PYTHONHASHSEED")
    },
    "globals": lambda asked: {"numpy": np.random.random(), "seed": float(asked.trial.seed)},
}
"""What ``params["do"]`` may ask for."""


def probe_space() -> Space:
    """Make the probe's space: ``do``, one of `BEHAVIOURS`, and a number ``x``."""
    return Space({"do": Choice(sorted(BEHAVIOURS)), "x": Float(0.0, 1e12)})


@final
class Probe:
    """The program. Its data is a directory for gate files, or what a behaviour wants.

    Examples
    --------
    >>> probe = Probe()
    >>> probe.prepare("/tmp")
    >>> params = {"do": "measure", "x": 2.0}
    >>> probe.evaluate(params, RunningTrial(0, 0, params, root_seed=1))
    Measurement(scores={'score': 2.0}, ...)
    """

    def __init__(self) -> None:
        self._data: Any = None

    def space(self) -> Space | None:
        """Say what may vary."""
        return probe_space()

    def prepare(self, data: Any) -> None:
        """Take the data."""
        self._data = data

    def evaluate(self, params: Mapping[str, Any], trial: RunningTrial) -> Any:
        """Do what ``params["do"]`` says."""
        done = BEHAVIOURS[params["do"]](_Asked(self._data, params, trial))
        return Measurement(done) if isinstance(done, int | float) else done

    def finish(self, params: Mapping[str, Any]) -> Any:
        """Give the params back."""
        return params
