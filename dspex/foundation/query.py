"""What may be asked of a collection: conditions, capabilities, prefix, order, limit.

Knows: the operators, the order of all JSON values. Must not know: where records are kept, indexes.

Notation: a path names a place in the metadata, ``"resources.memory_gb"``. A condition on a path
that is not there does not hold, but for ``ne`` and ``("...", "exists", False)``. Numbers compare
with numbers and texts with texts; True is not 1.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple, TypeAlias

from dspex.errors import InvalidRequestError
from dspex.foundation.limits import checked_capabilities, checked_text, json_size
from dspex.foundation.record import Json, Record

__all__ = ["MISSING", "OPERATORS", "Query", "at", "bare", "ordered", "predicate", "rank", "scan"]

MAX_CONDITIONS = 64
MAX_PATH = 512
MAX_BYTES = 2**20

MISSING: Final = object()
"""What lies at a path that is not there."""


class Query(NamedTuple):
    """Which records, in which order, how many.

    Attributes
    ----------
    where : tuple of (path, operator, value)
        All must hold. Operators: eq, ne, lt, le, gt, ge, in, contains, exists.
    capabilities : tuple of str
    match : "any" or "all"
        Of `capabilities`.
    prefix : str
        Of the key.
    order_by : str or None
        A metadata path, "key" or "version"; a leading "-" turns it around. Records without a
        value there come last either way; among equals, and without `order_by`, the key decides.
    limit : int or None
    keys_only : bool
        Whether records come without value, metadata and capabilities.

    Examples
    --------
    >>> Query.made([("resources.memory_gb", "ge", 4)], limit=2).where
    (('resources.memory_gb', 'ge', 4),)
    """

    where: tuple[tuple[str, str, Any], ...] = ()
    capabilities: tuple[str, ...] = ()
    match: str = "any"
    prefix: str = ""
    order_by: str | None = None
    limit: int | None = None
    keys_only: bool = False

    @classmethod
    def made(
        cls,
        where: Iterable[Any] = (),
        capabilities: str | Iterable[str] = (),
        *,
        match: str = "any",
        prefix: str = "",
        order_by: str | None = None,
        limit: int | None = None,
        keys_only: bool = False,
    ) -> Query:
        """Make a query of what a user wrote.

        Raises
        ------
        InvalidRequestError
            Says which part breaks which rule.
        """
        if match not in ("any", "all"):
            raise InvalidRequestError(f'match is "any" or "all"; got {match!r:.80}')
        if order_by is not None:
            _check_order(order_by)
        if limit is not None and (type(limit) is not int or not 0 <= limit < 2**63):
            raise InvalidRequestError(f"limit is a whole number, or None; got {limit!r:.80}")
        if not isinstance(keys_only, bool):
            raise InvalidRequestError(f"keys_only is true or false; got {keys_only!r:.80}")
        return cls(
            _conditions(where),
            checked_capabilities(capabilities),
            match,
            checked_text(prefix, "prefix", MAX_PATH),
            order_by,
            limit,
            keys_only,
        )

    @classmethod
    def from_wire(cls, fields: Any) -> Query:
        """Check a query that arrived as a list of its fields; later fields may be left out.

        Raises
        ------
        InvalidRequestError

        Examples
        --------
        >>> Query.from_wire([[["a", "eq", 1]]]) == Query(where=(("a", "eq", 1),))
        True
        """
        if not isinstance(fields, list | tuple) or len(fields) > len(cls._fields):
            raise InvalidRequestError(
                f"a query is a list of {', '.join(cls._fields)}; got {fields!r:.120}"
            )
        return cls.made(**dict(zip(cls._fields, fields, strict=False)))


# --- values --------------------------------------------------------------------------------

_BOOL, _NUMBER, _TEXT, _LIST, _MAP, _NONE = range(6)


def rank(value: Json) -> tuple[Any, ...]:
    """Where a value stands among all JSON values; equal ranks are equal values.

    Examples
    --------
    >>> sorted([None, "b", 2, [1], 1.5, True, "a"], key=rank)
    [True, 1.5, 2, 'a', 'b', [1], None]
    >>> rank(1) == rank(1.0), rank(1) == rank(True)
    (True, False)
    """
    if isinstance(value, str):
        return (_TEXT, value)
    if isinstance(value, bool):
        return (_BOOL, value)
    if isinstance(value, int | float):
        return (_NUMBER, value)
    if value is None:
        return (_NONE,)
    if isinstance(value, Mapping):
        return (_MAP, tuple(sorted((name, rank(each)) for name, each in value.items())))
    return (_LIST, tuple(rank(each) for each in value))


def at(metadata: Mapping[str, Json], path: str) -> Json:
    """What lies at a path, or `MISSING`.

    Examples
    --------
    >>> at({"resources": {"memory_gb": 4}}, "resources.memory_gb")
    4
    """
    if "." not in path:
        return metadata.get(path, MISSING)
    found: Any = metadata
    for name in path.split("."):
        if not isinstance(found, dict) or name not in found:
            return MISSING
        found = found[name]
    return found


_Test: TypeAlias = Callable[[Json], bool]
"""Whether a condition holds of what was found, which may be `MISSING`."""


def _equals(value: Json) -> _Test:
    if isinstance(value, str):
        return lambda found: bool(found == value)
    wanted = rank(value)
    return lambda found: found is not MISSING and rank(found) == wanted


def _differs(value: Json) -> _Test:
    equals = _equals(value)
    return lambda found: not equals(found)


def _is_in(values: Json) -> _Test:
    wanted = {rank(each) for each in values}
    return lambda found: found is not MISSING and rank(found) in wanted


def _contains(value: Json) -> _Test:
    is_text = isinstance(value, str)
    equals = _equals(value)

    def holds(found: Json) -> bool:
        if isinstance(found, str | dict):
            return is_text and value in found
        return isinstance(found, list | tuple) and any(map(equals, found))

    return holds


def _exists(value: Json) -> _Test:
    wanted = value is not False
    return lambda found: (found is not MISSING) is wanted


def _compares(decide: Callable[[Any, Any], bool]) -> Callable[[Json], _Test]:
    def made(value: Json) -> _Test:
        kind: Any = str if isinstance(value, str) else (int, float)
        return lambda found: (
            (isinstance(found, kind) and found is not True and found is not False)
            and decide(found, value)
        )

    return made


OPERATORS: Mapping[str, Callable[[Json], _Test]] = {
    "eq": _equals,
    "ne": _differs,
    "lt": _compares(operator.lt),
    "le": _compares(operator.le),
    "gt": _compares(operator.gt),
    "ge": _compares(operator.ge),
    "in": _is_in,
    "contains": _contains,
    "exists": _exists,
}
"""{name: makes of the value asked for what tells whether the condition holds}."""


# --- the door ------------------------------------------------------------------------------


def _checked_path(path: Any) -> str:
    if not isinstance(path, str) or not 1 <= len(path) <= MAX_PATH or "" in path.split("."):
        raise InvalidRequestError(
            f'a path is names with dots between, such as "resources.memory_gb"; got {path!r:.120}'
        )
    return path


def _check_order(order_by: Any) -> None:
    _checked_path(order_by.removeprefix("-") if isinstance(order_by, str) else order_by)


def _conditions(where: Any) -> tuple[tuple[str, str, Any], ...]:
    if isinstance(where, str | Mapping) or not isinstance(where, Iterable):
        raise InvalidRequestError(
            f'where is a list of conditions such as ("cpu.cores", "ge", 4); got {where!r:.120}'
        )
    made = tuple(_condition(each) for each in where)
    if len(made) > MAX_CONDITIONS:
        raise InvalidRequestError(f"at most {MAX_CONDITIONS} conditions; got {len(made):,}")
    size = sum(json_size(value, f"the value for {path}") for path, _, value in made)
    if size > MAX_BYTES:
        raise InvalidRequestError(f"conditions hold at most {MAX_BYTES:,} bytes; got {size:,}")
    return made


def _condition(condition: Any) -> tuple[str, str, Any]:
    if not isinstance(condition, list | tuple) or not 2 <= len(condition) <= 3:
        raise InvalidRequestError(
            f'a condition is (path, operator, value), such as ("cores", "ge", 4); got '
            f"{condition!r:.120}"
        )
    path, name, *rest = condition
    _checked_path(path)
    if not isinstance(name, str) or name not in OPERATORS:
        raise InvalidRequestError(f"an operator is one of {', '.join(OPERATORS)}; got {name!r:.80}")
    if not rest and name != "exists":
        raise InvalidRequestError(f"{name} needs a value; got {tuple(condition)!r:.120}")
    value = rest[0] if rest else True
    if name == "in":
        if isinstance(value, set | frozenset):
            value = sorted(value, key=rank)
        if not isinstance(value, list | tuple):
            raise InvalidRequestError(f'"in" needs a list of values; got {value!r:.120}')
    elif name == "exists":
        if not isinstance(value, bool | None):
            raise InvalidRequestError(f'"exists" takes True or False; got {value!r:.120}')
    elif name in ("lt", "le", "gt", "ge") and (
        isinstance(value, bool) or not isinstance(value, int | float | str)
    ):
        raise InvalidRequestError(f"{name} takes a number or a text; got {value!r:.120}")
    return path, name, value


# --- answers -------------------------------------------------------------------------------


def predicate(query: Query) -> Callable[[Record], bool]:
    """What tells whether a record is one of those asked for, limit and order aside."""
    tests = [(path, OPERATORS[name](value)) for path, name, value in query.where]
    capabilities, prefix = query.capabilities, query.prefix
    decide = any if query.match == "any" else all

    def satisfies(record: Record) -> bool:
        if prefix and not record.key.startswith(prefix):
            return False
        if capabilities and not decide(each in record.capabilities for each in capabilities):
            return False
        return all(holds(at(record.metadata, path)) for path, holds in tests)

    return satisfies


def ordered(records: Iterable[Record], query: Query) -> list[Record]:
    """Bring those that satisfy a query into its order, and cut at its limit."""
    found = sorted(records, key=_key)
    if query.order_by is not None:
        path = query.order_by.removeprefix("-")
        placed: list[tuple[tuple[Any, ...], Record]] = []
        absent: list[Record] = []
        for each in found:
            value = _value(each, path)
            if value is MISSING or value is None:
                absent.append(each)
            else:
                placed.append((rank(value), each))
        placed.sort(key=_first, reverse=query.order_by.startswith("-"))
        found = [each for _, each in placed] + absent
    if query.limit is not None:
        found = found[: query.limit]
    return [bare(each) for each in found] if query.keys_only else found


def scan(records: Iterable[Record], query: Query) -> list[Record]:
    """Answer a query by looking at every record.

    Examples
    --------
    >>> made = [Record(k, 1, b"", {"n": n}, (), None, None, "") for k, n in [("a", 1), ("b", 2)]]
    >>> [each.key for each in scan(made, Query.made([("n", "ge", 1)], order_by="-n"))]
    ['b', 'a']
    """
    return ordered(filter(predicate(query), records), query)


def bare(record: Record) -> Record:
    """Leave key and version alone."""
    return Record(record.key, record.version, b"", {}, (), None, None, "")


def _key(record: Record) -> str:
    return record.key


def _first(placed: tuple[tuple[Any, ...], Record]) -> tuple[Any, ...]:
    return placed[0]


def _value(record: Record, path: str) -> Json:
    if path == "key":
        return record.key
    if path == "version":
        return record.version
    return at(record.metadata, path)
