"""What a journal in etcd holds, verified while it is read.

Knows: the chains of checksums. Must not know: who owns the journal, how it is written.

All is read as it was at one revision of the store, so that what is written meanwhile changes
nothing in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from typing import Any, final

from dspex.errors import JournalCorruptError
from dspex.storage.journals.etcd_client import Client, Item, get
from dspex.storage.journals.etcd_values import (
    Batch,
    Head,
    Keys,
    Pieces,
    Tail,
    after,
    read_line,
    unpack_chunks,
    unpack_entries,
    unsealed,
)

__all__ = ["Reader"]


@final
class Reader:
    """Reads one journal.

    Parameters
    ----------
    client : Client
    keys : Keys
    name : str
        Of the journal, for people.
    """

    def __init__(self, client: Client, keys: Keys, name: str) -> None:
        self._client = client
        self._keys = keys
        self._name = name

    def ends(self) -> tuple[Head, Tail, int]:
        """Head, tail, and the revision at which they are so."""
        answer = self._client.transact([], [get(self._keys.head), get(self._keys.tail)])
        head, tail = answer.items
        return self.head(head), self.tail(tail), answer.revision

    def head(self, items: list[Item]) -> Head:
        """The head, as it was read."""
        try:
            return Head.decode(items[0].value) if items else self._missing(self._keys.head)
        except ValueError as error:
            raise self.damaged(self._keys.head, str(error)) from error

    def tail(self, items: list[Item]) -> Tail:
        """The tail, as it was read."""
        try:
            return Tail.decode(items[0].value) if items else self._missing(self._keys.tail)
        except ValueError as error:
            raise self.damaged(self._keys.tail, str(error)) from error

    def chunks(self, head: Head, revision: int) -> Iterator[bytes]:
        """The snapshot's chunks; raises JournalCorruptError where a damaged piece is reached."""
        folder = f"{self._keys.snapshots}{head.folder}/"
        return unpack_chunks(self._pieces(folder, head.pieces, revision))

    def entries(self, upto: int, tail: Tail, revision: int) -> Iterator[tuple[int, bytes]]:
        """Entries after `upto`; raises JournalCorruptError where a damaged batch is reached."""
        for batch, _ in self.batches(upto, tail, revision):
            for number, entry in enumerate(batch.entries or (), batch.first):
                if number > upto:
                    yield number, entry

    def batches(self, upto: int, tail: Tail | None, revision: int) -> Iterator[tuple[Batch, Tail]]:
        """Batches with entries after `upto`, whole, and where the log would end with each.

        The first one may hold entries up to `upto`, too, or nothing but such. Without a tail the
        log may end anywhere.
        """
        keys = self._keys
        here: Tail | None = None
        start = self.batch_with(upto + 1, revision) or keys.batch(upto + 1)
        for item in self._client.read(start, after(keys.log), revision=revision):
            if tail is not None and here is not None and here.last >= tail.last:
                raise self.damaged(keys.tail, f"{item.key} lies after the end that it names")
            try:
                batch, checksum = Batch.decode(item.value)
                if item.key != keys.batch(batch.first):
                    raise ValueError(f"it is another batch, from {batch.first} on")
                if here is not None and batch.before != here.checksum:
                    raise ValueError("it does not follow the batch before")
            except (ValueError, TypeError) as error:
                raise self.damaged(item.key, str(error)) from error
            if batch.first > upto + 1 if here is None else batch.first != here.last + 1:
                last = upto if here is None else here.last
                raise self.damaged(keys.batch(last + 1), "it is missing")
            if batch.entries is None:
                folder = f"{keys.parts}{batch.folder}/"
                packed = b"".join(self._pieces(folder, batch.pieces, revision))
                batch = batch._replace(entries=unpack_entries(packed))
            here = Tail(batch.first + len(batch.entries or ()) - 1, checksum)
            yield batch, here
        if tail is None:
            return
        last = max(upto, here.last if here is not None else 0)
        if last != tail.last:
            raise self.damaged(keys.batch(last + 1), "it is missing")
        if here is not None and here.last == tail.last and here.checksum != tail.checksum:
            raise self.damaged(keys.tail, f"it names another batch than the one with entry {last}")

    def batch_with(self, number: int, revision: int = 0) -> str | None:
        """The key of the last batch that begins with this entry or before."""
        return self._client.last_key(
            self._keys.log, self._keys.batch(number + 1), revision=revision
        )

    def blob(self, digest: str) -> bytes:
        """A large value; KeyError where there is none."""
        key = f"{self._keys.blobs}{digest}"
        answer = self._client.transact([], [get(key)])
        if not answer.items[0]:
            raise KeyError(digest)
        try:
            count, checksum = map(int, read_line(answer.items[0][0].value, 2))
        except ValueError as error:
            raise self.damaged(key, str(error), "write the value again") from error
        folder = f"{self._keys.blob_parts}{digest}/"
        data = b"".join(self._pieces(folder, Pieces(count, checksum), answer.revision))
        if sha256(data).hexdigest() != digest:
            raise self.damaged(key, "its SHA-256 is not its name", "write the value again")
        return data

    def _pieces(self, folder: str, pieces: Pieces, revision: int) -> Iterator[bytes]:
        checksum = number = 0
        if pieces.total:
            end = f"{folder}{pieces.total:08}"
            for item in self._client.read(folder, end, revision=revision):
                if item.key != f"{folder}{number:08}":
                    break
                try:
                    piece, checksum = unsealed(item.value, checksum)
                except ValueError as error:
                    raise self.damaged(item.key, str(error)) from error
                number += 1
                yield piece
        if (number, checksum) != pieces:
            raise self.damaged(f"{folder}{number:08}", "it is missing")

    def _missing(self, key: str) -> Any:
        raise self.damaged(key, "it is missing")

    def damaged(
        self, key: str, why: str, remedy: str = "open it with repair=True to go on with the rest"
    ) -> JournalCorruptError:
        """Make the error for a value that is not as it was written."""
        return JournalCorruptError(
            f"a journal is read as it was written; {self._name} is damaged at key {key}: {why}; "
            f"nothing was changed; restore it from a copy, or {remedy}",
            place=f"key {key}: {why}",
        )
