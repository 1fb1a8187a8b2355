"""What etcd is asked, in its own terms: transactions, ranges, leases.

Knows: the fields of etcd's v3 API. Must not know: what keys mean.

https://etcd.io/docs/v3.4/learning/api/. In JSON, bytes are base64, 64-bit numbers are texts, and
what is zero or empty is left out.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias, final

from dspex.storage.journals.etcd_gateway import Gateway

__all__ = ["Answer", "Client", "Item", "absent", "delete", "equals", "get", "put", "unmoved"]

Operation: TypeAlias = Mapping[str, Any]
Condition: TypeAlias = Mapping[str, Any]

PAGE = 32
"""Keys that are read at once: at about 1 MiB each an answer stays below 50 MB of JSON."""


class Item(NamedTuple):
    """A key with what lies there.

    Attributes
    ----------
    modified : int
        The revision that wrote it last.
    lease : int
        With which it goes; 0: it stays.
    """

    key: str
    value: bytes
    modified: int
    lease: int


class Answer(NamedTuple):
    """What became of a transaction.

    Attributes
    ----------
    succeeded : bool
        Whether all conditions held.
    revision : int
        Of the store.
    items : list of list of Item
        One list per operation; empty for those that read nothing.
    """

    succeeded: bool
    revision: int
    items: list[list[Item]]


def put(key: str, value: bytes, *, lease: int = 0) -> Operation:
    """Write a key."""
    return {"request_put": {"key": _text(key), "value": _base64(value), "lease": str(lease)}}


def get(key: str, end: str | None = None, *, limit: int = 0, keys_only: bool = False) -> Operation:
    """Read a key, or all from `key` up to but not `end`."""
    return {"request_range": _range(key, end, limit=limit, keys_only=keys_only)}


def delete(key: str, end: str | None = None) -> Operation:
    """Drop a key, or all from `key` up to but not `end`."""
    return {"request_delete_range": _range(key, end)}


def equals(key: str, value: bytes) -> Condition:
    """The key is there, with this value."""
    return {"key": _text(key), "target": "VALUE", "result": "EQUAL", "value": _base64(value)}


def absent(key: str) -> Condition:
    """The key is not there."""
    return unmoved(key, 0)


def unmoved(key: str, modified: int) -> Condition:
    """The key was written last by this revision; 0: it is not there."""
    return {
        "key": _text(key),
        "target": "MOD",
        "result": "EQUAL",
        "mod_revision": str(modified),
    }


@final
class Client:
    """Asks one etcd cluster, from one thread.

    Parameters
    ----------
    gateway : Gateway
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def transact(
        self,
        conditions: Sequence[Condition],
        then: Sequence[Operation],
        otherwise: Sequence[Operation] = (),
    ) -> Answer:
        """Perform operations where all conditions hold, others where they do not; at once."""
        answer = self._gateway.call(
            "/v3/kv/txn",
            {"compare": list(conditions), "success": list(then), "failure": list(otherwise)},
        )
        return Answer(
            bool(answer.get("succeeded")),
            int(answer["header"]["revision"]),
            [
                _items(response.get("response_range", {}))
                for response in answer.get("responses", [])
            ],
        )

    def put(self, key: str, value: bytes) -> None:
        """Write a key, whatever is there: for large values a third cheaper than a transaction."""
        self._gateway.call("/v3/kv/put", {"key": _text(key), "value": _base64(value)})

    def read(
        self, start: str, end: str, *, revision: int = 0, keys_only: bool = False
    ) -> Iterator[Item]:
        """All from `start` up to but not `end`, in order, as they are at a revision (0: now)."""
        while True:
            answer = self._gateway.call(
                "/v3/kv/range",
                _range(start, end, limit=PAGE, keys_only=keys_only, revision=revision),
            )
            # All pages are of the revision of the first one.
            revision = revision or int(answer["header"]["revision"])
            items = _items(answer)
            yield from items
            if not answer.get("more"):
                return
            start = items[-1].key + "\0"

    def last_key(self, start: str, end: str, *, revision: int = 0) -> str | None:
        """The last key from `start` up to but not `end`."""
        request = _range(start, end, limit=1, keys_only=True, revision=revision)
        order = {"sort_target": "KEY", "sort_order": "DESCEND"}
        items = _items(self._gateway.call("/v3/kv/range", {**request, **order}))
        return items[0].key if items else None

    def compact(self, revision: int) -> None:
        """Forget what was overwritten or dropped before a revision."""
        self._gateway.call("/v3/kv/compaction", {"revision": str(revision)})

    def grant(self, seconds: int) -> tuple[int, float]:
        """Make a lease; gives its id, and its seconds, which may be more than were asked for."""
        answer = self._gateway.call("/v3/lease/grant", {"TTL": str(seconds)})
        return int(answer["ID"]), float(answer["TTL"])

    def keep_alive(self, lease: int) -> float:
        """Renew a lease; gives its seconds, 0 where it is gone."""
        answer = self._gateway.call("/v3/lease/keepalive", {"ID": str(lease)})
        return float(answer["result"].get("TTL", 0))

    def revoke(self, lease: int) -> None:
        """End a lease, and with it its keys."""
        self._gateway.call("/v3/lease/revoke", {"ID": str(lease)})

    def voters(self) -> int:
        """How many members vote."""
        answer = self._gateway.call("/v3/cluster/member/list", {})
        return sum(not member.get("isLearner", False) for member in answer["members"])

    def close(self) -> None:
        """Close the connection."""
        self._gateway.close()


def _base64(data: bytes) -> str:
    return b64encode(data).decode("ascii")


def _text(key: str) -> str:
    return _base64(key.encode("latin-1"))


def _range(
    key: str, end: str | None, *, limit: int = 0, keys_only: bool = False, revision: int = 0
) -> dict[str, Any]:
    fields: dict[str, Any] = {"key": _text(key)}
    if end is not None:
        fields["range_end"] = _text(end)
    if limit:
        fields["limit"] = str(limit)
    if keys_only:
        fields["keys_only"] = True
    if revision:
        fields["revision"] = str(revision)
    return fields


def _items(answer: Mapping[str, Any]) -> list[Item]:
    return [
        Item(
            # A key that is not ours may be any bytes; so read, it comes back the same.
            b64decode(each["key"]).decode("latin-1"),
            b64decode(each.get("value", "")),
            int(each["mod_revision"]),
            int(each.get("lease", 0)),
        )
        for each in answer.get("kvs", [])
    ]
