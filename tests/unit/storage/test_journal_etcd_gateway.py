"""How members of an etcd cluster are asked: one after the other, until one answers."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from dspex.storage.journals.etcd_address import EtcdAddress
from dspex.storage.journals.etcd_gateway import EtcdError, Gateway


class Member(ThreadingHTTPServer):
    """Gives the answers that it is told, the last one again and again."""

    daemon_threads = True

    def __init__(self, *answers: tuple[int, object] | None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers = list(answers)
        self.asked: list[Any] = []
        self.connections = 0

    def next_answer(self) -> tuple[int, object] | None:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Member

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append((self.path, json.loads(data)))
        answer = self.server.next_answer()
        if answer is None:  # it ends the connection
            self.close_connection = True
            return
        status, body = answer
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        pass


class Members:
    """Servers that are gone with the test."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    def __call__(self, *answers: tuple[int, object] | None) -> Member:
        member = self._stack.enter_context(Member(*answers))
        thread = threading.Thread(target=member.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        self._stack.callback(thread.join)
        self._stack.callback(member.shutdown)
        return member

    def gateway(self, *members: Member | int, timeout: float = 30.0) -> Gateway:
        ports = [each if isinstance(each, int) else each.server_address[1] for each in members]
        hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
        gateway = Gateway(EtcdAddress.parse(f"etcd://{hosts}"), timeout=timeout)
        self._stack.callback(gateway.close)
        return gateway


@pytest.fixture
def members() -> Iterator[Members]:
    with ExitStack() as stack:
        yield Members(stack)


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that is taken, but refuses."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that takes connections, and never answers."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        yield silent.getsockname()[1]


GOOD = (200, {"header": {"revision": "7"}})
NO_LEADER = (503, {"error": "etcdserver: no leader", "code": 14})


def test_one_connection_serves_many_requests(members: Members) -> None:
    member = members(GOOD)
    gateway = members.gateway(member)
    for number in range(3):
        assert gateway.call("/v3/x", {"n": number}) == GOOD[1]
    assert member.asked == [("/v3/x", {"n": number}) for number in range(3)]
    assert member.connections == 1


def test_a_connection_that_ended_is_made_again(members: Members) -> None:
    member = members(GOOD, None, GOOD)
    gateway = members.gateway(member)
    gateway.call("/v3/x", {})
    assert gateway.call("/v3/x", {}) == GOOD[1]
    assert member.connections == 2


def test_a_member_that_refuses_or_is_silent_gives_way_to_another(
    members: Members, closed_port: int, silent_port: int
) -> None:
    member = members(GOOD)
    gateway = members.gateway(closed_port, silent_port, member, timeout=0.6)
    assert gateway.call("/v3/x", {}) == GOOD[1]
    # It stays with the one that answered.
    assert gateway.call("/v3/x", {}) == GOOD[1]
    assert len(member.asked) == 2
    assert repr(gateway).endswith(f"at 127.0.0.1:{member.server_address[1]}>")


def test_an_election_is_waited_for(members: Members) -> None:
    busy = (429, {"error": "etcdserver: too many requests", "code": 8})
    one, other = members(NO_LEADER, NO_LEADER, GOOD), members(NO_LEADER, busy)
    assert members.gateway(one, other).call("/v3/x", {}) == GOOD[1]
    assert (len(one.asked), len(other.asked)) == (3, 2)


def test_nobody_answers(members: Members, closed_port: int, silent_port: int) -> None:
    member = members(NO_LEADER)
    gateway = members.gateway(closed_port, silent_port, member, timeout=0.3)
    with pytest.raises(EtcdError, match=r"no answer within 0\.3 s .*see whether they run") as info:
        gateway.call("/v3/x", {})
    assert info.value.passes
    assert info.value.reason == "unreachable"


@pytest.mark.parametrize(
    ("status", "answer", "reason", "remedy"),
    [
        (429, {"error": "etcdserver: mvcc: database space exceeded", "code": 8}, "space", "defrag"),
        (404, {"error": "etcdserver: requested lease not found", "code": 5}, "lease", "grant"),
        (
            400,
            {"error": "etcdserver: mvcc: required revision has been compacted", "code": 11},
            "compacted",
            "read again",
        ),
        (400, {"error": "etcdserver: request is too large", "code": 3}, "size", "max-request"),
        (400, {"error": "etcdserver: user name is empty", "code": 3}, "denied", "not supported"),
        (403, {"error": "etcdserver: permission denied", "code": 7}, "denied", "not supported"),
        (400, {"error": "etcdserver: duplicate key", "code": 3}, "refused", "log of that member"),
        (404, b"Not Found\n", "foreign", "check host, port and version"),
        (400, b"Client sent an HTTP request to an HTTPS server.\n", "foreign", "etcds:// for TLS"),
        (200, b"<html>", "foreign", "check host, port and version"),
        (200, b"[1]", "foreign", "check host, port and version"),
    ],
)
def test_what_will_stay_so_is_told_at_once(
    members: Members, status: int, answer: object, reason: str, remedy: str
) -> None:
    one, other = members((status, answer)), members(GOOD)
    with pytest.raises(EtcdError, match=remedy) as info:
        members.gateway(one, other).call("/v3/x", {})
    assert not info.value.passes
    assert info.value.reason == reason
    assert len(one.asked) == 1
    assert other.asked == []


def test_certificates_that_cannot_be_read_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSPEX_ETCD_CA", "/nowhere/ca.pem")
    with pytest.raises(EtcdError, match=r"/nowhere/ca\.pem.*set them to PEM files"):
        Gateway(EtcdAddress.parse("etcds://one"))
