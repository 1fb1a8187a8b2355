"""Requests, answers and entries as bytes, and the table of ops: what the border refuses."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest

from dspex import errors
from dspex.errors import DspexError, InvalidRequestError, KeyNotFoundError, UnavailableError
from dspex.foundation.ledger import wire
from dspex.foundation.ledger.events import Event
from dspex.foundation.ledger.ledger import Ledger
from dspex.foundation.ledger.ops import OPS, checked
from dspex.foundation.ledger.performing import PERFORMERS
from dspex.foundation.ledger.wire import (
    DONE,
    FAILED,
    PENDING,
    PROTOCOL,
    Answer,
    Call,
    Request,
    decode_answer,
    decode_entry,
    decode_request,
    encode_answer,
    encode_body,
    encode_entry,
    encode_flight,
    encode_request,
    error_payload,
    rebuilt_error,
)

CALL: list[Any] = [1, "locks.acquire", {"namespace": "", "name": "l", "kind": "lock"}]
DEEP = b"\x91" * 1020 + b"\x90"
"""A list in a list in a list: as deep as msgpack reads, and deeper than Python can show."""

POLL = {"after": 0, "identity": "", "tags": [], "replies": False, "seen": [], "hold": 0}
VALID: dict[str, Any] = {
    **dict.fromkeys(
        [
            "kind",
            "name",
            "address",
            "host",
            "reason",
            "placement",
            "by",
            "key",
            "worker",
            "on_conflict",
            "match",
            "prefix",
            "target",
        ],
        "x",
    ),
    **dict.fromkeys(["version", "tenant", "limits", "max_moves", "code"], None),
    **dict.fromkeys(["per_second", "burst", "want", "unused", "number", "priority", "lease"], 1),
    **dict.fromkeys(["after", "offset", "size", "hold", "limit"], 0),
    **{
        name: []
        for name in [
            "operations",
            "keys",
            "query",
            "topics",
            "seen",
            "labels",
            "tags",
            "agents",
            "turns",
            "failures",
            "capabilities",
        ]
    },
    **{name: {} for name in ["capacity", "amounts", "spec", "loads"]},
    **dict.fromkeys(["undo", "replies", "wait_durable", "dry_run"], False),
    "collection": "r:",
    "pattern": "*",
    "namespace": "",
    "token": [1, 1],
    "identity": "",
    "upload": "x",
    "digest": "0" * 64,
    "data": b"",
}
"""{argument: a value that its op takes}"""


def packed(*message: Any) -> bytes:
    blob: bytes = msgpack.packb(list(message))
    return blob


def with_deep(*message: Any) -> bytes:
    """The same with `DEEP` in place of the text "deep"."""
    return packed(*message).replace(b"\xa4deep", DEEP)


# --- requests ------------------------------------------------------------------------------


def test_a_request_comes_out_as_it_went_in() -> None:
    request = Request("me", 3, [Call(*CALL), Call(None, "session.renew", {})])
    assert decode_request(encode_request(request)) == request
    waiting = request._replace(parked=[1, 2])
    assert decode_request(encode_request(waiting)) == waiting
    assert decode_request(memoryview(encode_request(request))) == request


@pytest.mark.parametrize("count", [0, 1, 15, 16, 70_000])
def test_calls_that_are_packed_one_by_one_make_the_same_request(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "MAX_CALLS", 100_000)
    body = encode_body("session.close", {"reason": ""})
    blob = encode_flight("me", 1, (), [(number, body) for number in range(count)])
    request = decode_request(blob)
    assert [call.number for call in request.calls] == list(range(count))


@pytest.mark.parametrize(
    ("blob", "words"),
    [
        (None, "at most .* bytes; got NoneType"),
        ("text", "got str"),
        (b"", "this is not"),
        (b"\xc1", "this is not"),
        (packed(PROTOCOL, "s", 0, [], []) + b"\x00", "this is not"),
        (msgpack.packb(5), "a message is a list; got int"),
        (packed(), "a message is a list"),
        (packed(PROTOCOL + 1, "s", 0, [], []), "same version of dspex"),
        (packed(0, "s", 0, [], []), "same version of dspex"),
        (packed("1", "s", 0, [], []), "same version of dspex"),
        (packed(PROTOCOL, "s", 0), "has 5 parts; got 3"),
        (packed(PROTOCOL, "", 0, [], []), "1 to 64 printable characters"),
        (packed(PROTOCOL, "s" * 65, 0, [], []), "1 to 64 printable characters"),
        (packed(PROTOCOL, "s\n", 0, [], []), "1 to 64 printable characters"),
        (packed(PROTOCOL, "worker:tcp://a:1", 0, [], []), "do not begin"),
        (packed(PROTOCOL, b"s", 0, [], []), "1 to 64 printable characters"),
        (packed(PROTOCOL, "s", -1, [], []), "a number and at most"),
        (packed(PROTOCOL, "s", True, [], []), "a number and at most"),
        (packed(PROTOCOL, "s", 2**53, [], []), "a number and at most"),
        (packed(PROTOCOL, "s", 0, [], {}), "a number and at most"),
        (packed(PROTOCOL, "s", 0, [], [[1, "op"]]), "a call is a list"),
        (packed(PROTOCOL, "s", 0, [], [["1", "op", {}]]), "a call is a list"),
        (packed(PROTOCOL, "s", 0, [], [[-1, "op", {}]]), "a call is a list"),
        (packed(PROTOCOL, "s", 0, [], [[1, b"op", {}]]), "a call is a list"),
        (packed(PROTOCOL, "s", 0, [], [[1, "op", []]]), "a call is a list"),
        (packed(PROTOCOL, "s", 0, [], [5]), "a call is a list"),
        (packed(PROTOCOL, "s", 0, [-1], []), "still wait are a list"),
        (packed(PROTOCOL, "s", 0, {}, []), "still wait are a list"),
        (with_deep("deep", "s", 0, [], []), "nested"),
        (with_deep(PROTOCOL, "deep", 0, [], []), "not"),
        (with_deep(PROTOCOL, "s", 0, [], ["deep"]), "not"),
        (b"\x91" * 100_000, "this is not"),
    ],
)
def test_what_is_no_request(blob: Any, words: str) -> None:
    with pytest.raises(InvalidRequestError, match=words):
        decode_request(blob)


def test_requests_have_a_size_on_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_REQUEST", 1_000)
    with pytest.raises(InvalidRequestError, match=r"at most 1,000 bytes; got 2,\d\d\d; send fewer"):
        encode_request(Request("s", 0, [Call(None, "op", {"x": b"x" * 2_000})]))
    with pytest.raises(InvalidRequestError, match="at most 1,000 bytes; got bytes of 2,000"):
        decode_request(b"x" * 2_000)


@pytest.mark.parametrize("value", [2**64, object(), {1, 2}, "\ud800"])
def test_what_msgpack_cannot_say_is_refused_before_it_is_sent(value: Any) -> None:
    with pytest.raises(InvalidRequestError, match="plain data"):
        encode_body("op", {"x": value})


@pytest.mark.parametrize("op", sorted(OPS))
def test_arguments_that_are_nested_too_deep_are_refused_by_every_op(op: str) -> None:
    ledger = Ledger(term=1)
    opened = {"kind": "client", "name": "s", "lease": 3.0}
    ledger.handle("s", 0, Call(None, "session.open", opened), now=0.0)
    changes, fields = OPS[op]
    for name in fields:
        args = {each: VALID[each] for each in fields if each != name}
        blob = packed(PROTOCOL, "s", 0, [], [[1 if changes else None, op, {**args, name: "deep"}]])
        # A few levels less, for those around it.
        (call,) = decode_request(blob.replace(b"\xa4deep", DEEP[8:])).calls
        step = ledger.handle("s", 0, call, now=0.0)
        assert isinstance(step.reply, InvalidRequestError)
        ledger.validate()


# --- answers and entries -------------------------------------------------------------------


def test_an_answer_comes_out_as_it_went_in() -> None:
    sent = [(DONE, {"token": (1, 2)}), (FAILED, ["X", "", {}]), (PENDING, None)]
    term, identity, revision, replies = decode_answer(encode_answer(Answer(2, "id", 7, sent)))
    assert (term, identity, revision) == (2, "id", 7)
    assert replies == [[DONE, {"token": [1, 2]}], [FAILED, ["X", "", {}]], [PENDING, None]]


def test_an_entry_comes_out_as_it_went_in() -> None:
    large = "x" * 2**21
    events: list[Event] = [
        ("put", "r:", "k", 1, b"\x00\xff", {"ü": [None, 1.5]}, [], None, None, large)
    ]
    assert decode_entry(encode_entry(12.5, events)) == (12.5, events)


def every_error() -> list[type[DspexError]]:
    found = [getattr(errors, name) for name in errors.__all__]
    return [each for each in found if isinstance(each, type) and issubclass(each, DspexError)]


@pytest.mark.parametrize("kind", every_error())
def test_every_error_crosses_the_wire(kind: type[DspexError]) -> None:
    error = rebuilt_error(error_payload(kind("words")))
    assert type(error) is kind
    assert str(error) == str(kind("words"))


def test_the_plain_fields_of_an_error_cross_the_wire() -> None:
    error = KeyNotFoundError("no", key="k", version=3, odd=object())
    again = rebuilt_error(msgpack.unpackb(msgpack.packb(error_payload(error))))
    assert vars(again)["key"] == "k"
    assert vars(again)["version"] == 3
    assert not hasattr(again, "odd")


@pytest.mark.parametrize("name", ["NoSuchError", "annotations", "__all__", "Any"])
def test_an_error_that_is_not_known_here_is_still_one(name: str) -> None:
    error = rebuilt_error([name, "words", {}])
    assert type(error) is errors.FoundationError
    assert str(error) == "words"


# --- ops -----------------------------------------------------------------------------------


def test_every_op_is_performed_by_somebody() -> None:
    ring = {"feed.poll", "blob.write", "blob.read", "audit", "status"}
    assert PERFORMERS.keys() == OPS.keys() - ring
    assert not any(OPS[op].changes for op in ring)


@pytest.mark.parametrize(
    ("op", "number", "args", "words"),
    [
        ("no.such", 1, {}, "there is no op 'no.such'"),
        ("session.renew", 1, {}, "has no number; got 1"),
        ("members.drain", None, {}, "needs a number"),
        ("session.close", None, {"reasons": "x"}, "takes .'reason'.; got .'reasons'."),
        ("session.close", None, {b"reason": "x"}, "takes .'reason'."),
        ("session.close", None, {"reason": "x" * 513}, "at most 512 printable"),
        ("session.close", None, {"reason": "a\nb"}, "printable"),
        ("session.open", None, {"name": "", "lease": 3.0}, "needs kind"),
        ("session.open", None, {"kind": "", "name": "", "lease": 3.0}, "1 to 512"),
        ("session.open", None, {"kind": "c", "name": "", "lease": float("nan")}, "finite"),
        ("session.open", None, {"kind": "c", "name": "", "lease": True}, "finite"),
        ("resources.release", 1, {"token": [1]}, "pair of whole"),
        ("resources.release", 1, {"token": [1, 2.0]}, "pair of whole"),
        ("resources.quota", 1, {"tenant": "t", "limits": {"cpu": "1"}}, "names to numbers"),
        ("records.fetch", None, {"collection": "x:", "keys": []}, "begins with"),
        ("feed.poll", None, {**POLL, "topics": [["r:"]]}, "pairs of a collection"),
        ("feed.poll", None, {**POLL, "topics": [["r:", 1]]}, "pairs of a collection"),
        ("blob.read", None, {"digest": "A" * 64, "offset": 0, "size": 1}, "SHA-256"),
    ],
)
def test_what_an_op_does_not_take(
    op: str, number: int | None, args: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidRequestError, match=words):
        checked(op, number, args)


def test_what_is_not_given_has_its_default() -> None:
    args = {"kind": "k", "amounts": {}, "placement": "pack", "priority": 0}
    made = checked("resources.acquire", 1, args)
    assert made["tenant"] is made["worker"] is made["version"] is made["key"] is None
    assert made["labels"] == ()
    assert checked("resources.acquire", 1, {**args, "tenant": None})["tenant"] is None


def test_an_op_of_the_ring_is_refused_by_the_ledger_alone() -> None:
    step = Ledger(term=1).handle("s", 0, Call(None, "status", {}), now=0.0)
    assert isinstance(step.reply, InvalidRequestError)


def test_unavailable_is_a_connection_error_after_its_way() -> None:
    assert isinstance(rebuilt_error(error_payload(UnavailableError("x"))), ConnectionError)
