"""What each op about agents does.

Knows: ops, the part that knows agents. Must not know: how often a call was sent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from dspex.errors import InvalidRequestError

if TYPE_CHECKING:
    from dspex.foundation.ledger.turn import Turn

__all__ = ["AGENT_PERFORMERS"]

_Args: TypeAlias = Mapping[str, Any]


def _create(turn: Turn, session: str, number: int, args: _Args) -> Any:
    if args["on_conflict"] not in ("error", "existing"):
        raise InvalidRequestError(
            f'on_conflict of agents is "error" or "existing"; got {args["on_conflict"]!r:.80}'
        )
    return turn.agents.create(
        (session, number),
        args["spec"],
        args["code"],
        args["agents"],
        args["on_conflict"],
        token=turn.token,
        emit=turn.emit,
    )


def _commit(turn: Turn, session: str, number: int, args: _Args) -> Any:
    refused = turn.agents.commit(session, args["turns"], turn.token, turn.emit)
    if turn.events:
        turn.settle()
    else:
        turn.depends = 0  # what is kept in memory alone waits for no journal
    return refused


def _fail(turn: Turn, session: str, number: int, args: _Args) -> Any:
    turn.agents.fail(session, args["failures"], turn.emit)
    turn.settle()
    return True


def _retake(turn: Turn, session: str, number: int, args: _Args) -> Any:
    turn.agents.retake(session, args["keys"], turn.token, turn.emit)
    return True


def _report(turn: Turn, session: str, number: int, args: _Args) -> Any:
    turn.agents.report(session, args["loads"])
    turn.depends = 0
    return True


def _at_host(turn: Turn, session: str, number: int, args: _Args) -> Any:
    return turn.agents.reading.at_host(session)


def _load(turn: Turn, session: str, number: int, args: _Args) -> Any:
    return turn.agents.reading.load(session, args["keys"])


def _code(turn: Turn, session: str, number: int, args: _Args) -> Any:
    return turn.agents.reading.code(args["digest"])


def _locate(turn: Turn, session: str, number: int, args: _Args) -> Any:
    # A place that is taken back is no harm: who goes there is sent away.
    turn.depends = 0
    return turn.agents.reading.locate(args["keys"])


def _list(turn: Turn, session: str, number: int, args: _Args) -> Any:
    if args["match"] not in ("any", "all"):
        raise InvalidRequestError(f'match is "any" or "all"; got {args["match"]!r:.80}')
    return turn.agents.reading.listing(
        args["prefix"], args["capabilities"], args["match"], args["limit"]
    )


def _host(turn: Turn, session: str, number: int, args: _Args) -> Any:
    turn.depends = 0
    return turn.agents.reading.host(args["address"])


def _row(turn: Turn, session: str, number: int, args: _Args) -> Any:
    return turn.agents.reading.row(args["key"])


def _state(turn: Turn, session: str, number: int, args: _Args) -> Any:
    return turn.agents.reading.state(args["key"])


def _move(turn: Turn, session: str, number: int, args: _Args) -> Any:
    return turn.agents.move(args["keys"], args["target"], turn.emit)


def _rebalance(turn: Turn, session: str, number: int, args: _Args) -> Any:
    return turn.agents.rebalance(args["max_moves"], turn.emit, is_done=not args["dry_run"])


def _end(turn: Turn, session: str, number: int, args: _Args) -> Any:
    ended = turn.agents.end(args["keys"], args["reason"] or "stopped", turn.emit)
    turn.settle()
    return ended


def _recover(turn: Turn, session: str, number: int, args: _Args) -> Any:
    return turn.agents.losses.recover(args["worker"], args["keys"], turn.token, turn.emit)


AGENT_PERFORMERS: Mapping[str, Callable[[Turn, str, int, _Args], Any]] = {
    "agents.create": _create,
    "agents.commit": _commit,
    "agents.fail": _fail,
    "agents.retake": _retake,
    "agents.report": _report,
    "agents.at_host": _at_host,
    "agents.load": _load,
    "agents.code": _code,
    "agents.locate": _locate,
    "agents.list": _list,
    "agents.host": _host,
    "agents.row": _row,
    "agents.state": _state,
    "agents.move": _move,
    "agents.rebalance": _rebalance,
    "agents.end": _end,
    "agents.recover": _recover,
}
