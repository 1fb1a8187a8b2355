"""Real schedulers and workers in processes of their own, to be killed, paused and started again.

Knows: Dask's command line, signals. Must not know: what a test does with them.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self, final

__all__ = ["SchedulerProcess", "WorkerProcess", "free_port"]

_UP_WITHIN = 60.0


def free_port() -> int:
    """A port that nobody listens on now.

    Examples
    --------
    >>> free_port() > 0
    True
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class _Process:
    """A Dask process with its log."""

    def __init__(self, variables: Mapping[str, str] | None = None) -> None:
        self._variables = dict(variables or {})
        self._folder = tempfile.TemporaryDirectory(prefix="dspex-test-")
        self._log = Path(self._folder.name) / "log"
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> Sequence[str]:
        """What is started."""
        raise NotImplementedError

    def start(self) -> None:
        """Start it; returns at once."""
        assert self._process is None or self._process.poll() is not None, "it runs already"
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "dask", *self.command()],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self._variables},
                cwd=self._folder.name,
            )

    def wait_until_up(self) -> None:
        """Wait until it is of use; nothing to wait for unless a subclass says so."""

    def __enter__(self) -> Self:
        self.start()
        self.wait_until_up()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None, "start it first"
        return self._process.pid

    @property
    def log(self) -> str:
        """What it wrote."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def is_alive(self) -> bool:
        """Whether it runs (a paused one does)."""
        return self._process is not None and self._process.poll() is None

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once, and wait until it is gone."""
        self.send(signal.SIGKILL)
        self.wait()

    def wait(self, timeout: float = 60.0) -> int:
        """Wait for its end; gives the exit code."""
        assert self._process is not None
        return self._process.wait(timeout)

    def close(self) -> None:
        """End it if it still runs; may be called twice."""
        if self.is_alive():
            with suppress(ProcessLookupError):
                self.send(signal.SIGCONT)
            self.kill()
        self._folder.cleanup()


@final
class SchedulerProcess(_Process):
    """A scheduler with the foundation as its preload; the same address at every start.

    Parameters
    ----------
    journal : str or None
        None: a scheduler without the foundation.
    arguments : sequence of str
        More options of the preload.
    """

    def __init__(
        self,
        journal: str | None = "memory",
        *,
        arguments: Sequence[str] = (),
        variables: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(variables)
        self._journal = journal
        self._arguments = arguments
        self.port = free_port()
        self.address = f"tcp://127.0.0.1:{self.port}"

    def command(self) -> Sequence[str]:
        """What is started."""
        foundation = (
            []
            if self._journal is None
            else ["--preload", "dspex.preload", "--dspex-journal", self._journal, *self._arguments]
        )
        return [
            *("scheduler", "--host", "127.0.0.1", "--port", str(self.port)),
            *("--dashboard-address", "127.0.0.1:0", *foundation),
        ]

    def wait_until_up(self) -> None:
        """Wait until it takes connections, which it does when it has recovered."""
        deadline = time.monotonic() + _UP_WITHIN
        while True:
            assert self.is_alive(), f"the scheduler ended:\n{self.log}"
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1.0):
                return
            assert time.monotonic() < deadline, f"the scheduler does not come up:\n{self.log}"
            time.sleep(0.05)

    def restart(self) -> None:
        """Kill it, and start it again at the same address."""
        self.kill()
        self.start()
        self.wait_until_up()


@final
class WorkerProcess(_Process):
    """A worker without a nanny, so that its process is the one that a signal meets.

    Parameters
    ----------
    scheduler : str
        Its address.
    nanny : bool
        With one, the process here is the nanny, which starts the worker again when it dies.
    """

    def __init__(
        self,
        scheduler: str,
        *,
        nanny: bool = False,
        options: Sequence[str] = (),
        variables: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(variables)
        self._scheduler = scheduler
        self._nanny = nanny
        self._options = options

    def command(self) -> Sequence[str]:
        """What is started."""
        nanny = [] if self._nanny else ["--no-nanny"]
        return [
            *("worker", self._scheduler, "--nthreads", "1", "--no-dashboard", *nanny),
            *self._options,
        ]
