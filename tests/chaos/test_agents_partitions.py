"""Networks are cut under agents: each process has a network namespace of its own, and what goes
from one to another is dropped, both ways or one way, for as long as a test likes."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Self

import pytest

import dspex
from dspex.testing.probe import wait_for

SOURCE = str(pathlib.Path(dspex.__file__).parents[1])
NAMES = ("hub", "scheduler", "a", "b", "c", "client", "other")
LEASE = 1.5
PORT = 8786


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


def why_not() -> str:
    """Why there can be no namespaces here; "" where there can."""
    if sys.platform != "linux" or shutil.which("ip") is None:
        return "network namespaces are made by `ip`, which is not here"
    name = f"dspex-try-{os.getpid()}"
    tried = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if tried.returncode:
        return f"network namespaces are not permitted here: {tried.stderr.strip()}"
    link = ["ip", "-n", name, "link", "add", "x", "type", "bridge"]
    tried = subprocess.run(link, capture_output=True, text=True)
    ip("netns", "del", name)
    return f"no bridges here: {tried.stderr.strip()}" if tried.returncode else ""


REASON = why_not()

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(bool(REASON), reason=REASON or "namespaces are permitted"),
]


class Net:
    """Namespaces on one bridge."""

    def __init__(self) -> None:
        self._prefix = f"dspex-{os.getpid()}"
        self._cuts: set[tuple[str, str]] = set()

    def space(self, name: str) -> str:
        return f"{self._prefix}-{name}"

    def address(self, name: str) -> str:
        return f"10.77.0.{NAMES.index(name) + 1}"

    def __enter__(self) -> Self:
        try:
            for name in NAMES:
                ip("netns", "add", self.space(name))
            hub = self.space("hub")
            ip("-n", hub, "link", "add", "bridge", "type", "bridge")
            ip("-n", hub, "link", "set", "bridge", "up")
            for name in NAMES[1:]:
                space = self.space(name)
                peer = ("peer", "name", "eth0", "netns", space)
                ip("-n", hub, "link", "add", f"to-{name}", "type", "veth", *peer)
                ip("-n", hub, "link", "set", f"to-{name}", "master", "bridge", "up")
                ip("-n", space, "addr", "add", f"{self.address(name)}/24", "dev", "eth0")
                ip("-n", space, "link", "set", "eth0", "up")
                ip("-n", space, "link", "set", "lo", "up")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        for name in NAMES:
            subprocess.run(["ip", "netns", "del", self.space(name)], capture_output=True)

    def cut_one_way(self, source: str, target: str) -> None:
        """Drop what goes from the one to the other."""
        ip("-n", self.space(source), "route", "add", "blackhole", f"{self.address(target)}/32")
        self._cuts.add((source, target))

    def cut(self, one: str, other: str) -> None:
        self.cut_one_way(one, other)
        self.cut_one_way(other, one)

    def heal(self) -> None:
        for source, target in self._cuts:
            ip("-n", self.space(source), "route", "del", "blackhole", f"{self.address(target)}/32")
        self._cuts.clear()

    @contextmanager
    def process(self, name: str, *command: str, **options: Any) -> Iterator[Any]:
        """Run Python in a namespace."""
        with tempfile.TemporaryDirectory() as folder:
            process = subprocess.Popen(
                ["ip", "netns", "exec", self.space(name), sys.executable, *command],
                env={
                    **os.environ,
                    "PYTHONPATH": SOURCE,
                    "DASK_DSPEX__LEASE": str(LEASE),
                    "DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "12s",
                },
                cwd=folder,
                **options,
            )
            try:
                yield process
            finally:
                process.kill()
                process.wait()
                for pipe in (process.stdin, process.stdout):
                    if pipe is not None:
                        pipe.close()


CLIENT = textwrap.dedent("""
    import json, os, sys
    import dspex
    from dspex.agents import create_agents, gather, list_agents
    from dspex.testing.agents import Counter
    from dspex.testing.agents_traffic import Traffic
    from dspex.testing.probe import wait_for

    address, name, count = sys.argv[1:]
    KEPT = "cluster_replicated"

    def tell(what):
        print(json.dumps(what), flush=True)

    def up():
        return sorted(m.name for m in foundation.members() if m.state == "up")

    def hosts():
        names = {m.address: m.name for m in foundation.members()}
        found = {row["id"]: names.get(row["host"], "") for row in list_agents(foundation)}
        return [found[agent.id] for agent in agents]

    with dspex.connect(address) as foundation:
        wait_for(lambda: len(up()) == 3)
        agents = create_agents(
            [
                {"cls": Counter, "id": f"{name}-{os.getpid()}-{n}", "persistence": KEPT}
                for n in range(int(count))
            ],
            foundation=foundation,
        )
        with Traffic(agents, threads=len(agents)) as traffic:
            tell("ready")
            for line in sys.stdin:
                word = line.strip()
                if word == "go on":
                    traffic.go_on()
                    tell("went on")
                elif word == "counts":
                    traffic.check()
                    tell(traffic.counts)
                elif word == "hosts":
                    tell(hosts())
                elif word == "up":
                    tell(up())
                elif word == "rebalance":
                    tell(len(foundation.rebalance()))
                elif word == "end":
                    break
        tell([gather([each.read() for each in agents], timeout=60), traffic.counts])
        gather([each.stop() for each in agents], timeout=60)
""")


class Script:
    """A client in a namespace, which calls agents all the time and answers questions."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def hear(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the client ended without a word"
        return json.loads(line)

    def ask(self, word: str) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()
        return self.hear()

    def go_on(self) -> None:
        """Wait until every agent was called a few times more."""
        assert self.ask("go on") == "went on"

    def wait_for_calls(self, among: Sequence[int], count: int = 100) -> list[int]:
        """Wait until these agents answered so often; gives how often each answered meanwhile."""
        before = self.ask("counts")

        def done() -> list[int]:
            return [now - then for now, then in zip(self.ask("counts"), before, strict=True)]

        wait_for(lambda: all(done()[at] >= count for at in among), seconds=90)
        return done()

    def end(self) -> None:
        """Every call took effect once."""
        read, counted = self.ask("end")
        assert read == counted


@contextmanager
def client(net: Net, where: str, *, agents: int) -> Iterator[Script]:
    address = f"tcp://{net.address('scheduler')}:{PORT}"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with net.process(where, "-c", CLIENT, address, where, str(agents), **pipes) as process:
        script = Script(process)
        assert script.hear() == "ready"
        yield script


@pytest.fixture(scope="module")
def net() -> Iterator[Net]:
    """A scheduler and the workers a, b and c."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with ExitStack() as stack:
        net = stack.enter_context(Net())
        host = net.address("scheduler")
        scheduler = (
            "-m",
            "dask",
            "scheduler",
            "--host",
            host,
            "--port",
            str(PORT),
            "--no-dashboard",
        )
        preload = ("--preload", "dspex.preload", "--dspex-journal", "memory")
        stack.enter_context(net.process("scheduler", *scheduler, *preload, **quiet))
        for name in "abc":
            worker = ("-m", "dask", "worker", f"tcp://{host}:{PORT}", "--name", name)
            options = ("--host", net.address(name), "--nthreads", "1", "--no-nanny")
            stack.enter_context(net.process(name, *worker, *options, "--no-dashboard", **quiet))
        yield net


@pytest.fixture
def script(net: Net) -> Iterator[Script]:
    with client(net, "client", agents=12) as script:
        try:
            yield script
        finally:
            net.heal()


def at(script: Script, name: str) -> list[int]:
    """Which agents are at a worker."""
    found = [n for n, host in enumerate(script.ask("hosts")) if host == name]
    assert found
    return found


def rest(script: Script, name: str) -> list[int]:
    return sorted(set(range(12)) - set(at(script, name)))


def come_back(net: Net, script: Script, name: str) -> None:
    """Heal, and have the worker host agents again."""
    net.heal()
    wait_for(lambda: script.ask("up") == ["a", "b", "c"], seconds=90)

    def is_back() -> bool:
        # It may be lost once more, as long as old connections of it are found to be dead.
        script.ask("rebalance")
        return name in script.ask("hosts")

    wait_for(is_back, seconds=90)
    script.go_on()


def test_a_worker_that_is_cut_from_the_scheduler_loses_its_agents_to_others(
    net: Net, script: Script
) -> None:
    script.go_on()
    net.cut("a", "scheduler")
    # The client reaches it still, and must not be answered by it.
    script.go_on()
    assert "a" not in script.ask("hosts")
    come_back(net, script, "a")
    script.end()


@pytest.mark.parametrize("is_towards", [True, False])
def test_one_way_is_as_good_as_cut(net: Net, script: Script, is_towards: bool) -> None:
    script.go_on()
    net.cut_one_way(*(("a", "scheduler") if is_towards else ("scheduler", "a")))
    wait_for(lambda: "a" not in script.ask("hosts"), seconds=90)
    script.go_on()
    come_back(net, script, "a")
    script.end()


def test_a_worker_alone_with_nobody(net: Net, script: Script) -> None:
    script.go_on()
    for other in ("scheduler", "b", "c", "client"):
        net.cut("a", other)
    script.go_on()
    assert "a" not in script.ask("hosts")
    come_back(net, script, "a")
    script.end()


def test_a_client_that_is_cut_from_a_worker_finds_another_way(net: Net, script: Script) -> None:
    script.go_on()
    others = rest(script, "a")
    net.cut("client", "a")
    # Those elsewhere are not held up; the others are reached by way of the scheduler.
    script.wait_for_calls(others)
    script.go_on()
    assert "a" in script.ask("hosts")
    net.heal()
    script.go_on()
    script.end()


@pytest.mark.parametrize("is_towards", [True, False])
def test_a_client_that_is_cut_from_a_worker_one_way(
    net: Net, script: Script, is_towards: bool
) -> None:
    script.go_on()
    others = rest(script, "b")
    net.cut_one_way(*(("client", "b") if is_towards else ("b", "client")))
    script.wait_for_calls(others)
    net.heal()
    script.go_on()
    script.end()


def test_a_client_that_never_reached_a_worker_goes_by_way_of_the_scheduler(net: Net) -> None:
    net.cut("other", "a")
    try:
        with client(net, "other", agents=12) as script:
            at(script, "a")
            script.go_on()
            script.end()
    finally:
        net.heal()


def test_workers_that_are_cut_from_each_other_do_no_harm(net: Net, script: Script) -> None:
    net.cut("a", "b")
    script.go_on()
    net.heal()
    script.end()


def test_a_network_that_flaps(net: Net, script: Script) -> None:
    for number in range(8):
        name = "abc"[number % 3]
        net.cut(name, "scheduler" if number % 2 else "client")
        others = [n for n, host in enumerate(script.ask("hosts")) if host not in (name, "")]
        script.wait_for_calls(others[:1], 20)
        net.heal()
        script.wait_for_calls(others[:1], 5)
    script.go_on()
    wait_for(lambda: script.ask("up") == ["a", "b", "c"], seconds=90)
    script.end()
