"""What a damaged journal in etcd still gives: all that lies before the first damage.

Knows: the chains, the order of a repair. Must not know: who owns the journal, what entries mean.

The order is that of `load`: the snapshot's chunks, then the entries. Where a chunk is damaged, all
entries go too, because they speak of a state that is not there any more. What is taken out is kept
below ``damaged-<term>/``, whose space a person gives back.

One transaction at the end makes it so. A repair that is killed before leaves a damaged journal
with less in it of what would have been taken out anyway; it is made again.

A repaired journal is another history: numbers after the damage are given out again. So it gets
another identity.
"""

from __future__ import annotations

import uuid
from itertools import islice

from dspex.errors import JournalCorruptError
from dspex.storage.journals.etcd_client import Client, delete, get, put
from dspex.storage.journals.etcd_reading import Reader
from dspex.storage.journals.etcd_values import (
    FORMAT,
    Head,
    Tail,
    after,
    pack_chunks,
    write_line,
)
from dspex.storage.journals.etcd_writing import Writer

__all__ = ["rebuild"]


def rebuild(client: Client, reader: Reader, writer: Writer) -> tuple[list[str], str]:
    """Take out what is damaged, and all after it; says what, and names the new history."""
    keys, said = writer.keys, []
    answer = client.transact([], [get(keys.head), get(keys.tail)])
    head, tail = Head(), None
    try:
        head = reader.head(answer.items[0])
    except JournalCorruptError as error:
        said.append(error.place)
    try:
        tail = reader.tail(answer.items[1])
    except JournalCorruptError as error:
        said.append(error.place)
    chunks, place = _whole_chunks(reader, head, answer.revision)
    through = 0
    if place is None:
        kept_head = head
        kept_tail, through, place = _whole_log(reader, head, tail, answer.revision)
    else:
        kept_head = _shorter(reader, writer, head, chunks, answer.revision)
        kept_tail = Tail(head.upto, 0)
    if place is not None:
        said.append(place)
    dropped = _take_out(client, writer, through)
    identity = uuid.uuid4().hex
    writer.demand(
        [
            put(keys.head, kept_head.encode()),
            put(keys.tail, kept_tail.encode()),
            put(keys.identity, write_line(FORMAT, identity)),
        ]
    )
    if dropped:
        said.append(f"dropped {dropped} batches, with all entries from {kept_tail.last + 1} on")
        said.append(f"they are kept below {keys.damaged(writer.term, '')}")
    said.append(
        f"kept {chunks} chunks of a snapshot, and {kept_tail.last - kept_head.upto} entries"
    )
    return said, identity


def _whole_chunks(reader: Reader, head: Head, revision: int) -> tuple[int, str | None]:
    """How many chunks come before the first damage, and its place."""
    chunks = 0
    try:
        for _ in reader.chunks(head, revision):
            chunks += 1
    except JournalCorruptError as error:
        return chunks, error.place
    return chunks, None


def _shorter(reader: Reader, writer: Writer, head: Head, chunks: int, revision: int) -> Head:
    """Write a snapshot of the first chunks."""
    folder = f"{head.upto:020}-{uuid.uuid4().hex}"
    whole = islice(reader.chunks(head, revision), chunks)
    pieces = writer.write_pieces(f"{writer.keys.snapshots}{folder}/", pack_chunks(whole))
    return Head(head.upto, folder, pieces)


def _whole_log(
    reader: Reader, head: Head, tail: Tail | None, revision: int
) -> tuple[Tail, int, str | None]:
    """Where the log ends before the first damage, where its last batch begins, the damage."""
    end, through = Tail(head.upto, tail.checksum if tail else 0), 0
    try:
        for batch, here in reader.batches(head.upto, tail, revision):
            if here.last >= head.upto:
                end, through = here, batch.first
    except JournalCorruptError as error:
        return end, through, error.place
    return end, through, None


def _take_out(client: Client, writer: Writer, through: int) -> int:
    """Put batches after the one that begins with `through` aside; gives how many there were."""
    keys = writer.keys
    batches, pieces = (
        [item.key for item in client.read(start, end, keys_only=True)]
        for start, end in (
            (keys.batch(through + 1), after(keys.log)),
            (keys.part(through + 1), after(keys.parts)),
        )
    )
    # The last one first: what a kill leaves is as damaged as before.
    for key in [*reversed(batches), *reversed(pieces)]:
        items = client.transact([], [get(key)]).items[0]
        operations = [put(keys.damaged(writer.term, key), each.value) for each in items]
        writer.demand([*operations, delete(key)])
    return len(batches)
