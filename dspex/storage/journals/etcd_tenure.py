"""How long an owner may answer strong reads without asking: a lease, renewed by a thread.

Knows: leases, terms, a clock. Must not know: entries.

A renewal counts from the instant at which it was *sent*, and only where the term was still this
owner's when it was answered. So whoever takes the journal over, which moves the term, knows: one
lease after that no former owner answers any more.

The lease protects reads only; writes are protected by the term. An owner that could not reach etcd
for longer than its lease answers no strong reads meanwhile; nobody has taken over where the term is
the same, so then it makes itself a new lease and goes on.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from typing import final

from dspex.storage.journals.etcd_client import Client, equals, get, put
from dspex.storage.journals.etcd_gateway import EtcdError
from dspex.storage.journals.etcd_values import Keys, write_line

__all__ = ["Tenure", "clock"]

logger = logging.getLogger("dspex.journal")

RENEWALS = 5
"""In one lease."""

MARGIN = 0.1
"""Part of a lease that its holder does not use: clocks may run apart by so much."""


def clock() -> float:
    """Seconds that go on while the machine sleeps, where the system has such a clock (Linux).

    Examples
    --------
    >>> clock() <= clock()
    True
    """
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


@final
class Tenure:
    """The lease of one term.

    Parameters
    ----------
    client : Client
        Of this object alone; it closes it.
    keys : Keys
    term : int
    owner : bytes
        What lies under the owner's key.
    lease : int
        The id of the lease.
    seconds : float
        Its length.
    sent : float
        The instant at which the lease was asked for.
    name : str
        Of the journal, for people.
    """

    def __init__(
        self,
        client: Client,
        keys: Keys,
        *,
        term: int,
        owner: bytes,
        lease: int,
        seconds: float,
        sent: float,
        name: str,
    ) -> None:
        self._client = client
        self._keys = keys
        self._term = write_line(term)
        self._owner = owner
        self._lease = lease
        self._seconds = seconds
        self._name = name
        self._ends = sent + seconds * (1 - MARGIN)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="dspex-etcd-lease", daemon=True)
        self._thread.start()

    def holds(self) -> bool:
        """Whether nobody else can have changed the journal; cheap, from any thread."""
        return not self._over.is_set() and clock() < self._ends

    def end(self) -> None:
        """Renew no more, and answer nothing from now on; any thread, many times."""
        self._over.set()

    def close(self) -> None:
        """End, and let the owner's key go with the lease, as far as etcd can be reached."""
        self.end()
        self._thread.join()
        try:
            self._client.revoke(self._lease)
        except EtcdError as error:
            if error.reason != "lease":
                logger.warning("the lease of %s runs out by itself: %s", self._name, error)
        self._client.close()

    def _run(self) -> None:
        had_trouble = False
        while not self._over.wait(self._seconds / RENEWALS):
            try:
                self._renew()
            except EtcdError as error:
                if not had_trouble:
                    logger.warning("the lease of %s was not renewed: %s", self._name, error)
                had_trouble = True
            else:
                had_trouble = False

    def _renew(self) -> None:
        sent = clock()
        keys = self._keys
        seconds = self._client.keep_alive(self._lease)
        if seconds > 0:
            answer = self._client.transact([equals(keys.term, self._term)], [get(keys.term)])
            is_ours = answer.succeeded
        else:
            is_ours, seconds = self._make_another()
        if not is_ours:
            logger.error("%s was taken over; this process owns it no more", self._name)
            self.end()
        else:
            self._ends = sent + min(seconds, self._seconds) * (1 - MARGIN)

    def _make_another(self) -> tuple[bool, float]:
        keys = self._keys
        self._lease, seconds = self._client.grant(math.ceil(self._seconds))
        # The key may be there still with the lease that an answer that was lost speaks of.
        answer = self._client.transact(
            [equals(keys.term, self._term)], [put(keys.owner, self._owner, lease=self._lease)]
        )
        if answer.succeeded:
            logger.warning("the lease of %s ran out, and was made anew", self._name)
        return answer.succeeded, seconds
