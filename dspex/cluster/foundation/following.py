"""Following: snapshots, then every change, none left out.

Knows: polls, revisions, what a reset means. Must not know: what followers make of it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from typing import Any

from dspex.cluster.foundation.exchange import Exchange, backoff
from dspex.errors import DspexError
from dspex.foundation.ledger.wire import Answer, Call, Request
from dspex.foundation.ports import Change, Update
from dspex.foundation.record import Record

__all__ = ["HOLD", "follow", "follow_events"]

HOLD = 1.0
"""Seconds for which a follower's poll waits for news: how old what it knows can be."""


async def follow(exchange: Exchange, collection: str, pattern: str) -> AsyncIterator[Update]:
    """Tell all the records there are, then every change."""
    while True:
        sent = exchange.now()
        snapshot = await _until_reached(
            exchange, Call(None, "records.snapshot", {"collection": collection, "pattern": pattern})
        )
        status, told = snapshot.replies[0]
        assert status == 0, told
        changes = [_put(Record(*each)) for each in told["records"]]
        yield Update(True, changes, told["revision"], sent)
        polls = _polls(exchange, told["revision"], snapshot.identity, [(collection, pattern)], ())
        async for polled, fresh_at in polls:
            changes = [_change(event) for _, event in polled["events"]]
            yield Update(False, changes, polled["revision"], fresh_at)


async def follow_events(
    exchange: Exchange, tags: Collection[str]
) -> AsyncIterator[tuple[Any, ...]]:
    """Tell every event of these tags.

    ``("reset",)`` comes first, and again where some may have been missed: whoever looks at the
    whole after it misses nothing.
    """
    while True:
        answer = await _until_reached(exchange, Call(None, "session.renew", {}))
        yield ("reset",)
        async for polled, _ in _polls(exchange, answer.revision, answer.identity, (), tags):
            for _, event in polled["events"]:
                yield tuple(event)


async def _until_reached(exchange: Exchange, call: Call) -> Answer:
    failures = 0
    while True:
        try:
            return await exchange.exchange(Request(exchange.session, 0, [call]))
        except (OSError, TimeoutError) as error:
            if isinstance(error, DspexError):
                raise
            await backoff(failures)
            failures += 1


async def _polls(
    exchange: Exchange,
    after: int,
    identity: str,
    topics: Sequence[tuple[str, str]],
    tags: Collection[str],
) -> AsyncIterator[tuple[Any, float]]:
    """News, and since when they are complete; ends where some of it may have been missed."""
    failures = 0
    while True:
        sent = exchange.now()
        try:
            polled = await exchange.poll(after, identity, topics, tags, hold=HOLD)
        except (OSError, TimeoutError) as error:
            if isinstance(error, DspexError):
                raise
            await backoff(failures)
            failures += 1
            continue
        failures = 0
        if polled["reset"]:
            return
        after = polled["revision"]
        yield polled, sent + polled["held"]


def _put(record: Record) -> Change:
    record = record._replace(capabilities=tuple(record.capabilities))
    return Change(record.key, record.version, record, "put")


def _change(event: Sequence[Any]) -> Change:
    if event[0] == "put":
        return _put(Record(*event[2:]))
    _, _, key, version, reason = event
    return Change(key, version, None, reason)
