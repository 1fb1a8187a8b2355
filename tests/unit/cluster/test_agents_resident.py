"""An agent's object: what a turn changed, how it is undone, how it is made again."""

from __future__ import annotations

import asyncio
import threading
from typing import Any, NoReturn

import pytest

from dspex.agents.agent import Agent
from dspex.cluster.agents.resident import (
    TIMER,
    VERSION,
    dumps,
    error_bytes,
    load_class,
    loads,
)
from dspex.errors import AgentFailedError, AgentRaisedError, StateIncompatibleError
from dspex.testing.agents_homes import Home
from dspex.testing.ledgers import run


class Counter(Agent):
    def __init__(self, by: int = 1) -> None:
        self.by = by
        self.restored = 0

    def on_start(self) -> None:
        self.state.update(n=0, log=[])

    def on_restore(self) -> None:
        self.restored += 1

    def add(self) -> int:
        self.state["n"] += self.by
        return int(self.state["n"])

    def note(self, word: str) -> None:
        self.state["log"].append(word)

    def drop(self, key: str) -> None:
        del self.state[key]

    def fail(self) -> NoReturn:
        self.add()
        self.note("failed")
        self.state["new"] = 1
        del self.state["log"]
        raise ValueError("no")

    def put(self, value: Any) -> None:
        self.state["value"] = value

    def put_lock(self) -> None:
        self.add()
        self.state["lock"] = threading.Lock()

    def give_lock(self) -> Any:
        self.add()
        return threading.Lock()

    def leave(self) -> NoReturn:
        self.add()
        raise SystemExit(3)

    async def add_later(self) -> int:
        await asyncio.sleep(0)
        return self.add()

    async def fail_later(self) -> NoReturn:
        await asyncio.sleep(0)
        self.fail()

    def _hidden(self) -> None:
        pass


# --- an Agent --------------------------------------------------------------------------------


def test_of_an_agent_what_changed_travels() -> None:
    home = Home(Counter, 5)
    assert sorted(home.make().changed) == ["log", "n"]
    assert home.changed("add") == (["n"], [])
    assert home.changed("note", "x") == (["log"], [])
    assert home.changed("drop", "log") == ([], ["log"])
    assert {key: loads(data) for key, data in home.kept.items()} == {"n": 5}


def test_an_agent_is_made_again_from_what_was_kept_and_its_arguments() -> None:
    home = Home(Counter, 5)
    home.make()
    home.call("add")
    home.call("note", "x")
    again = home.again()
    assert again.resident.object.restored == 1
    assert again.resident.snapshot() == {"n": 5, "log": ["x"]}
    assert again.result("add") == 10
    assert home.resident.object.restored == 0


def test_a_turn_that_raised_changed_nothing() -> None:
    home = Home(Counter)
    home.make()
    home.call("note", "x")
    before = dict(home.kept)
    error = home.error("fail")
    assert (type(error), str(error)) == (ValueError, "no")
    assert home.kept == before
    assert home.resident.snapshot() == {"n": 0, "log": ["x"]}
    assert home.result("add") == 1


def test_what_raised_is_told_with_its_traceback() -> None:
    home = Home(Counter)
    home.make()
    _, told = loads(home.call("fail").payload)
    assert "in fail" in told
    assert "ValueError: no" in told


@pytest.mark.parametrize("name", ["put_lock", "give_lock"])
def test_what_cannot_be_pickled_fails_its_turn_alone_and_undoes_it(name: str) -> None:
    home = Home(Counter)
    home.make()
    assert isinstance(home.error(name), TypeError)
    assert home.resident.snapshot() == {"n": 0, "log": []}
    assert home.result("add") == 1


@pytest.mark.parametrize("args", [b"no pickle", dumps((1, 2))])
def test_arguments_that_cannot_be_read_fail_their_turn(args: bytes) -> None:
    home = Home(Counter)
    home.make()
    outcome = home.resident.run("add", args, home.context())
    assert not outcome.is_ok
    assert home.result("add") == 1


def test_what_ends_a_process_ends_a_turn() -> None:
    home = Home(Counter)
    home.make()
    error = home.error("leave")
    assert isinstance(error, Exception), "it must not end the process of its caller either"
    assert "SystemExit" in str(error)
    assert home.resident.snapshot() == {"n": 0, "log": []}


@pytest.mark.parametrize("name", ["_hidden", "state", "nothing", "__init__"])
def test_only_methods_are_called(name: str) -> None:
    home = Home(Counter)
    home.make()
    assert isinstance(home.error(name), AttributeError)


def test_coroutine_functions_are_turns_too() -> None:
    async def work() -> None:
        home = Home(Counter)
        home.make()
        assert home.resident.is_async("add_later")
        assert not home.resident.is_async("add")
        assert not home.resident.is_async("nothing")
        outcome = await home.resident.run_async("add_later", b"", home.context())
        assert (loads(outcome.payload), list(outcome.changes.changed)) == (1, ["n"])
        outcome = await home.resident.run_async("fail_later", b"", home.context())
        assert not outcome.is_ok
        assert home.resident.snapshot() == {"n": 1, "log": []}

    run(work())


def test_the_whole_state_may_be_set() -> None:
    class Setting(Agent):
        def on_start(self) -> None:
            self.state = {"a": 1, "b": 2}

        def turn(self) -> None:
            self.state = {"b": 2, "c": 3}

    home = Home(Setting)
    home.make()
    assert home.changed("turn") == (["c"], ["a"])
    assert {key: loads(data) for key, data in home.kept.items()} == {"b": 2, "c": 3}


# --- on_error --------------------------------------------------------------------------------


class Careful(Counter):
    def on_error(self, error: Exception) -> None:
        self.state["log"].append(repr(error))
        if self.by == 2:
            raise KeyError("again")
        if self.by == 3:
            raise SystemExit(1)


def test_what_on_error_changes_is_kept_though_the_turn_is_undone() -> None:
    home = Home(Careful)
    home.make()
    assert isinstance(home.error("fail"), ValueError)
    assert home.resident.snapshot() == {"n": 0, "log": ["ValueError('no')"]}
    assert loads(home.kept["log"]) == ["ValueError('no')"]


@pytest.mark.parametrize("by", [2, 3])
def test_where_on_error_raises_nothing_is_kept_and_both_are_told(by: int) -> None:
    home = Home(Careful, by)
    home.make()
    before = dict(home.kept)
    outcome = home.call("fail")
    error, told = loads(outcome.payload)
    assert isinstance(error, ValueError)
    assert "on_error raised, too" in told
    assert home.kept == before
    assert home.result("add") == by


# --- volatile ones ---------------------------------------------------------------------------


def test_of_what_is_not_kept_nothing_travels_and_bindings_are_undone() -> None:
    home = Home(Counter, is_kept=False)
    home.make()
    assert home.changed("add") == ([], [])
    home.error("fail")
    assert home.resident.snapshot()["n"] == 1
    assert "new" not in home.resident.snapshot()
    lock = home.call("put_lock")
    assert lock.is_ok, "it need not be pickled"


def test_what_is_not_kept_moves_as_a_parcel() -> None:
    home = Home(Counter, is_kept=False)
    home.make()
    home.call("add")
    again = home.again(kept=home.resident.parcel())
    assert again.result("add") == 2
    assert again.resident.committed == {}


def test_a_parcel_is_of_the_version_of_its_class() -> None:
    class Second(Counter):
        version = 2

    home = Home(Second, is_kept=False)
    home.make()
    home.call("add")
    again = home.again(kept=home.resident.parcel())
    assert again.result("add") == 2


# --- versions --------------------------------------------------------------------------------


class Old(Agent):
    version = 1

    def on_start(self) -> None:
        self.state["name"] = "a b"


class New(Agent):
    version = 2

    def migrate_state(self, from_version: int) -> None:
        assert from_version == 1
        self.state["names"] = self.state.pop("name").split()


class Failing(New):
    def migrate_state(self, from_version: int) -> None:
        raise ValueError(from_version)


class Without(Agent):
    version = 3


def test_a_state_of_another_version_is_migrated_once() -> None:
    home = Home(Old)
    home.make()
    assert loads(home.kept[VERSION]) == 1
    again = home.again(New)
    assert again.resident.snapshot() == {"names": ["a", "b"]}
    assert loads(again.kept[VERSION]) == 2
    assert set(again.kept) == {"names", VERSION}
    third = again.again()
    assert third.resident.snapshot() == {"names": ["a", "b"]}


def test_a_class_that_cannot_migrate_is_refused() -> None:
    home = Home(Old)
    home.make()
    with pytest.raises(StateIncompatibleError, match="is of version 1 and Without of version 3"):
        home.again(Without)
    with pytest.raises(ValueError, match="1"):
        home.again(Failing)


def test_a_state_that_cannot_be_read_is_told_of() -> None:
    home = Home(Counter)
    home.make()
    for kept in ({"n": b"no pickle"}, {TIMER + "t": b""}):
        with pytest.raises(StateIncompatibleError, match="cannot be read here"):
            home.again(kept=kept)


# --- timers ----------------------------------------------------------------------------------


class Ticking(Agent):
    def on_start(self) -> None:
        self.every(5.0, "tick", 1)

    def tick(self, by: int = 0) -> None:
        self.state["n"] = self.state.get("n", 0) + by

    def once(self) -> None:
        self.after("2 seconds", "tick", 7, name="later")

    def stop(self) -> None:
        self.cancel_timer("tick")
        self.cancel_timer("never")

    def fail(self) -> NoReturn:
        self.cancel_timer("tick")
        self.after(1.0, "tick", name="mine")
        raise ValueError("no")

    def wrong(self) -> None:
        self.after(1.0, "nothing")


def timers(home: Home) -> dict[str, Any]:
    return {
        key[len(TIMER) :]: tuple(loads(data))
        for key, data in home.kept.items()
        if key.startswith(TIMER)
    }


def test_timers_are_kept_with_the_turn_that_set_them() -> None:
    home = Home(Ticking)
    home.make()
    home.call("once")
    assert timers(home) == {
        "tick": (5.0, "tick", dumps(((1,), {})), True),
        "later": (2.0, "tick", dumps(((7,), {})), False),
    }
    again = home.again()
    assert again.resident.timers is not None
    assert {name: tuple(each) for name, each in again.resident.timers.items()} == timers(home)
    assert again.resident.snapshot() == {}
    again.call("stop")
    assert list(timers(again)) == ["later"]
    assert list(again.again().resident.timers or ()) == ["later"]


def test_a_turn_that_raised_set_no_timer_and_ended_none() -> None:
    home = Home(Ticking)
    home.make()
    outcome = home.call("fail")
    assert outcome.context.timers == {}
    assert list(timers(home)) == ["tick"]
    home.error("wrong")
    assert list(timers(home)) == ["tick"]


def test_timers_move_with_what_is_not_kept() -> None:
    home = Home(Ticking, is_kept=False)
    home.make()
    home.call("once")
    again = home.again(kept=home.resident.parcel())
    assert sorted(again.resident.timers or ()) == ["later", "tick"]
    again.call("stop")
    assert list(again.again(kept=again.resident.parcel()).resident.timers or ()) == ["later"]


@pytest.mark.parametrize("is_kept", [True, False])
def test_a_timer_that_rings_once_is_over_with_its_turn(is_kept: bool) -> None:
    home = Home(Ticking, is_kept=is_kept)
    home.make()
    home.call("once")
    for name in ("tick", "later"):
        home.call(TIMER + name)
    assert home.resident.snapshot() == {"n": 8}
    parcel = home.kept if is_kept else home.resident.parcel()
    assert list(home.again(kept=parcel).resident.timers or ()) == ["tick"]
    home.call(TIMER + "later")
    assert home.resident.snapshot() == {"n": 8}, "it is not called a second time"


# --- bytes -----------------------------------------------------------------------------------


def test_an_error_that_cannot_be_pickled_is_told_in_words() -> None:
    class Locked(Exception):
        def __init__(self) -> None:
            super().__init__("words")
            self.lock = threading.Lock()

    class Picky(Exception):
        def __init__(self, one: int, two: int) -> None:
            super().__init__("words")

    for raised in (Locked(), Picky(1, 2)):
        error, told = loads(error_bytes(raised))
        assert isinstance(error, AgentRaisedError)
        assert type(raised).__name__ in str(error)
        assert "words" in told


def test_what_plain_pickle_cannot_cloudpickle_does() -> None:
    assert loads(dumps(lambda n: n + 1))(1) == 2
    assert loads(dumps(None)) is None


@pytest.mark.parametrize("code", [b"", dumps(7), b"cno.such.module\nThing\n."])
def test_what_is_no_class_is_told_of(code: bytes) -> None:
    with pytest.raises(AgentFailedError):
        load_class(code)
    assert load_class(dumps(Counter)) is Counter
