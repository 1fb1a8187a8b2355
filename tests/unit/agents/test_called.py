"""A call and its answer to come, in one object: what it is filled with, and what it holds."""

from __future__ import annotations

import pickle
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dspex.agents.called import CallFuture
from dspex.agents.futures import gather, wait
from dspex.cluster.agents.requests import AUTO, Raised
from dspex.cluster.agents.resident import error_bytes
from dspex.errors import DeliveryError

withdrawn: list[Any] = []


def call() -> CallFuture:
    withdrawn.clear()
    messages = SimpleNamespace(cancel=withdrawn.append)
    runtime = SimpleNamespace(loop=None, messages=messages)
    return CallFuture("space:counter", "inc", b"", AUTO, cast("Any", runtime))


def test_an_answer_is_opened_by_who_asks() -> None:
    future = call()
    assert repr(future) == "<AgentFuture counter.inc pending>"
    future.answer(pickle.dumps(3))
    assert not future.has_failed()
    assert future.result() == 3
    assert repr(future) == "<AgentFuture counter.inc finished>"


def test_what_the_method_raised_is_raised_with_its_traceback() -> None:
    future = call()
    future.fail(Raised(error_bytes(KeyError("x"))))
    assert future.has_failed()
    with pytest.raises(KeyError, match="x") as caught:
        future.result()
    assert any("in the agent" in note for note in caught.value.__notes__)


def test_why_there_is_no_answer_is_raised() -> None:
    future = call()
    future.fail(DeliveryError("lost"))
    assert future.has_failed()
    with pytest.raises(DeliveryError, match="lost"):
        gather(future)


def test_the_first_failure_ends_the_wait_for_others() -> None:
    first, second = call(), call()
    second.fail(Raised(error_bytes(ValueError("no"))))
    assert wait([first, second], return_when="FIRST_EXCEPTION").done == {second}
    with pytest.raises(ValueError, match="no"):
        gather(first, second)


def test_one_that_is_cancelled_is_withdrawn_once_and_its_answer_is_dropped() -> None:
    future = call()
    was_unwanted = future.cancelled()
    assert future.cancel()
    assert future.cancel()
    assert withdrawn == [future]
    assert (was_unwanted, future.cancelled()) == (False, True)
    future.answer(pickle.dumps(1))
    assert future.cancelled()


def test_threads_write_to_slots_alone() -> None:
    """What else they wrote at the same time could be lost: see `AgentFuture`."""
    future = call()
    future.mid = 1
    future.add_done_callback(lambda _: None)
    future.add_done_callback(lambda _: None)
    future.answer(pickle.dumps(1))
    future.result()
    assert vars(future) == {}
