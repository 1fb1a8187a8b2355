"""Turns: which count, what they change, which of them are journalled."""

from __future__ import annotations

from typing import Any

import pytest

from dspex.errors import InvalidRequestError, SessionExpiredError
from dspex.foundation.ledger.agents.population import sender_of
from dspex.foundation.ledger.agents.turns import pack_turn, unpack_turn
from dspex.testing.agents_ledger import AgentsRun, facts


def run_with(persistence: str | None = "durable", *keys: str) -> AgentsRun:
    run = AgentsRun()
    run.client()
    run.worker("a")
    run.running(*(keys or (":x",)), persistence=persistence)
    return run


def reply(sender: str, number: int, below: int = 0, payload: bytes | None = b"r") -> list[Any]:
    return [sender, number, below, True, payload, 7]


def known(run: AgentsRun, key: str = ":x") -> list[str]:
    dedup = run.agent(key).dedup
    return [] if dedup is None else sorted(dedup.senders())


# --- what they change ------------------------------------------------------------------------


@pytest.mark.parametrize("persistence", ["durable", "cluster_replicated"])
def test_a_turn_changes_what_it_says(persistence: str) -> None:
    run = run_with(persistence)
    outgoing = [[1, ":y", "m", b"1", ":x"], [2, ":y", "m", b"2", ":x"]]
    run.commit("a", run.turn(":x", s={"n": b"1", "log": b"[]"}, o=outgoing, n=2))
    run.commit("a", run.turn(":x", s={"n": b"2"}, d=["log", "nothing"], k=[1, 9], n=1))
    agent = run.agent(":x")
    assert agent.state == {"n": b"2"}
    assert [tuple(each) for each in agent.outbox.values()] == [(2, ":y", "m", b"2", ":x")]
    assert agent.sent == 2, "it never goes back"
    run.commit("a", run.turn(":x", k=[2]))
    assert run.agent(":x").outbox is None
    run.commit("a", run.turn(":x", r=reply("client", 3)))
    (parcel,) = run.ask(run.sessions["a"], "agents.load", keys=[":x"])["parcels"]
    assert (parcel["started"], parcel["state"], parcel["sent"]) == (True, {"n": b"2"}, 2)
    assert [row[0] for row in parcel["dedup"]] == ["client"]
    assert run.ask("client", "agents.state", key=":x") == ({"n": b"2"}, persistence, True)


def test_answers_are_kept_until_they_are_acknowledged() -> None:
    run = run_with()
    run.commit("a", run.turn(":x", r=reply("client", 1)), run.turn(":x", r=reply("client", 2)))
    dedup = run.agent(":x").dedup
    assert [dedup.look_up("client", n).payload for n in (1, 2)] == [b"r", b"r"]
    run.commit("a", run.turn(":x", r=reply("client", 3, below=2)))
    assert [dedup.look_up("client", n).payload for n in (1, 2, 3)] == [None, b"r", b"r"]


def test_turns_of_a_batch_count_in_their_order() -> None:
    run = run_with("durable", ":x", ":y")
    refused = run.commit(
        "a",
        run.turn(":x", s={"n": b"1"}),
        run.turn(":y", s={"n": b"9"}),
        run.turn(":x", s={"n": b"2"}),
        run.turn(":x", d=["n"], s={"m": b"3"}),
    )
    assert refused == []
    assert run.agent(":x").state == {"m": b"3"}
    assert run.agent(":y").state == {"n": b"9"}


# --- which count -----------------------------------------------------------------------------


def test_a_former_incarnation_changes_nothing() -> None:
    run = run_with()
    old = run.turn(":x", s={"n": b"old"})
    run.call(run.sessions["a"], "agents.retake", keys=[":x"])
    assert run.commit("a", old) == [(0, "fenced")]
    assert run.commit("a", run.turn(":x", t=1, s={"n": b"new"})) == []
    assert run.agent(":x").state == {"n": b"new"}


def test_another_host_changes_nothing() -> None:
    run = run_with()
    run.worker("b")
    turn = run.turn(":x", s={"n": b"1"})
    nobody = pack_turn({"a": ":nobody", "i": (1, 1)})
    assert run.commit("b", turn, nobody) == [(0, "fenced"), (1, "fenced")]
    assert run.agent(":x").state is None


def test_a_host_that_lost_its_session_changes_nothing() -> None:
    run = run_with()
    session, turn = run.sessions["a"], run.turn(":x", s={"n": b"1"})
    run.close("a")
    with pytest.raises(SessionExpiredError):
        run.call(session, "agents.commit", turns=[turn])
    run.worker("a")
    assert run.commit("a", turn) == [(0, "fenced")], "it is another incarnation of the host"
    run.run(5.0)
    assert run.host(":x") == "a"
    assert run.commit("a", turn) == [(0, "fenced")]
    assert run.agent(":x").state is None


@pytest.mark.parametrize("sender", ["client", "agent::y"])
def test_the_sender_of_a_message_must_be_known_to_live(sender: str) -> None:
    run = run_with("durable", ":x", ":y")
    run.client("other")
    turn = run.turn(":x", s={"n": b"1"}, r=reply(sender, 1))
    assert run.commit("a", turn) == []
    if sender == "client":
        run.end("client")
    else:
        run.call("other", "agents.end", keys=[":y"], reason="")
    refused = run.commit(
        "a",
        run.turn(":x", s={"n": b"2"}, r=reply(sender, 2)),
        run.turn(":x", s={"n": b"3"}, r=reply("other", 1)),
    )
    assert refused == [(0, "sender"), (1, "fenced")], "what ran on from it does not count either"
    assert run.agent(":x").state == {"n": b"1"}
    assert run.commit("a", run.turn(":x", r=reply("other", 1))) == []


def test_what_runs_on_after_a_refusal_counts_for_other_agents() -> None:
    run = run_with("durable", ":x", ":y")
    assert run.commit(
        "a",
        run.turn(":x", r=reply("nobody", 1)),
        run.turn(":y", s={"n": b"1"}),
    ) == [(0, "sender")]
    assert run.agent(":y").state == {"n": b"1"}


def test_a_user_may_give_keys_that_live_for_ever() -> None:
    run = run_with()
    assert run.commit("a", run.turn(":x", r=reply("key:mine", 1))) == []
    run.end("client")
    assert known(run) == ["key:mine"]


@pytest.mark.parametrize("last", [{"m": None}, {"e": 1}])
def test_nothing_follows_on_the_last_turn(last: dict[str, Any]) -> None:
    run = run_with()
    assert run.commit(
        "a",
        run.turn(":x", s={"n": b"1"}),
        run.turn(":x", **last),
        run.turn(":x", s={"n": b"2"}),
    ) == [(2, "fenced")]
    if "m" in last:
        assert run.agent(":x").state == {"n": b"1"}
    else:
        assert run.agent(":x") is None


@pytest.mark.parametrize(
    "wrong",
    [
        7,
        {"a": ":x"},
        {"a": 1, "i": (1, 1)},
        {"a": ":x", "i": 7},
        {"a": ":x", "i": (1, 1), "s": [1]},
        {"a": ":x", "i": (1, 1), "s": {"n": 1}},
        {"a": ":x", "i": (1, 1), "r": ["client", 1]},
        {"a": ":x", "i": (1, 1), "o": [[1, 2]]},
        {"a": ":x", "i": (1, 1), "o": None},
        {"a": ":x", "i": (1, 1), "d": [[]]},
        {"a": ":x", "i": (1, 1), "more": 1},
    ],
)
def test_what_is_no_turn_takes_the_whole_batch_along(wrong: Any) -> None:
    run = run_with()
    good = run.turn(":x", s={"n": b"1"})
    for each in (pack_turn(wrong), wrong, b"\xc1"):
        with pytest.raises(InvalidRequestError, match="a turn is a packed map"):
            run.call(run.sessions["a"], "agents.commit", turns=[good, each])
    assert run.agent(":x").state is None


# --- which are journalled --------------------------------------------------------------------


def test_durable_turns_are_events_and_their_reply_waits_for_them() -> None:
    run = run_with()
    turns = [run.turn(":x", s={"n": b"1"})]
    step = run.step(run.sessions["a"], "agents.commit", turns=turns)
    assert [event[0] for event in step.events] == ["turns", "reply"]
    assert step.depends == step.revision


@pytest.mark.parametrize("persistence", ["cluster_replicated", None])
def test_turns_of_what_is_in_memory_are_no_events_and_wait_for_nothing(
    persistence: str | None,
) -> None:
    run = run_with(persistence)
    turns = [run.turn(":x", s={"n": b"1"})]
    step = run.step(run.sessions["a"], "agents.commit", turns=turns)
    assert (step.events, step.depends, step.reply) == ([], 0, [])
    assert run.agent(":x").state == {"n": b"1"}


def test_that_one_in_memory_began_is_an_event() -> None:
    run = AgentsRun()
    run.client()
    run.worker("a")
    run.create(":x", persistence="cluster_replicated")
    step = run.step(run.sessions["a"], "agents.commit", turns=[run.turn(":x", t=1)])
    assert ("started", [":x"]) in step.events


def test_a_mixed_batch_journals_what_is_durable() -> None:
    run = run_with("durable", ":x")
    run.running(":y", persistence="cluster_replicated")
    step = run.step(
        run.sessions["a"],
        "agents.commit",
        turns=[run.turn(":y", s={"n": b"1"}), run.turn(":x", s={"n": b"2"})],
    )
    (turns,) = [event[1] for event in step.events if event[0] == "turns"]
    assert [unpack_turn(turn)["a"] for turn in turns] == [":x"]
    assert facts(run.replayed()) == facts(run.ledger)


def test_a_repeated_commit_counts_once() -> None:
    run = run_with()
    session = run.sessions["a"]
    run.call(session, "agents.commit", turns=[run.turn(":x", s={"n": b"1"})])
    run.call(session, "agents.commit", turns=[run.turn(":x", s={"n": b"2"})])
    run.numbers[session] -= 2
    assert run.commit("a", run.turn(":x", s={"n": b"1"})) == [], "its first answer again"
    assert run.agent(":x").state == {"n": b"2"}


# --- senders that are gone -------------------------------------------------------------------


@pytest.mark.parametrize("end", ["closes", "runs out"])
def test_a_session_that_ended_is_forgotten(end: str) -> None:
    run = run_with("durable", ":x", ":y")
    run.client("other")
    for key in (":x", ":y"):
        run.commit("a", run.turn(key, r=reply("client", 1)), run.turn(key, r=reply("other", 1)))
    if end == "closes":
        run.end("client")
    else:
        run.alive.pop("client")
        run.run(8.0)
    assert known(run) == known(run, ":y") == ["other"]
    assert facts(run.replayed()) == facts(run.ledger)


def test_an_agent_that_ended_is_forgotten_as_a_sender() -> None:
    run = run_with("durable", ":x", ":y")
    run.commit("a", run.turn(":x", r=reply(sender_of(":y"), 1)))
    run.commit("a", run.turn(":y", r=reply(sender_of(":x"), 1)))
    run.commit("a", run.turn(":y", e=1))
    assert known(run) == []
    run.running(":y", persistence="durable")
    assert run.commit("a", run.turn(":x", r=reply(sender_of(":y"), 1))) == []
    assert known(run) == [sender_of(":y")]
    assert known(run, ":y") == [], "a new one of an old name begins afresh"
