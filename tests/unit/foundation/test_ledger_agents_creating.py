"""Agents are created when their hosts have made them, under ids that name one each."""

from __future__ import annotations

from typing import Any

import pytest

from dspex.errors import (
    AgentExistsError,
    AgentFailedError,
    AgentNotFoundError,
    InvalidRequestError,
    SessionExpiredError,
    UnsatisfiableRequestError,
)
from dspex.foundation.ledger.agents import agents as agents_module
from dspex.foundation.ledger.wire import Call, rebuilt_error
from dspex.testing.agents_ledger import CLASS, AgentsRun, spec


def run_with(*addresses: str) -> AgentsRun:
    run = AgentsRun()
    run.client()
    for address in addresses:
        run.worker(address)
    return run


def replies(run: AgentsRun, session: str = "client") -> list[Any]:
    return [reply for _, _, reply in run.answers(session)]


def failed(payload: Any) -> Exception:
    return rebuilt_error(payload)


# --- waiting ---------------------------------------------------------------------------------


def test_a_creation_is_answered_when_the_last_of_its_agents_is_made() -> None:
    run = run_with("a", "b")
    assert run.create(":x", ":y") is None
    assert {run.status(":x"), run.status(":y")} == {"starting"}
    run.made(":x")
    assert run.answers() == []
    run.made(":y")
    assert replies(run) == [{"failed": []}]


def test_a_creation_waits_for_a_worker() -> None:
    run = run_with()
    assert run.create(":x") is None
    assert (run.status(":x"), run.host(":x")) == ("waiting", "")
    assert "worker that is up" in run.reason(":x")
    run.worker("a")
    assert (run.status(":x"), run.host(":x")) == ("starting", "a")
    run.made(":x")
    assert replies(run) == [{"failed": []}]


def test_a_repeated_call_creates_nothing_more() -> None:
    run = run_with("a")
    call = Call(
        7,
        "agents.create",
        {"spec": spec(), "code": b"code", "agents": [[":x", b""]], "on_conflict": "error"},
    )
    for _ in range(2):
        step = run.keep(run.ledger.handle("client", 1, call, now=run.now))
        assert step.is_pending
    run.made(":x")
    step = run.keep(run.ledger.handle("client", 1, call, now=run.now))
    assert (step.is_pending, step.reply, step.events) == (False, {"failed": []}, [])


def test_what_was_created_is_told_to_the_host_that_makes_it() -> None:
    run = run_with("a", "b")
    run.create(":x", placement="any_node", persistence="durable", mailbox=7)
    host = run.host(":x")
    other = "ab".replace(host, "")
    ((key, token, status),) = run.ask(run.sessions[host], "agents.at_host")
    assert (key, token, status) == (":x", run.agent(":x").incarnation, "starting")
    loaded = run.ask(run.sessions[host], "agents.load", keys=[":x"])
    (parcel,), (spec,) = loaded["parcels"], loaded["specs"]
    assert (parcel["args"], parcel["started"], parcel["state"]) == (b"args", False, None)
    assert (parcel["spec"], spec["mailbox"]) == (0, 7)
    assert tuple(parcel["token"]) == token
    others = run.ask(run.sessions[other], "agents.load", keys=[":x", ":nobody"])
    assert others == {"specs": [], "parcels": [None, None]}
    assert run.ask(run.sessions[host], "agents.code", digest=CLASS) == b"code"


def test_classes_are_kept_as_long_as_they_are_used() -> None:
    run = run_with("a")
    run.create(":x", ":y")
    run.create(":z")
    for key in (":x", ":y"):
        run.call("client", "agents.end", keys=[key], reason="")
    assert run.ask("client", "agents.code", digest=CLASS) == b"code"
    run.call("client", "agents.end", keys=[":z"], reason="")
    assert run.ask("client", "agents.code", digest=CLASS) is None
    with pytest.raises(InvalidRequestError, match="a class that is new here is sent along"):
        run.call(
            "client",
            "agents.create",
            spec=spec(),
            code=None,
            agents=[[":x", b""]],
            on_conflict="error",
        )
    run.running(":x")


# --- conflicts -------------------------------------------------------------------------------


def test_an_id_that_is_taken_is_refused_and_nothing_is_created() -> None:
    run = run_with("a")
    run.running(":x")
    with pytest.raises(AgentExistsError, match="'x' is there already"):
        run.create(":new", ":x")
    assert run.agent(":new") is None


def test_existing_takes_those_that_are_there_and_creates_the_others() -> None:
    run = run_with("a")
    run.running(":x")
    assert run.create(":x", ":y", on_conflict="existing") is None
    run.made(":y")
    before = run.agent(":x").incarnation
    assert run.create(":x", ":y", on_conflict="existing") == {"failed": []}
    assert run.agent(":x").incarnation == before


def test_existing_waits_for_one_that_is_being_made_by_another() -> None:
    run = run_with("a")
    run.client("other")
    run.create(":x")
    assert run.create(":x", session="other", on_conflict="existing") is None
    run.made(":x")
    assert replies(run) == replies(run, "other") == [{"failed": []}]


def test_an_existing_agent_of_another_class_is_refused() -> None:
    run = run_with("a")
    run.running(":x")
    with pytest.raises(AgentExistsError, match="':x' is a C, not a D"):
        run.create(":x", on_conflict="existing", name="D")


# --- failures --------------------------------------------------------------------------------


def test_one_that_cannot_be_made_is_gone_and_its_creator_is_told() -> None:
    run = run_with("a")
    run.create(":x", ":y")
    run.made(":x")
    run.fail(":y")
    (reply,) = replies(run)
    ((key, payload),) = reply["failed"]
    assert key == ":y"
    assert isinstance(failed(payload), AgentFailedError)
    assert run.agent(":y") is None
    assert run.status(":x") == "running"
    run.running(":y")


def test_one_that_was_made_before_stays_with_what_it_has() -> None:
    run = run_with("a", "b")
    run.running(":x", persistence="durable")
    run.commit(run.host(":x"), run.turn(":x", s={"n": b"1"}))
    run.close(run.host(":x"))
    run.run(4.0)
    run.fail(":x")
    assert (run.status(":x"), run.reason(":x"), run.host(":x")) == ("failed", "it raised", "")
    assert run.agent(":x").state == {"n": b"1"}
    run.call("client", "agents.end", keys=[":x"], reason="")
    assert run.agent(":x") is None


def test_a_failure_of_another_host_or_a_former_incarnation_is_not_heard() -> None:
    run = run_with("a", "b")
    run.create(":x")
    other = "ab".replace(run.host(":x"), "")
    run.fail(":x", address=other)
    run.fail(":x", token=(1, 1))
    assert run.status(":x") == "starting"


@pytest.mark.parametrize("end", ["stopped", "its last worker was lost"])
def test_whoever_waits_for_what_will_never_be_made_is_told(end: str) -> None:
    run = run_with("a")
    run.create(":x", ":y", max_restarts=0)
    run.made(":x")
    if end == "stopped":
        run.call("client", "agents.end", keys=[":y"], reason="")
    else:
        run.close("a")
    (reply,) = replies(run)
    ((key, payload),) = reply["failed"]
    assert key == ":y"
    assert isinstance(failed(payload), AgentFailedError | AgentNotFoundError)


def test_of_a_creation_nobody_waits_for_the_agents_stay() -> None:
    run = run_with("a")
    run.client("other")
    run.create(":x")
    run.create(":x", session="other", on_conflict="existing")
    number = run.numbers["client"]
    run.ask("client", "call.cancel", number=number)
    run.end("other")
    run.made(":x")
    assert run.status(":x") == "running"
    assert run.answers() == run.answers("other") == []


# --- what is refused -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        {"placement": "anywhere"},
        {"persistence": "sometimes"},
        {"failover": "maybe"},
        {"overflow": "drop"},
        {"max_restarts": "3"},
        {"max_restarts": True},
        {"labels": [1]},
        {"capabilities": "all"},
        {"amounts": {"cpu_cores": -1}},
        {"more": 1},
    ],
)
def test_what_is_no_spec(wrong: dict[str, Any]) -> None:
    run = run_with("a")
    with pytest.raises(InvalidRequestError):
        run.create(":x", **wrong)
    assert run.agent(":x") is None


@pytest.mark.parametrize(
    "agents", [[[":x"]], [["x", b""]], [[":x", "args"]], [[":" + "x" * 512, b""]], [[":\n", b""]]]
)
def test_what_is_no_agent(agents: list[Any]) -> None:
    run = run_with("a")
    with pytest.raises(InvalidRequestError, match="a key of at most 512 printable characters"):
        run.call(
            "client", "agents.create", spec=spec(), code=b"", agents=agents, on_conflict="error"
        )


def test_ids_are_given_once_and_policies_are_known() -> None:
    run = run_with("a")
    with pytest.raises(InvalidRequestError, match="got one twice"):
        run.create(":x", ":x")
    with pytest.raises(InvalidRequestError, match='"error" or "existing"'):
        run.create(":x", on_conflict="replace")


def test_what_no_worker_could_give_is_refused_where_there_are_some() -> None:
    run = run_with("a")
    for wrong in ({"amounts": {"cpu_cores": 99}}, {"labels": ["gpu"]}):
        with pytest.raises(UnsatisfiableRequestError):
            run.create(":x", **wrong)
    empty = run_with()
    assert empty.create(":x", amounts={"cpu_cores": 99}) is None, "larger ones may come"


def test_there_are_at_most_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agents_module, "MAX_AGENTS", 2)
    run = run_with("a")
    run.running(":x", ":y")
    with pytest.raises(InvalidRequestError, match="at most 2 agents"):
        run.create(":z")
    assert run.create(":x", on_conflict="existing") == {"failed": []}


def test_hosts_are_members() -> None:
    run = run_with("a")
    run.create(":x")
    for op, args in (
        ("agents.commit", {"turns": [run.turn(":x", t=1)]}),
        ("agents.fail", {"failures": []}),
        ("agents.retake", {"keys": [":x"]}),
    ):
        with pytest.raises(SessionExpiredError, match="hosted by members"):
            run.call("client", op, **args)
    with pytest.raises(SessionExpiredError):
        run.ask("client", "agents.report", loads={})


# --- what is told ----------------------------------------------------------------------------


def test_what_is_told_of_agents() -> None:
    run = run_with("a")
    run.running(":x", capabilities=["fit", "plot"], persistence="durable")
    run.running(":y", capabilities=["fit"])
    run.running("ns:z", capabilities=["plot"])

    def listed(*capabilities: str, prefix: str = ":", match: str = "all") -> list[str]:
        rows = run.ask(
            "client",
            "agents.list",
            prefix=prefix,
            capabilities=list(capabilities),
            match=match,
            limit=None,
        )
        return [row["key"] for row in rows]

    assert listed() == [":x", ":y"]
    assert listed("fit", "plot") == [":x"]
    assert listed("fit", "plot", match="any", prefix="") == [":x", ":y", "ns:z"]
    assert listed("nothing") == []
    run.ask(run.sessions["a"], "agents.report", loads={":x": 5})
    assert listed("fit") == [":y", ":x"], "the least loaded first"
    row = run.ask("client", "agents.row", key=":x")
    assert (row["load"], row["status"], row["host"]) == (5, "running", "a")
    assert run.ask("client", "agents.locate", keys=[":x", ":nobody"]) == [
        ("running", "a", "", "durable"),
        None,
    ]
    with pytest.raises(AgentNotFoundError, match="no agent 'nobody'"):
        run.ask("client", "agents.row", key=":nobody")
    assert run.ask("client", "agents.host", address="b") is None
    run.call("client", "agents.end", keys=[":x", ":nobody"], reason="")
    assert listed("fit") == [":y"]
