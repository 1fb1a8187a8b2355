"""Following: snapshots, then every change, none left out.

Knows: polls, revisions, what a reset means. Must not know: what followers make of it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from typing import Any

from dspex.cluster.foundation.exchange import Exchange, backoff
from dspex.errors import DspexError, UnavailableError
from dspex.foundation.ledger.wire import DONE, Answer, rebuilt_error
from dspex.foundation.ports import Change, Update
from dspex.foundation.record import Record

__all__ = ["ANSWER_WITHIN", "HOLD", "follow", "follow_events"]

HOLD = 1.0
"""Seconds for which a follower's poll waits for news: how old what it knows can be."""

ANSWER_WITHIN = 10.0
"""Seconds after that in which the answer must come, or the question is asked again."""


async def follow(exchange: Exchange, collection: str, pattern: str) -> AsyncIterator[Update]:
    """Tell all the records there are, then every change."""
    while True:
        sent, answer = await _until_answered(
            exchange, "records.snapshot", collection=collection, pattern=pattern
        )
        _, told = answer.replies[0]
        changes = [_put(Record(*each)) for each in told["records"]]
        yield Update(True, changes, told["revision"], sent)
        polls = _polls(exchange, told["revision"], answer.identity, [(collection, pattern)], ())
        async for polled, fresh_at in polls:
            changes = [_change(event) for _, event in polled["events"]]
            yield Update(False, changes, polled["revision"], fresh_at)


async def follow_events(
    exchange: Exchange, tags: Collection[str], *, hold: float = HOLD
) -> AsyncIterator[tuple[Any, ...]]:
    """Tell every event of these tags.

    ``("reset",)`` comes first, and again where some may have been missed: whoever looks at the
    whole after it misses nothing.
    """
    while True:
        # A poll of nothing tells where the ledger is.
        _, answer = await _until_answered(exchange, "feed.poll", **_poll(0, "", (), (), hold=0.0))
        yield ("reset",)
        polls = _polls(exchange, answer.revision, answer.identity, (), tags, hold=hold)
        async for polled, _ in polls:
            for _, event in polled["events"]:
                yield tuple(event)


async def _until_answered(exchange: Exchange, op: str, **args: Any) -> tuple[float, Answer]:
    """Ask until there is an answer; it, and when it was asked for.

    Raises
    ------
    DspexError
        Where it is refused for good.
    """
    failures = 0
    while True:
        sent = exchange.now()
        try:
            answer = await exchange.told(op, within=args.get("hold", 0.0) + ANSWER_WITHIN, **args)
        except OSError as error:
            if isinstance(error, DspexError):  # closed, or nobody there who understands
                raise
        else:
            status, payload = answer.replies[0]
            if status == DONE:
                return sent, answer
            refusal = rebuilt_error(payload)
            if not isinstance(refusal, UnavailableError):
                raise refusal
            # The ledger is not sure of itself; it says so, and may be later.
        await backoff(failures)
        failures += 1


async def _polls(
    exchange: Exchange,
    after: int,
    identity: str,
    topics: Sequence[tuple[str, str]],
    tags: Collection[str],
    *,
    hold: float = HOLD,
) -> AsyncIterator[tuple[Any, float]]:
    """News, and since when they are complete; ends where some of it may have been missed."""
    while True:
        sent, answer = await _until_answered(
            exchange, "feed.poll", **_poll(after, identity, topics, tags, hold=hold)
        )
        _, polled = answer.replies[0]
        if polled["reset"]:
            return
        after = polled["revision"]
        yield polled, sent + polled["held"]


def _poll(
    after: int,
    identity: str,
    topics: Sequence[tuple[str, str]],
    tags: Collection[str],
    *,
    hold: float,
) -> dict[str, Any]:
    return {
        "after": after,
        "identity": identity,
        "topics": list(topics),
        "tags": list(tags),
        "replies": False,
        "seen": [],
        "hold": hold,
    }


def _put(record: Record) -> Change:
    record = record._replace(capabilities=tuple(record.capabilities))
    return Change(record.key, record.version, record, "put")


def _change(event: Sequence[Any]) -> Change:
    if event[0] == "put":
        return _put(Record(*event[2:]))
    _, _, key, version, reason = event
    return Change(key, version, None, reason)
