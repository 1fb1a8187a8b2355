"""Whatever is sent to a ledger: it is answered, and nothing but a valid call changes anything."""

from __future__ import annotations

from typing import Any

import msgpack
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dspex.errors import DspexError, InvalidRequestError
from dspex.foundation.ledger import feed as feed_module
from dspex.foundation.ledger.events import Event
from dspex.foundation.ledger.feed import Feed, Wanted
from dspex.foundation.ledger.ledger import Ledger
from dspex.foundation.ledger.ops import OPS
from dspex.foundation.ledger.wire import (
    FAILED,
    PROTOCOL,
    Answer,
    Call,
    Request,
    decode_request,
    encode_answer,
    encode_entry,
    encode_request,
    error_payload,
)

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=5)
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=4) | st.binary(max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)
WORDS = st.sampled_from(
    ["k", "r:", "s:", "*", "lock", "leader", "client", "worker", "pack", "w:1", "worker:w:1", "s"]
)
NUMBERS = st.integers(0, 3) | st.floats(0.1, 9.0)
OPERATIONS = st.lists(
    st.tuples(
        st.just("put"),
        WORDS,
        st.binary(max_size=3),
        st.dictionaries(WORDS, ANYTHING, max_size=2),
        st.lists(WORDS, max_size=2),
        st.none() | NUMBERS,
        st.none() | WORDS,
        st.sampled_from(["error", "replace", "keep"]),
        st.none() | st.integers(0, 3),
    ).map(list)
    | st.tuples(st.just("drop"), WORDS, st.booleans(), st.none()).map(list)
    | st.tuples(
        st.just("patch"), WORDS, st.dictionaries(WORDS, ANYTHING, max_size=2), st.none()
    ).map(list)
    | ANYTHING,
    max_size=3,
)
NAMES = st.sampled_from(["k", "l"])
AMOUNTS = st.dictionaries(st.sampled_from(["cpu_cores", "memory_gb"]), st.integers(0, 3))
QUERY = st.lists(
    st.tuples(WORDS, st.sampled_from(["eq", "lt"]), NUMBERS).map(list), max_size=2
).map(lambda where: [where])
LIKELY: dict[str, st.SearchStrategy[Any]] = {
    "kind": st.sampled_from(["lock", "leader", "client", "worker"]),
    "lease": st.just(3.0),
    "collection": st.sampled_from(["r:", "s:"]),
    "operations": OPERATIONS,
    "wait_durable": st.booleans(),
    "keys": st.lists(NAMES, max_size=2),
    "query": QUERY,
    "pattern": st.sampled_from(["*", "k"]),
    "address": st.sampled_from(["w:1", "w:2"]),
    "capacity": AMOUNTS,
    "undo": st.booleans(),
    "amounts": AMOUNTS,
    "labels": st.just([]),
    "placement": st.sampled_from(["pack", "spread", "random"]),
    "worker": st.none() | st.just("w:1"),
    "version": st.none(),
    "tenant": st.sampled_from(["k", "l"]),
    "priority": st.integers(0, 2),
    "key": st.none(),
    "token": st.tuples(st.just(1), st.integers(1, 6)).map(list),
    "by": st.sampled_from(["worker", "tenant", "kind"]),
    "limits": st.none() | st.dictionaries(st.just("max_concurrent"), st.integers(0, 3)),
    "namespace": st.just(""),
    "per_second": st.just(2.0),
    "burst": st.just(4.0),
    "want": st.integers(1, 4),
    "unused": st.integers(0, 1),
    "number": st.integers(1, 4),
}
"""{argument: what an op may take for it}; for the others a name."""


@st.composite
def calls(draw: st.DrawFn) -> Call:
    """A call of an op that there is, with arguments that may pass."""
    op = draw(st.sampled_from(sorted(OPS)))
    args = {name: draw(LIKELY.get(name, NAMES)) for name in OPS[op].fields}
    if args and draw(st.integers(0, 4)) == 0:
        args[draw(st.sampled_from(sorted(args)))] = draw(ANYTHING)
    return Call(draw(st.integers(1, 9)) if OPS[op].changes else None, op, args)


@given(st.binary(max_size=60) | ANYTHING.map(msgpack.packb))
def test_whatever_arrives_is_a_request_or_refused(blob: bytes) -> None:
    try:
        request = decode_request(blob)
    except InvalidRequestError as error:
        encode_answer(Answer(1, "", 0, [(FAILED, error_payload(error))]))
    else:
        # As text: NaN is not equal to itself.
        assert repr(decode_request(encode_request(request))) == repr(request)


@given(st.lists(calls(), max_size=4), st.integers(0, 2**53 - 1))
def test_a_request_survives_its_way(found: list[Call], acked_below: int) -> None:
    request = Request("s", acked_below, found)
    assert repr(decode_request(encode_request(request))) == repr(request)


@given(st.lists(st.none() | ANYTHING, min_size=3, max_size=3))
def test_a_call_of_whatever_is_a_call_or_refused(parts: list[Any]) -> None:
    try:
        (call,) = decode_request(msgpack.packb([PROTOCOL, "s", 0, [parts]])).calls
    except InvalidRequestError:
        return
    step = Ledger(term=1).handle("s", 0, call, now=0.0)
    assert isinstance(step.reply, DspexError), "there is no session"


class LedgerLaws(RuleBasedStateMachine):
    """A ledger to which anything is sent, by three sessions."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger(term=1)
        self.now = 0.0
        self.journal: list[tuple[int, list[Event]]] = []
        for session, kind in (("s", "client"), ("t", "client"), ("w", "worker")):
            args = {"kind": kind, "name": "n", "lease": 3.0}
            self.take(self.ledger.handle(session, 0, Call(None, "session.open", args), now=0.0))
        joined = {"address": "w:1", "name": "w", "host": "h", "capacity": {"cpu_cores": 2.0}}
        self.take(self.ledger.handle("w", 0, Call(1, "members.join", joined), now=0.0))

    def take(self, step: Any) -> None:
        if step.events:
            assert step.revision == (self.journal[-1][0] if self.journal else 0) + 1
            events = msgpack.unpackb(encode_entry(0.0, step.events))[1]
            self.journal.append((step.revision, [tuple(event) for event in events]))
        assert step.depends <= self.ledger.revision == step.revision
        if isinstance(step.reply, DspexError):
            assert not step.events, "what is refused changes nothing"
            encode_answer(Answer(1, "", 0, [(FAILED, error_payload(step.reply))]))
        else:
            encode_answer(Answer(1, "", 0, [(0, step.reply)]))

    @rule(session=st.sampled_from(["s", "t", "w", "x"]), call=calls(), acked=st.integers(0, 3))
    def is_called(self, session: str, call: Call, acked: int) -> None:
        call = decode_request(encode_request(Request(session, acked, [call]))).calls[0]
        first = self.ledger.handle(session, acked, call, now=self.now)
        self.take(first)
        if call.number is not None:
            again = self.ledger.handle(session, acked, call, now=self.now)
            self.take(again)
            assert not again.events, "a copy changes nothing"
            assert again.is_pending == first.is_pending
            same = (msgpack.packb(_plain(each.reply)) for each in (again, first))
            assert len(set(same)) == 1, "a copy is answered the same"

    @rule(seconds=st.sampled_from([0.2, 0.2, 1.0, 4.0]))
    def time_passes(self, seconds: float) -> None:
        for _ in range(round(seconds / 0.2)):
            self.now += 0.2
            self.take(self.ledger.tick(self.now))

    @precondition(lambda self: self.ledger.members.everyone())
    @rule(is_expected=st.booleans())
    def a_worker_goes(self, is_expected: bool) -> None:
        self.take(self.ledger.worker_closed("w:1", is_expected=is_expected, now=self.now))

    @invariant()
    def is_valid(self) -> None:
        self.ledger.validate()

    def teardown(self) -> None:
        made = Ledger(term=1)
        for revision, events in self.journal:
            made.replay(revision, events, self.now)
        made.validate()
        copy = Ledger(term=1)
        dumped = msgpack.unpackb(msgpack.packb(list(made.dump())))
        copy.replay(made.revision, [tuple(event) for event in dumped], self.now)
        copy.validate()
        assert state_of(made) == state_of(self.ledger) == state_of(copy)


def _plain(reply: Any) -> Any:
    return error_payload(reply) if isinstance(reply, DspexError) else reply


def state_of(ledger: Ledger) -> list[str]:
    events = [event for event in ledger.dump() if event[0] not in ("reply", "acked")]
    return sorted(map(repr, msgpack.unpackb(msgpack.packb(events))))


LedgerLaws.TestCase.settings = settings(max_examples=60, stateful_step_count=25)
TestLedgerLaws = LedgerLaws.TestCase


@given(
    st.lists(st.lists(st.sampled_from(["put", "lock", "reply"]), max_size=3), max_size=12),
    st.integers(1, 8),
    st.integers(0, 14),
)
def test_a_follower_is_told_all_or_that_it_was_away_for_too_long(
    entries: list[list[str]], limit: int, after: int
) -> None:
    events: dict[str, Event] = {
        "put": ("put", "r:", "k", 1, b"", {}, (), None, None, "s"),
        "lock": ("lock", "", "l", (1, 1), "s", "lock"),
        "reply": ("reply", "s", 1, True, None),
    }
    was = feed_module.LIMIT
    feed_module.LIMIT = limit
    try:
        feed = Feed(0)
        published = []
        for revision, tags in enumerate(entries, start=1):
            feed.publish(revision, [events[tag] for tag in tags])
            published += [(revision, events[tag]) for tag in tags if tag != "reply"]
    finally:
        feed_module.LIMIT = was
    told = feed.since(after, Wanted([("r:", "*")], ["lock"]))
    missed = [each for each in published if each[0] > after]
    if after > len(entries):
        assert told is None
    elif told is None:
        assert len(missed) > limit or len(published) > limit
    else:
        assert told == missed
