"""The journal in etcd: kept by a majority of its members, owned by one scheduler at a time.

Knows: which part does what, in which order. Must not know: how etcd is reached (`etcd_gateway`,
`etcd_client`), how values are told whole (`etcd_values`) and read (`etcd_reading`), written under
a term (`etcd_writing`), who may own the journal and how long (`etcd_owner`, `etcd_tenure`), how
damage is repaired (`etcd_repair`).

`append` is one transaction, which holds where the term is this owner's and the log ends where this
owner says; what is over 1 MiB goes before it in pieces that nothing names until then. `compact`
writes the snapshot in pieces and names it in one transaction. Thus a kill at any point leaves the
state before or after.

What is overwritten takes space until etcd is told to forget it, which concerns all keys of the
etcd cluster: each snapshot has it forget what is older than the snapshot before, so that others
who read there have that much time. The file of etcd does not shrink thereby, but its free pages
are used again; to shrink it (``etcdctl defrag``) is an operator's decision.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from typing import final

from dspex.errors import InvalidArgumentError, JournalCorruptError, JournalError
from dspex.foundation.ports import Loaded
from dspex.storage.journals.etcd_address import EtcdAddress
from dspex.storage.journals.etcd_client import Client, delete, equals, get, put, unmoved
from dspex.storage.journals.etcd_gateway import TIMEOUT, EtcdError, Gateway
from dspex.storage.journals.etcd_owner import Claim, Claimant
from dspex.storage.journals.etcd_reading import Reader
from dspex.storage.journals.etcd_repair import rebuild
from dspex.storage.journals.etcd_values import (
    PIECE,
    Batch,
    Head,
    Keys,
    Tail,
    after,
    pack_chunks,
    pack_entries,
)
from dspex.storage.journals.etcd_writing import DIGEST, Writer
from dspex.storage.ownership import forget

__all__ = ["EtcdJournal"]

logger = logging.getLogger("dspex.journal")

LEASE = 5.0
"""Seconds for which an owner that died elsewhere is waited for; longer than an election takes."""


@final
class EtcdJournal:
    """A journal in etcd 3.4 or later.

    Parameters
    ----------
    url : str
        ``etcd://host:port[,host:port...][/prefix]``, or ``etcds://`` for TLS, with the PEM files
        that the environment names: DSPEX_ETCD_CA (else the system's authorities), DSPEX_ETCD_CERT
        and DSPEX_ETCD_KEY. Journals with different prefixes know nothing of each other.
    patience : float
        Seconds for which `open` waits for a living owner to let go, and for etcd to be there.
    takeover : bool
        Whether `open` takes the journal from a living owner, for which it waits for one lease. It
        is safe, because the old one's writes are refused from then on.
    repair : bool
        Whether `open` drops what is damaged, and all after it, in place of an error. What was
        dropped is kept below ``<prefix>/damaged-<term>/``.
    lease : float
        Seconds of the owner's lease, rounded up to whole ones.

    Attributes
    ----------
    repairs : list of str
        What `open` found damaged, kept and dropped.

    Examples
    --------
    >>> EtcdJournal("etcd://one,two,three/team")
    <EtcdJournal etcd://one:2379,two:2379,three:2379/team, closed>
    """

    durable = True

    def __init__(
        self,
        url: str,
        *,
        patience: float = 30.0,
        takeover: bool = False,
        repair: bool = False,
        lease: float = LEASE,
    ) -> None:
        if not lease > 0:
            raise InvalidArgumentError(f"a lease has more than 0 seconds; got {lease!r}")
        self._address = EtcdAddress.parse(url)
        self.url = str(self._address)
        self.repairs: list[str] = []
        self._patience = patience
        self._takeover = takeover
        self._repair = repair
        self._lease = lease
        self._keys = Keys(self._address.prefix)
        self._identity = ""
        self._copies = 1
        self._client: Client | None = None
        self._reader: Reader | None = None
        self._writer: Writer | None = None
        self._claim: Claim | None = None
        self._head = Head()
        self._tail = Tail()
        # Ends of the log that an append may have made whose answer was lost.
        self._possible: set[Tail] = set()

    def __repr__(self) -> str:
        state = f"term {self._claim.term}" if self._claim is not None else "closed"
        return f"<EtcdJournal {self.url}, {state}>"

    @property
    def copies(self) -> int:
        """How many members etcd had when this was opened; a majority of them has all."""
        return self._copies

    @property
    def identity(self) -> str:
        """Made with the journal, and anew when it is repaired."""
        return self._identity

    # --- life ------------------------------------------------------------------------------

    def open(self) -> int:
        """Become the owner; gives the new term.

        Raises
        ------
        JournalError
            Where etcd cannot be reached, or the owner does not let go (says who).
        JournalCorruptError
        """
        if self._claim is not None:
            raise JournalError(f"a journal is opened once; {self.url} is open; close it first")
        renewal_timeout = min(TIMEOUT, self._lease / 2)
        claimant = Claimant(
            lambda: Client(Gateway(self._address, timeout=renewal_timeout)),
            self._keys,
            self.url,
            self._lease,
        )
        self._claim = claim = claimant.claim(
            patience=self._patience, takeover=self._takeover, repair=self._repair
        )
        self._client = Client(Gateway(self._address))
        self._reader = Reader(self._client, self._keys, self.url)
        self._writer = Writer(self._client, self._keys, claim.term, self.url, claim.tenure.end)
        self.repairs = []
        self._report(claim.repairs)
        try:
            self._begin(self._client, self._reader, self._writer)
        except BaseException:
            self.close()
            raise
        return claim.term

    def close(self) -> None:
        """Let go; may be called twice."""
        claim, self._claim = self._claim, None
        client, self._client = self._client, None
        self._reader = self._writer = None
        if claim is not None:
            claim.tenure.close()
            forget(claim.token)
        if client is not None:
            client.close()

    def owns(self) -> bool:
        """Whether this process may still answer strong reads; some microseconds, any thread."""
        claim = self._claim
        return claim is not None and claim.tenure.holds()

    # --- entries ---------------------------------------------------------------------------

    def load(self) -> Loaded:
        """Read all of it, as it is now; `append` meanwhile changes nothing in that.

        Raises
        ------
        JournalCorruptError
            At once, or when the damaged place is reached.
        JournalError
            Where two snapshots were made meanwhile, so that it is forgotten.
        """
        _, reader, _ = self._parts()
        head, tail, revision = reader.ends()
        return Loaded(
            head.upto, reader.chunks(head, revision), reader.entries(head.upto, tail, revision)
        )

    def append(self, first: int, entries: Sequence[bytes]) -> None:
        """Keep entries, all or none; on the disks of a majority when this returns."""
        _, _, writer = self._parts()
        while True:
            tail = self._tail
            known = tail.last + 1 - first
            # Where an answer was lost, more may be there than is known.
            if first < 1 or (known < 0 and not self._possible):
                raise _misuse(f"entries follow each other; got number {first} after {tail.last}")
            if known > 0:
                self._check_repeated(first, entries[:known])
            if self._extend(writer, tail, entries[known:] if known >= 0 else []) and known >= 0:
                return

    def compact(self, upto: int, snapshot: Iterable[bytes]) -> None:
        """Keep a snapshot in place of all entries up to `upto`; atomic."""
        client, reader, writer = self._parts()
        keys = self._keys
        answer = writer.write([get(keys.head), get(keys.tail)])
        head, tail = reader.head(answer.items[0]), reader.tail(answer.items[1])
        if not head.upto <= upto <= tail.last:
            raise _misuse(
                f"a snapshot covers entries that are there, {head.upto} to {tail.last}; got {upto}"
            )
        before = answer.items[0][0].modified
        folder = f"{upto:020}-{uuid.uuid4().hex}"
        place = f"{keys.snapshots}{folder}/"
        try:
            pieces = writer.write_pieces(place, pack_chunks(snapshot))
        except BaseException:
            with suppress(JournalError):
                writer.write([delete(place, after(place))])
            raise
        made = Head(upto, folder, pieces)
        answer = writer.write(
            [put(keys.head, made.encode())],
            when=[unmoved(keys.head, before)],
            otherwise=[get(keys.head)],
        )
        if not answer.succeeded and reader.head(answer.items[0]) != made:
            raise writer.went_back()
        self._sweep(client, reader, writer, made, before)

    # --- large values ----------------------------------------------------------------------

    def put_blob(self, digest: str, data: bytes) -> None:
        """Keep a large value under its SHA-256, in pieces."""
        self._parts()[2].put_blob(digest, data)

    def get_blob(self, digest: str) -> bytes:
        """Read a large value; KeyError where there is none, JournalCorruptError where damaged."""
        reader = self._parts()[1]
        if not DIGEST.fullmatch(digest):
            raise KeyError(digest)
        return reader.blob(digest)

    def keep_blobs(self, digests: Collection[str]) -> int:
        """Drop all large values but these; gives how many were dropped."""
        return self._parts()[2].keep_blobs(digests)

    # --- parts -----------------------------------------------------------------------------

    def _parts(self) -> tuple[Client, Reader, Writer]:
        if self._client is None or self._reader is None or self._writer is None:
            raise JournalError(f"a journal is used while it is open; {self.url} is closed; open it")
        return self._client, self._reader, self._writer

    def _begin(self, client: Client, reader: Reader, writer: Writer) -> None:
        self._copies = client.voters()
        try:
            (items,) = client.transact([], [get(self._keys.identity)]).items
            self._identity = reader.identity(items)
            if self._repair:
                loaded = self.load()
                for _ in (each for part in loaded[1:] for each in part):
                    pass
            _, self._tail, _ = reader.ends()
        except JournalCorruptError as error:
            if not self._repair:
                raise
            said, self._identity = rebuild(client, reader, writer)
            self._report(said if error.place in said else [error.place, *said])
            _, self._tail, _ = reader.ends()
        self._possible.clear()

    def _report(self, lines: Sequence[str]) -> None:
        for line in lines:
            logger.warning("repair of the journal %s: %s", self.url, line)
        self.repairs += lines

    def _extend(self, writer: Writer, tail: Tail, entries: Sequence[bytes]) -> bool:
        """Put a batch after the tail; False where the log ends elsewhere, which is known then."""
        keys = self._keys
        is_there = [equals(keys.tail, tail.encode())]
        operations, end = [get(keys.tail)], tail
        if entries:
            batch = self._batch(writer, tail, entries)
            value, checksum = batch.encode()
            end = Tail(tail.last + len(entries), checksum)
            operations = [put(keys.batch(batch.first), value), put(keys.tail, end.encode())]
            self._possible.add(end)
        answer = writer.write(operations, when=is_there, otherwise=[get(keys.tail)])
        found = end if answer.succeeded else self._parts()[1].tail(answer.items[0])
        if found != end and found not in self._possible:
            raise writer.went_back()
        self._tail = found
        self._possible.clear()
        return found == end

    def _batch(self, writer: Writer, tail: Tail, entries: Sequence[bytes]) -> Batch:
        first = tail.last + 1
        if sum(map(len, entries)) + 16 * len(entries) < PIECE:
            return Batch(first, tail.checksum, entries)
        # Another folder for each attempt: a late piece of one meets no piece of another.
        folder = f"{first:020}-{uuid.uuid4().hex}"
        pieces = writer.write_pieces(f"{self._keys.parts}{folder}/", [pack_entries(entries)])
        return Batch(first, tail.checksum, None, folder, pieces)

    def _check_repeated(self, first: int, entries: Sequence[bytes]) -> None:
        _, reader, writer = self._parts()
        head, tail, revision = reader.ends()
        start = max(first - 1, head.upto)
        for number, entry in reader.entries(start, tail, revision):
            if number >= first + len(entries):
                return
            if entry != entries[number - first]:
                writer.demand([get(self._keys.term)])
                raise _misuse(
                    f"an entry that is appended again is the same; another one has number {number}"
                )

    def _sweep(
        self, client: Client, reader: Reader, writer: Writer, head: Head, before: int
    ) -> None:
        """Drop what the snapshot covers, and what attempts that failed have left."""
        keys = self._keys
        start = reader.batch_with(head.upto + 1) or keys.batch(head.upto + 1)
        first = int(start.removeprefix(keys.log))
        place = f"{keys.snapshots}{head.folder}/"
        try:
            writer.demand(
                [
                    delete(keys.log, start),
                    delete(keys.parts, keys.part(first)),
                    delete(keys.snapshots, place),
                    delete(after(place), after(keys.snapshots)),
                ]
            )
            client.compact(before)
        except EtcdError as error:
            if error.reason != "compacted":
                logger.warning("%s: what a snapshot covers goes later: %s", self.url, error)


def _misuse(rule_and_values: str) -> JournalError:
    return JournalError(f"{rule_and_values}; this is an error of the program that writes")
