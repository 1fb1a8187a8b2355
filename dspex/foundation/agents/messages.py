"""Messages to agents, and how they look as bytes.

Knows: the fields of a message, of a flight of many, of its answer. Must not know: who sends,
what an agent makes of one.

::

    flight   [protocol, link, generation, place, answered, hold, [*message, *message, ...]]
    answer   [protocol, [id, status, payload, id, status, payload, ...]]
    message  id, key, flags, sender, number, acknowledged below, seconds left, method, args

A flight carries what one process sends to one host. Its place orders the flights of one generation
of a link; None asks for answers alone. ``answered``: whether one of this generation was answered
before, so that the host must know it. ``hold`` are the seconds for which the host may keep it for
answers. Messages and answers are no lists of their own, so that to read many of them makes as few
objects as can be. Arguments, results and errors are pickles, which only agents and callers open.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from operator import attrgetter
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import msgpack

from dspex.errors import InvalidRequestError

__all__ = [
    "AT_LEAST_ONCE",
    "AT_MOST_ONCE",
    "CANCEL",
    "CAST",
    "CONTROL",
    "DONE",
    "ELSEWHERE",
    "EXACTLY_ONCE",
    "FULL",
    "RAISED",
    "REFUSED",
    "RESUMED",
    "Flight",
    "Message",
    "MessageLike",
    "decode_answers",
    "decode_flight",
    "encode_answers",
    "encode_flight",
    "fields_of",
    "fingerprint_of",
]

PROTOCOL = 2

AT_MOST_ONCE, AT_LEAST_ONCE, EXACTLY_ONCE = 0, 1, 2
CAST, RESUMED, CONTROL, CANCEL = 4, 8, 16, 32

DELIVERY = 3
"""The bits of the flags that say how often a message may arrive."""

DONE, RAISED, REFUSED, ELSEWHERE, FULL = 0, 1, 2, 3, 4
"""What a host answers: a result, an error of the agent's, one of dspex's; it has no such agent
(any more); its mailbox is full. Of the last two the message had no effect, and neither had any
that was sent to the same agent after it, until one comes that is marked as RESUMED."""


class Message(NamedTuple):
    """One message.

    Attributes
    ----------
    mid : int
        Its number on this link, growing.
    key : str
        Of the receiver.
    flags : int
    sender : str
        A session, or an agent; "" where it is not sent exactly once.
    number : int
        Of the sender.
    below : int
        The sender has all answers of this receiver to smaller numbers.
    left : float or None
        Seconds until its deadline.
    method : str
    args : bytes
    """

    mid: int
    key: str
    flags: int
    sender: str
    number: int
    below: int
    left: float | None
    method: str
    args: bytes


class MessageLike(Protocol):
    """What has the fields of a message: one, or a call that is sent as one."""

    @property
    def mid(self) -> int:
        """Its number."""

    @property
    def key(self) -> str:
        """Of the receiver."""

    @property
    def flags(self) -> int:
        """See above."""

    @property
    def sender(self) -> str:
        """A session, or an agent."""

    @property
    def number(self) -> int:
        """Of the sender."""

    @property
    def below(self) -> int:
        """What is acknowledged."""

    @property
    def left(self) -> float | None:
        """Seconds."""

    @property
    def method(self) -> str:
        """What is called."""

    @property
    def args(self) -> bytes:
        """With what."""


_FIELDS = len(Message._fields)

fields_of: Callable[[MessageLike], tuple[Any, ...]] = attrgetter(*Message._fields)
"""The fields of a message, or of what is sent as one."""


def fingerprint_of(message: MessageLike) -> int:
    """What two messages of the same number have in common, if they are the same."""
    return zlib.crc32(message.args, zlib.crc32(message.method.encode()))


M = TypeVar("M")


class Flight(NamedTuple, Generic[M]):
    """What one process sends to a host at once.

    Attributes
    ----------
    messages : iterable
        Of one that has arrived the fields of each, made one by one, and once.
    size : int
        How many messages; of one that has arrived.
    """

    link: str
    generation: int
    place: int | None
    is_answered: bool
    hold: float
    messages: Iterable[M]
    size: int = -1


def encode_flight(flight: Flight[Any]) -> bytes:
    """Pack a flight.

    Examples
    --------
    >>> message = Message(1, ":a", CAST, "", 0, 0, None, "add", b"")
    >>> flight = decode_flight(encode_flight(Flight("me", 1, 0, False, 0.01, [message])))
    >>> list(flight.messages) == [message]
    True
    """
    flat = list(chain.from_iterable(map(fields_of, flight.messages)))
    packed: bytes = msgpack.packb((PROTOCOL, *flight[:-2], flat))
    return packed


def decode_flight(blob: bytes) -> Flight[tuple[Any, ...]]:
    """Unpack a flight.

    Raises
    ------
    InvalidRequestError
    """
    try:
        protocol, *fields = msgpack.unpackb(blob)
        if protocol == PROTOCOL:
            link, generation, place, is_answered, hold, flat = fields
            size, others = divmod(len(flat), _FIELDS)
            if others:
                raise ValueError("it ends in the middle of a message")
            messages = zip(*[iter(flat)] * _FIELDS, strict=True)
            return Flight(link, generation, place, is_answered, hold, messages, size)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise InvalidRequestError(f"messages travel in flights; this is none: {error}") from error
    raise InvalidRequestError(
        f"this host speaks protocol {PROTOCOL} of messages; got {protocol!r:.80}; use the same "
        "version of dspex on both sides"
    )


def encode_answers(flat: Sequence[Any]) -> bytes:
    """Pack answers: id, status, payload of one after the other."""
    packed: bytes = msgpack.packb((PROTOCOL, flat))
    return packed


def decode_answers(blob: bytes) -> Iterator[tuple[int, int, Any]]:
    """Unpack answers; they are made one by one.

    Raises
    ------
    InvalidRequestError
    """
    try:
        protocol, flat = msgpack.unpackb(blob)
        if protocol == PROTOCOL:
            if len(flat) % 3:
                raise ValueError("it ends in the middle of an answer")
            return zip(*[iter(flat)] * 3, strict=True)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise InvalidRequestError(f"a host answers in lists; this is none: {error}") from error
    raise InvalidRequestError(
        f"this process speaks protocol {PROTOCOL} of messages; its host speaks {protocol!r:.80}; "
        "use the same version of dspex on both sides"
    )
