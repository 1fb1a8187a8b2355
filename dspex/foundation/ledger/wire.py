"""How requests, replies and entries look as bytes: the border at which all of it is checked.

Knows: msgpack, the shape and the size of a message. Must not know: what an op does (`ops`).

Nothing is unpickled: values are opaque bytes, errors travel by the name of their class.

::

    request   [protocol, session, acked_below, [number, ...],
               [[number | None, op, {argument: value}], ...]]
    answer    [protocol, term, identity, revision, [[status, payload], ...]]   one per call
    entry     [unix time, [event, ...]]

Calls with a number may change something and take effect once; ``acked_below`` says that the
replies to all smaller numbers have arrived, but for those that are listed after it, whose calls
still wait. ``status``: DONE, FAILED, PENDING.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgpack

from dspex import errors
from dspex.errors import DspexError, InvalidRequestError
from dspex.foundation.ledger.events import Event

__all__ = [
    "DONE",
    "FAILED",
    "PENDING",
    "PROTOCOL",
    "Answer",
    "Call",
    "Request",
    "decode_answer",
    "decode_entry",
    "decode_request",
    "encode_answer",
    "encode_body",
    "encode_entry",
    "encode_flight",
    "encode_request",
    "error_payload",
    "rebuilt_error",
]

PROTOCOL = 1
"""What this version speaks; it understands `PROTOCOLS`."""

PROTOCOLS = (1, 1)
"""The oldest and the newest protocol that are understood."""

DONE, FAILED, PENDING = 0, 1, 2

MAX_REQUEST = 32 * 2**20
MAX_CALLS = 10_000

_ENVELOPE = 256
"""Bytes of a request beside its calls."""


class Call(NamedTuple):
    """One call of a request."""

    number: int | None
    op: str
    args: Mapping[str, Any]


class Request(NamedTuple):
    """What a session sends."""

    session: str
    acked_below: int
    calls: Sequence[Call]
    parked: Sequence[int] = ()


class Answer(NamedTuple):
    """What it gets."""

    term: int
    identity: str
    revision: int
    replies: Sequence[tuple[int, Any]]


def encode_body(op: str, args: Mapping[str, Any]) -> bytes:
    """Pack what a call says, for `encode_flight`; its number comes later.

    Raises
    ------
    InvalidRequestError
        Where it holds what msgpack cannot say, or too much of it.
    """
    try:
        packed: bytes = msgpack.packb((op, args))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidRequestError(
            f"a call holds plain data: numbers up to 64 bits, text, bytes, lists and maps; what "
            f"{op} was given is not: {type(error).__name__}: {error}"
        ) from error
    _check_size(len(packed) + _ENVELOPE)
    return packed[1:]  # without the head of the list of two, which becomes one of three


def encode_flight(
    session: str,
    acked_below: int,
    parked: Sequence[int],
    calls: Sequence[tuple[int | None, bytes]],
) -> bytes:
    """Pack a request of calls that are packed already: (number, body)."""
    head = msgpack.packb((PROTOCOL, session, acked_below, parked))
    parts = [b"\x95", head[1:], _list_of(len(calls))]
    for number, body in calls:
        parts += (b"\x93", msgpack.packb(number), body)
    packed = b"".join(parts)
    _check_size(len(packed))
    return packed


def _list_of(count: int) -> bytes:
    """How a list of so many items begins."""
    if count < 16:
        return bytes((0x90 | count,))
    return b"\xdd" + count.to_bytes(4, "big")


def encode_request(request: Request) -> bytes:
    """Pack a request.

    Examples
    --------
    >>> request = Request("me", 1, [Call(1, "session.close", {})])
    >>> decode_request(encode_request(request)) == request
    True
    """
    bodies = [(number, encode_body(op, args)) for number, op, args in request.calls]
    return encode_flight(request.session, request.acked_below, request.parked, bodies)


def _check_size(size: int) -> None:
    if size > MAX_REQUEST:
        raise InvalidRequestError(
            f"one message holds at most {MAX_REQUEST:,} bytes; got {size:,}; send fewer "
            "entries at once, or keep large values in the state store"
        )


def decode_request(blob: object) -> Request:
    """Unpack and check a request.

    Raises
    ------
    InvalidRequestError
        For whatever is not one.
    """
    if not isinstance(blob, bytes | bytearray | memoryview) or len(blob) > MAX_REQUEST:
        raise InvalidRequestError(
            f"a message is at most {MAX_REQUEST:,} bytes; got {type(blob).__name__}"
            + (f" of {len(blob):,}" if isinstance(blob, bytes) else "")
        )
    try:
        return _checked(_unpacked(blob))
    except RecursionError:  # of the words that would have said what was wrong
        raise InvalidRequestError("a message is not nested as deep as this one") from None


def _checked(message: Any) -> Request:
    if not isinstance(message, list) or not message:
        raise InvalidRequestError(f"a message is a list; got {type(message).__name__}")
    if not isinstance(message[0], int) or not PROTOCOLS[0] <= message[0] <= PROTOCOLS[1]:
        raise InvalidRequestError(
            f"this scheduler speaks the protocols {PROTOCOLS[0]} to {PROTOCOLS[1]}; got "
            f"{message[0]!r}; use the same version of dspex on both sides"
        )
    if len(message) != 5:
        raise InvalidRequestError(f"a message has 5 parts; got {len(message)}")
    _, session, acked_below, parked, calls = message
    if not _is_session(session):
        raise InvalidRequestError(
            "a session is named by 1 to 64 printable characters that do not begin with "
            f'"worker:", as owners of records do that are none; got {session!r:.80}'
        )
    if not _is_whole(acked_below) or not isinstance(calls, list) or len(calls) > MAX_CALLS:
        raise InvalidRequestError(
            f"a message holds a number and at most {MAX_CALLS:,} calls; got {acked_below!r:.80} "
            f"and {type(calls).__name__}"
        )
    if not isinstance(parked, list) or not all(map(_is_whole, parked)):
        raise InvalidRequestError(
            f"calls that still wait are a list of their numbers; got {parked!r:.80}"
        )
    return Request(session, acked_below, [_call(each) for each in calls], parked or ())


def _call(call: Any) -> Call:
    if isinstance(call, list) and len(call) == 3:
        number, op, args = call
        if (number is None or _is_whole(number)) and isinstance(op, str) and isinstance(args, dict):
            return Call(number, op, args)
    raise InvalidRequestError(
        f"a call is a list of a number or None, an op and its arguments; got {call!r:.120}"
    )


def _is_session(value: object) -> bool:
    return (
        isinstance(value, str)
        and 1 <= len(value) <= 64
        and value.isprintable()
        and not value.startswith("worker:")
    )


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53


def _unpacked(blob: bytes | bytearray | memoryview) -> Any:
    try:
        return msgpack.unpackb(blob)
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        raise InvalidRequestError(f"a message is msgpack; this is not: {error}") from error


# --- answers -------------------------------------------------------------------------------


def encode_answer(answer: Answer) -> bytes:
    """Pack an answer."""
    packed: bytes = msgpack.packb([PROTOCOL, *answer])
    return packed


def decode_answer(blob: bytes) -> Answer:
    """Unpack an answer; its replies are lists of status and payload."""
    _, term, identity, revision, replies = msgpack.unpackb(blob)
    return Answer(term, identity, revision, replies)


def error_payload(error: DspexError) -> list[Any]:
    """Say an error in plain data: the name of its class, its message, its plain fields.

    Examples
    --------
    >>> rebuilt_error(error_payload(InvalidRequestError("no", limit=3))).limit
    3
    """
    fields = {
        name: value
        for name, value in vars(error).items()
        if isinstance(value, str | int | float | bool | type(None))
    }
    return [type(error).__name__, str(error), fields]


def rebuilt_error(payload: Sequence[Any]) -> DspexError:
    """Make the error again."""
    name, message, fields = payload
    kind = getattr(errors, name, None) if name in errors.__all__ else None
    error: DspexError = (kind or errors.FoundationError)(message, **fields)
    return error


# --- entries -------------------------------------------------------------------------------


def encode_entry(time: float, events: Sequence[Event]) -> bytes:
    """Pack what one step did."""
    packed: bytes = msgpack.packb([time, events])
    return packed


def decode_entry(entry: bytes) -> tuple[float, list[Event]]:
    """Unpack it.

    Examples
    --------
    >>> decode_entry(encode_entry(1.5, [("gone", "me", "closed")]))
    (1.5, [('gone', 'me', 'closed')])
    """
    # Large strings of a snapshot are ours, so no limit is set.
    time, events = msgpack.unpackb(entry)
    return time, [tuple(event) for event in events]
