"""Real etcd servers on this machine, to be killed, paused and started again.

Knows: etcd's command line, signals. Must not know: journals.

    with EtcdServers(3) as etcd:
        journal = EtcdJournal(etcd.url("mine"))
        etcd.kill(etcd.leader())

Where no etcd is installed, mark tests with `needs_etcd`, which skips them with the reason.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import ssl
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, final

import pytest

from dspex.testing.processes import free_port

__all__ = ["EtcdServers", "needs_etcd"]

ETCD = shutil.which("etcd")

needs_etcd = pytest.mark.skipif(
    ETCD is None, reason="no etcd is on the PATH; install it (Debian: etcd-server)"
)

_UP_WITHIN = 60.0

_HEARTBEAT, _ELECTION = 50, 500
"""Milliseconds; half of etcd's own, so that elections are short, and a lease of 1 s is granted."""


@final
class EtcdServers:
    """The members of one etcd cluster, each with its folder and its addresses for good.

    Parameters
    ----------
    members : int
    options : sequence of str
        More of etcd's command line, ``"--quota-backend-bytes=16777216"`` for example.
    certificates : (Path, Path, Path) or None
        Files of an authority, of a certificate for 127.0.0.1 and of its key; then members speak
        TLS, and ask their clients for a certificate, too.
    """

    def __init__(
        self,
        members: int = 1,
        *,
        options: Sequence[str] = (),
        certificates: tuple[Path, Path, Path] | None = None,
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="dspex-etcd-")
        self._options = options
        self._certificates = certificates
        self._ports = [(free_port(), free_port()) for _ in range(members)]
        self._processes: list[subprocess.Popen[bytes] | None] = [None] * members

    def __repr__(self) -> str:
        return f"<EtcdServers {self.url('')}, {self._running()} of {len(self._ports)} run>"

    def __enter__(self) -> EtcdServers:
        try:
            for member in range(len(self._ports)):
                self.start(member)
            self.wait_until_up()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def url(self, prefix: str, *, members: Sequence[int] | None = None) -> str:
        """The URL of a journal there; by way of some of the members only, in this order."""
        ports = [self._ports[each][0] for each in members or range(len(self._ports))]
        scheme = "etcd" if self._certificates is None else "etcds"
        return f"{scheme}://{','.join(f'127.0.0.1:{port}' for port in ports)}/{prefix}"

    def pid(self, member: int) -> int:
        """A member's process id."""
        process = self._processes[member]
        assert process is not None, "start it first"
        return process.pid

    def start(self, member: int) -> None:
        """Start a member that does not run; returns at once."""
        process = self._processes[member]
        assert process is None or process.poll() is not None, "it runs already"
        with (self._path(member, "log")).open("ab") as log:
            self._processes[member] = subprocess.Popen(
                self._command(member), stdout=log, stderr=subprocess.STDOUT
            )

    def kill(self, member: int) -> None:
        """End a member at once, and wait until it is gone."""
        process = self._processes[member]
        assert process is not None, "start it first"
        process.kill()
        process.wait()

    def restart(self, member: int) -> None:
        """Kill a member where it runs, and start it again with what is on its disk."""
        if self._processes[member] is not None:
            self.kill(member)
        self.start(member)
        self.wait_until_up([member])

    def pause(self, member: int) -> None:
        """Stop a member's process; its connections stay."""
        os.kill(self.pid(member), signal.SIGSTOP)

    def resume(self, member: int) -> None:
        """Let a paused member go on."""
        os.kill(self.pid(member), signal.SIGCONT)

    def leader(self) -> int:
        """Which member leads, once one does."""
        deadline = time.monotonic() + _UP_WITHIN
        while True:
            for member in range(len(self._ports)):
                with suppress(OSError, http.client.HTTPException):
                    status = self.ask(member, "/v3/maintenance/status")
                    if status.get("leader", "0") == status["header"]["member_id"]:
                        return member
            assert time.monotonic() < deadline, f"no member leads:\n{self.log(0)}"
            time.sleep(0.05)

    def wait_until_up(self, members: Sequence[int] | None = None) -> None:
        """Wait until these, or all, answer and know a leader."""
        deadline = time.monotonic() + _UP_WITHIN
        for member in members or range(len(self._ports)):
            while True:
                process = self._processes[member]
                assert process is not None, "start it first"
                assert process.poll() is None, f"a member of etcd ended:\n{self.log(member)}"
                # A read that needs a majority.
                with suppress(OSError, http.client.HTTPException):
                    if "header" in self.ask(member, "/v3/kv/range", {"key": "eA=="}):
                        break
                assert time.monotonic() < deadline, f"etcd is not up:\n{self.log(member)}"
                time.sleep(0.02)

    def ask(self, member: int, path: str, body: Any = None) -> Any:
        """Send a request to a member's JSON gateway; gives its answer, also where it refuses."""
        port = self._ports[member][0]
        connection = (
            http.client.HTTPConnection("127.0.0.1", port, timeout=5.0)
            if self._certificates is None
            else http.client.HTTPSConnection("127.0.0.1", port, timeout=5.0, context=self._tls())
        )
        try:
            connection.request("POST", path, json.dumps(body or {}))
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()

    def log(self, member: int) -> str:
        """What a member wrote last."""
        path = self._path(member, "log")
        return path.read_text(errors="replace")[-5_000:] if path.exists() else ""

    def close(self) -> None:
        """End all members; may be called twice."""
        for process in self._processes:
            if process is not None and process.poll() is None:
                process.kill()
                process.wait()
        self._folder.cleanup()

    # --- parts -----------------------------------------------------------------------------

    def _running(self) -> int:
        return sum(each is not None and each.poll() is None for each in self._processes)

    def _path(self, member: int, name: str) -> Path:
        return Path(self._folder.name, f"{name}-{member}")

    def _tls(self) -> ssl.SSLContext:
        assert self._certificates is not None
        authority, certificate, key = self._certificates
        context = ssl.create_default_context(cafile=authority)
        context.load_cert_chain(certificate, key)
        return context

    def _command(self, member: int) -> list[str]:
        assert ETCD is not None, "no etcd is on the PATH"
        client, peer = self._ports[member]
        scheme = "http" if self._certificates is None else "https"
        secure = []
        if self._certificates is not None:
            authority, certificate, key = self._certificates
            secure = [
                *("--client-cert-auth", f"--trusted-ca-file={authority}"),
                *(f"--cert-file={certificate}", f"--key-file={key}"),
            ]
        cluster = (f"{n}=http://127.0.0.1:{port}" for n, (_, port) in enumerate(self._ports))
        return [
            *(ETCD, f"--name={member}", f"--data-dir={self._path(member, 'data')}"),
            f"--listen-client-urls={scheme}://127.0.0.1:{client}",
            f"--advertise-client-urls={scheme}://127.0.0.1:{client}",
            f"--listen-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-cluster={','.join(cluster)}",
            f"--initial-cluster-token={self._folder.name}",
            *(f"--heartbeat-interval={_HEARTBEAT}", f"--election-timeout={_ELECTION}"),
            *("--logger=zap", "--log-level=warn", *secure, *self._options),
        ]
