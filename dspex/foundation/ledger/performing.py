"""What each op does: which part it goes to, with what.

Knows: ops, parts. Must not know: how often a call was sent, when its reply may leave.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from dspex.errors import InvalidRequestError, LeaseExpiredError
from dspex.foundation.ledger.agents.performing import AGENT_PERFORMERS
from dspex.foundation.ledger.events import Token
from dspex.foundation.ledger.turn import Turn
from dspex.foundation.ledger.wire import error_payload
from dspex.foundation.query import Query

__all__ = ["PERFORMERS"]

_Args: TypeAlias = Mapping[str, Any]


# --- sessions ------------------------------------------------------------------------------


def _session_open(turn: Turn, session: str, number: int, args: _Args) -> Any:
    turn.sessions.open(session, args["kind"], args["name"], args["lease"], turn.now, turn.emit)
    return {"term": turn.term}


def _session_renew(turn: Turn, session: str, number: int, args: _Args) -> Any:
    turn.sessions.renew(session, turn.now)
    turn.depends = 0
    return turn.term


def _session_close(turn: Turn, session: str, number: int, args: _Args) -> Any:
    if turn.sessions.is_open(session):
        address = turn.members.address_of(session)
        if address is not None:  # a worker that says so leaves in order
            turn.members.left(address, turn.emit)
            turn.end_worker(address)
        turn.end_session(session, args["reason"] or "closed")
        turn.settle()
    return True


# --- records -------------------------------------------------------------------------------


def _records_commit(turn: Turn, session: str, number: int, args: _Args) -> Any:
    operations = args["operations"]
    for each in operations:
        # An owner must be there, or the entry would stay for ever.
        if isinstance(each, list | tuple) and len(each) > 6 and each[0] == "put" and each[6]:
            _check_owner(turn, each[6])
    revision = turn.revision + 1
    version = turn.version_of(revision)
    replies = turn.records.commit(
        args["collection"],
        operations,
        revision=version,
        writer=session,
        now=turn.now,
        emit=turn.emit,
    )
    turn.depends = revision - (not turn.events) if args["wait_durable"] else 0
    # Whoever writes a record knows what it wrote: its version says the rest.
    return [
        reply[1] if operation[0] == "put" and reply[1] == version else reply
        for operation, reply in zip(operations, replies, strict=True)
    ]


def _check_owner(turn: Turn, owner: Any) -> None:
    if isinstance(owner, str) and owner.startswith("worker:"):
        is_there = turn.members.session_at(owner.removeprefix("worker:")) is not None
    else:
        is_there = isinstance(owner, str) and turn.sessions.is_open(owner)
    if not is_there:
        raise InvalidRequestError(
            f"an entry is tied to a live worker or session; got {owner!r:.120}; see members()"
        )


def _records_fetch(turn: Turn, session: str, number: int, args: _Args) -> Any:
    found = [turn.records.get(args["collection"], key) for key in args["keys"]]
    if None not in found:
        newest = max((each.version for each in found if each is not None), default=0)
        turn.depends = turn.revision_of(newest)
    return found


def _records_select(turn: Turn, session: str, number: int, args: _Args) -> Any:
    return turn.records.select(args["collection"], Query.from_wire(args["query"]))


def _records_snapshot(turn: Turn, session: str, number: int, args: _Args) -> Any:
    found = turn.records.all(args["collection"], args["pattern"])
    return {"revision": turn.revision, "records": found}


# --- members -------------------------------------------------------------------------------


def _members_join(turn: Turn, session: str, number: int, args: _Args) -> Any:
    if turn.sessions.kind(session) != "worker":
        raise InvalidRequestError("a member joins with the session of a worker, not of a client")
    address = args["address"]
    # Before the former one ends, or a refusal would have cost it its place.
    turn.members.checked(address, session, args["capacity"])
    former = turn.members.session_at(address)
    incarnation = turn.token()
    if former == session:
        turn.members.lost(address, turn.emit)
        turn.end_worker(address)
    elif former is not None:
        turn.end_session(former, "a new incarnation joined")
    turn.members.join(
        address,
        session,
        args["name"],
        args["host"],
        args["capacity"],
        incarnation,
        turn.emit,
    )
    turn.settle()
    return {"incarnation": incarnation}


def _members_drain(turn: Turn, session: str, number: int, args: _Args) -> Any:
    if args["undo"]:
        turn.members.undrain(args["address"], turn.emit)
        turn.settle()
    else:
        turn.drain(args["address"])
    return {"agents": turn.agents.reading.count_at(args["address"])}


def _members_list(turn: Turn, session: str, number: int, args: _Args) -> Any:
    return turn.members.everyone()


# --- resources -----------------------------------------------------------------------------


def _resources_acquire(turn: Turn, session: str, number: int, args: _Args) -> Any:
    return turn.resources.acquire(
        session, number, args, now=turn.now, token=turn.token, emit=turn.emit
    )


def _resources_release(turn: Turn, session: str, number: int, args: _Args) -> Any:
    is_released = turn.resources.release(session, _token(args), turn.emit)
    turn.settle()
    return is_released


def _resources_verify(turn: Turn, session: str, number: int, args: _Args) -> Any:
    token = _token(args)
    return turn.resources.verify(token) or turn.locks.verify(token)


def _resources_usage(turn: Turn, session: str, number: int, args: _Args) -> Any:
    return turn.resources.usage(args["by"])


def _resources_snapshot(turn: Turn, session: str, number: int, args: _Args) -> Any:
    return turn.resources.snapshot()


def _resources_quota(turn: Turn, session: str, number: int, args: _Args) -> Any:
    turn.resources.set_quota(args["tenant"], args["limits"], turn.emit)
    turn.settle()
    return True


# --- locks, rates, calls -------------------------------------------------------------------


def _locks_acquire(turn: Turn, session: str, number: int, args: _Args) -> Any:
    return turn.locks.acquire(
        session,
        number,
        args["namespace"],
        args["name"],
        args["kind"],
        token=turn.token,
        emit=turn.emit,
    )


def _locks_release(turn: Turn, session: str, number: int, args: _Args) -> Any:
    return turn.locks.release(
        session,
        args["namespace"],
        args["name"],
        _token(args),
        token=turn.token,
        emit=turn.emit,
    )


def _locks_holder(turn: Turn, session: str, number: int, args: _Args) -> Any:
    return turn.locks.holder(args["namespace"], args["name"])


def _rates_take(turn: Turn, session: str, number: int, args: _Args) -> Any:
    turn.depends = 0
    return turn.rates.take(
        session,
        args["name"],
        args["per_second"],
        args["burst"],
        args["want"],
        args["unused"],
        turn.now,
    )


def _rates_change(turn: Turn, session: str, number: int, args: _Args) -> Any:
    turn.depends = 0
    turn.rates.change(args["name"], args["per_second"], args["burst"], turn.now)
    return True


def _call_cancel(turn: Turn, session: str, number: int, args: _Args) -> Any:
    call = (session, args["number"])
    if turn.sessions.stored(*call) is not None:
        _give_back(turn, *call)
    else:
        # It may be on its way still, or come once more.
        withdrawn = LeaseExpiredError(f"call {args['number']} was withdrawn; make another")
        turn.sessions.remember(*call, is_ok=False, payload=error_payload(withdrawn))
        turn.waiting.discard(call)
        turn.resources.cancel(*call)
        turn.locks.cancel(*call)
        turn.agents.cancel(call)
    turn.settle()
    return True


def _give_back(turn: Turn, session: str, number: int) -> None:
    """Release what a call got that nobody waits for any more."""
    is_ok, reply = turn.sessions.stored(session, number) or (False, None)
    found = reply.get("token") if is_ok and isinstance(reply, Mapping) else None
    if found is None:
        return
    term, n = found
    token = (term, n)
    if turn.resources.verify(token):
        turn.resources.release(session, token, turn.emit)
        return
    for (namespace, name), held in turn.locks.held().items():
        if held.token == token:
            turn.locks.release(session, namespace, name, token, token=turn.token, emit=turn.emit)
            return


def _token(args: _Args) -> Token:
    term, n = args["token"]
    return (term, n)


PERFORMERS: Mapping[str, Callable[[Turn, str, int, _Args], Any]] = {
    "session.open": _session_open,
    "session.renew": _session_renew,
    "session.close": _session_close,
    "records.commit": _records_commit,
    "records.fetch": _records_fetch,
    "records.select": _records_select,
    "records.snapshot": _records_snapshot,
    "members.join": _members_join,
    "members.drain": _members_drain,
    "members.list": _members_list,
    "resources.acquire": _resources_acquire,
    "resources.release": _resources_release,
    "resources.verify": _resources_verify,
    "resources.usage": _resources_usage,
    "resources.snapshot": _resources_snapshot,
    "resources.quota": _resources_quota,
    "locks.acquire": _locks_acquire,
    "locks.release": _locks_release,
    "locks.holder": _locks_holder,
    "rates.take": _rates_take,
    "rates.change": _rates_change,
    "call.cancel": _call_cancel,
    **AGENT_PERFORMERS,
}
"""{op: what performs it}. The number is 0 for calls that have none; None as a reply: it waits."""
