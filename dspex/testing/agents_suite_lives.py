"""How agents live with one another and with time, as a suite of tests.

Knows: the public contract of agents. Must not know: whether they live on a cluster or in this
process.

It is the other half of `dspex.testing.agents_suite`, and used in the same way.
"""

from __future__ import annotations

import concurrent.futures
import pathlib
import pickle
from functools import partial

import pytest

from dspex.agents import AgentHandle, create_agent, gather, get_agent, wait
from dspex.errors import AgentExistsError, AgentNotFoundError, DeadlineError
from dspex.foundation.handles.foundation import Foundation
from dspex.testing.agents import (
    Appender,
    Breaking,
    Counter,
    Meddler,
    Ticking,
    entered,
    release,
)
from dspex.testing.agents_suite import KEPT, LONG, Create
from dspex.testing.probe import wait_for

__all__ = ["LivesConformance"]


class LivesConformance:
    """Subclass it, with a fixture ``foundation``."""

    @pytest.fixture
    def create(self, foundation: Foundation) -> Create:
        return partial(create_agent, foundation=foundation)

    # --- agents that call agents -------------------------------------------------------------

    @pytest.mark.parametrize("persistence", [None, KEPT])
    @pytest.mark.parametrize("method", ["ask", "ask_async"])
    def test_agents_call_agents(self, create: Create, method: str, persistence: str | None) -> None:
        counters = [create(Counter, persistence=KEPT) for _ in range(3)]
        meddler = create(Meddler, persistence=persistence)
        calls = [meddler.call(method, (each, 2)) for _ in range(4) for each in counters]
        assert gather(calls, timeout=LONG) == [n for n in (2, 4, 6, 8) for _ in counters]
        assert meddler.made().result(LONG) == 12

    def test_what_is_cast_leaves_with_the_call_or_never(self, create: Create) -> None:
        counter = create(Counter, persistence=KEPT)
        meddler = create(Meddler, persistence=KEPT)
        meddler.send(counter, 1, 2, 3).result(LONG)
        with pytest.raises(ValueError, match="second thoughts"):
            meddler.send_and_fail(counter, 99).result(LONG)
        meddler.send(counter, 4).result(LONG)
        wait_for(lambda: counter.notes().result(LONG) == [1, 2, 3, 4])

    @pytest.mark.parametrize("method", ["make", "make_async"])
    def test_agents_create_agents(
        self, create: Create, foundation: Foundation, method: str
    ) -> None:
        meddler = create(Meddler, persistence=KEPT)
        made = meddler.call(method, ("child",), {"persistence": KEPT}).result(LONG)
        assert made.add().result(LONG) == 8
        assert get_agent("child", foundation=foundation) == made, "in its maker's namespace"
        with pytest.raises(AgentExistsError):
            meddler.call(method, ("child",)).result(LONG)

    def test_handles_pickle(self, create: Create) -> None:
        agent = create(Counter, id="p", persistence=KEPT)
        agent.add().result(LONG)
        copy = pickle.loads(pickle.dumps(agent))
        assert copy == agent
        assert copy.id == "p"
        assert repr(copy) == repr(agent)
        assert copy.add().result(LONG) == 2
        echo: AgentHandle = agent.echo(agent).result(LONG)
        assert echo.add().result(LONG) == 3

    # --- slow, late, given up ----------------------------------------------------------------

    def test_slow_ones_delay_no_other(self, create: Create, tmp_path: pathlib.Path) -> None:
        slow = [create(Counter, persistence=KEPT) for _ in range(6)]
        calls = [agent.hang(str(tmp_path), str(n)) for n, agent in enumerate(slow)]
        for n in range(6):
            wait_for(partial(entered, tmp_path, str(n)))
        others = [create(Counter, persistence=KEPT) for _ in range(10)]
        assert gather([each.add() for each in others], timeout=LONG) == [1] * 10
        assert gather([each.add_async() for each in others], timeout=LONG) == [2] * 10
        assert wait(calls, timeout=0).done == set()
        for n in range(6):
            release(tmp_path, str(n))
        assert gather(calls, timeout=LONG) == [str(n) for n in range(6)]

    def test_a_call_that_is_late_before_it_begins_has_no_effect(
        self, create: Create, tmp_path: pathlib.Path
    ) -> None:
        agent = create(Counter, persistence=KEPT)
        under_way = agent.hang(str(tmp_path), "gate")
        wait_for(partial(entered, tmp_path, "gate"))
        late = agent.call("add", (100,), timeout=0.05)
        with pytest.raises(DeadlineError, match="add"):
            late.result(LONG)
        soon = agent.call("add", (10,), timeout=LONG)
        release(tmp_path, "gate")
        assert under_way.result(LONG) == "gate"
        assert soon.result(LONG) == 11
        assert agent.read().result(LONG) == 11

    def test_a_call_that_came_in_a_row_with_a_slow_one_may_be_late(
        self, create: Create, tmp_path: pathlib.Path
    ) -> None:
        agent = create(Counter, persistence=KEPT)
        under_way = agent.hang(str(tmp_path), "gate")
        late = [agent.call("add", (100,), timeout=0.3) for _ in range(3)]
        soon = agent.add(10)
        assert [type(each.exception(LONG)) for each in late] == [DeadlineError] * 3
        # The host counts from when they came, a little later.
        assert isinstance(agent.call("read", timeout=0.3).exception(LONG), DeadlineError)
        release(tmp_path, "gate")
        assert under_way.result(LONG) == "gate"
        assert soon.result(LONG) == 11

    def test_a_call_that_is_late_while_it_runs_takes_effect(
        self, create: Create, tmp_path: pathlib.Path
    ) -> None:
        agent = create(Counter, persistence=KEPT)
        late = agent.call("hang", (str(tmp_path), "gate"), timeout=0.2)
        with pytest.raises(DeadlineError, match="may take effect"):
            late.result(LONG)
        wait_for(partial(entered, tmp_path, "gate"))
        release(tmp_path, "gate")
        assert agent.read().result(LONG) == 1

    def test_a_call_that_is_given_up_before_it_begins_has_no_effect(
        self, create: Create, tmp_path: pathlib.Path
    ) -> None:
        agent = create(Counter, persistence=KEPT)
        under_way = agent.hang(str(tmp_path), "gate")
        wait_for(partial(entered, tmp_path, "gate"))
        waiting = agent.add(100)
        wait_for(lambda: agent.status()["load"] == 1)
        assert waiting.cancel()
        wait_for(lambda: agent.status()["load"] == 0)
        with pytest.raises(concurrent.futures.CancelledError):
            waiting.result()
        release(tmp_path, "gate")
        assert under_way.result(LONG) == "gate"
        assert agent.add().result(LONG) == 2

    def test_a_small_mailbox_makes_callers_wait_and_loses_nothing(
        self, create: Create, tmp_path: pathlib.Path
    ) -> None:
        agent = create(Appender, persistence=KEPT, mailbox_size=1)

        def call(name: str) -> list[int]:
            return list(gather([agent.take(name, n) for n in range(40)], timeout=LONG))

        with concurrent.futures.ThreadPoolExecutor(4) as threads:
            assert list(threads.map(call, "abcd")) == [list(range(1, 41))] * 4
        assert agent.all().result(LONG) == {name: list(range(40)) for name in "abcd"}

    # --- timers ------------------------------------------------------------------------------

    def test_timers_call_again_and_again_until_they_are_ended(self, create: Create) -> None:
        agent = create(Ticking, persistence=KEPT)
        agent.begin(0.01, "tick").result(LONG)
        agent.begin(0.01, "once", name="other", repeats=False).result(LONG)
        wait_for(lambda: agent.notes().result(LONG).count("tick") >= 5)
        wait_for(lambda: "once" in agent.notes().result(LONG))
        agent.finish().result(LONG)
        agent.begin(0.01, "last", name="last", repeats=False).result(LONG)
        # A tick that was on its way when its timer ended may come before the last.
        wait_for(lambda: agent.notes().result(LONG)[-1] == "last")
        assert agent.notes().result(LONG).count("once") == 1

    def test_a_timer_of_a_call_that_raises_is_none(self, create: Create) -> None:
        agent = create(Ticking, persistence=KEPT)
        with pytest.raises(ValueError, match="second thoughts"):
            agent.begin_and_fail(0.001).result(LONG)
        agent.begin(0.05, "fine", repeats=False).result(LONG)
        wait_for(lambda: agent.notes().result(LONG) == ["fine"])

    # --- the end -----------------------------------------------------------------------------

    def test_stop_lets_it_do_first_what_waits(self, create: Create, tmp_path: pathlib.Path) -> None:
        agent = create(Counter, persistence=KEPT)
        calls = [agent.hang(str(tmp_path), "gate"), agent.add(), agent.add()]
        stopped = agent.stop()
        release(tmp_path, "gate")
        assert gather(calls, timeout=LONG) == ["gate", 2, 3]
        assert stopped.result(LONG) is True
        with pytest.raises(AgentNotFoundError):
            agent.add().result(LONG)

    def test_stop_without_drain_ends_it_at_once(
        self, create: Create, tmp_path: pathlib.Path
    ) -> None:
        agent = create(Counter, persistence=KEPT)
        under_way = agent.hang(str(tmp_path), "gate")
        wait_for(partial(entered, tmp_path, "gate"))
        waiting = agent.add()
        assert agent.stop(drain=False).result(LONG) is True
        with pytest.raises(AgentNotFoundError):
            agent.status()
        for call in (under_way, waiting):
            with pytest.raises(AgentNotFoundError):
                call.result(LONG)
        release(tmp_path, "gate")

    def test_on_stop_may_refuse(self, create: Create) -> None:
        agent = create(Breaking, args=("on_stop",))
        with pytest.raises(LookupError, match="in its on_stop"):
            agent.stop().result(LONG)
        assert agent.add().result(LONG) == 1
        assert agent.stop(drain=False).result(LONG) is True

    def test_checkpoint_waits_for_what_was_before(self, create: Create) -> None:
        agent = create(Counter, persistence=KEPT)
        calls = [agent.add() for _ in range(20)]
        agent.checkpoint().result(LONG)
        assert all(call.done() for call in calls)
