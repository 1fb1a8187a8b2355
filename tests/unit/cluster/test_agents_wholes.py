"""Agents of plain classes: kept, undone and made again as a whole."""

from __future__ import annotations

import collections
import threading
from typing import Any, NoReturn

import pytest

from dspex.cluster.agents.resident import WHOLE
from dspex.testing.agents_homes import Home


class Plain:
    def __init__(self, n: int = 0) -> None:
        self.n = n
        self.log: list[int] = []

    def add(self) -> int:
        self.n += 1
        self.log.append(self.n)
        return self.n

    def look(self) -> tuple[int, list[int]]:
        return self.n, self.log

    def fail(self) -> NoReturn:
        self.add()
        self.more = 1
        raise ValueError("no")

    def put_lock(self) -> None:
        self.add()
        self.lock = threading.Lock()

    def names(self) -> list[str]:
        return sorted(vars(self))


def test_a_plain_object_is_kept_as_a_whole() -> None:
    home = Home(Plain, 5)
    assert list(home.make().changed) == [WHOLE]
    assert home.changed("add") == ([WHOLE], [])
    assert home.changed("look") == ([], [])
    again = home.again()
    assert again.result("look") == (6, [6])
    assert again.result("add") == 7


@pytest.mark.parametrize("name", ["fail", "put_lock"])
def test_a_plain_object_is_undone_as_a_whole(name: str) -> None:
    home = Home(Plain)
    home.make()
    home.call("add")
    home.error(name)
    assert home.result("look") == (1, [1])
    assert home.result("names") == ["log", "n"]
    assert home.result("add") == 2


class Slotted:
    __slots__ = ("more", "n")

    def __init__(self) -> None:
        self.n = 0

    def add(self) -> int:
        self.n += 1
        return self.n

    def fail(self) -> NoReturn:
        self.add()
        self.more = 1
        raise ValueError("no")

    def has_more(self) -> bool:
        return hasattr(self, "more")


class HalfSlotted(Slotted):
    """With a `__dict__` beside its slots."""

    def __init__(self) -> None:
        super().__init__()
        self.word = "w"

    def look(self) -> tuple[int, str]:
        return self.n, self.word


def test_slots_are_kept_and_undone() -> None:
    home = Home(Slotted)
    home.make()
    home.call("add")
    home.error("fail")
    assert home.result("has_more") is False
    again = home.again()
    assert again.result("add") == 2
    half = Home(HalfSlotted)
    half.make()
    half.call("add")
    half.error("fail")
    assert half.again().result("look") == (1, "w")


class WithLock:
    """What cannot be pickled is left out, and made anew."""

    def __init__(self) -> None:
        self.n = 0
        self.lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {"n": self.n}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.n = state["n"]
        self.lock = threading.Lock()

    def add(self, is_failing: bool = False) -> int:
        with self.lock:
            self.n += 1
            if is_failing:
                raise ValueError("no")
            return self.n


def test_what_an_object_says_of_itself_is_kept() -> None:
    home = Home(WithLock)
    home.make()
    home.call("add")
    home.error("add", True)
    assert home.result("add") == 2
    again = home.again()
    assert again.result("add") == 3
    assert home.resident.snapshot() == {"n": 2}


class Stateless:
    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def greet(self) -> str:
        return "hello"


def test_an_object_without_anything_is_made_again_as_pickle_would() -> None:
    home = Home(Stateless)
    home.make()
    assert home.again().result("greet") == "hello"


@pytest.mark.parametrize("cls", [dict, list, set, collections.OrderedDict, collections.deque])
def test_builtins_keep_their_items(cls: type) -> None:
    home = Home(cls)
    home.make()
    fill = {"set": "add", "list": "append", "deque": "append"}.get(cls.__name__, "setdefault")
    assert home.changed(fill, "x") == ([WHOLE], [])
    again = home.again()
    assert list(again.resident.object) == ["x"]
    assert isinstance(again.resident.object, cls)
    assert again.result("copy") == again.resident.object


def test_a_plain_object_that_is_not_kept_moves_as_a_parcel() -> None:
    home = Home(Plain, is_kept=False)
    home.make()
    home.call("add")
    again = home.again(kept=home.resident.parcel())
    assert again.result("add") == 2
    assert again.resident.committed == {}


def test_a_plain_object_is_migrated_too() -> None:
    class First:
        def __init__(self) -> None:
            self.n = 1

    class Second:
        version = 1

        def migrate_state(self, from_version: int) -> None:
            self.n = [from_version, vars(self)["n"]]

    home = Home(First)
    home.make()
    again = home.again(Second)
    assert again.resident.object.n == [0, 1]
    assert again.again().resident.object.n == [0, 1]
