"""Which ops there are, and what arguments each takes: the table that the border checks by.

Knows: names, types, bounds. Must not know: what an op does (`ledger`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from dspex.errors import InvalidRequestError

__all__ = ["OPS", "Op", "checked"]

MAX_NAME = 512


class _Field(NamedTuple):
    """One argument: a check, and the rule in words."""

    is_valid: Callable[[Any], bool]
    rule: str
    default: Any = ...  # none: it must be given


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= MAX_NAME and value.isprintable()


def _is_name(value: Any) -> bool:
    return _is_text(value) and bool(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_token(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and all(map(_is_whole, value))


def _is_amounts(value: Any) -> bool:
    return isinstance(value, dict) and all(
        _is_name(name) and (each is None or _is_number(each)) for name, each in value.items()
    )


def _is_names(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) <= 256 and all(map(_is_name, value))


def _is_topic(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and all(map(_is_text, value))


def _or_none(is_valid: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or is_valid(value)


_NAME = _Field(_is_name, f"1 to {MAX_NAME} printable characters")
_NAMES = _Field(_is_names, "a list of at most 256 names", ())
_COLLECTION = _Field(
    lambda value: _is_name(value) and value[:2] in ("r:", "s:"),
    'a name that begins with "r:" or "s:"',
)
_LIST = _Field(lambda value: isinstance(value, list | tuple), "a list")
_TOPICS = _Field(
    lambda value: isinstance(value, list | tuple) and all(map(_is_topic, value)),
    "a list of pairs of a collection and a pattern",
)
_KEYS = _Field(
    lambda value: isinstance(value, list | tuple) and all(isinstance(each, str) for each in value),
    "a list of keys",
)
_COUNTS = _Field(
    lambda value: (
        isinstance(value, dict)
        and all(isinstance(key, str) and _is_whole(count) for key, count in value.items())
    ),
    "a map of keys to whole numbers",
)
_MAP = _Field(lambda value: isinstance(value, dict), "a map with names as keys")
_AMOUNTS = _Field(_is_amounts, "a map of names to numbers")
_TOKEN = _Field(_is_token, "a pair of whole numbers")
_NUMBER = _Field(_is_number, "a finite number")
_WHOLE = _Field(lambda value: _is_whole(value) and abs(value) < 2**53, "a whole number")
_FLAG = _Field(lambda value: isinstance(value, bool), "true or false", False)
_BYTES = _Field(lambda value: isinstance(value, bytes), "bytes")
_TEXT = _Field(_is_text, f"at most {MAX_NAME} printable characters", "")
_DIGEST = _Field(
    lambda value: (
        isinstance(value, str) and len(value) == 64 and not set(value) - set("0123456789abcdef")
    ),
    "a SHA-256 in hexadecimal",
)


def _optional(field: _Field) -> _Field:
    return _Field(_or_none(field.is_valid), f"{field.rule}, or nothing", None)


class Op(NamedTuple):
    """One op.

    Attributes
    ----------
    changes : bool
        Whether it needs a number, so that it takes effect once.
    fields : mapping of str to field
    """

    changes: bool
    fields: Mapping[str, _Field]


OPS: Mapping[str, Op] = {
    "session.open": Op(False, {"kind": _NAME, "name": _TEXT, "lease": _NUMBER}),
    "session.renew": Op(False, {}),
    "session.close": Op(False, {"reason": _TEXT}),
    "records.commit": Op(
        True, {"collection": _COLLECTION, "operations": _LIST, "wait_durable": _FLAG}
    ),
    "records.fetch": Op(False, {"collection": _COLLECTION, "keys": _LIST}),
    "records.select": Op(False, {"collection": _COLLECTION, "query": _LIST}),
    "records.snapshot": Op(False, {"collection": _COLLECTION, "pattern": _NAME}),
    "members.join": Op(True, {"address": _NAME, "name": _TEXT, "host": _TEXT, "capacity": _MAP}),
    "members.drain": Op(True, {"address": _NAME, "undo": _FLAG}),
    "members.list": Op(False, {}),
    "resources.acquire": Op(
        True,
        {
            "kind": _NAME,
            "amounts": _AMOUNTS,
            "labels": _NAMES,
            "placement": _NAME,
            "worker": _optional(_NAME),
            "version": _optional(_WHOLE),
            "tenant": _optional(_NAME),
            "priority": _NUMBER,
            "key": _optional(_NAME),
        },
    ),
    "resources.release": Op(True, {"token": _TOKEN}),
    "resources.verify": Op(False, {"token": _TOKEN}),
    "resources.usage": Op(False, {"by": _NAME}),
    "resources.snapshot": Op(False, {}),
    "resources.quota": Op(True, {"tenant": _NAME, "limits": _optional(_AMOUNTS)}),
    "locks.acquire": Op(True, {"namespace": _TEXT, "name": _NAME, "kind": _NAME}),
    "locks.release": Op(True, {"namespace": _TEXT, "name": _NAME, "token": _TOKEN}),
    "locks.holder": Op(False, {"namespace": _TEXT, "name": _NAME}),
    "rates.take": Op(
        False,
        {
            "name": _NAME,
            "per_second": _NUMBER,
            "burst": _NUMBER,
            "want": _WHOLE,
            "unused": _WHOLE,
        },
    ),
    "rates.change": Op(False, {"name": _NAME, "per_second": _NUMBER, "burst": _NUMBER}),
    "call.cancel": Op(False, {"number": _WHOLE}),
    "agents.create": Op(
        True,
        {"spec": _MAP, "code": _optional(_BYTES), "agents": _LIST, "on_conflict": _NAME},
    ),
    "agents.commit": Op(True, {"turns": _LIST}),
    "agents.fail": Op(True, {"failures": _LIST}),
    "agents.retake": Op(True, {"keys": _KEYS}),
    "agents.report": Op(False, {"loads": _COUNTS}),
    "agents.at_host": Op(False, {}),
    "agents.load": Op(False, {"keys": _KEYS}),
    "agents.code": Op(False, {"digest": _DIGEST}),
    "agents.locate": Op(False, {"keys": _KEYS}),
    "agents.list": Op(
        False,
        {"prefix": _TEXT, "capabilities": _NAMES, "match": _NAME, "limit": _optional(_WHOLE)},
    ),
    "agents.host": Op(False, {"address": _NAME}),
    "agents.row": Op(False, {"key": _NAME}),
    "agents.state": Op(False, {"key": _NAME}),
    "agents.move": Op(True, {"keys": _KEYS, "target": _TEXT}),
    "agents.rebalance": Op(True, {"dry_run": _FLAG, "max_moves": _optional(_WHOLE)}),
    "agents.end": Op(True, {"keys": _KEYS, "reason": _TEXT}),
    "agents.recover": Op(True, {"worker": _NAME, "keys": _optional(_KEYS)}),
    "feed.poll": Op(
        False,
        {
            "after": _WHOLE,
            "identity": _TEXT,
            "topics": _TOPICS,
            "tags": _NAMES,
            "replies": _FLAG,
            "seen": _LIST,
            "hold": _NUMBER,
        },
    ),
    "blob.write": Op(
        False,
        {
            "upload": _NAME,
            "digest": _DIGEST,
            "offset": _WHOLE,
            "size": _WHOLE,
            "data": _BYTES,
        },
    ),
    "blob.read": Op(False, {"digest": _DIGEST, "offset": _WHOLE, "size": _WHOLE}),
    "audit": Op(False, {"limit": _WHOLE}),
    "status": Op(False, {}),
}


def checked(op: str, number: int | None, args: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments with their defaults, each of its type.

    Raises
    ------
    InvalidRequestError
        For an unknown op, an argument too many, too few, or of another type.

    Examples
    --------
    >>> checked("session.close", None, {})
    {'reason': ''}
    """
    known = OPS.get(op)
    if known is None:
        raise InvalidRequestError(f"there is no op {op!r:.80}; use the client of this version")
    if known.changes is (number is None):
        needs = "needs a number, so that it takes effect once" if known.changes else "has no number"
        raise InvalidRequestError(f"a call of {op} {needs}; got {number!r}")
    unknown = args.keys() - known.fields.keys()
    if unknown:
        raise InvalidRequestError(
            f"{op} takes {sorted(known.fields)}; got {sorted(map(str, unknown))!r:.120}"
        )
    made = {}
    for name, field in known.fields.items():
        value = args.get(name, field.default)
        if value is ...:
            raise InvalidRequestError(f"{op} needs {name}, {field.rule}; it was not given")
        if value is not field.default and not field.is_valid(value):
            raise InvalidRequestError(f"{name} of {op} is {field.rule}; got {_shown(value)}")
        made[name] = value
    return made


def _shown(value: Any) -> str:
    try:
        return f"{value!r:.120}"
    except RecursionError:
        return "what is nested too deep to be shown"
