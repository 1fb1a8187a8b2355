"""What a host tells the ledger of a turn, and how that looks as bytes.

Knows: shapes. Must not know: agents that there are.

A turn is a map. Fields, each absent where there is nothing to say: ``a`` the key of the agent and
``i`` its incarnation are always there; ``s`` the keys of its state that changed, ``d`` those that
were deleted, ``r`` (sender, number, acknowledged below, whether it succeeded, result, fingerprint)
of a message that takes effect once, ``o`` messages sent, ``k`` numbers of messages that were
acknowledged, ``n`` the number of the last message sent, ``t`` that it was made, ``m`` that it
moves, with what it takes along, ``e`` that it ended.

Each is packed by itself. It goes from its host into the journal as it is, and of a batch of
thousands one is a map at a time: Python's garbage collector, which looks at all maps that are
alive, took longer than all else when the whole batch was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgpack

from dspex.errors import InvalidRequestError

__all__ = ["Head", "checked_head", "is_token", "pack_turn", "unpack_turn"]


_is_compiled = msgpack.Packer.__module__ != "msgpack.fallback"

_pack: Callable[[Any], bytes] = msgpack.Packer().pack if _is_compiled else msgpack.packb
"""One packer for all, as a new one takes as long as the packing. The compiled one may serve several
threads: it does not let go of Python's lock in the middle."""


def pack_turn(turn: Mapping[str, Any]) -> bytes:
    """Pack a turn.

    Raises
    ------
    InvalidRequestError

    Examples
    --------
    >>> unpack_turn(pack_turn({"a": ":x", "i": (1, 1), "s": {"n": b"1"}}))
    {'a': ':x', 'i': [1, 1], 's': {'n': b'1'}}
    """
    try:
        return _pack(turn)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidRequestError(
            f"a turn is plain data; that of {turn.get('a')!r:.80} is not: {error}"
        ) from error


def unpack_turn(blob: bytes) -> dict[str, Any]:
    """Unpack a turn that was checked before."""
    turn: dict[str, Any] = msgpack.unpackb(blob)
    return turn


Head = tuple[str, int, int, str, str]
"""What decides whether a turn counts: the key of the agent; term and n, its incarnation; the sender
of the message that takes effect once, "" where there is none; which of "t", "m", "e" there are."""


def checked_head(blob: Any) -> Head:
    """Check what a host sent.

    Raises
    ------
    InvalidRequestError
    """
    turn = blob
    if isinstance(blob, bytes):
        try:
            turn = msgpack.unpackb(blob)
        except (ValueError, TypeError, RecursionError, msgpack.UnpackException):
            turn = None
    if isinstance(blob, bytes) and isinstance(turn, dict) and "a" in turn and "i" in turn:
        for name, value in turn.items():
            is_right = _FIELDS.get(name)
            if is_right is None or not is_right(value):
                break
        else:
            (term, n), answered = turn["i"], turn.get("r")
            marks = "" if turn.keys().isdisjoint(_MARKS) else _marks_of(turn)
            return turn["a"], term, n, "" if answered is None else answered[0], marks
    raise InvalidRequestError(f"a turn is a packed map of what it changed; got {turn!r:.120}")


def _marks_of(turn: Mapping[str, Any]) -> str:
    return "".join(mark for mark in _MARKS if mark in turn)


def is_token(value: Any) -> bool:
    """Whether it is an incarnation."""
    return (
        isinstance(value, list | tuple)
        and len(value) == 2
        and isinstance(value[0], int)
        and isinstance(value[1], int)
    )


def _is_changes(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    for name, data in value.items():  # noqa: SIM110 - a generator takes twice as long
        if not (isinstance(name, str) and isinstance(data, bytes)):
            return False
    return True


def _is_list_of(kind: type) -> Callable[[Any], bool]:
    return lambda value: (
        isinstance(value, list | tuple) and all(isinstance(each, kind) for each in value)
    )


def _is_sent(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(
        isinstance(each, list | tuple)
        and len(each) == 5
        and isinstance(each[0], int)
        and isinstance(each[1], str)
        and isinstance(each[2], str)
        and isinstance(each[3], bytes)
        for each in value
    )


def _is_answer(answer: Any) -> bool:
    return (
        isinstance(answer, list | tuple)
        and len(answer) == 6
        and isinstance(answer[0], str)
        and isinstance(answer[1], int)
        and isinstance(answer[2], int)
        and isinstance(answer[3], bool)
        and (answer[4] is None or isinstance(answer[4], bytes))
        and isinstance(answer[5], int)
    )


_FIELDS: Mapping[str, Callable[[Any], bool]] = {
    "a": lambda value: isinstance(value, str),
    "i": is_token,
    "s": _is_changes,
    "d": _is_list_of(str),
    "r": _is_answer,
    "o": _is_sent,
    "k": _is_list_of(int),
    "n": lambda value: isinstance(value, int),
    "t": lambda value: value == 1,
    "m": lambda value: value is None or isinstance(value, bytes),
    "e": lambda value: value == 1,
}
"""{field of a turn, see above: whether a value is one}; ``m``: let go, with its parcel;
``e``: stopped."""

_MARKS = ("t", "m", "e")
