"""What a journal in etcd holds, verified while it is read.

Knows: the chains of checksums. Must not know: who owns the journal, how it is written.

All is read as it was at one revision of the store, so that what is written meanwhile changes
nothing in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from typing import final

from dspex.errors import JournalCorruptError, JournalError
from dspex.storage.journals.etcd_client import Client, Item, get
from dspex.storage.journals.etcd_values import (
    FORMAT,
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

    def term(self, items: list[Item]) -> int:
        """The term, as it was read."""
        return int(self._line(self._keys.term, items, 1)[0])

    def identity(self, items: list[Item]) -> str:
        """The name of this history, as it was read; JournalError where it is of another form."""
        form, identity = self._line(self._keys.identity, items, 2)
        if form != FORMAT:
            raise JournalError(
                f"this version of dspex reads journals of the form {FORMAT}; {self._name} is of "
                f"the form {form}; use the version that wrote it, or another prefix"
            )
        return identity

    def head(self, items: list[Item]) -> Head:
        """The head, as it was read."""
        upto, folder, total, checksum = self._line(self._keys.head, items, 4)
        return Head(int(upto), folder, Pieces(int(total), int(checksum)))

    def tail(self, items: list[Item]) -> Tail:
        """The tail, as it was read."""
        return Tail(*map(int, self._line(self._keys.tail, items, 2)))

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
            except (ValueError, TypeError) as error:
                raise self.damaged(item.key, str(error)) from error
            if item.key != keys.batch(batch.first):
                raise self.damaged(item.key, f"it is another batch, from {batch.first} on")
            if batch.first > upto + 1 if here is None else batch.first != here.last + 1:
                missing = upto + 1 if here is None else here.last + 1
                raise self.damaged(keys.batch(missing), "it is missing")
            if here is not None and batch.before != here.checksum:
                raise self.damaged(item.key, "it does not follow the batch before")
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
        pieces = Pieces(*map(int, self._line(key, answer.items[0], 2)))
        folder = f"{self._keys.blob_parts}{digest}/"
        data = b"".join(self._pieces(folder, pieces, answer.revision))
        if sha256(data).hexdigest() != digest:
            raise self.damaged(key, "its SHA-256 is not its name")
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

    def _line(self, key: str, items: list[Item], count: int) -> list[str]:
        if not items:
            raise self.damaged(key, "it is missing")
        try:
            return read_line(items[0].value, count)
        except ValueError as error:
            raise self.damaged(key, str(error)) from error

    def damaged(self, key: str, why: str) -> JournalCorruptError:
        """Make the error for a value that is not as it was written."""
        is_blob = key.startswith((self._keys.blobs, self._keys.blob_parts))
        remedy = "write the value again" if is_blob else "open it with repair=True"
        return JournalCorruptError(
            f"a journal is read as it was written; {self._name} is damaged at key {key}: {why}; "
            f"nothing was changed; restore it from a copy, or {remedy}",
            place=f"key {key}: {why}",
        )
