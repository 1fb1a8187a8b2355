"""What a handle makes of a name that is called."""

from __future__ import annotations

import pickle
import subprocess
import sys
from types import SimpleNamespace
from typing import Any, cast

import cloudpickle
import pytest

from dspex.agents import AgentHandle, handle
from dspex.cluster.agents.requests import Request


class Sent:
    """A runtime that keeps what is sent by it."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.messages = SimpleNamespace(is_closed=False, submit=self.requests.append)
        self.loop = None


@pytest.mark.parametrize("most", [0, 1_000], ids=["of this handle", "of all handles"])
def test_any_name_is_a_method(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"only_here_{most}"
    monkeypatch.setattr(handle, "MOST_METHODS", most)
    sent = Sent()
    first, second = (AgentHandle(f":{key}", "Any", cast("Any", sent)) for key in "ab")
    method = getattr(first, name)
    assert method.__name__ == name
    assert hasattr(AgentHandle, name) == bool(most)
    method(1, by=2)
    getattr(second, name)()
    getattr(first, name)("self", self="x")
    found = [(each.key, each.method, pickle.loads(each.args)) for each in sent.requests]
    assert found == [
        (":a", name, ((1,), {"by": 2})),
        (":b", name, ((), {})),
        (":a", name, (("self",), {"self": "x"})),
    ]


def test_names_with_an_underscore_are_the_handles_own() -> None:
    with pytest.raises(AttributeError):
        _ = AgentHandle(":a", "Any", cast("Any", Sent()))._repr_html_


def test_what_a_handle_means_itself_stays_where_its_property_failed() -> None:
    empty: Any = AgentHandle.__new__(AgentHandle)
    with pytest.raises(AttributeError):
        _ = empty.id
    assert repr(AgentHandle(":a", "Any", cast("Any", Sent()))) == "<AgentHandle 'a', Any>"


def test_a_method_arrives_where_its_name_was_never_called() -> None:
    method = AgentHandle(":a", "Any").increment_somewhere_else
    packed = cloudpickle.dumps(lambda: method)
    code = "import pickle, sys; print(pickle.load(sys.stdin.buffer)().__name__)"
    done = subprocess.run([sys.executable, "-c", code], input=packed, capture_output=True)
    assert done.stdout.split() == [b"increment_somewhere_else"], done.stderr.decode()
