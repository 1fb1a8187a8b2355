"""What a handle makes of a name that is called."""

from __future__ import annotations

import pickle
from types import SimpleNamespace
from typing import Any, cast

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
