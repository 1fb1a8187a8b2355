"""The state of an agent: what a turn may have changed, and how it is taken back."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any, NoReturn

import pytest

from dspex.errors import InvalidArgumentError
from dspex.foundation.agents.tracked import TrackedState


class Kept:
    """A state, and its pickles as they were committed."""

    def __init__(self, **values: Any) -> None:
        self.state = TrackedState(values)
        self.committed = {key: pickle.dumps(value) for key, value in values.items()}

    def changes(self) -> tuple[dict[str, Any], list[str]]:
        changed, deleted = self.state.changes(self.committed, pickle.dumps)
        return {key: pickle.loads(data) for key, data in changed.items()}, sorted(deleted)

    def commit(self) -> None:
        changed, deleted = self.state.changes(self.committed, pickle.dumps)
        self.state.accept()
        self.committed.update(changed)
        for key in deleted:
            del self.committed[key]

    def undo(self) -> dict[str, Any]:
        self.state.undo(self.committed, pickle.loads)
        return dict(self.state.values_as_they_are())


def test_what_was_only_read_travels_nowhere() -> None:
    kept = Kept(n=1, log=["x"], text="t")
    assert (kept.state["n"], kept.state.get("log"), "text" in kept.state) == (1, ["x"], True)
    assert (len(kept.state), sorted(kept.state)) == (3, ["log", "n", "text"])
    assert dict(kept.state.items()) == {"n": 1, "log": ["x"], "text": "t"}
    assert kept.changes() == ({}, [])


def test_what_changed_in_place_is_found() -> None:
    kept = Kept(log=[], deep={"a": {"b": [1]}}, other=[])
    kept.state["log"].append(1)
    kept.state["deep"]["a"]["b"].append(2)
    assert kept.changes() == ({"log": [1], "deep": {"a": {"b": [1, 2]}}}, [])


@pytest.mark.parametrize("way", ["get", "values", "items", "setdefault", "pop"])
def test_every_way_to_a_value_counts_as_touching_it(way: str) -> None:
    kept = Kept(log=[])
    state = kept.state
    ways: dict[str, Callable[[], Any]] = {
        "get": lambda: state.get("log"),
        "values": lambda: next(iter(state.values())),
        "items": lambda: next(iter(state.items()))[1],
        "setdefault": lambda: state.setdefault("log", None),
        "pop": lambda: state.pop("log"),
    }
    found = ways[way]()
    assert found is not None
    found.append(1)
    assert kept.changes() == (({}, ["log"]) if way == "pop" else ({"log": [1]}, []))
    assert kept.undo() == {"log": []}


def test_set_again_to_the_same_value_is_no_change() -> None:
    kept = Kept(n=1, gone=2)
    kept.state["n"] = 1
    del kept.state["gone"]
    kept.state["gone"] = 2
    kept.state["new"] = 3
    del kept.state["new"]
    assert kept.changes() == ({}, [])


def test_set_and_deleted() -> None:
    kept = Kept(n=1, gone=2)
    kept.state["n"] += 1
    kept.state["new"] = None
    del kept.state["gone"]
    assert kept.changes() == ({"n": 2, "new": None}, ["gone"])
    assert kept.changes() == ({"n": 2, "new": None}, ["gone"]), "until it is accepted"
    kept.commit()
    assert kept.changes() == ({}, [])
    assert sorted(kept.committed) == ["n", "new"]


def test_a_turn_that_raised_is_undone() -> None:
    kept = Kept(n=1, log=[1], gone=[2])
    kept.state["log"].append(2)
    kept.state["n"] = 9
    kept.state["new"] = 1
    kept.state.pop("gone").append(3)
    assert kept.undo() == {"n": 1, "log": [1], "gone": [2]}
    assert kept.changes() == ({}, [])


def test_cleared_and_filled_again() -> None:
    kept = Kept(a=1, b=[2])
    kept.state.clear()
    kept.state.update(b=[3], c=4)
    assert kept.changes() == ({"b": [3], "c": 4}, ["a"])
    assert kept.undo() == {"a": 1, "b": [2]}


def test_what_cannot_be_pickled_leaves_all_as_it_is() -> None:
    def refuse(value: Any) -> NoReturn:
        raise TypeError(value)

    kept = Kept(n=[1])
    kept.state["n"].append(2)
    with pytest.raises(TypeError):
        kept.state.changes(kept.committed, refuse)
    assert kept.changes() == ({"n": [1, 2]}, [])


def test_bindings_alone_are_undone_where_nothing_is_committed() -> None:
    state = TrackedState({"n": 1, "log": []})
    log = state["log"]
    log.append(1)
    state["n"] = 2
    state["n"] = 3
    state["log"] = None
    state["new"] = 1
    state.undo_bindings()
    assert dict(state.values_as_they_are()) == {"n": 1, "log": [1]}
    assert state["log"] is log
    del state["n"]
    state.accept()
    state.undo_bindings()
    assert "n" not in state, "what was accepted stays"


def test_only_strings_are_keys() -> None:
    state = TrackedState()
    with pytest.raises(TypeError, match="keys of a state are strings; got 1"):
        state[1] = 2  # type: ignore[index]
    with pytest.raises(KeyError):
        state["x"]
    with pytest.raises(KeyError):
        state.pop("x")
    with pytest.raises(KeyError):
        del state["x"]
    assert state.changes({}, pickle.dumps) == ({}, [])


def test_a_copy_of_all_touches_nothing() -> None:
    kept = Kept(log=[])
    found = kept.state.values_as_they_are()
    assert found == {"log": []}
    assert "log" in repr(kept.state)
    assert kept.state._touched is None


def test_a_key_that_is_no_text_to_others_is_refused_where_it_is_set() -> None:
    kept = Kept(n=1)
    with pytest.raises(InvalidArgumentError, match=r"UTF-8; got 'bad\\udcff'"):
        kept.state["bad\udcff"] = 1
    assert kept.changes() == ({}, [])
    assert dict(kept.state) == {"n": 1}
