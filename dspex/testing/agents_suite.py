"""What agents keep wherever they live, as a suite of tests.

Knows: the public contract of agents. Must not know: whether they live on a cluster or in this
process.

Subclass it in a test module, and give it a fixture ``foundation``, with a namespace of its own for
each test; `dspex.testing.agents_suite_lives` is its other half.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import pathlib
import pickle
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from dspex.agents import (
    Agent,
    AgentHandle,
    as_completed,
    create_agent,
    create_agents,
    find_agents_by_capability,
    gather,
    get_agent,
    list_agents,
)
from dspex.errors import (
    AgentExistsError,
    AgentFailedError,
    AgentNotFoundError,
    InsufficientReplicasError,
    InvalidArgumentError,
    NotPicklableError,
    UnsatisfiableRequestError,
    UnsupportedGuaranteeError,
)
from dspex.foundation.handles.foundation import Foundation
from dspex.testing.agents import (
    Appender,
    Breaking,
    Counter,
    Plain,
    release,
)
from dspex.testing.probe import wait_for

__all__ = ["LONG", "AgentsConformance", "Create"]

LONG = 60
"""Seconds for which a test waits for what must come."""

Create = Callable[..., AgentHandle]
"""`create_agent` on the foundation of the test."""

KEPT = "cluster_replicated"


class AgentsConformance:
    """Subclass it, with a fixture ``foundation``."""

    @pytest.fixture
    def create(self, foundation: Foundation) -> Create:
        return partial(create_agent, foundation=foundation)

    # --- calls -------------------------------------------------------------------------------

    @pytest.mark.parametrize("persistence", [None, KEPT])
    @pytest.mark.parametrize("cls", [Counter, Plain])
    def test_calls_take_effect_in_order(
        self, create: Create, cls: type, persistence: str | None
    ) -> None:
        agent = create(cls, args=(10,), persistence=persistence)
        assert gather([agent.add() for _ in range(100)], timeout=LONG) == list(range(11, 111))
        assert agent.add(by=5).result(LONG) == 115
        assert agent.call("add", (1,), {}, timeout=LONG).result() == 116
        assert agent.read().result(LONG) == 116

    @pytest.mark.parametrize(
        ("delivery", "persistence"),
        [
            ("at_most_once", None),
            ("at_least_once", None),
            ("at_most_once", KEPT),
            ("at_least_once", KEPT),
            ("exactly_once", KEPT),
        ],
    )
    def test_every_delivery_delivers(
        self, create: Create, delivery: str, persistence: str | None
    ) -> None:
        agent = create(Counter, persistence=persistence)
        assert [agent.call("add", delivery=delivery).result(LONG) for _ in range(3)] == [1, 2, 3]
        agent.cast("add", (10,), delivery=delivery)
        assert agent.add().result(LONG) == 14

    def test_exactly_once_needs_a_state_that_is_kept(self, create: Create) -> None:
        with pytest.raises(UnsupportedGuaranteeError, match="no persistence"):
            create(Counter).call("add", delivery="exactly_once").result(LONG)

    def test_what_raises_leaves_no_change(self, create: Create) -> None:
        volatile = create(Counter)
        kept = create(Counter, persistence=KEPT)
        plain = create(Plain, persistence=KEPT)
        for agent in (volatile, kept, plain):
            assert agent.add(2).result(LONG) == 2
            with pytest.raises(ValueError, match="on purpose, after 7") as caught:
                agent.fail(7).result(LONG)
            assert any("in fail" in note for note in caught.value.__notes__), "its traceback"
            assert agent.read().result(LONG) == 2
        for agent in (volatile, kept):
            assert "left behind" not in agent.state().result(LONG)
        assert plain.notes().result(LONG) == []

    def test_what_changed_in_place_is_kept_and_undone(self, create: Create) -> None:
        agent = create(Counter, persistence=KEPT)
        assert [agent.note(n).result(LONG) for n in range(3)] == [1, 2, 3]
        agent.keep({"a": [1]}).result(LONG)
        assert agent.state().result(LONG) == {"n": 0, "log": [0, 1, 2], "kept": {"a": [1]}}

    def test_what_cannot_be_kept_or_told_is_the_error_of_that_call(self, create: Create) -> None:
        agent = create(Counter, persistence=KEPT)
        for method in ("keep_a_lock", "answer_with_a_lock"):
            with pytest.raises(TypeError, match="lock"):
                agent.call(method).result(LONG)
            assert agent.state().result(LONG) == {"n": 0, "log": []}
        assert agent.add().result(LONG) == 1
        with pytest.raises((TypeError, pickle.PicklingError)):
            agent.echo(threading.Lock())

    @pytest.mark.parametrize("name", ["nothing", "_first", "__init__", "version"])
    def test_what_is_no_method(self, create: Create, name: str) -> None:
        agent = create(Counter)
        with pytest.raises(AttributeError, match=name):
            agent.call(name).result(LONG)
        assert agent.add().result(LONG) == 1

    def test_coroutine_methods_run_one_at_a_time_too(self, create: Create) -> None:
        class Slow(Agent):
            def on_start(self) -> None:
                self.state["n"] = 0

            async def add(self) -> int:
                import asyncio

                before = self.state["n"]
                await asyncio.sleep(0.001)
                self.state["n"] = before + 1
                return int(self.state["n"])

        agent = create(Slow, persistence=KEPT)
        assert gather([agent.add() for _ in range(30)], timeout=LONG) == list(range(1, 31))

    def test_hooks_may_be_coroutine_functions(self, create: Create) -> None:
        class Awaiting(Agent):
            async def on_start(self) -> None:
                import asyncio

                await asyncio.sleep(0)
                self.state["began"] = True

            async def on_stop(self) -> None:
                import asyncio

                await asyncio.sleep(0)

        agent = create(Awaiting, persistence=KEPT)
        assert agent.state().result(LONG) == {"began": True}
        assert agent.stop().result(LONG)

    def test_on_error_hears_of_it_and_what_it_changes_is_kept(self, create: Create) -> None:
        class Minding(Counter):
            def on_error(self, error: Exception) -> None:
                self.state["errors"] = [*self.state.get("errors", []), str(error)]

        agent = create(Minding, persistence=KEPT)
        with pytest.raises(ValueError, match="on purpose"):
            agent.fail(1).result(LONG)
        assert agent.state().result(LONG)["errors"] == ["on purpose, after 1"]
        assert agent.read().result(LONG) == 0

    def test_async_code_awaits(self, create: Create, foundation: Foundation) -> None:
        agent = create(Counter, persistence=KEPT)

        async def work() -> None:
            assert await agent.add() == 1
            assert await gather([agent.add() for _ in range(3)]) == [2, 3, 4]
            async for future in as_completed([agent.add()]):
                assert await future == 5
            with pytest.raises(ValueError, match="on purpose"):
                await agent.fail()

        asyncio.run(work())
        assert agent.read().result(LONG) == 5

    def test_threads_call_at_once(self, create: Create) -> None:
        agent = create(Appender, persistence=KEPT)

        def call(name: str) -> list[int]:
            return [agent.take(name, number).result(LONG) for number in range(30)]

        with concurrent.futures.ThreadPoolExecutor(4) as threads:
            assert list(threads.map(call, "abcd")) == [list(range(1, 31))] * 4
        assert agent.all().result(LONG) == {name: list(range(30)) for name in "abcd"}

    # --- creation ----------------------------------------------------------------------------

    def test_an_id_is_given_once(self, create: Create) -> None:
        agent = create(Counter, id="one", args=(5,))
        with pytest.raises(AgentExistsError, match="'one' is there already"):
            create(Counter, id="one")
        assert agent.add().result(LONG) == 6
        again = create(Counter, id="one", on_conflict="existing")
        assert again == agent
        assert hash(again) == hash(agent)
        assert again.add().result(LONG) == 7
        with pytest.raises(AgentExistsError, match="another id"):
            create(Plain, id="one", on_conflict="existing")
        agent.stop().result(LONG)
        assert create(Counter, id="one").add().result(LONG) == 1

    @pytest.mark.parametrize("where", ["constructor", "on_start"])
    @pytest.mark.parametrize("persistence", [None, KEPT])
    def test_one_that_cannot_begin_is_an_error_and_leaves_nothing(
        self, create: Create, foundation: Foundation, where: str, persistence: str | None
    ) -> None:
        with pytest.raises(AgentFailedError, match=f"LookupError: .*in its {where}"):
            create(Breaking, args=(where,), id="broken", persistence=persistence)
        assert list_agents(foundation) == []
        with pytest.raises(AgentNotFoundError):
            get_agent("broken", foundation=foundation)
        assert create(Counter, id="broken").add().result(LONG) == 1

    def test_many_at_once_of_several_kinds(self, create: Create, foundation: Foundation) -> None:
        specs = [
            {"cls": cls, "id": f"{cls.__name__}-{n}", "args": (n,), "persistence": persistence}
            for n in range(20)
            for cls, persistence in ((Counter, KEPT), (Plain, None))
        ]
        agents = create_agents(specs, foundation=foundation)
        assert [agent.id for agent in agents] == [spec["id"] for spec in specs]
        assert gather([agent.add() for agent in agents], timeout=LONG) == [
            n + 1 for n in range(20) for _ in range(2)
        ]

    def test_of_many_those_that_can_begin_are_there(
        self, create: Create, foundation: Foundation
    ) -> None:
        specs = [
            {"cls": Breaking, "id": f"b{n}", "args": ("on_start" if n % 2 else "",)}
            for n in range(6)
        ]
        with pytest.raises(AgentFailedError) as caught:
            create_agents(specs, foundation=foundation)
        assert "and 2 more of 6 could not be made" in caught.value.__notes__
        assert sorted(row["id"] for row in list_agents(foundation)) == ["b0", "b2", "b4"]

    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"distribution": "moon"}, InvalidArgumentError, "distribution is"),
            ({"persistence": "forever"}, InvalidArgumentError, "persistence is one of"),
            ({"persistence": "durable"}, UnsupportedGuaranteeError, "journal that outlives"),
            ({"failover": "maybe"}, InvalidArgumentError, "failover is one of"),
            ({"min_replicas": 0}, InvalidArgumentError, "from 1"),
            ({"min_replicas": 2}, InsufficientReplicasError, "there are 1; got 2"),
            ({"min_replicas": 3, "persistence": KEPT}, InsufficientReplicasError, "there are 2"),
            ({"placement": "moon"}, InvalidArgumentError, "placement is one of"),
            ({"placement": 7}, InvalidArgumentError, "placement is one of"),
            ({"capabilities": "count"}, InvalidArgumentError, "list of names"),
            ({"mailbox_size": 0}, InvalidArgumentError, "mailbox_size"),
            ({"restart": 3}, InvalidArgumentError, "RestartPolicy"),
            ({"resources": {"cpu_cores": 1e6}}, UnsatisfiableRequestError, "no worker could"),
            ({"resources": {"moons": 1}}, ValueError, "moons"),
            ({"on_conflict": "maybe"}, ValueError, "on_conflict"),
            ({"id": ""}, InvalidArgumentError, "an id is"),
            ({"id": "line\nbreak"}, ValueError, "printable"),
            ({"moons": 1}, InvalidArgumentError, "got \\['moons'\\]"),
        ],
    )
    def test_what_cannot_be_is_refused(
        self,
        create: Create,
        foundation: Foundation,
        options: dict[str, Any],
        error: type[Exception],
        message: str,
    ) -> None:
        with pytest.raises(error, match=message):
            create(Counter, **options)
        assert list_agents(foundation) == []

    def test_classes_that_cannot_be_are_refused(self, create: Create) -> None:
        class Reserved(Agent):
            def stop(self) -> None:
                pass

        class Locked(Agent):
            lock = threading.Lock()

        class Waits(Agent):
            async def on_error(self, error: BaseException) -> None:
                pass

        not_a_class: Any = Counter()
        with pytest.raises(InvalidArgumentError, match="defines stop"):
            create(Reserved)
        with pytest.raises(InvalidArgumentError, match="awaits nothing"):
            create(Waits)
        with pytest.raises(NotPicklableError, match="Locked cannot be pickled"):
            create(Locked)
        with pytest.raises(InvalidArgumentError, match="made of a class"):
            create(not_a_class)

    def test_options_are_told_by_status(self, create: Create) -> None:
        agent = create(
            Counter,
            kwargs={"first": 3},
            id="told",
            persistence=KEPT,
            failover="manual",
            min_replicas=2,
            capabilities=["add"],
            mailbox_size=7,
        )
        told = agent.status()
        assert told["status"] == "running"
        assert (told["persistence"], told["failover"], told["restarts"]) == (KEPT, "manual", 0)
        assert tuple(told["capabilities"]) == ("count", "add")
        assert told["host"] == agent.worker
        assert told["name"] == "dspex.testing.agents.Counter"
        assert agent.read().result(LONG) == 3

    # --- finding -----------------------------------------------------------------------------

    def test_agents_are_found(self, create: Create, foundation: Foundation) -> None:
        a = create(Appender, id="a", capabilities=["write", "read"])
        b = create(Appender, id="b", capabilities=["write"])
        create(Appender, id="c")
        find = partial(find_agents_by_capability, foundation=foundation)
        assert get_agent("a", foundation=foundation) == a
        assert {row["id"] for row in list_agents(foundation)} == {"a", "b", "c"}
        assert len(list_agents(foundation, limit=2)) == 2
        assert set(find("write")) == {a, b}
        assert find(["write", "read"], match="all") == [a]
        assert set(find(["write", "read"])) == {a, b}
        assert find("write", where=lambda row: row["id"] != "a") == [b]
        assert find("write", order_by="id") == [a, b]
        assert len(find("write", limit=1)) == 1
        assert find("fly") == []
        with pytest.raises(InvalidArgumentError, match="order_by"):
            find("write", order_by="beauty")
        with pytest.raises(InvalidArgumentError, match="match is"):
            find("write", match="most")
        b.stop().result(LONG)
        assert find("write") == [a]

    def test_the_least_loaded_is_found_first(
        self, create: Create, foundation: Foundation, tmp_path: pathlib.Path
    ) -> None:
        busy = create(Counter, id="a")
        idle = create(Counter, id="b")
        calls = [busy.hang(str(tmp_path), "gate"), *(busy.add() for _ in range(5))]
        wait_for(lambda: find_agents_by_capability("count", foundation=foundation) == [idle, busy])
        assert busy.status()["load"] == 5
        release(tmp_path, "gate")
        gather(calls, timeout=LONG)
        wait_for(lambda: busy.status()["load"] == 0)

    def test_who_is_not_there(self, foundation: Foundation, create: Create) -> None:
        agent = create(Counter, id="gone")
        agent.stop().result(LONG)
        with pytest.raises(AgentNotFoundError, match="gone"):
            agent.add().result(LONG)
        with pytest.raises(AgentNotFoundError):
            agent.status()
        with pytest.raises(AgentNotFoundError):
            get_agent("gone", foundation=foundation)

    def test_namespaces_are_apart(self, create: Create, foundation: Foundation) -> None:
        here = create(Counter, id="same")
        space = f"{foundation.namespace}-other"
        there = create(Counter, id="same", namespace=space)
        assert here != there
        assert [here.add().result(LONG), here.add().result(LONG)] == [1, 2]
        assert there.add().result(LONG) == 1
        assert get_agent("same", namespace=space, foundation=foundation) == there
        assert [row["id"] for row in list_agents(foundation, namespace=space)] == ["same"]
        there.stop().result(LONG)
        assert here.add().result(LONG) == 3
