"""The way to an etcd cluster: requests to the JSON gateway that every member has.

Knows: HTTP, TLS, which failures pass. Must not know: what is asked.

A request goes to one member after the other until one answers or time is up, so that an election
or the loss of a member is seen as a pause. A request whose answer was lost may have been performed:
every request of this package is made so that it can be performed twice.

One `Gateway` serves one thread.
"""

from __future__ import annotations

import http.client
import json
import os
import ssl
import time
from collections.abc import Mapping
from typing import Any, final

from dspex.errors import JournalError
from dspex.storage.journals.etcd_address import EtcdAddress

__all__ = ["EtcdError", "Gateway"]

TIMEOUT = 5.0
"""Seconds for a request with all its repetitions: longer than an election takes."""

_PAUSE = 0.05

# Codes of gRPC, https://grpc.io/docs/guides/status-codes/
_INVALID, _DEADLINE, _NOT_FOUND, _DENIED = 3, 4, 5, 7
_EXHAUSTED, _OUT_OF_RANGE, _UNAVAILABLE, _UNAUTHENTICATED = 8, 11, 14, 16


class EtcdError(JournalError):
    """What was asked of etcd was not answered, or refused.

    Attributes
    ----------
    passes : bool
        Whether it may be otherwise soon.
    reason : str
        "unreachable", "tls", "foreign", "denied", "space", "size", "refused", "lease" for a lease
        that is gone, or "compacted" for a revision that is.
    """

    passes: bool
    reason: str


@final
class Gateway:
    """Asks members of one cluster.

    Parameters
    ----------
    address : EtcdAddress
    timeout : float
        Seconds for a request with all its repetitions.
    """

    def __init__(self, address: EtcdAddress, *, timeout: float = TIMEOUT) -> None:
        self._address = address
        self._timeout = timeout
        self._tls = _tls(address) if address.is_secure else None
        self._current = 0
        self._connection: http.client.HTTPConnection | None = None

    def __repr__(self) -> str:
        host, port = self._address.endpoints[self._current]
        return f"<Gateway of {self._address}, at {host}:{port}>"

    def call(self, path: str, body: Mapping[str, Any]) -> Any:
        """Ask, and give the answer.

        Raises
        ------
        EtcdError
            Says why, and what to do.
        """
        data = json.dumps(body).encode("ascii")
        deadline = time.monotonic() + self._timeout
        while True:
            for _ in self._address.endpoints:
                try:
                    return self._ask(path, data, deadline)
                except _Elsewhere as error:
                    trouble = error
                    self.close()
                    self._current = (self._current + 1) % len(self._address.endpoints)
                if time.monotonic() >= deadline:
                    break
            if time.monotonic() + _PAUSE >= deadline:
                raise EtcdError(
                    f"a journal in etcd needs a majority of its members; {self._address} gave no "
                    f"answer within {self._timeout:g} s ({trouble}); see whether they run and "
                    "reach each other (etcdctl endpoint status --cluster), and speak TLS as the "
                    "URL says (etcds://)",
                    passes=True,
                    reason="unreachable",
                ) from trouble
            time.sleep(_PAUSE)

    def close(self) -> None:
        """Close the connection; the next request opens one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _ask(self, path: str, data: bytes, deadline: float) -> Any:
        # A member closes connections that are idle: that one is old says nothing about it.
        if self._connection is not None:
            try:
                return self._exchange(self._connection, path, data, deadline)
            except _Stale:
                pass
        self._connection = self._connect()
        try:
            return self._exchange(self._connection, path, data, deadline)
        except _Stale as error:
            raise _Elsewhere(str(error)) from error.__cause__

    def _exchange(
        self, connection: http.client.HTTPConnection, path: str, data: bytes, deadline: float
    ) -> Any:
        host, port = self._address.endpoints[self._current]
        left = max(deadline - time.monotonic(), 0.05)
        # A member that is silent leaves time for the others.
        connection.timeout = min(left, self._timeout / len(self._address.endpoints))
        if connection.sock is not None:
            connection.sock.settimeout(connection.timeout)
        try:
            connection.request("POST", path, data, {"Content-Type": "application/json"})
            response = connection.getresponse()
            status, content = response.status, response.read()
        except TimeoutError as error:
            self.close()
            raise _Elsewhere(f"{host}:{port} is silent") from error
        except ssl.SSLError as error:
            self.close()
            raise EtcdError(
                f"members of etcd prove themselves by TLS; {host}:{port} was refused or refuses us "
                f"({error}); set DSPEX_ETCD_CA, and DSPEX_ETCD_CERT with DSPEX_ETCD_KEY",
                passes=False,
                reason="tls",
            ) from error
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise _Stale(f"{host}:{port}: {type(error).__name__} {error}") from error
        return self._judge(status, content, f"{host}:{port}")

    def _judge(self, status: int, content: bytes, member: str) -> Any:
        try:
            answer = json.loads(content)
        except ValueError:
            answer = None
        if status == 200 and isinstance(answer, dict):
            return answer
        if not isinstance(answer, dict) or "code" not in answer:
            raise EtcdError(
                f"a journal in etcd needs the JSON gateway of etcd 3.4 or later; {member} answered "
                f"{status} {content[:80]!r}; check host, port and version, and etcds:// for TLS",
                passes=False,
                reason="foreign",
            )
        code, message = answer["code"], str(answer.get("error") or answer.get("message"))
        if code in (_UNAVAILABLE, _DEADLINE) or "too many requests" in message:
            raise _Elsewhere(f"{member}: {message}")
        raise _final(code, message, member)

    def _connect(self) -> http.client.HTTPConnection:
        host, port = self._address.endpoints[self._current]
        if self._tls is None:
            return http.client.HTTPConnection(host, port)
        return http.client.HTTPSConnection(host, port, context=self._tls)


class _Elsewhere(Exception):
    """A member cannot answer now; another one may."""


class _Stale(Exception):
    """The connection ended."""


def _final(code: int, message: str, member: str) -> EtcdError:
    """The error for an answer that stays the same if the question is asked again."""
    reason, remedy = "refused", "look into the log of that member"
    if code == _NOT_FOUND and "lease" in message:
        reason, remedy = "lease", "grant another lease"
    elif code == _OUT_OF_RANGE and "compacted" in message:
        reason, remedy = "compacted", "read again from the beginning"
    elif code == _EXHAUSTED and "space" in message:
        reason = "space"
        remedy = (
            "drop what is not needed, then etcdctl compaction, etcdctl defrag and etcdctl alarm "
            "disarm; or start the members with a larger --quota-backend-bytes"
        )
    elif code == _INVALID and "too large" in message:
        reason, remedy = "size", "start the members with a --max-request-bytes of 1572864 or more"
    elif code in (_DENIED, _UNAUTHENTICATED) or (code == _INVALID and "user" in message):
        reason = "denied"
        remedy = "etcd's users are not supported: turn authentication off, trust certificates"
    return EtcdError(
        f"etcd performs what it is asked where it can; {member} says {message!r}; {remedy}",
        passes=False,
        reason=reason,
    )


def _tls(address: EtcdAddress) -> ssl.SSLContext:
    authority = os.environ.get("DSPEX_ETCD_CA")
    certificate, key = os.environ.get("DSPEX_ETCD_CERT"), os.environ.get("DSPEX_ETCD_KEY")
    try:
        context = ssl.create_default_context(cafile=authority)
        if certificate:
            context.load_cert_chain(certificate, key)
    except OSError as error:
        raise EtcdError(
            f"{address} is spoken to by TLS with the files that DSPEX_ETCD_CA, DSPEX_ETCD_CERT and "
            f"DSPEX_ETCD_KEY name; one of {authority}, {certificate}, {key} cannot be used "
            f"({error}); set them to PEM files",
            passes=False,
            reason="tls",
        ) from error
    return context
