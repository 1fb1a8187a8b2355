"""One owner at a time: who has a journal in etcd, how it is waited for, how it is taken.

Knows: processes, terms, the owner's key. Must not know: entries.

Taking a journal is one transaction: the term goes up, and the owner's key is put with the new
owner's lease. From then on no write of a former owner is performed. The rules of when:

1. Nobody has it, or its lease ran out: at once.
2. Its owner's process was on this machine, and is gone: at once.
3. It lives, or cannot be seen from here: it is waited for until its lease runs out, then named in
   the error. With `takeover` it is taken at once, and then its lease is waited for, because until
   then the former owner may answer strong reads.
"""

from __future__ import annotations

import json
import math
import os
import secrets
import socket
import time
import uuid
from collections.abc import Callable, Sequence
from typing import NamedTuple, final

from dspex.errors import JournalCorruptError, JournalError
from dspex.storage.journals.etcd_client import Client, Item, Operation, get, put, unmoved
from dspex.storage.journals.etcd_gateway import EtcdError
from dspex.storage.journals.etcd_reading import Reader
from dspex.storage.journals.etcd_tenure import Tenure, clock
from dspex.storage.journals.etcd_values import FORMAT, Head, Keys, Tail, write_line
from dspex.storage.ownership import Owner, forget, hold, process_start, this_machine

__all__ = ["Claim", "Claimant"]

_POLL_SECONDS = 0.1


class Claim(NamedTuple):
    """A journal that this process owns."""

    term: int
    token: str
    tenure: Tenure
    repairs: list[str]


class _Holder(NamedTuple):
    """What the owner's key says.

    Attributes
    ----------
    is_alone : bool
        Whether no owner before it may answer strong reads.
    """

    owner: Owner
    seconds: float
    is_alone: bool

    @classmethod
    def decode(cls, value: bytes) -> _Holder | None:
        """Read; None where it is not one."""
        names = ("term", "host", "machine", "pid", "process", "token", "since")
        try:
            fields = json.loads(value)
            # It gives no signs: on another machine it is believed to live while its lease does.
            owner = Owner(*[*(fields[each] for each in names), math.inf])
            return cls(owner, float(fields["lease"]), bool(fields["is_alone"]))
        except (ValueError, KeyError, TypeError):
            return None


@final
class Claimant:
    """Takes one journal.

    Parameters
    ----------
    make_client : callable
        Makes a client; called for this object and for the thread that renews.
    keys : Keys
    name : str
        Of the journal, for people.
    lease : float
        Seconds.
    """

    def __init__(
        self, make_client: Callable[[], Client], keys: Keys, name: str, lease: float
    ) -> None:
        self._make_client = make_client
        self._client = make_client()
        self._reader = Reader(self._client, keys, name)
        self._keys = keys
        self._name = name
        self._lease = lease
        self._repairs: list[str] = []

    def claim(self, *, patience: float, takeover: bool, repair: bool) -> Claim:
        """Own the journal.

        Raises
        ------
        JournalError
            Where its owner did not let go, or etcd was not there, within `patience` seconds.
        JournalCorruptError
        """
        deadline = time.monotonic() + patience
        token = secrets.token_hex(8)
        hold(token)
        try:
            while True:
                trouble = self._try(token, takeover=takeover, repair=repair)
                if isinstance(trouble, Claim):
                    return trouble
                if time.monotonic() >= deadline:
                    raise trouble
                time.sleep(_POLL_SECONDS)
        except BaseException:
            forget(token)
            raise
        finally:
            self._client.close()

    def _try(self, token: str, *, takeover: bool, repair: bool) -> Claim | JournalError:
        keys = self._keys
        try:
            answer = self._client.transact(
                [],
                [get(each) for each in (keys.term, keys.identity, keys.owner, keys.head, keys.tail)]
                + [get(keys.log, limit=1)],
            )
            term, identity, owner, *rest = answer.items
            holder = _Holder.decode(owner[0].value) if owner else None
            # An attempt whose answer was lost may have been ours.
            is_mine = holder is not None and holder.owner.token == token
            is_gone = holder is not None and (is_mine or not holder.owner.lives(time.time()))
            if not owner or (holder is not None and holder.is_alone and is_gone):
                quiet_after = 0.0
            elif takeover or is_mine:
                quiet_after = holder.seconds if holder is not None else self._lease
            else:
                return self._occupied(holder)
            if term or identity or any(rest):
                former, created = self._former_term(term, identity, repair=repair), []
            else:
                former, created = 0, self._new_journal()
            return self._take(token, former, term, owner, created, quiet_after)
        except EtcdError as error:
            if not error.passes:
                raise
            return error

    def _take(
        self,
        token: str,
        former: int,
        term: list[Item],
        owner: list[Item],
        created: Sequence[Operation],
        quiet_after: float,
    ) -> Claim | JournalError:
        keys, sent = self._keys, clock()
        lease, seconds = self._client.grant(math.ceil(max(self._lease, quiet_after)))
        value = self._owner_value(former + 1, token, seconds, is_alone=not quiet_after)
        answer = self._client.transact(
            [
                unmoved(keys.term, term[0].modified if term else 0),
                unmoved(keys.owner, owner[0].modified if owner else 0),
            ],
            [
                put(keys.term, write_line(former + 1)),
                put(keys.owner, value, lease=lease),
                *created,
            ],
            [get(keys.owner)],
        )
        taken = clock()
        # The answer to an earlier attempt of this very transaction may have been lost.
        if not answer.succeeded and [each.value for each in answer.items[0]] != [value]:
            self._client.revoke(lease)
            return JournalError(
                f"one process owns a journal at a time; {self._name} was just taken by another "
                "one; wait for it to end, or end it"
            )
        tenure = Tenure(
            self._make_client(),
            keys,
            term=former + 1,
            owner=value,
            lease=lease,
            seconds=seconds,
            sent=sent,
            name=self._name,
        )
        try:
            time.sleep(max(0.0, taken + quiet_after - clock()))
        except BaseException:
            tenure.close()
            raise
        return Claim(former + 1, token, tenure, self._repairs)

    def _former_term(self, term: list[Item], identity: list[Item], *, repair: bool) -> int:
        try:
            self._reader.identity(identity)
        except JournalCorruptError:
            if not repair:  # who opens it looks at it again
                raise
        try:
            return self._reader.term(term)
        except JournalCorruptError as error:
            if not repair:
                raise
            self._repairs = [error.place]
            # No count of openings reaches it.
            return int(time.time())

    def _new_journal(self) -> list[Operation]:
        return [
            put(self._keys.identity, write_line(FORMAT, uuid.uuid4().hex)),
            put(self._keys.head, Head().encode()),
            put(self._keys.tail, Tail().encode()),
        ]

    def _owner_value(self, term: int, token: str, seconds: float, *, is_alone: bool) -> bytes:
        pid = os.getpid()
        return json.dumps(
            {
                "term": term,
                "host": socket.gethostname(),
                "machine": this_machine(),
                "pid": pid,
                "process": process_start(pid),
                "token": token,
                "since": time.time(),
                "lease": seconds,
                "is_alone": is_alone,
            }
        ).encode("ascii")

    def _occupied(self, holder: _Holder | None) -> JournalError:
        rule = f"one process owns a journal at a time; {self._name} belongs to"
        if holder is None:
            return JournalError(
                f"{rule} somebody whose name cannot be read; wait for its lease to end, or "
                f"drop the key (etcdctl del {self._keys.owner})"
            )
        owner = holder.owner
        return JournalError(
            f"{rule} {owner}, whose lease of {holder.seconds:g} s did not end in time; end that "
            "process, wait for it to end, or open the journal with takeover=True",
            host=owner.host,
            pid=owner.pid,
            since=owner.since,
        )
