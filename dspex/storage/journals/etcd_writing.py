"""How the owner writes into etcd: what changes the journal is a transaction that compares the term.

Knows: terms, pieces. Must not know: what entries mean, who may own a journal.

A request whose answer was lost may be performed late, even after others that came later. So that
this does no harm a transaction also names what it builds on, the tail or the head, or is the same
however often it is performed.

Pieces are put without any condition: they lie where nobody else writes, or the same, and are
nothing until a transaction names them; those that none names go with the next sweep.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from hashlib import sha256
from typing import final

from dspex.errors import JournalError, JournalFencedError
from dspex.storage.journals.etcd_client import (
    Answer,
    Client,
    Condition,
    Item,
    Operation,
    delete,
    equals,
    get,
    put,
)
from dspex.storage.journals.etcd_values import Keys, Pieces, after, cut, sealed, write_line

__all__ = ["Writer"]

DIGEST = re.compile(r"[0-9a-f]{64}")

_AT_ONCE = 40
"""Large values that one transaction drops; etcd takes 128 operations."""


@final
class Writer:
    """Writes one journal under one term.

    Parameters
    ----------
    client : Client
    keys : Keys
    term : int
    name : str
        Of the journal, for people.
    on_fenced : callable
        Called when another term is found.
    """

    def __init__(
        self, client: Client, keys: Keys, term: int, name: str, on_fenced: Callable[[], None]
    ) -> None:
        self.keys = keys
        self.term = term
        self._client = client
        self._name = name
        self._on_fenced = on_fenced

    def write(
        self,
        operations: Sequence[Operation],
        *,
        when: Sequence[Condition] = (),
        otherwise: Sequence[Operation] = (),
    ) -> Answer:
        """Perform operations where `when` holds, else `otherwise`, which reads only.

        Raises
        ------
        JournalFencedError
            Where the term has moved on.
        JournalError
            Where it is not known whether it was performed.
        """
        keys = self.keys
        answer = self._client.transact(
            [equals(keys.term, write_line(self.term)), *when],
            operations,
            [get(keys.term), get(keys.owner), *otherwise],
        )
        if answer.succeeded:
            return answer
        term, owner, *found = answer.items
        if not term or term[0].value != write_line(self.term):
            raise self.fenced(owner)
        return answer._replace(items=found)

    def write_pieces(self, folder: str, stream: Iterable[bytes]) -> Pieces:
        """Write a stream as pieces, which nothing names yet."""
        count = checksum = 0
        for piece in cut(stream):
            value, checksum = sealed(piece, checksum)
            self._client.put(f"{folder}{count:08}", value)
            count += 1
        return Pieces(count, checksum)

    def demand(self, operations: Sequence[Operation]) -> None:
        """Perform operations, with no condition but the term.

        Raises
        ------
        JournalFencedError
        """
        if not self.write(operations).succeeded:
            raise self.went_back()

    def put_blob(self, digest: str, data: bytes) -> None:
        """Keep a large value."""
        if not DIGEST.fullmatch(digest) or sha256(data).hexdigest() != digest:
            raise JournalError(f"a large value is named by its SHA-256; got {digest!r:.100}")
        # All attempts write the same under the same keys; a damaged value is healed.
        pieces = self.write_pieces(f"{self.keys.blob_parts}{digest}/", [data])
        self.demand([put(f"{self.keys.blobs}{digest}", write_line(*pieces))])

    def keep_blobs(self, digests: Collection[str]) -> int:
        """Drop all large values but these, and pieces that nothing names."""
        keys, wanted = self.keys, set(digests)
        answer = self.write(
            [
                get(keys.blobs, after(keys.blobs), keys_only=True),
                get(keys.blob_parts, after(keys.blob_parts), keys_only=True),
            ]
        )
        whole, parts = (
            {item.key.removeprefix(folder).partition("/")[0] for item in items}
            for folder, items in zip((keys.blobs, keys.blob_parts), answer.items, strict=True)
        )
        goes = sorted((whole | parts) - (whole & wanted))
        for first in range(0, len(goes), _AT_ONCE):
            operations = []
            for digest in goes[first : first + _AT_ONCE]:
                folder = f"{keys.blob_parts}{digest}/"
                operations += [delete(f"{keys.blobs}{digest}"), delete(folder, after(folder))]
            self.demand(operations)
        return len(whole - wanted)

    def fenced(self, owner: list[Item]) -> JournalFencedError:
        """Make the error for a term that has moved on."""
        self._on_fenced()
        return JournalFencedError(
            f"one process owns a journal at a time; {self._name} was taken over from this one, "
            f"which had term {self.term}, by {describe(owner)}; nothing was written; go on there"
        )

    def went_back(self) -> JournalFencedError:
        """Make the error for a journal that was changed under its owner's term."""
        self._on_fenced()
        return JournalFencedError(
            f"a journal is written by its owner alone; {self._name} holds something else than this "
            f"process, which has term {self.term}, wrote: it was restored from a copy or edited; "
            "start the scheduler again"
        )


def describe(owner: list[Item]) -> str:
    """Say who has a journal, of what lies under its owner's key."""
    if not owner:
        return "a process that is gone again"
    try:
        fields = json.loads(owner[0].value)
        return f"process {fields['pid']} on {fields['host']}"
    except (ValueError, KeyError, TypeError):
        return "somebody whose name cannot be read"
