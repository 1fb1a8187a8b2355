"""How long, deep and large what is kept may be, and the checks of it.

Knows: the bounds. Must not know: what is kept where.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import isfinite
from typing import Any

from dspex.errors import InvalidRequestError
from dspex.foundation.record import Json, Operation

__all__ = [
    "CAPABILITIES",
    "CAPABILITY_LENGTH",
    "COMMIT_BYTES",
    "COMMIT_OPERATIONS",
    "DEPTH",
    "KEY_LENGTH",
    "METADATA_BYTES",
    "VALUE_BYTES",
    "check_metadata",
    "check_value",
    "checked_capabilities",
    "checked_key",
    "checked_operations",
    "checked_text",
    "json_size",
    "plain",
]

KEY_LENGTH = 512
VALUE_BYTES = 2**20
METADATA_BYTES = 64 * 2**10
DEPTH = 16
CAPABILITIES = 256
CAPABILITY_LENGTH = 128
COMMIT_OPERATIONS = 10_000
COMMIT_BYTES = 16 * 2**20

_LONGEST_TTL = 10 * 366 * 86_400
_LEAST, _MOST = -(2**63), 2**63 - 1


def checked_text(text: Any, what: str, length: int) -> str:
    """A text without control characters, empty or not."""
    if isinstance(text, str) and len(text) <= length and text.isprintable():
        return text
    raise InvalidRequestError(
        f"{what} is a text of at most {length} printable characters; got {text!r:.120}"
    )


def checked_key(key: Any) -> str:
    """A key as a text of the very class, refused where it is none."""
    if not isinstance(key, str) or not 1 <= len(key) <= KEY_LENGTH or not key.isprintable():
        raise InvalidRequestError(
            f"a key is a text of 1 to {KEY_LENGTH} printable characters; got {key!r:.120}"
        )
    return key if type(key) is str else str.__str__(key)


def check_value(key: str, value: Any) -> None:
    """Refuse what is no value, or too large a one."""
    if not isinstance(value, bytes):
        raise InvalidRequestError(
            f"a value is bytes; got {type(value).__name__} for {key!r:.120}", key=key
        )
    if len(value) > VALUE_BYTES:
        raise InvalidRequestError(
            f"a value is at most {VALUE_BYTES:,} bytes; that of {key!r:.120} has "
            f"{len(value):,}; keep large ones in the state store, and their key here",
            key=key,
        )


def checked_capabilities(names: Any) -> tuple[str, ...]:
    """Names without doubles, in order; one text is one name.

    Examples
    --------
    >>> checked_capabilities(["gpu", "train", "gpu"]), checked_capabilities("gpu")
    (('gpu', 'train'), ('gpu',))
    """
    if isinstance(names, str):
        names = (names,)
    elif not isinstance(names, list | tuple | set | frozenset | Iterator):
        raise InvalidRequestError(f"capabilities are a list of names; got {names!r:.120}")
    made = tuple(names)
    for name in made:
        # In the order of what is true of nearly all, as this is done for every entry.
        if (
            type(name) is not str
            or not name.isprintable()
            or not 0 < len(name) <= CAPABILITY_LENGTH
        ):
            break
    else:
        if len(made) < 2 or len(set(made)) == len(made) <= CAPABILITIES:
            return made
    return _capabilities(made)


def _capabilities(names: Sequence[Any]) -> tuple[str, ...]:
    for name in names:
        if not isinstance(name, str) or not 1 <= len(name) <= CAPABILITY_LENGTH:
            raise InvalidRequestError(
                f"a capability is a name of 1 to {CAPABILITY_LENGTH} characters; got {name!r:.160}"
            )
        if not name.isprintable():
            raise InvalidRequestError(f"a capability has printable characters; got {name!r:.160}")
    made = tuple(dict.fromkeys(map(str.__str__, names)))
    if len(made) > CAPABILITIES:
        raise InvalidRequestError(f"at most {CAPABILITIES} capabilities; got {len(made):,}")
    return made


def json_size(value: Any, what: str) -> int:
    """About how many bytes a value takes as JSON.

    Raises
    ------
    InvalidRequestError
        Where JSON, or msgpack, cannot say it, or it is nested too deep.

    Examples
    --------
    >>> json_size({"a": [1, "bc"]}, "metadata")
    21
    """
    return _size([value], what, DEPTH) - 2


def _size(container: Any, what: str, depth: int) -> int:
    if type(container) is dict:
        size = 2
        for name in container:
            if type(name) is not str:
                raise InvalidRequestError(f"a name is a text; got {name!r:.80} in {what}")
            size += len(name) + 4
        container = container.values()
    else:
        size = 2
    for node in container:
        kind = type(node)
        if kind is str:
            size += len(node) + 2
        elif kind is float:
            if not isfinite(node):
                raise InvalidRequestError(f"JSON has no {node}; found in {what}")
            size += 8
        elif kind is int:
            if not _LEAST <= node <= _MOST:
                raise InvalidRequestError(
                    f"a whole number has 64 bits; got one of {node.bit_length()} in {what}"
                )
            size += 8
        elif kind is dict or kind is list or kind is tuple:
            if not depth:
                raise InvalidRequestError(f"{what} is nested at most {DEPTH} deep; make it flatter")
            size += _size(node, what, depth - 1)
        elif node is None or kind is bool:
            size += 4
        else:
            raise InvalidRequestError(
                f"{what} holds what JSON can say; got {kind.__name__} {node!r:.80}"
            )
    return size


def check_metadata(key: str, metadata: Any) -> int:
    """Refuse what is no metadata; gives its size."""
    if not isinstance(metadata, dict):
        raise InvalidRequestError(
            f"metadata is a map of names; got {type(metadata).__name__} for {key!r:.120}", key=key
        )
    if not metadata:
        return 0
    size = json_size(metadata, "metadata")
    if size > METADATA_BYTES:
        raise InvalidRequestError(
            f"metadata is at most {METADATA_BYTES:,} bytes; that of {key!r:.120} has about "
            f"{size:,}; keep large things in the value",
            key=key,
        )
    return size


def plain(value: Any) -> Json:
    """Copy metadata into JSON's own types, so that nobody can change it later.

    Subclasses (NumPy's float64, enums of texts) become what they are made of, tuples lists.

    Raises
    ------
    InvalidRequestError
        Names the place and the value.

    Examples
    --------
    >>> plain({"shape": (2, 3)})
    {'shape': [2, 3]}
    """
    return _plain(value, ("metadata",), DEPTH)


def _plain(value: Any, path: tuple[Any, ...], depth: int) -> Json:
    if isinstance(value, str):
        if not value.isascii():
            _check_unicode(value, path)
        return value if type(value) is str else str.__str__(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    is_map = isinstance(value, Mapping)
    if not is_map and not isinstance(value, list | tuple):
        raise InvalidRequestError(
            f"metadata holds what JSON can say (texts, numbers, booleans, None, lists, maps); "
            f"{_place(path)} is a {type(value).__name__}: {value!r:.80}; put it into the value"
        )
    if not depth:
        raise InvalidRequestError(
            f"metadata is nested at most {DEPTH} deep; {_place(path)} is deeper; make it flatter"
        )
    if not is_map:
        return [_plain(each, (*path, n), depth - 1) for n, each in enumerate(value)]
    made = {}
    for name in value:
        if not isinstance(name, str):
            raise InvalidRequestError(f"a name is a text; got {name!r:.80} in {_place(path)}")
        made[_plain(name, path, 0)] = _plain(value[name], (*path, name), depth - 1)
    return made


def _check_unicode(text: str, path: tuple[Any, ...]) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequestError(
            f"a text is Unicode; {_place(path)} holds {text!r:.80}: {error.reason}"
        ) from error


def _place(path: tuple[Any, ...]) -> str:
    return f"{'.'.join(map(str, path)):.200}"


# --- operations ----------------------------------------------------------------------------


def checked_operations(operations: Any) -> list[Operation]:
    """Operations of a transaction as tuples, each of the right shape and size.

    Raises
    ------
    InvalidRequestError
    """
    if not isinstance(operations, list | tuple):
        raise InvalidRequestError(f"a transaction is a list of operations; got {operations!r:.120}")
    if len(operations) > COMMIT_OPERATIONS:
        raise InvalidRequestError(
            f"a transaction has at most {COMMIT_OPERATIONS:,} operations; got "
            f"{len(operations):,}; commit them in parts"
        )
    made = []
    size = 0
    for operation in operations:
        checked, its_size = _checked(operation)
        made.append(checked)
        size += its_size
    if size > COMMIT_BYTES:
        raise InvalidRequestError(
            f"a transaction holds at most {COMMIT_BYTES:,} bytes; got about {size:,}; commit it "
            "in parts"
        )
    return made


def _checked(operation: Any) -> tuple[Operation, int]:
    if not isinstance(operation, list | tuple) or len(operation) < 3:
        raise InvalidRequestError(f"an operation is a list of its fields; got {operation!r:.120}")
    kind, key = operation[0], checked_key(operation[1])
    rest = operation[2:]
    if kind == "put" and len(rest) == 7:
        return _checked_put(key, *rest)
    expected = rest[-1]
    size = len(key)
    if kind == "patch" and len(rest) == 2:
        size += check_metadata(key, rest[0])
    elif not (
        (kind == "drop" and len(rest) == 2 and isinstance(rest[0], bool))
        or (kind == "check" and len(rest) == 1 and expected is not None)
    ):
        raise InvalidRequestError(
            f"an operation is made by put, patch, drop or check; got {operation!r:.120}"
        )
    _check_version(key, expected)
    return (kind, key, *rest), size


def _checked_put(
    key: str,
    value: Any,
    metadata: Any,
    capabilities: Any,
    ttl: Any,
    owner: Any,
    on_conflict: Any,
    expected: Any,
) -> tuple[Operation, int]:
    check_value(key, value)
    size = len(key) + len(value) + check_metadata(key, metadata)
    capabilities = checked_capabilities(capabilities)
    if ttl is not None and (
        isinstance(ttl, bool) or not isinstance(ttl, int | float) or not 0 < ttl <= _LONGEST_TTL
    ):
        raise InvalidRequestError(
            f"ttl is a number of seconds above 0, or None; got {ttl!r:.80} for {key!r:.120}"
        )
    if owner is not None and not (type(owner) is str and 1 <= len(owner) <= KEY_LENGTH):
        raise InvalidRequestError(f"an owner is a session or a worker; got {owner!r:.120}")
    if on_conflict not in ("error", "replace", "keep"):
        raise InvalidRequestError(
            f'on_conflict is "error", "replace" or "keep"; got {on_conflict!r:.80}'
        )
    _check_version(key, expected)
    return ("put", key, value, metadata, capabilities, ttl, owner, on_conflict, expected), size


def _check_version(key: str, version: Any) -> None:
    if version is not None and (type(version) is not int or version < 0):
        raise InvalidRequestError(
            f"expected_version is the version of an entry, 0 for none, or None; got "
            f"{version!r:.80} for {key!r:.120}"
        )
